package stanza

import (
	"bytes"
	"strings"
)

// A cursor reads XML that is complete and in memory. It always finds the right places in well-formed input, and never
// panics on any other.
type cursor struct {
	b []byte
	i int
}

// A tag is a start tag as it is written.
type tag struct {
	prefix, local []byte
	attrs         list[tagPart]
	empty         bool // <local/>
}

// A tagPart is an attribute or a namespace declaration as it is written. span includes the white space before it.
type tagPart struct {
	prefix, local, value []byte
	span                 Span
}

// declares returns the prefix the attribute declares: "" for the default namespace.
func (a *tagPart) declares() (prefix string, ok bool) {
	switch {
	case len(a.prefix) == 0 && string(a.local) == "xmlns":
		return "", true
	case string(a.prefix) == "xmlns":
		return intern(a.local), true
	}
	return "", false
}

// startTag reads a start tag into t, whatever was there.
func (c *cursor) startTag(t *tag) bool {
	if !c.literal("<") {
		return false
	}
	t.attrs.n, t.empty = 0, false
	if t.prefix, t.local = c.qname(); len(t.local) == 0 {
		return false
	}
	for {
		start := c.i
		c.space()
		switch {
		case c.literal(">"):
			return true
		case c.literal("/>"):
			t.empty = true
			return true
		case c.i == start: // XML 1.0 §3.1: white space before every attribute
			return false
		}
		var a tagPart
		if a.prefix, a.local = c.qname(); len(a.local) == 0 {
			return false
		}
		c.space()
		if !c.literal("=") {
			return false
		}
		c.space()
		if a.value = c.quoted(); a.value == nil {
			return false
		}
		a.span = Span{start, c.i}
		t.attrs.push(a)
	}
}

// endTag reads the end tag of that name.
func (c *cursor) endTag(prefix, local []byte) bool {
	if !c.literal("</") {
		return false
	}
	p, l := c.qname()
	c.space()
	return bytes.Equal(p, prefix) && bytes.Equal(l, local) && c.literal(">")
}

// skip goes behind the end tag of the element whose start tag was read last. It looks for the ends of things only.
func (c *cursor) skip() bool {
	for depth := 1; depth > 0; {
		if !c.find("<") || c.i+1 >= len(c.b) {
			return false
		}
		switch c.b[c.i+1] {
		case '/':
			depth--
			if !c.past(">") {
				return false
			}
		case '!':
			if !c.literal(cdataOpen) || !c.past("]]>") {
				return false
			}
		default:
			empty, ok := c.pastTag()
			if !ok {
				return false
			}
			if !empty {
				depth++
			}
		}
	}
	return true
}

const cdataOpen = "<![CDATA["

// pastTag goes behind a start tag without reading it.
func (c *cursor) pastTag() (empty, ok bool) {
	for c.i++; c.i < len(c.b); c.i++ {
		switch q := c.b[c.i]; q {
		case '"', '\'':
			n := bytes.IndexByte(c.b[c.i+1:], q)
			if n < 0 {
				return false, false
			}
			c.i += n + 1
		case '>':
			c.i++
			return c.b[c.i-2] == '/', true
		}
	}
	return false, false
}

// qname reads a name with an optional prefix; local is empty when there is none.
func (c *cursor) qname() (prefix, local []byte) {
	local = c.ncname()
	if len(local) > 0 && c.literal(":") {
		return local, c.ncname()
	}
	return nil, local
}

func (c *cursor) ncname() []byte {
	start := c.i
	for c.i < len(c.b) && (classes[c.b[c.i]]&asName != 0 || c.b[c.i] >= 0x80) {
		c.i++
	}
	return c.b[start:c.i]
}

// quoted reads an attribute value with its quotes and returns what is between them; nil if there is none.
func (c *cursor) quoted() []byte {
	if c.i >= len(c.b) || c.b[c.i] != '\'' && c.b[c.i] != '"' {
		return nil
	}
	start := c.i + 1
	n := bytes.IndexByte(c.b[start:], c.b[c.i])
	if n < 0 {
		return nil
	}
	c.i = start + n + 1
	v := c.b[start : start+n : start+n]
	if bytes.IndexByte(v, '<') >= 0 { // XML 1.0 §3.1
		return nil
	}
	return v
}

func (c *cursor) space() {
	for c.i < len(c.b) && isSpace(c.b[c.i]) {
		c.i++
	}
}

func (c *cursor) at(s string) bool {
	return len(c.b)-c.i >= len(s) && string(c.b[c.i:c.i+len(s)]) == s
}

func (c *cursor) literal(s string) bool {
	if !c.at(s) {
		return false
	}
	c.i += len(s)
	return true
}

// find goes to the next s.
func (c *cursor) find(s string) bool {
	var n int
	if len(s) == 1 {
		n = bytes.IndexByte(c.b[c.i:], s[0])
	} else {
		n = bytes.Index(c.b[c.i:], []byte(s))
	}
	if n < 0 {
		return false
	}
	c.i += n
	return true
}

// past goes behind the next s.
func (c *cursor) past(s string) bool {
	ok := c.find(s)
	if ok {
		c.i += len(s)
	}
	return ok
}

// unescape returns what b means as character data or as an attribute value: references resolved, line ends and, in
// values, other white space normalised (XML 1.0 §2.11, §3.3.3). !ok: a reference that is none.
func unescape(b []byte, value bool) (s string, ok bool) {
	special := "&\r"
	if value {
		special = "&\r\n\t"
	}
	next := bytes.IndexAny(b, special)
	if next < 0 {
		return intern(b), true
	}
	var out strings.Builder
	out.Grow(len(b))
	for ; next >= 0; next = bytes.IndexAny(b, special) {
		out.Write(b[:next])
		c := b[next]
		b = b[next:]
		n := 1
		switch {
		case c == '&':
			r, size, ok := resolve(b)
			if !ok {
				return "", false
			}
			n = size
			out.WriteRune(r)
		case c == '\r' && len(b) > 1 && b[1] == '\n' && value:
			n = 2
			out.WriteByte(' ')
		case value:
			out.WriteByte(' ')
		case len(b) < 2 || b[1] != '\n': // a lone carriage return; of a pair the line feed remains
			out.WriteByte('\n')
		}
		b = b[n:]
	}
	out.Write(b)
	return out.String(), true
}

// resolve reads the reference b begins with.
func resolve(b []byte) (r rune, size int, ok bool) {
	n, o := reference(b, 0)
	if o != stepOK {
		return 0, 0, false
	}
	if b[1] == '#' {
		r, _, _ = charRef(b[:n])
		return r, n, true
	}
	c, ok := predefined(b[1 : n-1])
	return rune(c), n, ok
}
