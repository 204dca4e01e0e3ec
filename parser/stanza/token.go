package stanza

import "errors"

// ErrMore is returned by Reader.Next when the bytes fed so far hold no further
// complete token: Feed more and call Next again. It is not a failure.
var ErrMore = errors.New("stanza: more bytes needed")

// Mode says how the elements of a stream are framed.
type Mode uint8

const (
	// Stream is one XML document whose root stays open (RFC 6120 §4).
	Stream Mode = iota
	// Framed is one complete document for each element (RFC 7395 §3.3.3); also right for BOSH bodies.
	Framed
)

// TokenKind says what a Token is.
type TokenKind uint8

const (
	// Open is the start tag of the root: the stream header (RFC 6120 §4.7). Stream mode only.
	Open TokenKind = iota + 1
	// Item is one complete first-level element.
	Item
	// Close is the end tag of the root (RFC 6120 §4.4). Stream mode only.
	Close
)

// Token is what Reader.Next found.
type Token struct {
	Kind TokenKind
	// Name is the resolved name of the element (Open, Item).
	Name Name
	// Raw is the element's own copy of its bytes (Item). It is well-formed and
	// namespace-well-formed; prefixes that only the root declares are declared
	// again on its start tag. An element without its own default namespace
	// stays so: Name.Space tells which one applies to its start tag.
	Raw []byte
	// Open is the header's name and attributes, without its namespace
	// declarations, which are in DefaultNS and Prefixes.
	Open *Element
	// DefaultNS is the default namespace the header declares, "" when it declares none (Open).
	DefaultNS string
	// Prefixes are the prefixes the header declares, in order (Open).
	Prefixes []Prefix
}

// Prefix is one declaration xmlns:prefix='uri'.
type Prefix struct{ Prefix, URI string }

// Limits bounds what one element may cost (RFC 6120 §13.12). A field that is
// zero or negative means the default of that field.
type Limits struct {
	// Bytes bounds a first-level element, a stream header, or an unfinished one
	// of either. Bytes beyond it are not looked at. Default 262144.
	Bytes int
	// Depth bounds nesting; a first-level element has depth 1. Default 64.
	Depth int
	// Attrs bounds the attributes of one tag, namespace declarations included. Default 64.
	Attrs int
	// NameBytes bounds a name, prefix included. Default 1024.
	NameBytes int
}

// Defaults of Limits, and what the offsets of the scanner can address.
const (
	defaultBytes     = 256 << 10
	defaultDepth     = 64
	defaultAttrs     = 64
	defaultNameBytes = 1 << 10
	maxLimit         = 1 << 30
)

// filled returns l with the defaults in place of what is not set.
func (l Limits) filled() Limits {
	set := func(v *int, otherwise int) {
		if *v <= 0 {
			*v = otherwise
		}
		*v = min(*v, maxLimit)
	}
	set(&l.Bytes, defaultBytes)
	set(&l.Depth, defaultDepth)
	set(&l.Attrs, defaultAttrs)
	set(&l.NameBytes, defaultNameBytes)
	return l
}
