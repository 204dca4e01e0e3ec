package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
)

// remote is a command on a running server.
type remote struct {
	place
	json bool
}

// command makes a cobra command that has a running server at hand.
func (r *remote) command(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, c *reached, args []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.reach(cmd)
			if err != nil {
				return err
			}
			return errors.Join(run(cmd, c, args), c.release())
		},
	}
	r.common(cmd)
	cmd.Flags().BoolVar(&r.json, "json", false, "print JSON")
	return cmd
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

// verb is something that can be done to a component, Server or plugin.
type verb struct{ name, short string }

func componentCommand() *cobra.Command {
	cmd := group("component", "Install, start, stop, reconfigure and uninstall components of a running server", componentList(), componentReconfigure())
	cmd.Long = `What is done to a component is done on every node, and stays so after a restart:
parley config log shows what was done, parley config unset takes it back.

install FOLDER, upgrade, restart, logs and remove are for external components: programs
that the server runs (docs/components.md).`
	for _, v := range []verb{
		{"install", "Make a component from its configuration, without starting it"},
		{"start", "Put a component to work"},
		{"stop", "Take a component from work until it is started again"},
		{"uninstall", "Stop a component and let go of it until it is installed or started again. What it stored stays"},
	} {
		cmd.AddCommand(componentVerb(v))
	}
	cmd.AddCommand(externalCommands()...)
	return cmd
}

func componentList() *cobra.Command {
	var r remote
	return r.command("list", "List components", cobra.NoArgs, func(cmd *cobra.Command, c *reached, _ []string) error {
		all, err := c.Components(cmd.Context())
		if err != nil {
			return err
		}
		if err := printComponents(cmd, r.json, all); err != nil || r.json {
			return err
		}
		return listExternals(cmd, c)
	})
}

func printComponents(cmd *cobra.Command, asJSON bool, all []plugins.Status) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"SERVER", "COMPONENT", "PHASE", "SINCE", "PLUGIN", "WHAT IT DOES"}}
	for _, s := range all {
		doc := s.Doc
		if s.Error != "" {
			doc = s.Error
		}
		rows = append(rows, []string{s.Server, s.Name, string(s.Phase), s.Since.Local().Format(time.DateTime), s.Plugin, doc})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func componentVerb(v verb) *cobra.Command {
	var r remote
	return r.command(v.name+" [SERVER] NAME", v.short, cobra.RangeArgs(1, 2), func(cmd *cobra.Command, c *reached, args []string) error {
		if path, ok := isFolder(args); ok && v.name == "install" {
			return r.installExternal(cmd, c, path)
		}
		server, name, err := which(cmd, c, args)
		if err != nil {
			return err
		}
		if err := told(cmd)(c.Component(cmd.Context(), v.name, server, name)); err != nil {
			return err
		}
		return r.showComponent(cmd, c, server, name)
	})
}

func componentReconfigure() *cobra.Command {
	var r remote
	cmd := r.command("reconfigure [SERVER] NAME KEY=VALUE …", "Set keys of a component while it works; they stay set after a restart", cobra.MinimumNArgs(2),
		func(cmd *cobra.Command, c *reached, args []string) error {
			at := slices.IndexFunc(args, func(a string) bool { return strings.Contains(a, "=") })
			if at < 1 || at > 2 {
				return errors.New("first the component, then KEY=VALUE")
			}
			set, err := pairs(args[at:])
			if err != nil {
				return err
			}
			server, name, err := which(cmd, c, args[:at])
			if err != nil {
				return err
			}
			if err := told(cmd)(c.Reconfigure(cmd.Context(), server, name, set)); err != nil {
				return err
			}
			return r.showComponent(cmd, c, server, name)
		})
	cmd.Example = "  parley component reconfigure health metrics_from='[127.0.0.0/8, 10.0.0.0/8]'"
	return cmd
}

// told says which nodes do not follow a change that is made: they do so by
// themselves when they can.
func told(cmd *cobra.Command) func(plugins.Applied, error) error {
	return func(a plugins.Applied, err error) error {
		for _, b := range a.Behind {
			fmt.Fprintf(cmd.ErrOrStderr(), "node %s has not followed version %d yet: %s\n", b.Node, a.Version, b.Why)
		}
		return err
	}
}

// pairs reads KEY=VALUE arguments.
func pairs(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q is not KEY=VALUE", a)
		}
		if _, twice := out[k]; twice {
			return nil, fmt.Errorf("%s is given twice", k)
		}
		out[k] = v
	}
	return out, nil
}

// which finds the component that [SERVER] NAME means.
func which(cmd *cobra.Command, c *reached, args []string) (server, name string, err error) {
	if len(args) == 2 {
		return args[0], args[1], nil
	}
	all, err := c.Components(cmd.Context())
	if err != nil {
		return "", "", err
	}
	var in []string
	for _, s := range all {
		if s.Name == args[0] {
			in = append(in, s.Server)
		}
	}
	switch len(in) {
	case 0:
		return "", "", fmt.Errorf("no component %s: see `parley component list`", args[0])
	case 1:
		return in[0], args[0], nil
	}
	return "", "", fmt.Errorf("%s is in several servers: say which one (%s)", args[0], strings.Join(in, ", "))
}

func (r *remote) showComponent(cmd *cobra.Command, c *reached, server, name string) error {
	all, err := c.Components(cmd.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(s plugins.Status) bool { return s.Server == server && s.Name == name })
	if i < 0 {
		return fmt.Errorf("%s in %s is gone", name, server)
	}
	if r.json {
		return printJSON(cmd.OutOrStdout(), all[i])
	}
	phase := string(all[i].Phase)
	if cmd.Name() == "stop" {
		phase = "stopped (" + phase + ", not running)"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s in %s: %s\n", name, server, phase)
	return err
}
