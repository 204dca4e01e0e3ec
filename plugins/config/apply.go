package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// apply puts what was read over a node and what is below it.
func (l *loader) apply(n *node, r *raw, ly layer) {
	switch {
	case r.shape == isRefused:
		n.wrong = true
	case n.spec.kind == kSection:
		l.applySection(n, r, ly)
	case n.spec.kind == kMap:
		l.applyMap(n, r, ly)
	default:
		l.applyLeaf(n, r, ly)
	}
}

func (l *loader) mismatch(n *node, r *raw, ly layer, want, hint string) {
	name := n.path()
	if name == "" {
		name = "the configuration"
	}
	l.report(ly, r.at, n, fmt.Sprintf("%s: expected %s, found %s", name, want, shapeNames[r.shape]), hint)
}

func (l *loader) applySection(n *node, r *raw, ly layer) {
	if r.shape == isNull { // every key in it is commented out
		return
	}
	if r.shape != isMapping {
		l.mismatch(n, r, ly, "a section of keys", "")
		return
	}
	for _, p := range r.pairs {
		k := n.kid(p.key)
		if k == nil {
			l.unknownKey(n, p, ly)
			continue
		}
		l.mark(k, p.at, ly)
		l.apply(k, p.value, ly)
	}
}

func (l *loader) mark(n *node, at pos, ly layer) {
	if ly.source.Kind == FromFile {
		n.at = at
	}
}

func (l *loader) unknownKey(n *node, p pair, ly layer) {
	in := "at the top level"
	if n.parent != nil {
		in = "in " + n.path()
	}
	l.report(ly, p.at, nil, fmt.Sprintf("unknown key %q %s", p.key, in), hint(n, p.key))
	// What follows the key is not shown: it may be a secret under a misspelt name.
	f := &l.found[len(l.found)-1]
	f.Path = joinPath(append(n.segments(), p.key))
	if runes := []rune(f.Excerpt); f.Column > 0 && f.Column <= len(runes) {
		head, tail := string(runes[:f.Column-1]), string(runes[f.Column-1:])
		if key, value, ok := strings.Cut(tail, ":"); ok && strings.TrimSpace(value) != "" {
			f.Excerpt = head + key + ": …"
		}
	}
}

func (l *loader) applyMap(n *node, r *raw, ly layer) {
	if r.shape == isNull {
		return
	}
	if r.shape != isMapping {
		l.mismatch(n, r, ly, "a mapping of names", "")
		return
	}
	for _, p := range r.pairs {
		if p.key == "" {
			l.report(ly, p.at, n, n.path()+": a name must not be empty", "")
			continue
		}
		k := l.entry(n, p.key)
		l.mark(k, p.at, ly)
		if n.spec.elem.kind == kSection && p.value.shape == isScalar && p.value.text == "false" {
			k.gone, k.goneBy = true, ly.at(p.at)
			continue
		}
		k.gone = false
		l.apply(k, p.value, ly)
	}
}

func (l *loader) applyLeaf(n *node, r *raw, ly layer) {
	if r.shape == isNull {
		hint := ""
		if n.spec.kind == kString {
			hint = `"" is the empty text`
		}
		l.report(ly, r.at, n, n.path()+" has no value", hint)
		return
	}
	if n.spec.kind == kList {
		l.applyList(n, r, ly)
		return
	}
	if r.shape != isScalar {
		l.mismatch(n, r, ly, n.spec.typeName(), "")
		return
	}
	v, err := n.spec.parse(r.text)
	l.set(n, v, err, r.at, ly)
}

func (l *loader) applyList(n *node, r *raw, ly layer) {
	if r.shape != isList {
		l.mismatch(n, r, ly, "a list", "write [a, b]")
		return
	}
	list := reflect.MakeSlice(n.spec.typ, 0, len(r.items))
	for _, item := range r.items {
		if item.shape == isRefused {
			n.wrong = true
			continue
		}
		if item.shape != isScalar {
			l.mismatch(n, item, ly, n.spec.elem.typeName()+" in the list", "")
			continue
		}
		v, err := n.spec.elem.parse(item.text)
		if err != nil {
			l.set(n, v, err, item.at, ly)
			continue
		}
		list = reflect.Append(list, v)
	}
	l.set(n, list, nil, r.at, ly)
}

