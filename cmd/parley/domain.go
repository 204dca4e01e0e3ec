package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"parley/plugins"
)

func domainCommand() *cobra.Command {
	cmd := group("domain", "The domains of a running server", domainList(),
		domainChange("add", "Serve a further domain, on every node, from now on", (*reached).AddDomain),
		domainChange("remove", "Serve a domain no longer: its sessions end, what belongs to its accounts stays in the database", (*reached).RemoveDomain))
	cmd.Long = `Domains are added and removed without a restart, on every node, and stay so after one:
parley config log shows what was done, parley config unset domains goes back to the file.
How the domain gets its certificate: docs/domains.md.`
	return cmd
}

func domainList() *cobra.Command {
	var r remote
	return r.command("list", "List the domains that are served", cobra.NoArgs, func(cmd *cobra.Command, c *reached, _ []string) error {
		all, err := c.Domains(cmd.Context())
		if err != nil {
			return err
		}
		return r.showDomains(cmd, all)
	})
}

func domainChange(name, short string, change func(*reached, context.Context, string) (plugins.Applied, error)) *cobra.Command {
	var r remote
	return r.command(name+" DOMAIN", short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
		if err := told(cmd)(change(c, cmd.Context(), args[0])); err != nil {
			return err
		}
		all, err := c.Domains(cmd.Context())
		if err != nil {
			return err
		}
		return r.showDomains(cmd, all)
	})
}

func (r *remote) showDomains(cmd *cobra.Command, all []string) error {
	if r.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	for _, d := range all {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), d); err != nil {
			return err
		}
	}
	return nil
}
