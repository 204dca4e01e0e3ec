package plugins

import (
	"maps"
	"slices"
	"strings"
	"time"

	"parley/plugins/config"
)

// slotKey names a component's place on every node.
type slotKey struct{ server, component string }

func (k slotKey) path() string { return config.ComponentPath(k.server, k.component) }

// said is what was said at run time of a component's life. It wins over the
// key enabled.
type said struct {
	phase   Phase // Running, Installed or Absent
	version int64
	by      string
	at      time.Time
}

func (s said) source() config.Source {
	return config.Source{Kind: config.FromOverlay, Version: s.version, By: s.by, At: s.at}
}

// wanted is what the nodes have to do, in one version: their configuration, and
// which components are at work. It does not change.
type wanted struct {
	tree *config.Tree // its overlay has the version
	said map[slotKey]said
}

// phase is where a component is to be in its life.
func (w wanted) phase(k slotKey) Phase {
	if s, ok := w.said[k]; ok {
		return s.phase
	}
	return w.configured(k)
}

func (w wanted) configured(k slotKey) Phase {
	if w.tree.Enabled(k.server, k.component) {
		return Running
	}
	return Absent
}

// under is the same under another configuration.
func (w wanted) under(tree *config.Tree) wanted { return wanted{tree, w.said} }

// say is the next version, in which a component is to be in a phase. What the
// configuration says anyway leaves nothing behind.
func (w wanted) say(k slotKey, p Phase, by string, at time.Time) wanted {
	if w.phase(k) == p {
		return w
	}
	n := w.unsaid(k)
	n.tree = w.tree.At(w.tree.Version() + 1)
	if p != n.configured(k) {
		n.said[k] = said{p, n.tree.Version(), by, at}
	}
	return n
}

// unsaid is the same without what was said of components.
func (w wanted) unsaid(keys ...slotKey) wanted {
	all := map[slotKey]said{}
	maps.Copy(all, w.said)
	for _, k := range keys {
		delete(all, k)
	}
	return wanted{w.tree, all}
}

// saidBelow are the components at and below a path of which something was said.
func (w wanted) saidBelow(path string) []slotKey {
	var out []slotKey
	for k := range w.said {
		if config.Below(k.path(), path) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b slotKey) int { return strings.Compare(a.path(), b.path()) })
	return out
}

// work is what has to be done to components; true: they have another
// configuration.
type work map[slotKey]bool

// todo is what leads from one version to the other.
func todo(from, to wanted) work {
	out := work{}
	for _, m := range []map[slotKey]said{from.said, to.said} {
		for k := range m {
			if from.phase(k) != to.phase(k) {
				out[k] = false
			}
		}
	}
	for _, ch := range config.Diff(from.tree, to.tree) {
		if ch.Component != "" && ch.Effect != config.Overridden {
			out[slotKey{ch.Server, ch.Component}] = true
		}
	}
	return out
}

// ConfigEvent is one change of what was set at run time.
type ConfigEvent struct {
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Node    string    `json:"node"`          // where it was made
	Own     bool      `json:"own,omitempty"` // it counts on that node alone
	Path    string    `json:"path"`          // a key, or a component's section: then values are phases
	Old     string    `json:"old"`           // what counted on that node before
	New     string    `json:"new"`           // "": taken back, so that the file counts
}

// events lists what is different in a version that follows another.
func events(from, to wanted) []ConfigEvent {
	was := map[string]string{}
	for _, e := range from.tree.Show() {
		was[e.Path] = e.Value
	}
	before, after := from.tree.Overlay().Settings, to.tree.Overlay().Settings
	var out []ConfigEvent
	for _, s := range after {
		if !slices.Contains(before, s) {
			out = append(out, ConfigEvent{Version: s.Version, Path: s.Path, Old: was[s.Path], New: s.Value})
		}
	}
	for _, s := range before {
		if !slices.ContainsFunc(after, func(a config.Setting) bool { return a.Path == s.Path }) {
			out = append(out, ConfigEvent{Version: to.tree.Version(), Path: s.Path, Old: s.Value})
		}
	}
	for k, s := range to.said {
		if from.said[k] != s {
			out = append(out, ConfigEvent{Version: s.version, Path: k.path(), Old: string(from.phase(k)), New: string(s.phase)})
		}
	}
	for k, s := range from.said {
		if _, still := to.said[k]; !still {
			out = append(out, ConfigEvent{Version: to.tree.Version(), Path: k.path(), Old: string(s.phase)})
		}
	}
	slices.SortFunc(out, func(a, b ConfigEvent) int { return strings.Compare(a.Path, b.Path) })
	return out
}