// set gives a leaf its value, or reports why not.
func (l *loader) set(n *node, v reflect.Value, err error, at pos, ly layer) {
	if err == nil {
		err = n.spec.check(v)
	}
	if err != nil {
		l.report(ly, at, n, fmt.Sprintf("%s: %v", n.path(), err), n.spec.unitHint())
		return
	}
	if n.spec.secret {
		if f := n.parent.kid(n.name + "_file"); f != nil && f.value.src.Kind == ly.source.Kind && f.value.val.String() != "" {
			l.report(ly, at, n, fmt.Sprintf("both %s and %s are given", n.name, f.name), "keep one of them")
			return
		}
	}
	n.value = setting{val: v, src: ly.at(at)}
	if n.spec.fileFor != "" && v.String() != "" {
		l.secretFile(n, v.String(), at, ly)
	}
}

func (s *spec) unitHint() string {
	if s.unit == "" {
		return ""
	}
	return "in " + s.unit
}

// applyText puts a text that comes from outside the file over a node: a single
// value as it is, a list as YAML or with commas, everything else as YAML.
func (l *loader) applyText(n *node, text string, ly layer) {
	structured := !n.leaf() || (n.spec.kind == kList && strings.HasPrefix(strings.TrimSpace(text), "["))
	switch {
	case n.parent != nil && n.parent.spec.kind == kMap && n.spec.kind == kSection && strings.TrimSpace(text) == "false":
		n.gone, n.goneBy = true, ly.source
	case structured:
		ok := len(l.found)
		r := &reader{report: func(_ pos, message, hint string) { l.report(ly, pos{}, n, n.path()+": "+message, hint) }}
		if root := r.read([]byte(text)); root != nil && len(l.found) == ok {
			l.apply(n, root, ly)
		}
	case n.spec.kind == kList:
		r := &raw{shape: isList}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				r.items = append(r.items, &raw{shape: isScalar, text: item})
			}
		}
		l.apply(n, r, ly)
	default:
		l.apply(n, &raw{shape: isScalar, text: text}, ly)
	}
}

// reach finds the node of a path, and makes the entries of maps that it names
// and that are not there yet.
func (l *loader) reach(path string) (*node, error) {
	segments, err := splitPath(path)
	if err != nil {
		return nil, err
	}
	if err := l.known(segments); err != nil {
		return nil, err
	}
	at := l.root
	for _, s := range segments {
		if at.spec.kind == kMap {
			at = l.entry(at, s)
			at.gone = false
		} else {
			at = at.kid(s)
		}
	}
	return at, nil
}

// known looks a path up in the schema, before reach changes anything.
func (l *loader) known(segments []string) error {
	at, n := l.root.spec, l.root
	for i, s := range segments {
		switch {
		case at.kind == kMap && s != "":
			at = at.elem
		case at.kind == kSection && at.field(s) != nil:
			at = at.field(s)
		case n != nil:
			return unknown(n, s)
		default:
			return &unknownKey{path: joinPath(segments[:i+1])}
		}
		if n != nil {
			n = n.kid(s)
		}
	}
	return nil
}

// verify checks what can only be checked when all layers are applied: that no
// key is left at a default that is not allowed (it has to be given), the
// number of entries in maps, and what the Validate methods say. What is not
// enabled is left out. It reports whether everything below n is right.
func (l *loader) verify(n *node) bool {
	if n.gone {
		return true
	}
	if n.off() {
		return true
	}
	ok := !n.wrong
	for _, k := range n.kids {
		if n.spec.byDomain {
			k = k.under()
		}
		ok = l.verify(k) && ok
	}
	if !ok {
		return false
	}
	var err error
	switch {
	case n.spec.kind == kMap:
		err = n.spec.check(n.build())
	case n.leaf() && n.value.src.Kind == FromDefault:
		if err = n.spec.check(n.value.val); err != nil && n.value.val.IsZero() {
			err = errors.New("must be given")
		}
	case n.spec.kind == kSection && n.spec.typ != nil:
		v := reflect.New(n.spec.typ)
		v.Elem().Set(n.build())
		if check, is := v.Interface().(Validator); is {
			err = check.Validate()
		}
	}
	if err == nil {
		return true
	}
	for _, e := range split(err) {
		l.invalid(n, e)
	}
	return false
}

// invalid reports an error of verify: at the key it names, else at the section
// or the nearest one around it that the file has.
func (l *loader) invalid(n *node, err error) {
	at := n
	if key, ok := errors.AsType[*KeyError](err); ok {
		if segments, bad := splitPath(key.Key); bad == nil {
			if k, bad := n.find(segments); bad == nil {
				at, err = k, key.Err
			}
		}
	}
	name := at.path()
	ly, place := l.fileLayer(), at
	if at.leaf() && at.value.src.Kind > FromFile {
		ly = layer{source: at.value.src, origin: at.value.src.origin()}
	}
	for place.at == (pos{}) && place.parent != nil {
		place = place.parent
	}
	message := err.Error()
	if name != "" {
		message = name + ": " + message
	}
	l.report(ly, place.at, at, message, "")
}
