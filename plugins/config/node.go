package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// node is one key of a tree: a section or map with what is in it, or a leaf
// (a single value or a list) with its value and where that is from.
type node struct {
	spec   *spec
	name   string
	parent *node
	def    reflect.Value // of a section that is a struct: the defaults
	kids   []*node
	at     pos     // of the key in the file
	base   setting // of a leaf: default or file, before the other layers
	value  setting // of a leaf: what counts
	gone   bool    // an entry of a map that was removed with `false`
	goneBy Source
	wrong  bool // a finding is about it
}

type setting struct {
	val reflect.Value
	src Source
}

func (n *node) leaf() bool { return n.spec.kind != kSection && n.spec.kind != kMap }

func (n *node) kid(name string) *node {
	for _, k := range n.kids {
		if k.name == name {
			return k
		}
	}
	return nil
}

func (n *node) names() []string {
	var all []string
	for _, k := range n.kids {
		all = append(all, k.name)
	}
	return all
}

func (n *node) segments() []string {
	if n.parent == nil {
		return nil
	}
	return append(n.parent.segments(), n.name)
}

func (n *node) path() string { return joinPath(n.segments()) }

// each visits n and everything below that is not removed.
func (n *node) each(f func(*node)) {
	if n.gone {
		return
	}
	f(n)
	for _, k := range n.kids {
		k.each(f)
	}
}

func (n *node) eachLeaf(f func(*node)) {
	n.each(func(n *node) {
		if n.leaf() {
			f(n)
		}
	})
}

func (n *node) clone() *node { return n.cloneUnder(nil) }

func (n *node) cloneUnder(parent *node) *node {
	c := *n
	c.parent, c.kids = parent, make([]*node, len(n.kids))
	for i, k := range n.kids {
		c.kids[i] = k.cloneUnder(&c)
	}
	return &c
}

// instantiate makes the tree of the defaults.
func (s *Schema) instantiate() *node { return s.grow(&s.root, "", nil, reflect.Value{}) }

func (s *Schema) grow(sp *spec, name string, parent *node, def reflect.Value) *node {
	if own, ok := s.def[sp]; ok {
		def = own
	}
	n := &node{spec: sp, name: name, parent: parent, def: def}
	switch sp.kind {
	case kSection:
		for _, f := range sp.fields {
			var d reflect.Value
			if f.index != nil {
				d = def.FieldByIndex(f.index)
			}
			n.kids = append(n.kids, s.grow(f, f.name, n, d))
		}
	case kMap:
		keys := make([]string, 0, def.Len())
		for _, k := range def.MapKeys() {
			keys = append(keys, k.String())
		}
		slices.Sort(keys)
		for _, k := range keys {
			d := def.MapIndex(reflect.ValueOf(k).Convert(sp.typ.Key()))
			n.kids = append(n.kids, s.grow(sp.elem, k, n, d))
		}
	default:
		if !def.IsValid() {
			def = reflect.Zero(sp.typ)
		}
		n.value = setting{val: def}
		n.base = n.value
	}
	return n
}

// entry returns the entry of a map, a new one when there is none.
func (l *loader) entry(m *node, name string) *node {
	if k := m.kid(name); k != nil {
		return k
	}
	def := reflect.New(m.spec.elem.typ)
	if d, ok := def.Interface().(Defaulter); ok {
		d.SetDefaults()
	}
	if m.spec.byDomain {
		def.Elem().Set(l.schema.inherited(m))
	}
	k := l.schema.grow(m.spec.elem, name, m, def.Elem())
	m.kids = append(m.kids, k)
	return k
}

// build makes the Go value of a node. It shares nothing with the tree.
func (n *node) build() reflect.Value {
	switch n.spec.kind {
	case kSection:
		v := reflect.New(n.spec.typ).Elem()
		v.Set(n.def)
		for _, k := range n.kids {
			if k.spec.index != nil {
				v.FieldByIndex(k.spec.index).Set(k.build())
			}
		}
		return v
	case kMap:
		v := reflect.MakeMap(n.spec.typ)
		for _, k := range n.kids {
			if n.spec.byDomain {
				k = k.under()
			}
			if !k.gone {
				v.SetMapIndex(reflect.ValueOf(k.name).Convert(n.spec.typ.Key()), k.build())
			}
		}
		return v
	case kList:
		if n.value.val.IsNil() {
			return n.value.val
		}
		v := reflect.MakeSlice(n.spec.typ, n.value.val.Len(), n.value.val.Len())
		reflect.Copy(v, n.value.val)
		return v
	}
	return n.value.val
}

// find returns the node of a path below n.
func (n *node) find(segments []string) (*node, error) {
	at := n
	for _, s := range segments {
		k := at.kid(s)
		if k == nil || k.gone {
			return nil, unknown(at, s)
		}
		at = k
	}
	return at, nil
}

// unknownKey is the error of a path that leads nowhere.
type unknownKey struct{ path, hint string }

func (e *unknownKey) Error() string {
	if e.hint == "" {
		return fmt.Sprintf("there is no key %s", e.path)
	}
	return fmt.Sprintf("there is no key %s; %s", e.path, e.hint)
}

func unknown(at *node, name string) error {
	return &unknownKey{path: joinPath(append(at.segments(), name)), hint: hint(at, name)}
}

// hint suggests what may have been meant by an unknown key of a section: a key
// with nearly that name, else the one place elsewhere that has this very name.
func hint(at *node, name string) string {
	if near := nearest(name, at.names()); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	root := at
	for root.parent != nil {
		root = root.parent
	}
	var elsewhere []string
	root.each(func(n *node) {
		if n.name == name && n.parent != at && !n.spec.reserved {
			elsewhere = append(elsewhere, n.path())
		}
	})
	if len(elsewhere) == 1 {
		return fmt.Sprintf("did you mean %s?", elsewhere[0])
	}
	return ""
}

// joinPath writes a path: keys joined by dots, a key with other characters
// than a name has in quotes.
func joinPath(segments []string) string {
	var b strings.Builder
	for i, s := range segments {
		if i > 0 {
			b.WriteByte('.')
		}
		if s == "" || strings.ContainsAny(s, ".\"") {
			s = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
		}
		b.WriteString(s)
	}
	return b.String()
}

// splitPath reads what joinPath writes.
func splitPath(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	var all []string
	for rest := path; ; {
		var s strings.Builder
		quoted := strings.HasPrefix(rest, `"`)
		for quoted {
			inner, after, ok := strings.Cut(rest[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("a quote is open in the path %s", path)
			}
			s.WriteString(inner)
			rest = after
			if quoted = strings.HasPrefix(rest, `"`); quoted {
				s.WriteByte('"')
			}
		}
		end := strings.IndexByte(rest, '.')
		if end < 0 {
			s.WriteString(rest)
			return append(all, s.String()), nil
		}
		s.WriteString(rest[:end])
		all, rest = append(all, s.String()), rest[end+1:]
	}
}
