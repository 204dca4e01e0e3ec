package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"parley/plugins/config"
	"parley/storage/atrest"
)

// control is the Host's administration; each call is one change at a time.
type control struct{ h *Host }

var _ Control = control{}

func (h *Host) current() *config.Tree {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tree
}

func (h *Host) setTree(t *config.Tree) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tree = t
}

// Components implements Control.
func (c control) Components() []Status { return c.h.repo.list() }

// with runs f on a slot, alone.
func (c control) with(server, name string, f func(*slot) error) error {
	r := c.h.repo
	r.change.Lock()
	defer r.change.Unlock()
	s, err := r.find(server, name)
	if err != nil {
		return err
	}
	return f(s)
}

// Install implements Control: Absent or Failed → Installed.
func (c control) Install(_ context.Context, server, name string) error {
	return c.with(server, name, func(s *slot) error {
		if s.phase != Absent && s.phase != Failed {
			return fmt.Errorf("%w: %s is %s already", ErrPhase, name, s.phase)
		}
		return c.h.repo.make(s, c.h.current())
	})
}

// Start implements Control; it installs first when that is missing.
func (c control) Start(ctx context.Context, server, name string) error {
	return c.with(server, name, func(s *slot) error { return c.startSlot(ctx, s) })
}

func (c control) startSlot(ctx context.Context, s *slot) error {
	if s.phase == Running {
		return nil
	}
	if s.phase != Installed {
		if err := c.h.repo.make(s, c.h.current()); err != nil {
			return err
		}
	}
	return c.h.repo.start(ctx, s)
}

// Stop implements Control: Running → Installed, so that Start works at once.
func (c control) Stop(ctx context.Context, server, name string) error {
	return c.with(server, name, func(s *slot) error {
		if err := c.h.repo.needed(s); err != nil {
			return err
		}
		return c.stopSlot(ctx, s)
	})
}

func (c control) stopSlot(ctx context.Context, s *slot) error {
	if s.phase != Running {
		return nil
	}
	if err := c.h.repo.stop(ctx, s); err != nil {
		return err
	}
	return c.h.repo.make(s, c.h.current())
}

// Uninstall implements Control: whatever → Absent.
func (c control) Uninstall(ctx context.Context, server, name string) error {
	return c.with(server, name, func(s *slot) error {
		if s.phase == Running {
			if err := c.h.repo.needed(s); err != nil {
				return err
			}
			return c.h.repo.stop(ctx, s)
		}
		c.h.repo.set(s, func() { s.made, s.phase, s.err = nil, Absent, "" })
		return nil
	})
}

// Reconfigure implements Control.
func (c control) Reconfigure(ctx context.Context, by, server, name string, set map[string]string) error {
	return c.with(server, name, func(s *slot) error {
		tree := c.h.current()
		for _, key := range slices.Sorted(maps.Keys(set)) {
			next, _, err := tree.Set(config.ComponentPath(server, name)+"."+key, set[key], by, c.h.opt.Clock.Now())
			if err != nil {
				return err
			}
			tree = next
		}
		old, apply := c.h.current(), c.apply
		if _, ok := set["enabled"]; ok {
			apply = c.follow
		}
		if err := apply(ctx, s, tree); err != nil {
			return err
		}
		c.h.setTree(tree)
		if err := c.h.overlay.save(ctx, tree.Overlay()); err != nil {
			c.h.setTree(old)
			return errors.Join(fmt.Errorf("not saved, so not kept: %w", err), apply(ctx, s, old))
		}
		return nil
	})
}

// Unset implements Control.
func (c control) Unset(ctx context.Context, by, path string) ([]string, error) {
	c.h.repo.change.Lock()
	defer c.h.repo.change.Unlock()
	old := c.h.current()
	tree, gone, err := old.Unset(path)
	if err != nil {
		return nil, err
	}
	if err := c.moveTo(ctx, old, tree); err != nil {
		return nil, err
	}
	if err := c.h.overlay.save(ctx, tree.Overlay()); err != nil {
		return nil, errors.Join(fmt.Errorf("not saved, so not taken back: %w", err), c.moveTo(ctx, tree, old))
	}
	c.h.opt.Log.Info("settings made at run time taken back", "by", by, "keys", gone)
	return gone, nil
}

// moveTo lets every component that differs follow from one tree to another, or
// none of them.
func (c control) moveTo(ctx context.Context, from, to *config.Tree) error {
	var errs []error
	for k, err := range c.applyComponents(ctx, config.Diff(from, to), to) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s in %s keeps its setting: %w", k.component, k.server, err))
		}
	}
	if len(errs) == 0 {
		c.h.setTree(to)
		return nil
	}
	for k, err := range c.applyComponents(ctx, config.Diff(to, from), from) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s in %s is not back at its setting: %w", k.component, k.server, err))
		}
	}
	return errors.Join(errs...)
}

