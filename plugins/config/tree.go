package config

import (
	"fmt"
	"reflect"
	"time"
)

// SourceKind is a layer of the configuration; a later one wins.
type SourceKind uint8

// The layers, in the order in which they win.
const (
	FromDefault SourceKind = iota
	FromFile
	FromEnv
	FromFlag
	FromOverlay
)

// Source is where a value is from.
type Source struct {
	Kind    SourceKind
	Name    string    // of the file, the variable or the flag
	Line    int       // in the file
	Version int64     // of the overlay, with By and At
	By      string    // who set it
	At      time.Time // when
	Secret  string    // the file that holds the secret, when a "_file" key named one
}

// String is "default", "parley.yaml:7", "environment PARLEY_DATA",
// "flag --data" or "overlay v3 (admin, 2026-01-31T12:00:00Z)".
func (s Source) String() string {
	text := "default"
	switch s.Kind {
	case FromFile:
		text = fmt.Sprintf("%s:%d", s.Name, s.Line)
	case FromEnv, FromFlag, FromOverlay:
		text = s.origin()
	}
	if s.Secret != "" {
		text += ", content of " + s.Secret
	}
	return text
}

func (s Source) origin() string {
	switch s.Kind {
	case FromEnv:
		return "environment " + s.Name
	case FromFlag:
		return "flag --" + s.Name
	case FromOverlay:
		return fmt.Sprintf("overlay v%d (%s, %s)", s.Version, s.By, s.At.UTC().Format(time.RFC3339))
	}
	return s.Name
}

// Tree is a complete, valid configuration. It does not change.
type Tree struct {
	loader  *loader // for the next overlay: schema, name and lines of the file
	base    *node   // everything but the overlay
	root    *node   // everything
	overlay Overlay
	ignored []Finding
}

// ServerPath is the path of a server's section.
func ServerPath(server string) string { return joinPath([]string{"servers", server}) }

// ComponentPath is the path of a component's section.
func ComponentPath(server, component string) string {
	return joinPath([]string{"servers", server, "components", component})
}

// Decode copies what is at path, "" for the top level, into what into points
// to: it must be of the type that the schema has there. Nothing of it is
// shared with the tree, but for fields without a key ("-").
func (t *Tree) Decode(path string, into any) error {
	n, err := t.at(path)
	if err != nil {
		return err
	}
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("configuration %s: decode into a pointer, not %T", path, into)
	}
	want := v.Elem().Type()
	if n.spec.typ == nil { // a component without a struct has no keys of its own
		if want.Kind() == reflect.Struct && want.NumField() == 0 && n.kid("enabled") != nil {
			return nil
		}
		return fmt.Errorf("configuration %s: no struct is registered, cannot decode into %s", path, want)
	}
	if want != n.spec.typ {
		return fmt.Errorf("configuration %s: is a %s, not a %s", path, n.spec.typ, want)
	}
	v.Elem().Set(n.build())
	return nil
}

// Get is Decode for who knows the type.
func Get[T any](t *Tree, path string) (T, error) {
	var v T
	err := t.Decode(path, &v)
	return v, err
}

// Section is one place of a tree, handed to who may see only that.
type Section struct {
	tree *Tree
	path string
}

// Section returns the section at path; Decode says whether there is one.
func (t *Tree) Section(path string) Section { return Section{tree: t, path: path} }

// Decode is Tree.Decode.
func (s Section) Decode(into any) error {
	if s.tree == nil {
		return fmt.Errorf("configuration: no section")
	}
	return s.tree.Decode(s.path, into)
}

// Path is where the section is.
func (s Section) Path() string { return s.path }

// Enabled reports whether a component runs: its own key `enabled`, whatever
// that of its server is. False when the schema does not have it.
func (t *Tree) Enabled(server, component string) bool { return t.on(ComponentPath(server, component)) }

// ServerEnabled reports whether a server runs.
func (t *Tree) ServerEnabled(server string) bool { return t.on(ServerPath(server)) }

func (t *Tree) on(path string) bool {
	n, err := t.at(joinTo(path, "enabled"))
	return err == nil && n.spec.reserved && n.value.val.Bool()
}

func joinTo(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (t *Tree) at(path string) (*node, error) {
	segments, err := splitPath(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	n, err := t.root.find(segments)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return n, nil
}

// Entry is one key with its value.
type Entry struct {
	Path   string
	Value  string // as text; "***" for a secret, "false" for a removed entry of a map
	Source Source
	Live   bool // a reload applies it; else it needs a restart
}

// Show lists every key, in the order of the structs.
func (t *Tree) Show() []Entry {
	var all []Entry
	var walk func(n *node)
	walk = func(n *node) {
		switch {
		case n.gone:
			all = append(all, Entry{Path: n.path(), Value: "false", Source: n.goneBy, Live: n.spec.live})
		case !n.leaf():
			for _, k := range n.kids {
				walk(k)
			}
		case n.silent():
		case n.spec.fileFor == "" || n.value.src.Kind != FromDefault:
			all = append(all, Entry{Path: n.path(), Value: n.spec.shown(n.value.val), Source: n.value.src, Live: n.spec.live})
		}
	}
	walk(t.root)
	return all
}
