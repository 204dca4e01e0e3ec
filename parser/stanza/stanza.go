package stanza

import (
	"fmt"
	"slices"
	"strings"

	"parley/parser/jid"
)

// Kind says which of the three stanzas it is (RFC 6120 §8.2).
type Kind uint8

// The kinds.
const (
	Message Kind = iota + 1
	Presence
	IQ
)

// String is the name of the element.
func (k Kind) String() string { return kindNames[k&3] }

var kindNames = [4]string{"", "message", "presence", "iq"}

// Values of Stanza.Type. A message or presence may have none; presence without a type says "available" (RFC 6121 §4.7.1).
const (
	TypeError        = "error" // all kinds
	TypeGet          = "get"   // IQ, RFC 6120 §8.2.3
	TypeSet          = "set"
	TypeResult       = "result"
	TypeNormal       = "normal" // message, RFC 6121 §5.2.2
	TypeChat         = "chat"
	TypeGroupchat    = "groupchat"
	TypeHeadline     = "headline"
	TypeUnavailable  = "unavailable" // presence, RFC 6121 §4.7.1
	TypeProbe        = "probe"
	TypeSubscribe    = "subscribe"
	TypeSubscribed   = "subscribed"
	TypeUnsubscribe  = "unsubscribe"
	TypeUnsubscribed = "unsubscribed"
)

// Span is a range of bytes of Stanza.Raw.
type Span struct{ Start, End int }

// Child is a child element of a stanza: its resolved name and where it is, from '<' to behind the last '>'.
type Child struct {
	Name Name
	Span Span
}

// Stanza is a stanza with its top level taken apart. The exported fields may be changed; Raw may not, and says what arrived
// (or what Make made): Stamp turns changed fields into a fresh start tag for it. Not safe for concurrent change.
type Stanza struct {
	Kind     Kind
	Type     string // as on the wire: "" when absent
	ID       string
	Lang     string  // xml:lang
	To, From jid.JID // zero when absent
	Children []Child // in document order
	Raw      []byte

	ns        string   // the default namespace Raw stands in
	rebased   string   // the content namespace before Rebase
	inner     Span     // between the start tag and the end tag
	extra     []Span   // other attributes and prefix declarations of the start tag, each with the white space before it
	prefixes  []Prefix // what the start tag declares
	redundant []Span   // declarations xmlns=content namespace on children
	few       [4]Child // room for Children
}

// AddressError tells of a malformed to or from attribute: stanza condition jid-malformed (RFC 6120 §8.3.3.8).
type AddressError struct{ To, From error } // nil: that one is good

// Error implements error.
func (e *AddressError) Error() string {
	switch {
	case e.To == nil:
		return fmt.Sprintf("from: %v", e.From)
	case e.From == nil:
		return fmt.Sprintf("to: %v", e.To)
	}
	return fmt.Sprintf("to: %v; from: %v", e.To, e.From)
}

// Unwrap implements the interface of errors.Is.
func (e *AddressError) Unwrap() []error {
	return slices.DeleteFunc([]error{e.To, e.From}, func(err error) bool { return err == nil })
}

// Parse takes the top level of a stanza apart; raw came from a Reader and is kept as Stanza.Raw. contentNS is the default
// namespace of the stream it came from; raw may repeat it (RFC 7395 §3.3.3). jids may be nil.
//
// Errors: *StreamError (bad-namespace-prefix, invalid-namespace, unsupported-stanza-type, not-well-formed) without a stanza,
// or *AddressError with one that is good for an error reply.
func Parse(raw []byte, contentNS string, jids *jid.Cache) (*Stanza, error) {
	return new(Stanza).parse(raw, contentNS, jids)
}

// A Parser parses the stanzas of one batch into memory that they share, so each lives as long as any of them.
type Parser struct {
	room []Stanza
	more int
}

// NewParser returns a Parser for about n stanzas.
func NewParser(n int) Parser { return Parser{more: n} }

// Parse is the package's Parse.
func (p *Parser) Parse(raw []byte, contentNS string, jids *jid.Cache) (*Stanza, error) {
	if len(p.room) == 0 {
		p.room = make([]Stanza, max(p.more, 1))
	}
	s := &p.room[0]
	p.room, p.more = p.room[1:], p.more-1
	return s.parse(raw, contentNS, jids)
}

// parse fills a zero Stanza.
func (s *Stanza) parse(raw []byte, contentNS string, jids *jid.Cache) (*Stanza, error) {
	var t tag
	c := cursor{b: raw}
	if !c.startTag(&t) {
		return nil, malformed()
	}
	s.Raw, s.ns = raw, contentNS
	s.Children = s.few[:0]
	bad, err := s.header(&t, jids)
	if err != nil {
		return nil, err
	}
	s.inner = Span{c.i, c.i}
	if !t.empty {
		if err := s.scanChildren(&c); err != nil {
			return nil, err
		}
		s.inner.End = c.i
		if !c.endTag(t.prefix, t.local) {
			return nil, malformed()
		}
	}
	if c.i != len(raw) {
		return nil, malformed()
	}
	if bad != nil {
		return s, bad
	}
	return s, nil
}

