//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/cmd/xmppload/internal/proc"
)

// Login is people coming and going: connect, encrypt, authenticate, bind,
// initial presence, and out again.
type Login struct {
	Common
	Count    int
	Accounts int // logins go round among so many
}

// Run measures the first login of each account apart from later ones: a server
// may have to derive keys once.
func (o Login) Run(ctx context.Context, s *Server) (*Result, error) {
	if err := s.Accounts(ctx, o.Accounts, o.Parallel); err != nil {
		return nil, err
	}
	var first, later Result
	if err := o.wave(ctx, s, &first, o.Accounts, "first logins"); err != nil {
		return nil, err
	}
	if err := o.wave(ctx, s, &later, o.Count, "logins"); err != nil {
		return nil, err
	}
	if len(s.PIDs) > 0 {
		later.Metrics = append(later.Metrics, first.Metrics[0])
	}
	return &later, nil
}

func (o Login) wave(ctx context.Context, s *Server, r *Result, n int, what string) error {
	m, err := s.meter()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Parallel)
	for i := range n {
		g.Go(func() error {
			x, err := s.Login.Login(ctx, i, User(i%o.Accounts), Password)
			if err != nil {
				return err
			}
			if err := x.Available(""); err != nil {
				return fmt.Errorf("presence of %s: %w", x.JID, err)
			}
			return x.Quit()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return m.stop(r, n, 1000, what)
}

// comeAndGone is how many have been there before memory is measured.
const comeAndGone = 500

// Idle is sessions that do nothing.
type Idle struct {
	Common
	Sessions int
}

// Run reports the memory of a session, once everything has calmed down.
func (o Idle) Run(ctx context.Context, s *Server) (*Result, error) {
	if len(s.PIDs) == 0 {
		return nil, errors.New("idle measures memory: name the server's process")
	}
	if err := s.Accounts(ctx, o.Sessions, o.Parallel); err != nil {
		return nil, err
	}
	// What the first logins of a process cost, its code among it, is no session's.
	if _, err := (Login{Common: o.Common, Count: comeAndGone, Accounts: min(comeAndGone, o.Sessions)}).Run(ctx, s); err != nil {
		return nil, err
	}
	if err := s.collect(ctx); err != nil {
		return nil, err
	}
	time.Sleep(o.Settle)
	group := proc.NewGroup(s.PIDs...)
	before, err := group.Read()
	if err != nil {
		return nil, err
	}
	f, err := s.bring(ctx, o.Common, 0, o.Sessions, true)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if err := f.quiet(o.Settle); err != nil {
		return nil, err
	}
	if err := s.collect(ctx); err != nil {
		return nil, err
	}
	after, err := group.Read()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	r.add("RSS per session", "KiB", float64(after.RSS-before.RSS)/1024/float64(o.Sessions))
	r.add("RSS before", "MiB", float64(before.RSS)/(1<<20))
	start, err := s.meter()
	if err != nil {
		return nil, err
	}
	if err := f.quiet(max(o.Settle, time.Second)); err != nil {
		return nil, err
	}
	cpu, err := start.all.used()
	if err != nil {
		return nil, err
	}
	r.add("CPU while idle", "ms/s", cpu*1000/time.Since(start.at).Seconds())
	return r, nil
}

// collect lets the server give back memory that is not in use.
func (s *Server) collect(ctx context.Context) error {
	if s.Collect == "" {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "sh", "-c", s.Collect).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", s.Collect, err, out)
	}
	return nil
}
