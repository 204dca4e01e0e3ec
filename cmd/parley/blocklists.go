package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/blocklists"
)

func blocklistCommand() *cobra.Command {
	return group("blocklist", "Block lists that others keep", blocklistList(), blocklistFind())
}

// blocklisted runs f with a client of the server.
func blocklisted(cmd *cobra.Command, p *place, f func(context.Context, blocklists.Client) error) error {
	c, err := p.reach(cmd)
	if err != nil {
		return err
	}
	return errors.Join(f(cmd.Context(), blocklists.Client{Client: c.Client}), c.release())
}

func blocklistList() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "Show the lists, how many are on them, and how fresh they are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return blocklisted(cmd, &p, func(ctx context.Context, c blocklists.Client) error {
				all, err := c.List(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				if len(all) == 0 {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), "no block lists are configured: servers.processor.components.blocklists.lists, room_lists")
					return err
				}
				rows := [][]string{{"LIST", "FOR", "ITEMS", "FETCHED", "ERROR"}}
				for _, l := range all {
					purpose, fetched := "everything", "never"
					if l.Rooms {
						purpose = "rooms"
					}
					if !l.Fetched.IsZero() {
						fetched = l.Fetched.Local().Format(time.DateTime)
					}
					rows = append(rows, []string{l.List, purpose, strconv.Itoa(l.Items), fetched, l.Error})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func blocklistFind() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use: "find JID", Short: "Show the lists that somebody is on, with the reason", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return blocklisted(cmd, &p, func(ctx context.Context, c blocklists.Client) error {
				all, err := c.Find(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				if len(all) == 0 {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), args[0], "is on no list that was fetched (parley blocklist list)")
					return err
				}
				rows := [][]string{{"LIST", "LISTED", "REASON"}}
				for _, f := range all {
					rows = append(rows, []string{f.List, f.Listed, f.Reason})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
