package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/stream"
)

const (
	// stopWithin bounds a graceful stop; the streamer's timeouts.drain is shorter.
	stopWithin = time.Minute
	// stopGrace is for what does not heed that.
	stopGrace = 5 * time.Second
)

func serveCommand() *cobra.Command {
	var p place
	var demo bool
	var profile string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Runs the server until SIGTERM or SIGINT, then drains; a second signal ends it
at once. SIGHUP reads the configuration again. Logs go to standard error.`,
		Example: `  parley serve --config /etc/parley/parley.yaml
  parley serve --demo                 localhost, in ./data, with an account to try it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.load(cmd)
			if err != nil {
				return err
			}
			return s.serve(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), demo, profile)
		},
	}
	p.common(cmd)
	p.doors(cmd)
	cmd.Flags().BoolVar(&demo, "demo", false, "make an administrator's account when there is none, and say how to try the server")
	cmd.Flags().StringVar(&profile, "pprof", "", "serve profiles on this loopback address")
	_ = cmd.Flags().MarkHidden("pprof")
	return cmd
}

// serve runs the house until a signal or ctx ends it.
func (s *setup) serve(ctx context.Context, terminal, logs io.Writer, demo bool, profile string) error {
	log, level, err := newLog(logs, s.settings.Log)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit, from := plugins.LimitMemory(int64(s.settings.Memory))
	log.Info("memory limit", "bytes", limit, "from", from)
	var pace sync.WaitGroup
	pace.Go(func() { plugins.PaceCollections(ctx, limit) })
	defer func() { cancel(); pace.Wait() }()
	if profile != "" {
		if err := profiles(ctx, profile, log); err != nil {
			return err
		}
	}
	h, err := s.begin(ctx, cancel, log, level, signals)
	if h == nil {
		return err
	}
	if err == nil {
		err = s.opened(ctx, h)
	}
	if err == nil {
		log.Info("started", "version", thisBuild().Version, "domains", h.host.Domains(), "data", s.settings.Data)
		s.greet(ctx, terminal, h, demo)
		notify("READY=1")
		err = s.wait(ctx, h, log, signals)
	}
	notify("STOPPING=1")
	if errors.Is(err, errAsked) {
		err = nil
	}
	err = errors.Join(err, h.halt(ctx, log, signals))
	log.Info("stopped")
	return err
}

// errAsked ends a start that somebody does not want to wait for.
var errAsked = errors.New("asked to stop")

// begin opens the house and starts it. That may wait for long, for the lease of an
// earlier life or for a core: a signal ends it by cancel. A house that is there has to
// be stopped, also after an error, which is errAsked after a signal; nil: there is
// none.
func (s *setup) begin(ctx context.Context, cancel context.CancelFunc, log *slog.Logger, level *slog.LevelVar, signals <-chan os.Signal) (*house, error) {
	var h *house
	done := make(chan error, 1)
	go func() {
		var err error
		if h, err = s.open(ctx, log, level); err == nil {
			err = h.host.Start(ctx)
		}
		done <- err
	}()
	asked := false
	for {
		select {
		case err := <-done:
			if !asked {
				return h, err
			}
			log.Info("the start is given up", "err", err)
			if h == nil {
				return nil, nil
			}
			return h, errAsked
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP: // what is read is as new as can be
			case asked:
				log.Warn("stopping at once", "signal", sig.String())
				return nil, errors.New("stopped at once, while it started")
			default:
				log.Info("stopping while it starts", "signal", sig.String())
				asked = true
				cancel()
			}
		}
	}
}

// errAgain makes the process end as after a failure, so that its supervisor starts it
// again (examples/parley.service: Restart=on-failure).
var errAgain = errors.New("an administrator wants the server to start again")

// wait returns when it is time to stop; nil when somebody asked for it.
func (s *setup) wait(ctx context.Context, h *house, log *slog.Logger, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-h.host.Fatal():
			return err
		case again := <-h.host.Halts():
			log.Info("stopping, as an administrator wants", "again", again)
			if again {
				return errAgain
			}
			return nil
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				log.Info("stopping", "signal", sig.String())
				return nil
			}
			reload(ctx, h.host.Control(), log)
		}
	}
}

// reload reads the configuration again and logs what became of each key.
func reload(ctx context.Context, c plugins.Control, log *slog.Logger) {
	changes, err := c.Reload(ctx)
	if err != nil {
		log.Error("configuration not reloaded; the one in force stays", "err", err)
		return
	}
	for _, ch := range changes {
		level := slog.LevelInfo
		if ch.Outcome != "applied" {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "configuration", "key", ch.Path, "old", ch.Old, "new", ch.New, "outcome", ch.Outcome, "detail", ch.Detail)
	}
	log.Info("configuration reloaded", "changes", len(changes))
}

// halt stops the house: it drains for stopWithin, or until a second signal. It does
// not wait for what then still hangs.
func (h *house) halt(ctx context.Context, log *slog.Logger, signals <-chan os.Signal) error {
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.stop(drain) }()
	late := time.NewTimer(stopWithin + stopGrace)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-late.C:
			return errors.New("the server did not stop in time: what was acknowledged is stored")
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			log.Warn("stopping at once", "signal", sig.String())
			return errors.New("stopped at once: clients were not told, but what was acknowledged is stored")
		}
	}
}

// opened waits until the administration answers and the doors that are
// configured are open, or one cannot be.
func (s *setup) opened(ctx context.Context, h *house) error {
	if s.tree.ServerEnabled(admin.Name) {
		if _, err := s.answering(ctx, h); err != nil {
			return err
		}
	}
	if !s.tree.ServerEnabled(stream.Name) {
		return nil
	}
	streamer, ok := h.streamer()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	open := make(chan error, 1)
	go func() {
		_, err := streamer.Doors(ctx)
		open <- err
	}()
	select {
	case err := <-open:
		return err
	case err := <-h.host.Fatal():
		return err
	}
}

// door is one configured address of the streamer.
type door struct{ name, address, what string }

// doors are those that are configured.
func (s *setup) doors() ([]door, error) {
	c, err := streamConfig(s.tree)
	if err != nil {
		return nil, fmt.Errorf("streamer: %w", err)
	}
	var out []door
	for _, d := range []door{
		{"c2s", c.C2S, "clients, STARTTLS"},
		{"c2s-tls", c.C2STLS, "clients, direct TLS"},
		{"http", c.HTTP, "HTTP: WebSocket, /healthz, /readyz, /metrics"},
		{"https", c.HTTPS, "HTTPS: secure WebSocket"},
	} {
		if d.address != "" {
			out = append(out, d)
		}
	}
	return out, nil
}
