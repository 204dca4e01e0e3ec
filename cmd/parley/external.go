package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/externals"
)

// isFolder reports whether the only argument is a folder with a manifest, or the
// manifest: then it is about an external component.
func isFolder(args []string) (string, bool) {
	if len(args) != 1 {
		return "", false
	}
	path := args[0]
	if filepath.Base(path) == externals.ManifestFile {
		path = filepath.Dir(path)
	}
	if _, err := os.Stat(filepath.Join(path, externals.ManifestFile)); err != nil {
		return "", false
	}
	path, err := filepath.Abs(path)
	return path, err == nil
}

// externalCommands are what is done to external components alone.
func externalCommands() []*cobra.Command {
	var upgrade, restart, logs, remove remote
	lines := 100
	show := logs.command("logs NAME", "Print the end of what an external component has written", cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
		text, err := externals.Client{Client: c.Client}.Logs(cmd.Context(), args[0], lines)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	})
	show.Flags().IntVarP(&lines, "lines", "n", lines, "how many lines")
	return []*cobra.Command{
		upgrade.command("upgrade FOLDER", "Go on with another version of an external component; back to the one before when it does not become healthy", cobra.ExactArgs(1),
			func(cmd *cobra.Command, c *reached, args []string) error {
				path, ok := isFolder(args)
				if !ok {
					return noManifest(args[0])
				}
				return upgrade.showExternal(cmd)(externals.Client{Client: c.Client}.Upgrade(cmd.Context(), path))
			}),
		restart.command("restart NAME", "End an external component and start it again", cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
			return restart.showExternal(cmd)(externals.Client{Client: c.Client}.Restart(cmd.Context(), args[0]))
		}),
		show,
		remove.command("remove NAME", "End an external component and take it away with its files", cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
			return externals.Client{Client: c.Client}.Remove(cmd.Context(), args[0])
		}),
	}
}

func noManifest(path string) error {
	return fmt.Errorf("%s: there is no %s in it", path, externals.ManifestFile)
}

// installExternal is `component install FOLDER`.
func (r *remote) installExternal(cmd *cobra.Command, c *reached, path string) error {
	return r.showExternal(cmd)(externals.Client{Client: c.Client}.Install(cmd.Context(), path))
}

func (r *remote) showExternal(cmd *cobra.Command) func(externals.Status, error) error {
	return func(s externals.Status, err error) error {
		switch {
		case err != nil:
			return err
		case r.json:
			return printJSON(cmd.OutOrStdout(), s)
		}
		return printExternals(cmd, []externals.Status{s})
	}
}

func printExternals(cmd *cobra.Command, all []externals.Status) error {
	rows := [][]string{{"EXTERNAL", "VERSION", "DOMAIN", "NODE", "STATE", "SINCE", "RESTARTS", "PROBLEM"}}
	for _, s := range all {
		rows = append(rows, []string{
			s.Name, s.Version, s.Domain, s.Node, string(s.State), s.Since.Local().Format(time.DateTime),
			fmt.Sprintf("%d of %d", s.Restarts, s.Limit), s.Error,
		})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

// listExternals prints what is installed besides the house's own components.
func listExternals(cmd *cobra.Command, c *reached) error {
	all, err := externals.Client{Client: c.Client}.List(cmd.Context())
	if err != nil || len(all) == 0 {
		return nil //nolint:nilerr // the supervisor is off: the list above says so
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout())
	return errors.Join(err, printExternals(cmd, all))
}
