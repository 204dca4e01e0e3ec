package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/admin/client"
	"parley/plugins/config"
)

func configCommand() *cobra.Command {
	return group("config", "Explain, check, show and change the configuration",
		configDoc(), configCheck(), configShow(), configReload(), configSet(), configUnset(), configLog(), configNodes())
}

func configDoc() *cobra.Command {
	return &cobra.Command{
		Use:   "doc",
		Short: "Print every key with its documentation and default, as a configuration file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := plugins.Schema(everything())
			if err != nil {
				return err
			}
			text, err := config.Doc(schema)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
}

// finding is a config.Finding for programs.
type finding struct {
	Origin  string `json:"origin"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func configCheck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file, with line and caret; the environment counts too",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			schema, err := plugins.Schema(everything())
			if err != nil {
				return err
			}
			tree, err := config.Load(schema, args[0], config.Inputs{Environ: os.Environ()})
			if err == nil {
				err = plugins.Misplaced(tree)
			}
			return reportCheck(cmd, args[0], err, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func reportCheck(cmd *cobra.Command, file string, err error, asJSON bool) error {
	var found config.Findings
	if err != nil && !errors.As(err, &found) {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		list := make([]finding, 0, len(found))
		for _, f := range found {
			list = append(list, finding{f.Origin, f.Line, f.Column, f.Path, f.Message, f.Hint})
		}
		if err := printJSON(out, list); err != nil {
			return err
		}
	case err != nil:
		fmt.Fprintln(out, found.Error())
	default:
		fmt.Fprintf(out, "%s is right; whether the files, addresses and databases that it names are there: `parley check`\n", file)
	}
	if err != nil {
		return errSaid
	}
	return nil
}

func configShow() *cobra.Command {
	var p place
	var asJSON, changed bool
	cmd := &cobra.Command{
		Use:   "show [PATH]",
		Short: "Show each key's value and where it is from: of the running server, else of the file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := p.entries(cmd)
			if err != nil {
				return err
			}
			keep := make([]plugins.ConfigEntry, 0, len(all))
			for _, e := range all {
				if below(e.Path, args) && (!changed || e.Source != config.Source{}.String()) {
					keep = append(keep, e)
				}
			}
			return printEntries(cmd, keep, asJSON)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&changed, "changed", false, "only what is not the default")
	return cmd
}

// below reports whether a path is the one given, or inside it.
func below(path string, given []string) bool {
	return len(given) == 0 || config.Below(path, given[0])
}

func (p *place) entries(cmd *cobra.Command) ([]plugins.ConfigEntry, error) {
	s, err := p.load(cmd)
	if err != nil {
		return nil, err
	}
	c, err := client.Open(cmd.Context(), s.settings.Data)
	if err == nil {
		st, err := c.Status(cmd.Context())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Node %s, version %d of what is set at run time.\n", st.Node, st.Config)
		return c.Config(cmd.Context())
	}
	if !errors.Is(err, client.ErrNotRunning) {
		return nil, err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "The server is not running: this is what it would start with, without what was set at run time.")
	var out []plugins.ConfigEntry
	for _, e := range s.tree.Show() {
		out = append(out, plugins.ConfigEntry{Path: e.Path, Value: e.Value, Source: e.Source.String()})
	}
	return out, nil
}

func printEntries(cmd *cobra.Command, all []plugins.ConfigEntry, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"KEY", "VALUE", "SOURCE"}}
	for _, e := range all {
		rows = append(rows, []string{e.Path, e.Value, e.Source})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func configReload() *cobra.Command {
	var r remote
	return r.command("reload", "Let the server read its configuration again", cobra.NoArgs, func(cmd *cobra.Command, c *reached, _ []string) error {
		changes, err := c.Reload(cmd.Context())
		if err != nil {
			return err
		}
		failed := false
		rows := [][]string{{"KEY", "OLD", "NEW", "OUTCOME", "DETAIL"}}
		for _, ch := range changes {
			failed = failed || ch.Outcome == "failed"
			rows = append(rows, []string{ch.Path, ch.Old, ch.New, ch.Outcome, ch.Detail})
		}
		switch {
		case r.json:
			err = printJSON(cmd.OutOrStdout(), changes)
		case len(changes) == 0:
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing has changed")
		default:
			err = printTable(cmd.OutOrStdout(), rows)
		}
		if failed && err == nil {
			err = errSaid
		}
		return err
	})
}

func configSet() *cobra.Command {
	var r remote
	cmd := r.command("set PATH VALUE", "Set a key of a component while the server runs; it stays set after a restart", cobra.ExactArgs(2),
		func(cmd *cobra.Command, c *reached, args []string) error {
			server, name, key, err := componentKey(args[0])
			if err != nil {
				return err
			}
			if err := told(cmd)(c.Reconfigure(cmd.Context(), server, name, map[string]string{key: args[1]})); err != nil {
				return err
			}
			return r.showKey(cmd, c, args[0])
		})
	cmd.Example = "  parley config set servers.streamer.components.health.timeout 5s"
	return cmd
}

// componentKey takes servers.SERVER.components.NAME.KEY apart.
func componentKey(path string) (server, name, key string, err error) {
	p := strings.SplitN(path, ".", 5)
	if len(p) != 5 || p[0] != "servers" || p[2] != "components" {
		return "", "", "", fmt.Errorf("%s is not servers.SERVER.components.NAME.KEY: everything else is changed in the file, then `parley config reload`", path)
	}
	return p[1], p[3], p[4], nil
}

func configUnset() *cobra.Command {
	var r remote
	return r.command("unset PATH", "Take back what was set while the server runs, at and below a path", cobra.ExactArgs(1),
		func(cmd *cobra.Command, c *reached, args []string) error {
			a, err := c.Unset(cmd.Context(), args[0])
			if err := told(cmd)(a, err); err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), a.Keys)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(a.Keys, "\n"))
			return err
		})
}

func (r *remote) showKey(cmd *cobra.Command, c *reached, path string) error {
	all, err := c.Config(cmd.Context())
	if err != nil {
		return err
	}
	var keep []plugins.ConfigEntry
	for _, e := range all {
		if below(e.Path, []string{path}) {
			keep = append(keep, e)
		}
	}
	return printEntries(cmd, keep, r.json)
}
