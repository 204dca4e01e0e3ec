package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"parley/plugins/config"
)

// control is the Host's administration; each call is one change at a time. What
// concerns components is so on every node (change.go).
type control struct{ h *Host }

var _ Control = control{}

// Components implements Control.
func (c control) Components() []Status { return c.h.repo.list() }

// one changes what is said of one component.
func (c control) one(ctx context.Context, by, server, name string, say func(*slot, wanted) (wanted, error)) (Applied, error) {
	s, err := c.h.repo.find(server, name)
	if err != nil {
		return Applied{}, err
	}
	return c.change(ctx, by, []*slot{s}, func(w wanted) (wanted, error) { return say(s, w) })
}

// say is what one component, or each of a plugin, is to do from now on.
func (c control) say(w wanted, s *slot, p Phase, by string) wanted {
	return w.say(s.key(), p, by, c.h.opt.Clock.Now())
}

// Install implements Control: Absent or Failed → Installed.
func (c control) Install(ctx context.Context, by, server, name string) (Applied, error) {
	return c.one(ctx, by, server, name, func(s *slot, w wanted) (wanted, error) {
		if s.phase != Absent && s.phase != Failed {
			return w, fmt.Errorf("%w: %s is %s already", ErrPhase, name, s.phase)
		}
		return c.say(w, s, Installed, by), nil
	})
}

// Start implements Control; it installs first when that is missing.
func (c control) Start(ctx context.Context, by, server, name string) (Applied, error) {
	return c.one(ctx, by, server, name, func(s *slot, w wanted) (wanted, error) { return c.say(w, s, Running, by), nil })
}

// Stop implements Control: Running → Installed, so that Start works at once.
func (c control) Stop(ctx context.Context, by, server, name string) (Applied, error) {
	return c.one(ctx, by, server, name, func(s *slot, w wanted) (wanted, error) { return c.stopped(w, s, by), nil })
}

// stopped leaves alone what is not at work.
func (c control) stopped(w wanted, s *slot, by string) wanted {
	if w.phase(s.key()) != Running {
		return w
	}
	return c.say(w, s, Installed, by)
}

// Uninstall implements Control: whatever → Absent.
func (c control) Uninstall(ctx context.Context, by, server, name string) (Applied, error) {
	return c.one(ctx, by, server, name, func(s *slot, w wanted) (wanted, error) { return c.say(w, s, Absent, by), nil })
}

// StartPlugin implements Control: its components in every Server.
func (c control) StartPlugin(ctx context.Context, by, name string) (Applied, error) {
	return c.each(ctx, by, name, func(w wanted, s *slot) wanted { return c.say(w, s, Running, by) })
}

// StopPlugin implements Control.
func (c control) StopPlugin(ctx context.Context, by, name string) (Applied, error) {
	return c.each(ctx, by, name, func(w wanted, s *slot) wanted { return c.stopped(w, s, by) })
}

func (c control) each(ctx context.Context, by, plugin string, say func(wanted, *slot) wanted) (Applied, error) {
	var all []*slot
	for _, s := range c.h.repo.slots {
		if s.plugin.Name == plugin {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return Applied{}, c.h.repo.missing("", func(p Plugin, _ Maker) bool { return p.Name == plugin }, "plugin "+plugin)
	}
	return c.change(ctx, by, all, func(w wanted) (wanted, error) {
		for _, s := range all {
			w = say(w, s)
		}
		return w, nil
	})
}

// Reconfigure implements Control. Whether a component is at work is said last
// by its key enabled, when that is set.
func (c control) Reconfigure(ctx context.Context, by, server, name string, set map[string]string) (Applied, error) {
	return c.one(ctx, by, server, name, func(s *slot, w wanted) (wanted, error) {
		for _, key := range slices.Sorted(maps.Keys(set)) {
			tree, _, err := w.tree.Set(s.key().path()+"."+key, set[key], by, c.h.opt.Clock.Now())
			if err != nil {
				return w, err
			}
			w = w.under(tree)
		}
		if _, ok := set["enabled"]; ok {
			w = w.unsaid(s.key())
		}
		return w, nil
	})
}

// Unset implements Control.
func (c control) Unset(ctx context.Context, by, path string) (Applied, error) {
	a, err := c.change(ctx, by, nil, func(w wanted) (wanted, error) {
		gone := w.saidBelow(path)
		tree, _, err := w.tree.Unset(path)
		switch {
		case err == nil:
			w = w.under(tree)
		case !errors.Is(err, config.ErrNotSet) || len(gone) == 0:
			return w, err
		default:
			w = w.under(w.tree.At(w.tree.Version() + 1))
		}
		return w.unsaid(gone...), nil
	})
	if err == nil {
		c.h.opt.Log.Info("settings made at run time taken back", "by", by, "keys", a.Keys)
	}
	return a, err
}

// Servers implements Control.
func (c control) Servers() []ServerStatus {
	out := make([]ServerStatus, 0, len(c.h.servers))
	for _, r := range c.h.servers {
		r.mu.Lock()
		st := ServerStatus{Name: r.name, Running: r.done != nil, Deployment: r.deployment.Type, Workers: r.deployment.Workers}
		if r.err != nil {
			st.Error = r.err.Error()
		}
		r.mu.Unlock()
		out = append(out, st)
	}
	return out
}

// StartServer implements Control.
func (c control) StartServer(_ context.Context, name string) error {
	r, ok := c.h.running(name)
	if !ok {
		return fmt.Errorf("no Server %s here", name)
	}
	r.start(c.h)
	return nil
}

// StopServer implements Control: it returns when the Server has drained.
// Senders wait until it is started again.
func (c control) StopServer(ctx context.Context, name string) error {
	r, ok := c.h.running(name)
	if !ok {
		return fmt.Errorf("no Server %s here", name)
	}
	return r.halt(ctx)
}
