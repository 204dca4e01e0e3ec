package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func pluginCommand() *cobra.Command {
	cmd := group("plugin", "Start and stop plugins: their components in every Server, on every node", pluginList())
	for _, v := range []verb{{"start", "Start the components of a plugin"}, {"stop", "Stop the components of a plugin"}} {
		cmd.AddCommand(pluginVerb(v))
	}
	return cmd
}

func pluginList() *cobra.Command {
	var r remote
	return r.command("list", "List plugins", cobra.NoArgs, func(cmd *cobra.Command, c *reached, _ []string) error {
		all, err := c.Plugins(cmd.Context())
		if err != nil {
			return err
		}
		if r.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		rows := [][]string{{"PLUGIN", "COMPONENTS", "WHAT IT DOES"}}
		for _, p := range all {
			var parts []string
			for _, s := range p.Components {
				parts = append(parts, fmt.Sprintf("%s/%s %s", s.Server, s.Name, s.Phase))
			}
			rows = append(rows, []string{p.Name, strings.Join(parts, ", "), p.Doc})
		}
		return printTable(cmd.OutOrStdout(), rows)
	})
}

func pluginVerb(v verb) *cobra.Command {
	var r remote
	return r.command(v.name+" NAME", v.short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
		if err := told(cmd)(c.Plugin(cmd.Context(), v.name, args[0])); err != nil {
			return err
		}
		all, err := c.Plugins(cmd.Context())
		if err != nil {
			return err
		}
		for _, p := range all {
			if p.Name == args[0] {
				return printComponents(cmd, r.json, p.Components)
			}
		}
		return nil
	})
}
