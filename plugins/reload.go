package plugins

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"parley/plugins/config"
	"parley/storage/atrest"
)

// How what is configured is shown, and read again from the file.

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
	now := c.h.wanted()
	for _, k := range now.saidBelow("") {
		out = append(out, ConfigEntry{Path: k.path(), Value: string(now.phase(k)), Source: now.said[k].source().String()})
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
	if err := c.catchUp(ctx); err != nil { // the file counts all the same
		c.h.opt.Log.Warn("what other nodes have changed is not known", "err", err)
	}
	old := c.h.wanted()
	tree, err := file.WithOverlay(old.tree.Overlay())
	if err != nil {
		return nil, err
	}
	to := old.under(tree)
	if err := Misplaced(tree); err != nil {
		return nil, err
	}
	own, err := domainsOf(tree)
	if err == nil {
		err = c.h.admits(own, without(own, c.h.domains.List()))
	}
	if err != nil {
		return nil, err
	}
	changes := config.Diff(old.tree, tree)
	failed := c.settle(ctx, live(changes), to)
	c.applyLevel(tree)
	keys, keysErr := c.applyKeys(ctx, tree)
	c.h.want(to)
	c.h.serve(to)
	c.report(ctx)
	waits := map[string]bool{} // for a restart; what went back to what is in force does not
	for _, ch := range config.Diff(c.h.from, tree) {
		waits[ch.Path] = true
	}
	out := make([]ConfigChange, 0, len(changes))
	for _, ch := range changes {
		k := slotKey{ch.Server, ch.Component}
		err := failed[k]
		if strings.HasPrefix(ch.Path, encryptionPath) {
			err = keysErr
		}
		if s, wins := to.said[k]; wins && ch.Path == k.path()+".enabled" {
			ch.Effect, ch.By = config.Overridden, s.source()
		}
		if ch.Effect == config.Restart && !waits[ch.Path] {
			ch.Effect = config.Live
		}
		out = append(out, outcome(ch, err))
	}
	return append(out, keys...), nil
}

// live is the work of a reload: what needs a restart waits for it.
func live(changes []config.Change) work {
	out := work{}
	for _, ch := range changes {
		if ch.Component != "" && ch.Effect == config.Live {
			out[slotKey{ch.Server, ch.Component}] = true
		}
	}
	return out
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
