package stanza

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrSyntax is wrapped by ParseElement's errors.
var ErrSyntax = errors.New("not a well-formed element")

// Bounds of the recursion and of the search for duplicates, far beyond what a Reader lets pass.
const (
	parseDepth = 512
	parseAttrs = 512
)

// ParseElement reads one complete element and nothing else, not even white space around it. defaultNS is the default
// namespace in scope. XML 1.0, Namespaces in XML 1.0 and RFC 6120 §11.1 hold: an undeclared prefix, a duplicate attribute, a
// comment, a processing instruction, a DTD, an unknown entity are errors. All strings are copies; character data and a
// CDATA section beside it are Nodes of their own. Errors wrap ErrSyntax.
func ParseElement(raw []byte, defaultNS string) (*Element, error) {
	return parseElement(raw, defaultNS, nil)
}

func parseElement(raw []byte, defaultNS string, scope []Prefix) (*Element, error) {
	p := elementParser{cursor: cursor{b: raw}, scope: scope[:len(scope):len(scope)]}
	if at := firstBadChar(raw); at >= 0 {
		p.i = at
		return nil, p.fail("character that XML does not allow")
	}
	e, err := p.element(defaultNS, 1)
	if err != nil {
		return nil, err
	}
	if p.i != len(raw) {
		return nil, p.fail("something after the element")
	}
	return e, nil
}

type elementParser struct {
	cursor
	tag   tag      // the start tag at hand
	scope []Prefix // declared prefixes, innermost last
}

func (p *elementParser) fail(why string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, why, p.i)
}

func (p *elementParser) element(defaultNS string, depth int) (*Element, error) {
	if depth > parseDepth {
		return nil, p.fail("nested too deeply")
	}
	if !p.startTag(&p.tag) {
		return nil, p.fail("malformed start tag")
	}
	if p.tag.attrs.n > parseAttrs {
		return nil, p.fail("too many attributes")
	}
	outer := len(p.scope)
	defaultNS, err := p.declarations(defaultNS)
	if err != nil {
		return nil, err
	}
	e := &Element{}
	if e.Name, err = p.resolve(p.tag.prefix, p.tag.local, defaultNS); err != nil {
		return nil, err
	}
	if err := p.attributes(e); err != nil {
		return nil, err
	}
	if !p.tag.empty {
		prefix, local := p.tag.prefix, p.tag.local
		if err := p.content(e, defaultNS, depth); err != nil {
			return nil, err
		}
		if !p.endTag(prefix, local) {
			return nil, p.fail("mismatched end tag")
		}
	}
	p.scope = p.scope[:outer]
	return e, nil
}

// declarations takes in the namespace declarations of the tag and returns the default namespace.
func (p *elementParser) declarations(defaultNS string) (string, error) {
	outer, defaults := len(p.scope), 0
	for i := range p.tag.attrs.n {
		a := p.tag.attrs.at(i)
		prefix, ok := a.declares()
		if !ok {
			continue
		}
		uri, ok := unescape(a.value, true)
		switch {
		case !ok:
			return "", p.fail("malformed reference")
		case uri == NSXMLNS, prefix == "xmlns", (uri == NSXML) != (prefix == "xml"): // Namespaces in XML §3
			return "", p.fail("reserved namespace")
		case prefix == "":
			defaultNS = uri
			defaults++
			continue
		case uri == "": // Namespaces in XML §2.2
			return "", p.fail("prefix bound to no namespace")
		case !validName(a.local):
			return "", p.fail("malformed prefix")
		}
		for _, d := range p.scope[outer:] {
			if d.Prefix == prefix {
				return "", p.fail("duplicate declaration")
			}
		}
		p.scope = append(p.scope, Prefix{prefix, uri})
	}
	if defaults > 1 {
		return "", p.fail("duplicate declaration")
	}
	return defaultNS, nil
}

func (p *elementParser) attributes(e *Element) error {
	n := 0
	for i := range p.tag.attrs.n {
		if _, ok := p.tag.attrs.at(i).declares(); !ok {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	e.Attrs = make([]Attr, 0, n)
	for i := range p.tag.attrs.n {
		a := p.tag.attrs.at(i)
		if _, ok := a.declares(); ok {
			continue
		}
		name, err := p.resolve(a.prefix, a.local, "") // no default namespace for attributes
		if err != nil {
			return err
		}
		value, ok := unescape(a.value, true)
		if !ok {
			return p.fail("malformed reference")
		}
		if _, dup := e.lookup(name); dup {
			return p.fail("duplicate attribute")
		}
		e.Attrs = append(e.Attrs, Attr{name, value})
	}
	return nil
}

// content reads up to the end tag.
func (p *elementParser) content(e *Element, defaultNS string, depth int) error {
	for {
		switch start := p.i; {
		case p.at("</"):
			return nil
		case p.literal(cdataOpen):
			from := p.i
			if !p.past("]]>") {
				return p.fail("unfinished CDATA section")
			}
			e.AddText(normaliseCDATA(p.b[from : p.i-len("]]>")]))
		case p.at("<"):
			c, err := p.element(defaultNS, depth+1)
			if err != nil {
				return err
			}
			e.Nodes = append(e.Nodes, Node{Elem: c})
		default:
			if !p.find("<") {
				return p.fail("unfinished element")
			}
			raw := p.b[start:p.i]
			text, ok := unescape(raw, false)
			if !ok || bytes.Contains(raw, []byte("]]>")) { // XML 1.0 §2.4
				return p.fail("malformed character data")
			}
			e.AddText(text)
		}
	}
}

// resolve gives a name its namespace.
func (p *elementParser) resolve(prefix, local []byte, defaultNS string) (Name, error) {
	if !validName(local) {
		return Name{}, p.fail("malformed name")
	}
	space, ok := lookupPrefix(p.scope, prefix, defaultNS)
	if !ok {
		return Name{}, p.fail("undeclared prefix")
	}
	return Name{space, intern(local)}, nil
}

// lookupPrefix returns the namespace of a prefix; the innermost declaration is the last.
func lookupPrefix(scope []Prefix, prefix []byte, defaultNS string) (string, bool) {
	if len(prefix) == 0 {
		return defaultNS, true
	}
	if string(prefix) == "xml" {
		return NSXML, true
	}
	for i := len(scope) - 1; i >= 0; i-- {
		if scope[i].Prefix == string(prefix) {
			return scope[i].URI, true
		}
	}
	return "", false
}

// normaliseCDATA turns line ends into line feeds (XML 1.0 §2.11).
func normaliseCDATA(b []byte) string {
	if bytes.IndexByte(b, '\r') >= 0 {
		b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
		b = bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
	}
	return string(b)
}

// validName reports whether b is an NCName (Namespaces in XML §3).
func validName(b []byte) bool {
	for i := 0; i < len(b); {
		if c := b[i]; c < utf8.RuneSelf {
			want := uint8(asName)
			if i == 0 {
				want = asStart
			}
			if classes[c]&want == 0 {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if !nameRune(r, i == 0) {
			return false
		}
		i += n
	}
	return len(b) > 0
}

// firstBadChar returns where b stops being UTF-8 of XML's Char (XML 1.0 §2.2), or -1.
func firstBadChar(b []byte) int {
	for i := 0; i < len(b); {
		if c := b[i]; c < utf8.RuneSelf {
			if c < ' ' && !isSpace(c) {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || !isChar(r) {
			return i
		}
		i += n
	}
	return -1
}