func malformed() *StreamError { return &StreamError{Condition: StreamNotWellFormed} }

// header reads the start tag.
func (s *Stanza) header(t *tag, jids *jid.Cache) (*AddressError, error) {
	ns := s.ns
	var bad *AddressError
	for i := range t.attrs.n {
		a := t.attrs.at(i)
		var err error
		ok := true
		switch prefix, declares := a.declares(); {
		case declares && prefix == "":
			ns, ok = unescape(a.value, true)
		case declares:
			var uri string
			uri, ok = unescape(a.value, true)
			s.prefixes = append(s.prefixes, Prefix{prefix, uri})
			s.extra = append(s.extra, a.span)
		case string(a.prefix) == "xml" && string(a.local) == "lang":
			s.Lang, ok = unescape(a.value, true)
		case len(a.prefix) > 0:
			s.extra = append(s.extra, a.span)
		default:
			switch string(a.local) {
			case "to":
				if s.To, err = address(a.value, jids); err != nil {
					bad = bad.with(&AddressError{To: err})
				}
			case "from":
				if s.From, err = address(a.value, jids); err != nil {
					bad = bad.with(&AddressError{From: err})
				}
			case "id":
				s.ID, ok = unescape(a.value, true)
			case "type":
				s.Type, ok = unescape(a.value, true)
			default:
				s.extra = append(s.extra, a.span)
			}
		}
		if !ok {
			return nil, malformed()
		}
	}
	for i := range t.attrs.n { // declarations may come behind their use
		if _, ok := lookupPrefix(s.prefixes, t.attrs.at(i).prefix, ""); !ok && string(t.attrs.at(i).prefix) != "xmlns" {
			return nil, malformed()
		}
	}
	return bad, s.name(t, ns)
}

// name checks the stanza's name. ns is its default namespace.
func (s *Stanza) name(t *tag, ns string) error {
	space, ok := lookupPrefix(s.prefixes, t.prefix, ns)
	if !ok {
		return malformed()
	}
	switch string(t.local) {
	case "message":
		s.Kind = Message
	case "presence":
		s.Kind = Presence
	case "iq":
		s.Kind = IQ
	default: // RFC 6120 §4.9.3.24
		return &StreamError{Condition: StreamUnsupportedStanzaType}
	}
	switch {
	case space != s.ns: // RFC 6120 §4.8.3
		return &StreamError{Condition: StreamInvalidNamespace}
	case len(t.prefix) > 0: // RFC 6120 §4.8.5
		return &StreamError{Condition: StreamBadNamespacePrefix}
	}
	return nil
}

func (e *AddressError) with(more *AddressError) *AddressError {
	if e == nil {
		return more
	}
	if more.To != nil {
		e.To = more.To
	} else {
		e.From = more.From
	}
	return e
}

func address(value []byte, jids *jid.Cache) (jid.JID, error) {
	for _, c := range value {
		if c != '&' && c >= ' ' {
			continue
		}
		plain, ok := unescape(value, true)
		if !ok {
			return jid.JID{}, fmt.Errorf("%w: malformed reference", jid.ErrMalformed)
		}
		value = []byte(plain)
		break
	}
	if jids == nil {
		return jid.Parse(string(value))
	}
	return jids.Parse(value)
}

// Addresses returns the addresses in an element's start tag as they are written, references resolved: for who has to know
// them before the element is parsed. raw came from a Reader; "" is for what is absent.
func Addresses(raw []byte) (from, to string) {
	var t tag
	c := cursor{b: raw}
	if !c.startTag(&t) {
		return "", ""
	}
	for i := range t.attrs.n {
		a := t.attrs.at(i)
		if len(a.prefix) > 0 {
			continue
		}
		switch string(a.local) {
		case "from":
			from, _ = unescape(a.value, true)
		case "to":
			to, _ = unescape(a.value, true)
		}
	}
	return from, to
}

// scanChildren goes to the end tag, and takes down the names and places of the elements it passes.
func (s *Stanza) scanChildren(c *cursor) error {
	var t tag
	for {
		switch {
		case !c.find("<"):
			return malformed()
		case c.at("</"):
			return nil
		case c.at(cdataOpen): // white space, if anything
			if !c.past("]]>") {
				return malformed()
			}
			continue
		}
		start := c.i
		if !c.startTag(&t) {
			return malformed()
		}
		name, ok := s.childName(&t)
		if !ok || !t.empty && !c.skip() {
			return malformed()
		}
		s.Children = append(s.Children, Child{name, Span{start, c.i}})
	}
}