// apply lets a slot follow a configuration.
func (c control) apply(ctx context.Context, s *slot, tree *config.Tree) error {
	switch s.phase {
	case Running:
		return c.h.repo.replace(ctx, s, tree)
	case Installed:
		return c.h.repo.make(s, tree)
	}
	_, _, err := c.h.repo.build(s, tree) // validates, has no side effects
	return err
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

// StartPlugin implements Control: its components in every Server.
func (c control) StartPlugin(ctx context.Context, name string) error {
	return c.eachOf(name, func(s *slot) error { return c.startSlot(ctx, s) })
}

// StopPlugin implements Control.
func (c control) StopPlugin(ctx context.Context, name string) error {
	return c.eachOf(name, func(s *slot) error {
		if err := c.h.repo.needed(s); err != nil {
			return err
		}
		return c.stopSlot(ctx, s)
	})
}

func (c control) eachOf(plugin string, f func(*slot) error) error {
	c.h.repo.change.Lock()
	defer c.h.repo.change.Unlock()
	found := false
	for _, s := range c.h.repo.slots {
		if s.plugin.Name != plugin {
			continue
		}
		found = true
		if err := f(s); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%w: plugin %s", ErrUnknown, plugin)
	}
	return nil
}

// Config implements Control.
func (c control) Config() []ConfigEntry {
	tree := c.h.current()
	inForce := map[string]string{} // of keys that wait for a restart
	for _, ch := range config.Diff(c.h.from, tree) {
		if ch.Effect == config.Restart {
			inForce[ch.Path] = ch.Old
		}
	}
	var out []ConfigEntry
	for _, e := range tree.Show() {
		entry := ConfigEntry{Path: e.Path, Value: e.Value, Source: e.Source.String()}
		if old, waits := inForce[e.Path]; waits {
			entry.Source += " (counts after a restart; in force: " + old + ")"
		}
		out = append(out, entry)
	}
	return out
}

// Reload implements Control: it reads the configuration again and applies what
// can be applied, component by component. What is wrong with it changes nothing.
func (c control) Reload(ctx context.Context) ([]ConfigChange, error) {
	if c.h.opt.Reload == nil {
		return nil, errors.New("there is no file to read again")
	}
	file, err := c.h.opt.Reload()
	if err != nil {
		return nil, err
	}
	c.h.repo.change.Lock()
	defer c.h.repo.change.Unlock()
	old := c.h.current()
	tree, err := file.WithOverlay(old.Overlay())
	if err != nil {
		return nil, err
	}
	changes := config.Diff(old, tree)
	failed := c.applyComponents(ctx, changes, tree)
	c.applyLevel(tree)
	keys, keysErr := c.applyKeys(ctx, tree)
	c.h.setTree(tree)
	out := make([]ConfigChange, 0, len(changes))
	for _, ch := range changes {
		err := failed[slotKey{ch.Server, ch.Component}]
		if strings.HasPrefix(ch.Path, encryptionPath) {
			err = keysErr
		}
		out = append(out, outcome(ch, err))
	}
	return append(out, keys...), nil
}

// encryptionPath begins the keys of EncryptionSettings.
const encryptionPath = "storage.encryption."

// applyKeys reads the keys file again, whose contents may have changed though
// the configuration has not.
func (c control) applyKeys(ctx context.Context, tree *config.Tree) ([]ConfigChange, error) {
	before := c.h.keys.Vault.String()
	s, err := config.Get[Settings](tree, "")
	var ring *atrest.Ring
	if err == nil {
		ring, err = s.Storage.Encryption.ring()
	}
	if err == nil {
		err = c.h.keys.Adopt(ctx, ring, s.Storage.Encryption.Enabled)
	}
	after := c.h.keys.Vault.String()
	if err == nil && after == before {
		return nil, nil
	}
	ch := config.Change{Path: encryptionPath + "keys_file (contents)", Old: before, New: after, Effect: config.Live}
	return []ConfigChange{outcome(ch, err)}, err
}

// Keys implements Control.
func (c control) Keys(ctx context.Context) (atrest.Status, error) { return c.h.keys.Status(ctx) }

// RetireKey implements Control.
func (c control) RetireKey(ctx context.Context, id int64) error { return c.h.keys.Retirable(ctx, id) }

type slotKey struct{ server, component string }

func (c control) applyComponents(ctx context.Context, changes []config.Change, tree *config.Tree) map[slotKey]error {
	failed, seen := map[slotKey]error{}, map[slotKey]bool{}
	for _, ch := range changes {
		k := slotKey{ch.Server, ch.Component}
		if ch.Component == "" || ch.Effect != config.Live || seen[k] {
			continue
		}
		seen[k] = true
		s, err := c.h.repo.find(ch.Server, ch.Component)
		if err != nil {
			continue // its Server runs on another node
		}
		failed[k] = c.follow(ctx, s, tree)
	}
	return failed
}

// follow starts, stops or reconfigures the slot as the tree says.
func (c control) follow(ctx context.Context, s *slot, tree *config.Tree) error {
	switch enabled := tree.Enabled(s.server, s.name); {
	case enabled && s.phase != Running:
		if err := c.h.repo.make(s, tree); err != nil {
			return err
		}
		return c.h.repo.start(ctx, s)
	case !enabled && s.phase == Running:
		if err := c.h.repo.needed(s); err != nil {
			return err
		}
		return c.h.repo.stop(ctx, s)
	}
	return c.apply(ctx, s, tree)
}

func (c control) applyLevel(tree *config.Tree) {
	if c.h.opt.Level == nil {
		return
	}
	var s Settings
	var l slog.Level
	if tree.Decode("", &s) == nil && l.UnmarshalText([]byte(s.Log.Level)) == nil {
		c.h.opt.Level.Set(l)
	}
}

func outcome(ch config.Change, err error) ConfigChange {
	out := ConfigChange{Path: ch.Path, Old: ch.Old, New: ch.New}
	switch {
	case err != nil:
		out.Outcome, out.Detail = "failed", err.Error()
	case ch.Effect == config.Live:
		out.Outcome = "applied"
	case ch.Effect == config.Overridden:
		out.Outcome, out.Detail = "overridden", ch.By.String()
	default:
		out.Outcome = "restart"
	}
	return out
}
