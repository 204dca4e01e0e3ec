package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Overlay is what was set at run time. The host keeps it in the database and
// hands it to Load, or to WithOverlay when the database could only be opened
// with what Load found.
type Overlay struct {
	Version  int64 // grows with every Set and Unset, never back
	Settings []Setting
}

// Setting is one key of the overlay.
type Setting struct {
	Path    string
	Value   string // a single value as text, a list as YAML ("[a, b]"), "false" for a removed entry of a map
	Version int64  // of the overlay that brought it
	By      string // who set it
	At      time.Time
}

func (o Overlay) clone() Overlay {
	return Overlay{Version: o.Version, Settings: slices.Clone(o.Settings)}
}

// without returns the overlay without the settings at and below path.
func (o Overlay) without(path string) Overlay {
	out := Overlay{Version: o.Version}
	for _, s := range o.Settings {
		if !Below(s.Path, path) {
			out.Settings = append(out.Settings, s)
		}
	}
	return out
}

// Below reports whether a path is the other one, or inside it; everything is
// below "".
func Below(path, other string) bool {
	return other == "" || path == other || strings.HasPrefix(path, other+".")
}

// ErrNotSet is what Unset wraps when the overlay has nothing there.
var ErrNotSet = errors.New("nothing is set at run time")

// Overlay returns the overlay the tree was made with.
func (t *Tree) Overlay() Overlay { return t.overlay.clone() }

// Version is that of the overlay.
func (t *Tree) Version() int64 { return t.overlay.Version }

// At is the same configuration with another version of the overlay: for who
// keeps more under that version than keys.
func (t *Tree) At(version int64) *Tree {
	c := *t
	c.overlay = t.overlay.clone()
	c.overlay.Version = version
	return &c
}

// Own reports whether a key that is set at run time is so on that node alone:
// addresses, and files on that machine (the tag overlay:"node").
func (t *Tree) Own(path string) bool {
	n, err := t.at(path)
	return err == nil && n.spec.own
}

// Ignored is what of the overlay has no place any more: keys of a component
// that this binary does not have, or that were renamed. It is no error, for
// the overlay can only be changed by a server that starts.
func (t *Tree) Ignored() []Finding { return slices.Clone(t.ignored) }

// WithOverlay returns the same configuration under another overlay.
func (t *Tree) WithOverlay(o Overlay) (*Tree, error) {
	l := t.loader.again()
	l.root, l.in.Overlay = t.base.clone(), o
	ignored := l.overlay()
	l.verify(l.root)
	if err := l.findings(); err != nil {
		return nil, err
	}
	return &Tree{loader: l.again(), base: t.base, root: l.root, overlay: o.clone(), ignored: ignored}, nil
}

// Set returns the configuration with one key, or everything in a section given
// as YAML ("{max_items: 10}"), set by the overlay, and the settings that are
// new in it. The whole configuration is checked as Load checks it; the
// receiver stays as it is. Compare the two with Diff.
func (t *Tree) Set(path, value, by string, at time.Time) (*Tree, []Setting, error) {
	l := t.loader.again()
	l.root = t.root.clone()
	stamp := Setting{Version: t.overlay.Version + 1, By: by, At: at}
	n, err := l.reach(path)
	if err != nil {
		return nil, nil, err
	}
	l.applyText(n, value, stamp.layer())
	if len(l.found) > 0 {
		return nil, nil, l.found
	}
	added, err := l.stamped(stamp)
	if err != nil {
		return nil, nil, err
	}
	next := t.overlay.clone()
	for _, s := range added {
		next = next.without(s.Path)
	}
	next.Version = stamp.Version
	next.Settings = append(next.Settings, added...)
	tree, err := t.WithOverlay(next)
	if err != nil {
		return nil, nil, err
	}
	return tree, added, nil
}

// Unset returns the configuration without what the overlay has at and below
// path, "" for all of it, and the paths that are gone from the overlay.
func (t *Tree) Unset(path string) (*Tree, []string, error) {
	segments, err := splitPath(path)
	if err != nil {
		return nil, nil, err
	}
	next := Overlay{}
	if len(segments) > 0 {
		next = t.overlay.without(joinPath(segments))
	}
	next.Version = t.overlay.Version + 1
	var gone []string
	for _, s := range t.overlay.Settings {
		if !slices.Contains(next.Settings, s) {
			gone = append(gone, s.Path)
		}
	}
	if len(gone) == 0 {
		return nil, nil, fmt.Errorf("%w at %q", ErrNotSet, path)
	}
	tree, err := t.WithOverlay(next)
	if err != nil {
		return nil, nil, err
	}
	return tree, gone, nil
}

func (s Setting) layer() layer {
	src := Source{Kind: FromOverlay, Version: s.Version, By: s.By, At: s.At}
	return layer{source: src, origin: src.origin()}
}

// stamped collects what the setting with this stamp has changed.
func (l *loader) stamped(stamp Setting) ([]Setting, error) {
	src := stamp.layer().source
	var all []Setting
	var errs []error
	var walk func(n *node)
	walk = func(n *node) {
		s := stamp
		switch {
		case n.gone:
			if n.goneBy != src {
				return
			}
			s.Value = "false"
		case !n.leaf():
			for _, k := range n.kids {
				walk(k)
			}
			return
		case n.value.src != src:
			return
		default:
			s.Value = n.spec.plain(n.value.val)
		}
		s.Path = n.path()
		if err := n.overlayable(); err != nil {
			errs = append(errs, err)
		}
		all = append(all, s)
	}
	walk(l.root)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("this sets no key")
	}
	return all, nil
}

// overlayable says why a key cannot be set at run time. Secrets come by file
// or environment, and are not copied into the database.
func (n *node) overlayable() error {
	switch {
	case n.spec.secret:
		return fmt.Errorf("%s is a secret and cannot be set at run time (%s)", n.path(), secretHint(n))
	case n.spec.noOverlay:
		return fmt.Errorf("%s cannot be set at run time", n.path())
	}
	return nil
}

// overlay applies the overlay; it returns what has no place in the schema.
func (l *loader) overlay() (ignored []Finding) {
	settings := slices.Clone(l.in.Overlay.Settings)
	slices.SortStableFunc(settings, func(a, b Setting) int { return cmp.Compare(a.Version, b.Version) })
	for _, s := range settings {
		ly := s.layer()
		n, err := l.reach(s.Path)
		if err != nil {
			ignored = append(ignored, Finding{Origin: ly.origin, Path: s.Path, Message: err.Error()})
			continue
		}
		if err := n.overlayable(); err != nil {
			l.report(ly, pos{}, n, err.Error(), "")
			continue
		}
		l.applyText(n, s.Value, ly)
	}
	return ignored
}
