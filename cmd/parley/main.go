// Command parley is the server and everything an operator does with it.
//
// It is wiring: the house is in plugins/ and the stages, this command joins
// configuration, database, Host, signals and the terminal. `serve` (serve.go)
// runs the house; the commands that change something at run time speak to its
// administration socket (plugins/admin/client), and account commands start a
// house without doors when none runs (offline.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	syscall.Umask(0o077) // keys, the database and configurations with secrets are nobody else's
	err := root().ExecuteContext(context.Background())
	if err == nil {
		return
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(os.Stderr, "parley:", err)
	}
	os.Exit(1)
}

// errSaid ends the program with status 1 when what is wrong has been printed.
var errSaid = errors.New("see above")

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "parley",
		Short:         "An XMPP server",
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: `  parley quickstart example.org      write a configuration and make the first accounts
  parley serve --config parley.yaml  run the server
  parley check --config parley.yaml  see what is wrong with the installation`,
	}
	cmd.AddCommand(
		serveCommand(),
		quickstartCommand(), checkCommand(),
		backupCommand(), restoreCommand(), migrateCommand(), keysCommand(), quarantineCommand(),
		accountCommand(), inviteCommand(), componentCommand(), serverCommand(), pluginCommand(), nodeCommand(), domainCommand(), configCommand(), blocklistCommand(), s2sCommand(), groupCommand(),
		versionCommand(),
	)
	withUsage(cmd)
	return cmd
}

// withUsage has every command say how it is called when its arguments are wrong.
func withUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w; it is called as: %s", err, c.UseLine())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		withUsage(c)
	}
}
