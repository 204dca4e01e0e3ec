package script

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

// Namespaces the engine itself speaks.
const (
	nsClient   = "jabber:client"
	nsStream   = "http://etherx.jabber.org/streams"
	nsXML      = "http://www.w3.org/XML/1998/namespace"
	nsTLS      = "urn:ietf:params:xml:ns:xmpp-tls"
	nsSASL     = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsSASL2    = "urn:xmpp:sasl:2"
	nsBind     = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSession  = "urn:ietf:params:xml:ns:xmpp-session"
	nsFraming  = "urn:ietf:params:xml:ns:xmpp-framing"
	nsSM       = "urn:xmpp:sm:3"
	nsPing     = "urn:xmpp:ping"
	nsRoster   = "jabber:iq:roster"
	nsRegister = "jabber:iq:register"
	nsItems    = "http://jabber.org/protocol/disco#items"
	nsInfo     = "http://jabber.org/protocol/disco#info"
)

// name is an expanded XML name.
type name struct{ space, local string }

func (n name) String() string {
	if n.space == "" || n.space == nsClient {
		return n.local
	}
	return "{" + n.space + "}" + n.local
}

type attr struct {
	name  name
	value string
}

// node is an element, as received or as a pattern. Namespaces are resolved; declarations are not kept.
type node struct {
	name   name
	attrs  []attr
	kids   []*node
	text   string // own character data, concatenated
	not    bool   // pattern only: <not:x/>, no such child may be there
	prefix string // as written, to see what RFC 6120 §4.8.5 forbids
}

func (n *node) get(local string) string {
	v, _ := n.attr(name{"", local})
	return v
}

func (n *node) attr(want name) (string, bool) {
	for _, a := range n.attrs {
		if a.name == want {
			return a.value, true
		}
	}
	return "", false
}

func (n *node) is(space, local string) bool { return n != nil && n.name == name{space, local} }

func (n *node) child(space, local string) *node {
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		if k.is(space, local) {
			return k
		}
	}
	return nil
}

// isStanza tells what XEP-0198 §4 counts.
func (n *node) isStanza() bool {
	if n.name.space != nsClient {
		return false
	}
	switch n.name.local {
	case "message", "presence", "iq":
		return true
	}
	return false
}

// String writes the element so that equal trees give equal text: namespace declared where it changes, attributes sorted.
func (n *node) String() string {
	var b strings.Builder
	n.write(&b, nsClient)
	return b.String()
}

var textEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
var attrEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", "\n", "&#10;", "\t", "&#9;")

func (n *node) write(b *strings.Builder, outer string) {
	tag, scope := n.name.local, n.name.space
	switch {
	case n.name.space == nsStream:
		tag, scope = "stream:"+tag, outer
	case n.not:
		tag = "not:" + tag
	}
	b.WriteString("<" + tag)
	if scope != outer {
		b.WriteString(" xmlns='" + attrEscaper.Replace(scope) + "'")
	}
	attrs := append([]attr(nil), n.attrs...)
	sort.Slice(attrs, func(i, j int) bool { return attrs[i].name.String() < attrs[j].name.String() })
	for _, a := range attrs {
		key := a.name.local
		switch a.name.space {
		case "":
		case nsXML:
			key = "xml:" + key
		default:
			key = a.name.String()
		}
		b.WriteString(" " + key + "='" + attrEscaper.Replace(a.value) + "'")
	}
	if n.text == "" && len(n.kids) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteString(">" + textEscaper.Replace(n.text))
	for _, k := range n.kids {
		k.write(b, scope)
	}
	b.WriteString("</" + tag + ">")
}

// itemKind is what the stream decoder yields.
type itemKind uint8

const (
	itemElement itemKind = iota
	itemOpen             // stream header; node has its attributes
	itemClose            // </stream:stream>
	itemEnd              // the connection ended; err says how (nil: cleanly)
	itemBad              // the server broke a rule of XML or of streams; err says which
)

// item is one thing received.
type item struct {
	kind itemKind
	node *node
	err  error
}

func (it item) String() string {
	switch it.kind {
	case itemClose:
		return "</stream:stream>"
	case itemEnd:
		if it.err != nil {
			return "(end of connection: " + it.err.Error() + ")"
		}
		return "(end of connection)"
	case itemBad:
		return "(bad XML from the server: " + it.err.Error() + ")"
	case itemOpen:
		return strings.TrimSuffix(it.node.String(), "/>") + ">"
	}
	return it.node.String()
}

// decoder reads a stream (or, framed, a sequence of elements) on raw tokens: namespaces are resolved here, because
// encoding/xml lets undeclared prefixes and duplicate attributes pass.
type decoder struct {
	x       *xml.Decoder
	scopes  []map[string]string // prefix → namespace, innermost last
	framed  bool                // no root element (RFC 7395; patterns)
	pattern bool                // prefixes stream: and not: are predeclared
	inRoot  bool
	decl    bool // an XML declaration was just read: only a stream header may follow
}

func newDecoder(r io.Reader, framed bool) *decoder {
	return &decoder{x: xml.NewDecoder(r), framed: framed, scopes: []map[string]string{{"xml": nsXML}}}
}

