package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"parley/plugins/rostergroups"
)

func groupCommand() *cobra.Command {
	cmd := group("group", "Groups of accounts that are in the rosters of their members", groupList(), groupAdd(), groupSet(), groupMembers(), groupRemove())
	cmd.Long = `The members of a group have each other in their rosters, in a group of that name,
subscribed both ways, without anybody asking. What changes is told at once to
those who are there, on every node.`
	return cmd
}

// grouped makes a command that speaks of groups with a server, or with a house without
// doors when none runs.
func grouped(use, short string, args cobra.PositionalArgs, flags func(*cobra.Command), f func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error)) *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := p.reachAlways(cmd)
		if err != nil {
			return err
		}
		v, err := f(cmd, rostergroups.Client{Client: c.Client}, args)
		if err = errors.Join(err, c.release()); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), v)
		}
		return printTable(cmd.OutOrStdout(), groupRows(v))
	}}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	if flags != nil {
		flags(cmd)
	}
	return cmd
}

// groupRows are groups, or one with its members, as a table.
func groupRows(v any) [][]string {
	if one, ok := v.(rostergroups.Group); ok {
		rows := [][]string{{"MEMBER", "NAME"}}
		for _, m := range one.Members {
			rows = append(rows, []string{m.JID, m.Name})
		}
		return rows
	}
	rows := [][]string{{"DOMAIN", "GROUP", "MEMBERS", "SEEN BY"}}
	all, _ := v.([]rostergroups.Group)
	for _, g := range all {
		size, by := strconv.Itoa(g.Size), "members"
		if g.Everyone {
			size += " (everyone)"
		}
		if g.Everybody {
			by = "everybody"
		}
		rows = append(rows, []string{g.Domain, g.Name, size, by})
	}
	return rows
}

func groupList() *cobra.Command {
	return grouped("list [DOMAIN]", "List the groups", cobra.MaximumNArgs(1), nil, func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error) {
		return c.List(cmd.Context(), strings.Join(args, ""))
	})
}

// parseMembers reads JID and JID=NAME.
func parseMembers(list []string) (out []rostergroups.Member) {
	for _, text := range list {
		jid, name, _ := strings.Cut(text, "=")
		out = append(out, rostergroups.Member{JID: strings.TrimSpace(jid), Name: strings.TrimSpace(name)})
	}
	return out
}

func groupAdd() *cobra.Command {
	var everyone, everybody bool
	return grouped("add DOMAIN NAME [JID[=NAME]]...", "Make a group of accounts, of a domain", cobra.MinimumNArgs(2), func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&everyone, "everyone", false, "each account of the domain is a member, those to come as well")
		cmd.Flags().BoolVar(&everybody, "everybody", false, "each account of the domain sees the members; they see each other alone")
	}, func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error) {
		return c.Add(cmd.Context(), rostergroups.Group{Domain: args[0], Name: args[1], Everyone: everyone, Everybody: everybody}, parseMembers(args[2:]))
	})
}

func groupSet() *cobra.Command {
	var everybody bool
	return grouped("set DOMAIN NAME --everybody=true|false", "Change who sees a group", cobra.ExactArgs(2), func(cmd *cobra.Command) {
		cmd.Flags().BoolVar(&everybody, "everybody", false, "each account of the domain sees the members, not these alone")
	}, func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error) {
		if !cmd.Flags().Changed("everybody") {
			return nil, fmt.Errorf("what is to change? --everybody=true or --everybody=false")
		}
		g, err := c.Show(cmd.Context(), args[0], args[1])
		if err != nil {
			return nil, err
		}
		g.Everybody, g.Members = everybody, nil
		return c.Set(cmd.Context(), g)
	})
}

func groupMembers() *cobra.Command {
	var add, remove []string
	return grouped("members DOMAIN NAME [--add JID[=NAME]]... [--remove JID]...", "Show the members of a group, or change who they are", cobra.ExactArgs(2), func(cmd *cobra.Command) {
		cmd.Flags().StringArrayVar(&add, "add", nil, "an account that becomes a member, and what rosters call it; may be repeated")
		cmd.Flags().StringArrayVar(&remove, "remove", nil, "an account that is to be none any more; may be repeated")
	}, func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error) {
		return changeMembers(cmd.Context(), c, args[0], args[1], parseMembers(add), remove)
	})
}

func changeMembers(ctx context.Context, c rostergroups.Client, domain, name string, add []rostergroups.Member, remove []string) (rostergroups.Group, error) {
	if len(add)+len(remove) == 0 {
		return c.Show(ctx, domain, name)
	}
	return c.Members(ctx, domain, name, add, remove)
}

func groupRemove() *cobra.Command {
	return grouped("remove DOMAIN NAME", "Take a group out of all rosters", cobra.ExactArgs(2), nil, func(cmd *cobra.Command, c rostergroups.Client, args []string) (any, error) {
		if err := c.Remove(cmd.Context(), args[0], args[1]); err != nil {
			return nil, err
		}
		return c.List(cmd.Context(), args[0])
	})
}