// childName resolves the name of a child.
func (s *Stanza) childName(t *tag) (Name, bool) {
	def, own, found := s.ns, "", len(t.prefix) == 0
	for i := range t.attrs.n {
		a := t.attrs.at(i)
		prefix, declares := a.declares()
		if !declares || prefix != "" && prefix != string(t.prefix) {
			continue
		}
		uri, ok := unescape(a.value, true)
		switch {
		case !ok:
			return Name{}, false
		case prefix != "":
			own, found = uri, true
		default:
			def = uri
			if uri == s.ns {
				s.redundant = append(s.redundant, a.span)
			}
		}
	}
	switch {
	case len(t.prefix) == 0:
		own = def
	case !found:
		own, found = lookupPrefix(s.prefixes, t.prefix, def)
	}
	return Name{own, intern(t.local)}, found
}

// Rebase turns a stanza of another content namespace, parsed from a server's or a component's stream, into one of NSClient,
// which the rest of the program speaks; call it right after Parse. Children that inherit the content namespace follow, and
// those that repeat it lose the declaration when the stanza is stamped (RFC 6120 §4.8.5). Nothing deeper is touched.
func (s *Stanza) Rebase() {
	if s.ns == NSClient {
		return
	}
	for i := range s.Children {
		if s.Children[i].Name.Space == s.ns {
			s.Children[i].Name.Space = NSClient
		}
	}
	s.rebased, s.ns = s.ns, NSClient
}

// Clone returns a copy whose fields may be changed independently. Raw is shared.
func (s *Stanza) Clone() *Stanza {
	c := *s
	c.Children = append(c.few[:0], s.Children...)
	return &c
}

// Has reports whether there is a child of that name.
func (s *Stanza) Has(space, local string) bool {
	_, ok := s.Find(space, local)
	return ok
}

// Find returns the first child of that name.
func (s *Stanza) Find(space, local string) (Child, bool) {
	for i := range s.Children {
		if c := &s.Children[i]; c.Name.Local == local && c.Name.Space == space {
			return *c, true
		}
	}
	return Child{}, false
}

// Element parses a child in full, a new Element each time. nil only if Raw did not come from a Reader and is not XML.
func (s *Stanza) Element(c Child) *Element {
	e, err := parseElement(s.Raw[c.Span.Start:c.Span.End], s.ns, s.prefixes)
	if err != nil {
		return nil
	}
	if s.rebased != "" {
		e.rename(s.rebased, s.ns)
	}
	return e
}

// rename moves e and the descendants that inherit its namespace from one namespace to another.
func (e *Element) rename(from, to string) {
	if e.Name.Space != from {
		return
	}
	e.Name.Space = to
	for c := range e.Elements() {
		c.rename(from, to)
	}
}

// Child parses the first child of that name, or returns nil.
func (s *Stanza) Child(space, local string) *Element {
	if c, ok := s.Find(space, local); ok {
		return s.Element(c)
	}
	return nil
}

// Payload parses the only child of an IQ request (RFC 6120 §8.2.3); nil when there is not exactly one.
func (s *Stanza) Payload() *Element {
	if len(s.Children) != 1 {
		return nil
	}
	return s.Element(s.Children[0])
}

// Body returns the text of the first <body/> (RFC 6121 §5.2.3), or "".
func (s *Stanza) Body() string {
	if e := s.Child(NSClient, "body"); e != nil {
		return e.Text()
	}
	return ""
}

// Make builds a stanza in NSClient. Zero addresses, an empty type or id and nil children are left out.
func Make(kind Kind, typ string, from, to jid.JID, id string, children ...*Element) *Stanza {
	s := &Stanza{Kind: kind, Type: typ, ID: id, From: from, To: to, ns: NSClient}
	s.Children = s.few[:0]
	raw := s.appendHead(make([]byte, 0, 256), "")
	s.inner.Start = len(raw)
	for _, e := range children {
		if e == nil {
			continue
		}
		start := len(raw)
		raw = e.Append(raw, NSClient)
		s.Children = append(s.Children, Child{e.Name, Span{start, len(raw)}})
	}
	s.inner.End = len(raw)
	s.Raw = closeTag(raw, s.inner.Start, s.tail())
	return s
}

// Reply returns the result of an IQ request, addresses swapped (RFC 6120 §8.2.3); payload may be nil. nil when s is not a
// request.
func (s *Stanza) Reply(payload *Element) *Stanza {
	if s.Kind != IQ || s.Type != TypeGet && s.Type != TypeSet {
		return nil
	}
	return Make(IQ, TypeResult, s.To, s.From, s.ID, payload)
}

// ErrorReply returns the error stanza that answers s: addresses swapped, same id, without the original payload (RFC 6120
// §8.3.1). nil for what must not be answered: errors and IQ results. Whether presence is answered is up to the caller.
func (s *Stanza) ErrorReply(e *Error) *Stanza {
	if s.Type == TypeError || s.Kind == IQ && s.Type == TypeResult {
		return nil
	}
	return Make(s.Kind, TypeError, s.To, s.From, s.ID, e.Beside, e.Element())
}

// Err reads the <error/> of a stanza of type error; nil when there is none.
func (s *Stanza) Err() *Error { return ParseError(s.Child(NSClient, "error")) }

// String is the start tag, for logs of a developer: it holds addresses.
func (s *Stanza) String() string {
	var b strings.Builder
	b.Write(s.appendHead(nil, ""))
	return b.String()
}