var errBadXML = errors.New("not allowed in a stream")

// next returns the next thing on the stream; an io error is returned as it is, a broken rule wraps errBadXML.
func (d *decoder) next() (item, error) {
	for {
		tok, err := d.token()
		if err != nil {
			return item{}, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if !d.framed && t.Name.Local == "stream" && t.Name.Space != "" {
				return d.open(t)
			}
			if !d.framed && !d.inRoot {
				return item{}, fmt.Errorf("%w: <%s> before the stream header", errBadXML, t.Name.Local)
			}
			if d.decl && !d.framed {
				return item{}, fmt.Errorf("%w: XML declaration inside a stream", errBadXML)
			}
			n, err := d.element(t)
			return item{node: n}, err
		case xml.EndElement:
			if d.framed || !d.inRoot {
				return item{}, fmt.Errorf("%w: stray end tag %s", errBadXML, t.Name.Local)
			}
			d.inRoot = false
			return item{kind: itemClose}, nil
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return item{}, fmt.Errorf("%w: text %q between elements", errBadXML, string(t))
			}
		case xml.ProcInst:
			if t.Target != "xml" {
				return item{}, fmt.Errorf("%w: processing instruction (RFC 6120 §11.1)", errBadXML)
			}
			d.decl = true
		default:
			return item{}, fmt.Errorf("%w: comment or DTD (RFC 6120 §11.1)", errBadXML)
		}
	}
}

// token tells a broken rule from a broken connection.
func (d *decoder) token() (xml.Token, error) {
	tok, err := d.x.RawToken()
	var syn *xml.SyntaxError
	if errors.As(err, &syn) {
		if strings.Contains(syn.Msg, "unexpected EOF") {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%w: %w", errBadXML, err)
	}
	return tok, err
}

// open reads a stream header. A new header inside an open stream is a restart (RFC 6120 §4.3.3): scopes start afresh.
func (d *decoder) open(t xml.StartElement) (item, error) {
	d.scopes = d.scopes[:1]
	n, err := d.start(t)
	d.inRoot, d.decl = true, false
	return item{kind: itemOpen, node: n}, err
}

// start resolves one start tag and pushes its scope.
func (d *decoder) start(t xml.StartElement) (*node, error) {
	scope := map[string]string{}
	for _, a := range t.Attr {
		switch {
		case a.Name.Space == "xmlns":
			scope[a.Name.Local] = a.Value
		case a.Name.Space == "" && a.Name.Local == "xmlns":
			scope[""] = a.Value
		}
	}
	d.scopes = append(d.scopes, scope)
	n := &node{prefix: t.Name.Space}
	space, err := d.resolve(t.Name.Space)
	if err != nil {
		return nil, err
	}
	if d.pattern && t.Name.Space == "not" {
		n.not = true
		space, _ = d.resolve("")
	}
	n.name = name{space, t.Name.Local}
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		an := name{"", a.Name.Local}
		if a.Name.Space != "" { // an attribute without a prefix has no namespace
			if an.space, err = d.resolve(a.Name.Space); err != nil {
				return nil, err
			}
		}
		if _, dup := n.attr(an); dup {
			return nil, fmt.Errorf("%w: attribute %s twice on <%s>", errBadXML, an, t.Name.Local)
		}
		n.attrs = append(n.attrs, attr{an, a.Value})
	}
	return n, nil
}

func (d *decoder) resolve(prefix string) (string, error) {
	for i := len(d.scopes) - 1; i >= 0; i-- {
		if ns, ok := d.scopes[i][prefix]; ok {
			return ns, nil
		}
	}
	if prefix == "" || d.pattern && prefix == "not" {
		return "", nil
	}
	return "", fmt.Errorf("%w: undeclared prefix %q", errBadXML, prefix)
}

// element reads to the end tag of t.
func (d *decoder) element(t xml.StartElement) (*node, error) {
	n, err := d.start(t)
	if err != nil {
		return nil, err
	}
	for {
		tok, err := d.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch c := tok.(type) {
		case xml.StartElement:
			k, err := d.element(c)
			if err != nil {
				return nil, err
			}
			n.kids = append(n.kids, k)
		case xml.EndElement:
			if c.Name != t.Name {
				return nil, fmt.Errorf("%w: <%s> closed by </%s>", errBadXML, t.Name.Local, c.Name.Local)
			}
			d.scopes = d.scopes[:len(d.scopes)-1]
			return n, nil
		case xml.CharData:
			n.text += string(c)
		default:
			return nil, fmt.Errorf("%w: comment, processing instruction or DTD (RFC 6120 §11.1)", errBadXML)
		}
	}
}

// parseNodes reads the elements of a script line: default namespace jabber:client, stream: predeclared; in a pattern also not:.
func parseNodes(text string, pattern bool) ([]*node, error) {
	d := newDecoder(strings.NewReader(text), true)
	d.pattern = pattern
	d.scopes[0][""] = nsClient
	d.scopes[0]["stream"] = nsStream
	var out []*node
	for {
		it, err := d.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if d.decl {
			return nil, fmt.Errorf("%w: XML declaration (use raw)", errBadXML)
		}
		out = append(out, it.node)
	}
}
