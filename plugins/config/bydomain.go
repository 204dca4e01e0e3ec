package config

import (
	"fmt"
	"reflect"
)

// ByDomain is what a section says otherwise for some of the domains that are served.
// The section has every key of T itself, but for `enabled`, which a component has
// anyway; what an entry does not set is as in the section. So T is best a struct that
// the section embeds:
//
//	type Rules struct {
//		Open bool `yaml:"open" doc:"…"`
//	}
//	type Config struct {
//		Rules
//		Domains config.ByDomain[Rules] `yaml:"domains" doc:"Domains that are different."`
//	}
//
// It is a key of a component's or server's own section, and named by domains as
// addresses have them; Tree.Misplaced finds others.
type ByDomain[T any] map[string]T

// Of is what counts at a domain: its entry, or else what counts everywhere.
func (d ByDomain[T]) Of(domain string, everywhere T) T {
	if own, ok := d[domain]; ok {
		return own
	}
	return everywhere
}

func (ByDomain[T]) byDomain() {}

var isByDomain = reflect.TypeFor[interface{ byDomain() }]()

// fits checks that every key of a ByDomain in the section is one of the section, too.
func (s *Schema) fits(sec *spec, at string) {
	for _, f := range sec.fields {
		if !f.byDomain {
			f.each(func(in *spec) {
				if in.byDomain {
					s.wrong("%s: %s belongs to the section itself", at, in.name)
				}
			})
			continue
		}
		for _, own := range f.elem.fields {
			if k := sec.field(own.name); k == nil || k.typ != own.typ || k.kind == kMap {
				s.wrong("%s.%s: the section has no such key as %s", at, f.name, own.name)
			}
		}
	}
}

// inherited are the defaults of a new entry: those of the section.
func (s *Schema) inherited(m *node) reflect.Value {
	v := reflect.New(m.spec.elem.typ).Elem()
	sec := m.parent
	for _, f := range m.spec.elem.fields {
		k := sec.spec.field(f.name)
		switch {
		case f.index == nil || k == nil: // a file with a secret
		case k.index != nil:
			v.FieldByIndex(f.index).Set(sec.def.FieldByIndex(k.index))
		default: // enabled: who reads the section runs
			v.FieldByIndex(f.index).SetBool(true)
		}
	}
	return v
}

// under is an entry of a ByDomain with what it does not set as the section has it.
func (n *node) under() *node {
	c := n.cloneUnder(n.parent)
	c.inherit(n.parent.parent)
	return c
}

func (n *node) inherit(from *node) {
	for _, k := range n.kids {
		switch of := from.kid(k.name); {
		case of == nil || of.spec.reserved:
		case !k.leaf():
			k.inherit(of)
		case k.value.src.Kind == FromDefault:
			k.value, k.base = of.value, of.base
		}
	}
}

// silent reports whether a leaf is one of a ByDomain that says nothing: its value is
// the section's.
func (n *node) silent() bool {
	if n.value.src.Kind != FromDefault {
		return false
	}
	for at := n.parent; at != nil; at = at.parent {
		if at.spec.byDomain {
			return true
		}
	}
	return false
}

// Misplaced returns Findings about the entries of every ByDomain, of what is enabled,
// for which known returns an error.
func (t *Tree) Misplaced(known func(domain string) error) error {
	l := t.loader.again()
	l.misplaced(t.root, known)
	return l.findings()
}

func (l *loader) misplaced(n *node, known func(domain string) error) {
	if n.gone || n.off() {
		return
	}
	for _, k := range n.kids {
		if !n.spec.byDomain {
			l.misplaced(k, known)
			continue
		}
		if err := known(k.name); err != nil && !k.gone {
			ly := l.fileLayer()
			k.eachLeaf(func(leaf *node) { // of the layer that made the entry
				if src := leaf.value.src; k.at == (pos{}) && src.Kind > FromFile {
					ly = layer{source: src, origin: src.origin()}
				}
			})
			l.report(ly, k.at, nil, fmt.Sprintf("%s: %v", k.path(), err), "")
			l.found[len(l.found)-1].Path = k.path()
		}
	}
}

// off reports whether a component or server is not enabled.
func (n *node) off() bool {
	on := n.kid("enabled")
	return on != nil && on.spec.reserved && !on.value.val.Bool()
}
