package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
)

func configLog() *cobra.Command {
	var r remote
	var n int
	cmd := r.command("log", "Show who has set what at run time, and when; the newest first", cobra.NoArgs,
		func(cmd *cobra.Command, c *reached, _ []string) error {
			all, err := c.ConfigLog(cmd.Context(), n)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			rows := [][]string{{"VERSION", "TIME", "BY", "NODE", "KEY", "OLD", "NEW"}}
			for _, e := range all {
				rows = append(rows, []string{strconv.FormatInt(e.Version, 10), e.At.Local().Format(time.DateTime), e.By, where(e), e.Path, e.Old, cmp.Or(e.New, "(taken back)")})
			}
			return printTable(cmd.OutOrStdout(), rows)
		})
	cmd.Flags().IntVarP(&n, "number", "n", 50, "how many changes")
	return cmd
}

// where is the node on which something was changed, or the only one that it is for.
func where(e plugins.ConfigEvent) string {
	if e.Own {
		return e.Node + " (its own)"
	}
	return e.Node
}

func configNodes() *cobra.Command {
	var r remote
	return r.command("nodes", "Show which version of what is set at run time counts on which node, and what does not work there", cobra.NoArgs,
		func(cmd *cobra.Command, c *reached, _ []string) error {
			all, err := c.ConfigNodes(cmd.Context())
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			rows := [][]string{{"NODE", "STATE", "VERSION", "ERROR"}}
			for _, n := range all {
				state := "away"
				if n.Live {
					state = "live"
				}
				rows = append(rows, []string{n.Node, state, strconv.FormatInt(n.Version, 10), n.Error})
			}
			return printTable(cmd.OutOrStdout(), rows)
		})
}
