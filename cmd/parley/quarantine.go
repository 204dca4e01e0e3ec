package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/quarantine"
)

func quarantineCommand() *cobra.Command {
	return group("quarantine", "Stanzas that handlers panicked at three times", quarantineList(), quarantineShow(), quarantineDrop())
}

// quarantined runs f with a client of the server, or of the house at rest.
func quarantined(cmd *cobra.Command, p *place, f func(context.Context, quarantine.Client) error) error {
	c, err := p.reachAlways(cmd)
	if err != nil {
		return err
	}
	return errors.Join(f(cmd.Context(), quarantine.Client{Client: c.Client}), c.release())
}

func quarantineList() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List them, the oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return quarantined(cmd, &p, func(ctx context.Context, c quarantine.Client) error {
				all, err := c.List(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				rows := [][]string{{"ID", "SINCE", "FROM", "WAITED FOR", "REASON"}}
				for _, e := range all {
					rows = append(rows, []string{strconv.FormatInt(e.ID, 10), e.Since.Local().Format(time.DateTime), e.Sender, e.Account, e.Reason})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func quarantineShow() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one with its bytes, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return quarantined(cmd, &p, func(ctx context.Context, c quarantine.Client) error {
				e, err := c.Show(ctx, args[0])
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), e)
			})
		},
	}
	p.common(cmd)
	return cmd
}

func quarantineDrop() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use: "drop ID", Short: "Remove one for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return quarantined(cmd, &p, func(ctx context.Context, c quarantine.Client) error {
				if err := c.Drop(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is gone\n", args[0])
				return err
			})
		},
	}
	p.common(cmd)
	return cmd
}
