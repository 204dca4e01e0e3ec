//go:build linux

// Command xmppload measures XMPP servers from outside: what they use per login,
// session, message and delivery, and how long they take. It knows nothing of
// the server but its address and its process id.
//
// Everything it sends is numbered; when something is lost, comes twice or out
// of order, it says so and ends with status 1. `xmppload floor` is a server
// that does nothing but move the bytes; --vs runs a scenario against several
// servers in turn; `xmppload bench` does all of it and writes
// docs/performance.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/floor"
	"parley/cmd/xmppload/internal/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "xmppload:", err)
		os.Exit(1)
	}
}

var errFaults = errors.New("messages were lost, duplicated or reordered")

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "xmppload",
		Short:         "Measures XMPP servers from outside",
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: `  parley serve --config examples/interop.yaml   # lets clients register, and log in without TLS
  xmppload chat --server 127.0.0.1:5222 --domain localhost --pid 4711 --pairs 500 --messages 100000
  xmppload login --vs parley=127.0.0.1:5222:4711 --vs floor=127.0.0.1:5322:4712 --runs 5
  xmppload floor --listen 127.0.0.1:5322`,
	}
	cmd.AddCommand(loginCommand(), idleCommand(), chatCommand(), archiveCommand(),
		presenceCommand(), offlineCommand(), mucCommand(), joinsCommand(), floorCommand(), benchCommand(), growthCommand(), nodesCommand())
	return cmd
}

func floorCommand() *cobra.Command {
	var listen, domain string
	cmd := &cobra.Command{
		Use:   "floor",
		Short: "Run a server that only moves bytes: the physical limit",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raiseFiles()
			runtime.LockOSThread()
			loop, err := wire.NewLoop()
			if err != nil {
				return err
			}
			addr, err := floor.New(loop, domain).Listen(listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %d\n", addr, os.Getpid())
			go func() { // the loop sleeps in the kernel; the process ends for it
				<-cmd.Context().Done()
				os.Exit(0)
			}()
			return loop.Serve()
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address; it is printed with the process id")
	cmd.Flags().StringVar(&domain, "domain", "localhost", "domain")
	return cmd
}

// raiseFiles asks for as many descriptors as we may have.
func raiseFiles() {
	for _, n := range []uint64{2 << 20, 1 << 20, 200_000} {
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}) == nil {
			return
		}
	}
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) == nil {
		r.Cur = r.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r)
	}
}
