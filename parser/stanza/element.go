package stanza

import (
	"iter"
	"strconv"
	"strings"
)

// Name is an expanded XML name: a namespace (may be empty) and a local name.
type Name struct{ Space, Local string }

// Attr is an attribute. Space is empty for all but prefixed ones; xml:lang is {NSXML, "lang"}.
// Namespace declarations are not attributes.
type Attr struct {
	Name  Name
	Value string
}

// Node is one piece of an element's content; exactly one field is set.
type Node struct {
	Elem *Element
	Text string // character data, unescaped
	Raw  []byte // trusted, already serialised XML; prefixes it uses are declared in it
}

// Element is an XML element with its content in document order. The zero value is not usable: begin with El.
// An Element that is shared must not be changed.
type Element struct {
	Name  Name
	Attrs []Attr
	Nodes []Node
}

// El returns an empty element. Names are the program's own or came from ParseElement: they are written as they are.
func El(space, local string) *Element { return &Element{Name: Name{space, local}} }

// With sets an attribute and returns e. The name is un-namespaced, but for "xml:lang".
func (e *Element) With(local, value string) *Element {
	name := attrName(local)
	for i := range e.Attrs {
		if e.Attrs[i].Name == name {
			e.Attrs[i].Value = value
			return e
		}
	}
	e.Attrs = append(e.Attrs, Attr{name, value})
	return e
}

// WithOpt is With, and nothing when value is empty.
func (e *Element) WithOpt(local, value string) *Element {
	if value == "" {
		return e
	}
	return e.With(local, value)
}

// Add appends child elements, leaving out nil ones, and returns e.
func (e *Element) Add(children ...*Element) *Element {
	for _, c := range children {
		if c != nil {
			e.Nodes = append(e.Nodes, Node{Elem: c})
		}
	}
	return e
}

// AddText appends character data and returns e.
func (e *Element) AddText(s string) *Element {
	if s != "" {
		e.Nodes = append(e.Nodes, Node{Text: s})
	}
	return e
}

// AddRaw appends serialised XML that is copied into the output as it is, and returns e. It must be well-formed and
// either name its default namespace or mean to inherit e's. Child, Elements and Text do not look into it.
func (e *Element) AddRaw(b []byte) *Element {
	if len(b) > 0 {
		e.Nodes = append(e.Nodes, Node{Raw: b})
	}
	return e
}

// Get returns the value of an un-namespaced attribute, or "".
func (e *Element) Get(local string) string {
	v, _ := e.lookup(Name{Local: local})
	return v
}

// Has reports whether the un-namespaced attribute is there, even if empty.
func (e *Element) Has(local string) bool {
	_, ok := e.lookup(Name{Local: local})
	return ok
}

// Lang returns the element's own xml:lang, or "".
func (e *Element) Lang() string {
	v, _ := e.lookup(Name{NSXML, "lang"})
	return v
}

func (e *Element) lookup(n Name) (string, bool) {
	for i := range e.Attrs {
		if e.Attrs[i].Name == n {
			return e.Attrs[i].Value, true
		}
	}
	return "", false
}

// Child returns the first child element of that name, or nil.
func (e *Element) Child(space, local string) *Element {
	for _, n := range e.Nodes {
		if n.Elem != nil && n.Elem.Name.Local == local && n.Elem.Name.Space == space {
			return n.Elem
		}
	}
	return nil
}

// Elements yields the child elements in document order.
func (e *Element) Elements() iter.Seq[*Element] {
	return func(yield func(*Element) bool) {
		for _, n := range e.Nodes {
			if n.Elem != nil && !yield(n.Elem) {
				return
			}
		}
	}
}

// First returns the first child element, or nil.
func (e *Element) First() *Element {
	for c := range e.Elements() {
		return c
	}
	return nil
}

// Count returns the number of child elements.
func (e *Element) Count() int {
	n := 0
	for range e.Elements() {
		n++
	}
	return n
}

// Text returns the element's own character data, concatenated; not that of its children.
func (e *Element) Text() string {
	var one string
	count := 0
	for _, n := range e.Nodes {
		if n.Text != "" {
			one = n.Text
			count++
		}
	}
	if count < 2 {
		return one
	}
	var b strings.Builder
	for _, n := range e.Nodes {
		b.WriteString(n.Text)
	}
	return b.String()
}

// Bytes serialises e; parentNS is the default namespace in scope where it will stand.
func (e *Element) Bytes(parentNS string) []byte { return e.Append(nil, parentNS) }

// Append serialises e onto dst; parentNS is the default namespace in scope where it will stand.
//
// Elements are written unprefixed, with a declaration where the default namespace changes. The one exception are
// elements of the stream namespace, which deployed software knows by the prefix "stream" (RFC 6120 §4.8.5); the
// prefix is declared on the spot, so that the bytes are good inside a stream as well as in a WebSocket message.
// Characters XML has no place for come out as U+FFFD.
func (e *Element) Append(dst []byte, parentNS string) []byte {
	inner, prefix := e.Name.Space, ""
	if inner == NSStream && parentNS != NSStream {
		inner, prefix = parentNS, "stream:"
	}
	dst = append(dst, '<')
	dst = append(dst, prefix...)
	dst = append(dst, e.Name.Local...)
	switch {
	case prefix != "":
		dst = appendAttr(dst, "xmlns:stream", NSStream)
	case inner != parentNS:
		dst = appendAttr(dst, "xmlns", inner)
	}
	for i := range e.Attrs {
		dst = e.Attrs[i].append(dst, i)
	}
	if len(e.Nodes) == 0 {
		return append(dst, '/', '>')
	}
	dst = append(dst, '>')
	for i := range e.Nodes {
		switch n := &e.Nodes[i]; {
		case n.Elem != nil:
			dst = n.Elem.Append(dst, inner)
		case n.Raw != nil:
			dst = append(dst, n.Raw...)
		default:
			dst = AppendText(dst, n.Text)
		}
	}
	dst = append(dst, '<', '/')
	dst = append(dst, prefix...)
	dst = append(dst, e.Name.Local...)
	return append(dst, '>')
}

// append writes the attribute with a space before it. i makes the prefix of a namespaced one unique in its element.
func (a *Attr) append(dst []byte, i int) []byte {
	switch a.Name.Space {
	case "":
		return appendAttr(dst, a.Name.Local, a.Value)
	case NSXML:
		return appendAttr(dst, "xml:"+a.Name.Local, a.Value)
	}
	prefix := "n" + strconv.Itoa(i)
	dst = appendAttr(dst, "xmlns:"+prefix, a.Name.Space)
	return appendAttr(dst, prefix+":"+a.Name.Local, a.Value)
}

func attrName(local string) Name {
	if local == "xml:lang" {
		return Name{NSXML, "lang"}
	}
	return Name{Local: local}
}
