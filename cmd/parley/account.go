package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/accountadmin"
)

// accountVerb is one command on one account.
type accountVerb struct {
	use, short string
	password   bool // asks for one
	run        func(ctx context.Context, c accountadmin.Client, jid, password string) error
	done       string
}

func accountVerbs() []accountVerb {
	return []accountVerb{
		{use: "add", short: "Make an account", password: true, done: "made", run: func(ctx context.Context, c accountadmin.Client, jid, pw string) error {
			_, err := c.Create(ctx, jid, pw)
			return err
		}},
		{use: "passwd", short: "Change an account's password", password: true, done: "password changed", run: func(ctx context.Context, c accountadmin.Client, jid, pw string) error {
			return c.SetPassword(ctx, jid, pw)
		}},
		{use: "disable", short: "Keep an account from logging in; its sessions end, messages are kept", done: "disabled", run: func(ctx context.Context, c accountadmin.Client, jid, _ string) error {
			return c.Disable(ctx, jid)
		}},
		{use: "enable", short: "Let a disabled account log in again", done: "enabled", run: func(ctx context.Context, c accountadmin.Client, jid, _ string) error {
			return c.Enable(ctx, jid)
		}},
		{use: "delete", short: "Delete an account and everything that is kept of it", done: "deleted", run: func(ctx context.Context, c accountadmin.Client, jid, _ string) error {
			return c.Delete(ctx, jid)
		}},
	}
}

func accountCommand() *cobra.Command {
	cmd := group("account", "Manage accounts, whether the server runs or not", accountList(), accountShow())
	for _, v := range accountVerbs() {
		cmd.AddCommand(v.command())
	}
	return cmd
}

func (v accountVerb) command() *cobra.Command {
	var p place
	var from passwordFrom
	var asJSON bool
	cmd := &cobra.Command{
		Use: v.use + " JID", Short: v.short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			jid, password := args[0], ""
			if v.password {
				if _, domain, ok := strings.Cut(jid, "@"); !ok || domain == "" {
					return fmt.Errorf("%q is no address: NAME@DOMAIN", jid)
				}
				var err error
				if password, err = from.read(cmd, jid); err != nil {
					return err
				}
			}
			c, err := p.reachAlways(cmd)
			if err != nil {
				return err
			}
			err = errors.Join(v.run(cmd.Context(), accountadmin.Client{Client: c.Client}, jid, password), c.release())
			if err != nil {
				return err
			}
			return v.report(cmd, jid, from.shown(password), asJSON)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	if v.password {
		from.flags(cmd)
	}
	return cmd
}

// report says what was done; password is "" unless it was generated.
func (v accountVerb) report(cmd *cobra.Command, jid, password string, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), struct {
			JID      string `json:"jid"`
			Done     string `json:"done"`
			Password string `json:"password,omitempty"`
		}{jid, v.done, password})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", jid, v.done)
	if password != "" && err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "password: %s\n", password)
	}
	return err
}

func accountList() *cobra.Command {
	var p place
	var asJSON bool
	var of string
	cmd := &cobra.Command{
		Use: "list", Short: "List the accounts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.reachAlways(cmd)
			if err != nil {
				return err
			}
			list, err := listEverywhere(cmd.Context(), accountadmin.Client{Client: c.Client}, of)
			if err = errors.Join(err, c.release()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			rows := [][]string{{"ACCOUNT", "STATE", "SESSIONS", "LAST LOGIN", "CREATED"}}
			for _, a := range list {
				rows = append(rows, []string{a.JID, accountState(a), fmt.Sprint(len(a.Sessions)), when(a.LastLogin), when(a.Created)})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	p.common(cmd)
	cmd.Flags().StringVar(&of, "of", "", "of this domain alone")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listEverywhere lists those of a domain, or with "" of all.
func listEverywhere(ctx context.Context, c accountadmin.Client, domain string) ([]accountadmin.Account, error) {
	if domain != "" {
		return listAccounts(ctx, c, domain)
	}
	domains, err := c.Domains(ctx)
	if err != nil {
		return nil, err
	}
	out := []accountadmin.Account{}
	for _, d := range domains {
		some, err := listAccounts(ctx, c, d)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// listAccounts reads every page.
func listAccounts(ctx context.Context, c accountadmin.Client, domain string) ([]accountadmin.Account, error) {
	out := []accountadmin.Account{}
	for after := ""; ; {
		p, err := c.List(ctx, domain, after)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Accounts...)
		if p.Next == "" {
			return out, nil
		}
		after = p.Next
	}
}

func accountShow() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show JID", Short: "Show an account with its sessions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.reachAlways(cmd)
			if err != nil {
				return err
			}
			a, err := accountadmin.Client{Client: c.Client}.Show(cmd.Context(), args[0])
			if err = errors.Join(err, c.release()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), a)
			}
			rows := [][]string{{"account", a.JID}, {"state", accountState(a)}, {"created", when(a.Created)}, {"last login", when(a.LastLogin)}}
			for _, s := range a.Sessions {
				state := "away"
				if s.Available {
					state = "available"
				}
				rows = append(rows, []string{"session", strings.Join([]string{s.Resource, state, "since " + when(s.Since)}, "  ")})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func accountState(a accountadmin.Account) string {
	if !a.Disabled.IsZero() {
		return "disabled"
	}
	return "enabled"
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
