// Command xmppscript runs protocol scripts (docs/protocol-scripts.md) against any XMPP server, from outside.
//
// It dials the server, makes the accounts the scripts ask for (in band by XEP-0077, or by a command of the operator),
// finds the services by disco (XEP-0030) and prints "ok NAME", "skip NAME: reason" or "FAIL NAME" with the transcript.
// The exit status is 1 when a script failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins/plugintest/script"
)

// flags of the command line.
type flags struct {
	server, direct, websocket, bosh, domain string
	via                                     string
	register, restart, reload               string
	prefix                                  string
	services                                []string
	timeout, settle                         time.Duration
	trace, parse                            bool
}

var errFailed = errors.New("scripts failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(os.Stdout).ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "xmppscript:", err)
		}
		os.Exit(1)
	}
}

func command(out io.Writer) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "xmppscript [flags] FILE.txtar …",
		Short: "Run protocol scripts against an XMPP server",
		Example: `  xmppscript --server localhost:5222 --register 0077 examples/scripts/*.txtar
  xmppscript --server 10.0.0.1:5222 --domain example.org --register 'command prosodyctl register {user} {domain} {password}' f.txtar`,
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, files []string) error { return run(cmd.Context(), out, f, files) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.server, "server", "localhost:5222", "host:port of the client port")
	fs.StringVar(&f.direct, "direct", "", "host:port of the direct-TLS port, for scripts that use it (the --server one with --tls direct)")
	fs.StringVar(&f.websocket, "websocket", "", "wss:// or ws:// address, for scripts that use it")
	fs.StringVar(&f.bosh, "bosh", "", "https:// or http:// address, for scripts that use it")
	fs.StringVar(&f.domain, "domain", "", "the XMPP domain (the host of --server)")
	fs.StringVar(&f.via, "tls", "starttls", "how clients log in: starttls, direct, none, ws, bosh")
	fs.StringVar(&f.register, "register", "0077", "how accounts are made: 0077, or 'command …' with {user} {domain} {password}")
	fs.StringVar(&f.restart, "restart", "", "shell command that restarts the server; scripts with restart are skipped without")
	fs.StringVar(&f.reload, "reload", "", "shell command that reloads the configuration; scripts with reload are skipped without")
	fs.StringVar(&f.prefix, "user-prefix", "", "put before every account's name")
	fs.StringArrayVar(&f.services, "service", nil, "name=address of a service (muc=rooms.example.org), instead of disco; may be repeated")
	fs.DurationVar(&f.timeout, "timeout", script.DefaultTimeout, "bound of one expectation; only a script that fails waits for it")
	fs.DurationVar(&f.settle, "settle", 200*time.Millisecond, "time given to a foreign server before a silence is checked; 0 relies on round trips alone")
	fs.BoolVar(&f.trace, "trace", false, "print everything sent and received, passwords included")
	fs.BoolVar(&f.parse, "parse", false, "only check the scripts' syntax")
	return cmd
}

// count of the outcomes.
type count struct{ passed, failed, skipped int }

func run(ctx context.Context, out io.Writer, f flags, files []string) error {
	r, err := runner(out, f)
	if err != nil {
		return err
	}
	var n count
	for _, file := range files {
		one(ctx, out, r, f.parse, file, &n)
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
	if n.failed > 0 {
		return errFailed
	}
	return ctx.Err()
}

// one parses and runs a file.
func one(ctx context.Context, out io.Writer, r *script.Runner, parseOnly bool, file string, n *count) {
	s, err := script.ParseFile(file)
	if err != nil {
		n.failed++
		fmt.Fprintf(out, "FAIL %s\n  %s\n", file, strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return
	}
	var res script.Result
	if !parseOnly {
		res = r.Run(ctx, s)
	}
	switch res.Outcome {
	case script.Passed:
		n.passed++
		fmt.Fprintf(out, "ok   %s\n", s.Name)
	case script.Skipped:
		n.skipped++
		fmt.Fprintf(out, "skip %s: %s\n", s.Name, res.Reason)
	default:
		n.failed++
		fmt.Fprintf(out, "FAIL %s: %s\n%s", s.Name, s.Title, res.Report)
	}
}

func runner(out io.Writer, f flags) (*script.Runner, error) {
	via, ok := script.ParseVia(f.via)
	if !ok {
		return nil, fmt.Errorf("--tls %s: use starttls, direct, none, ws or bosh", f.via)
	}
	t, err := newTarget(f, via)
	if err != nil {
		return nil, err
	}
	r := &script.Runner{Target: t, Timeout: f.timeout, Settle: f.settle, Via: via, UserPrefix: f.prefix}
	if f.trace {
		r.Trace = out
	}
	return r, nil
}
