package stanza

import "math/bits"

// Namespace well-formedness (Namespaces in XML 1.0; RFC 6120 §11.3: what is not
// namespace-well-formed must not be routed).

// nsID stands for a namespace a prefix is bound to. Two prefixes have the same
// one exactly when they are bound to the same name: 0 and up are indexes into
// scanner.bindings, rootNS(i) is the i-th prefix of the root.
type nsID int32

const (
	nsNone nsID = -1 // no prefix
	nsXML  nsID = -2 // the prefix xml
)

func rootNS(i int) nsID          { return nsID(-3 - i) }
func (n nsID) root() (int, bool) { return int(-3 - n), n <= -3 }

// nsBinding is a declaration inside the element at hand. The default namespace
// is kept only of the first-level element: no other rule needs it.
type nsBinding struct {
	prefix  extent // empty: the default namespace
	uri     extent
	read    []byte // what uri reads as, if not as it stands: read once, whatever a peer writes
	content bool   // bound to a content namespace
	same    nsID   // the first binding in force with the same name
}

const (
	maxBindings     = 256 // in force at one place: bounds the work of resolving
	maxRootPrefixes = 64  // bits of scanner.used
)

// rootScope is what the header leaves behind for the rest of the stream.
type rootScope struct {
	name      string // as its end tag must spell it
	defaultNS string
	prefixes  []Prefix
}

// startTag checks the start tag that ends before s.pos: all the rules that
// concern more than one part of it.
func (r *Reader) startTag(s *scanner, b []byte, empty bool) outcome {
	outside := s.bindings.n
	if o := r.declare(s, b); o != stepOK {
		return o
	}
	if o := r.resolve(s, b); o != stepOK {
		return o
	}
	if s.open.n == 0 {
		s.top = s.element
		if r.mode == Stream && r.phase != phaseBody {
			s.header, s.closed = true, empty
			return stepDone
		}
	}
	s.open.push(openTag{s.element.extent, int32(outside)})
	if empty {
		return s.leave()
	}
	s.state, s.brackets = inContent, 0
	return stepOK
}

// declares reports whether an attribute declares a namespace; prefix is empty for the default one.
func (a *tagAttr) declares(b []byte) (prefix extent, ok bool) {
	if a.name.colon == 0 {
		return extent{}, string(a.name.of(b)) == "xmlns"
	}
	return extent{a.name.colon + 1, a.name.to}, string(a.name.prefix(b)) == "xmlns"
}

// text is the value as a parser reports it.
func (a *tagAttr) text(b []byte) []byte {
	if a.plain {
		return a.value.of(b)
	}
	return []byte(attrValue(a.value.of(b)))
}

func (n *nsBinding) text(b []byte) []byte {
	if n.read != nil {
		return n.read
	}
	return n.uri.of(b)
}

// declare takes the declarations of the tag into force.
func (r *Reader) declare(s *scanner, b []byte) outcome {
	for i := range s.attrs.n {
		a := s.attrs.at(i)
		prefix, ok := a.declares(b)
		if !ok {
			continue
		}
		uri := a.text(b)
		o := checkDeclaration(prefix.of(b), uri)
		switch {
		case o != stepOK:
			return o
		case a.name.colon == 0 && s.open.n > 0, string(prefix.of(b)) == "xml":
			continue
		case s.bindings.n >= maxBindings:
			return faultPrefixes
		}
		n := nsBinding{prefix: prefix, uri: a.value, content: isContentNS(uri)}
		if !a.plain {
			n.read = uri
		}
		n.same = r.sameNS(s, b, uri)
		s.bindings.push(n)
	}
	return stepOK
}

// checkDeclaration is Namespaces in XML 1.0 §3, the reserved prefixes, and §5, no undeclaring.
func checkDeclaration(prefix, uri []byte) outcome {
	xml := string(uri) == NSXML
	switch {
	case string(prefix) == "xmlns", string(uri) == NSXMLNS, xml != (string(prefix) == "xml"):
		return faultPrefixReserved
	case len(prefix) > 0 && len(uri) == 0:
		return faultPrefixEmpty
	}
	return stepOK
}

// sameNS finds the id of a namespace among the prefixes in force; a new one gets the next index.
func (r *Reader) sameNS(s *scanner, b, uri []byte) nsID {
	for i, p := range r.root.prefixes {
		if p.URI == string(uri) {
			return rootNS(i)
		}
	}
	for i := range s.bindings.n {
		if n := s.bindings.at(i); string(n.text(b)) == string(uri) {
			return n.same
		}
	}
	return nsID(s.bindings.n)
}

// isContentNS: the namespaces whose elements must not bear a prefix (RFC 6120 §4.8.5).
func isContentNS(uri []byte) bool { return string(uri) == NSClient || string(uri) == NSServer }

// lookup resolves a prefix, which is not empty.
func (r *Reader) lookup(s *scanner, b, prefix []byte) (id nsID, content, ok bool) {
	for i := s.bindings.n - 1; i >= 0; i-- {
		if n := s.bindings.at(i); string(n.prefix.of(b)) == string(prefix) {
			return n.same, n.content, true
		}
	}
	if string(prefix) == "xml" {
		return nsXML, false, true
	}
	for i, p := range r.root.prefixes {
		if p.Prefix == string(prefix) {
			s.used |= 1 << i
			return r.firstRoot(i), p.URI == NSClient || p.URI == NSServer, true
		}
	}
	return nsNone, false, false
}

// firstRoot is the id of the i-th prefix of the root, which other prefixes may share.
func (r *Reader) firstRoot(i int) nsID {
	for j, p := range r.root.prefixes {
		if p.URI == r.root.prefixes[i].URI {
			return rootNS(j)
		}
	}
	return rootNS(i)
}

// resolve checks every prefix of the tag and that no attribute is there twice,
// by name or by expanded name (XML 1.0 §3.1, Namespaces in XML 1.0 §6.3).
func (r *Reader) resolve(s *scanner, b []byte) outcome {
	if s.element.colon != 0 {
		prefix := s.element.prefix(b)
		_, content, ok := r.lookup(s, b, prefix)
		switch {
		case string(prefix) == "xmlns":
			return faultPrefixReserved
		case !ok:
			return faultPrefixUnknown
		case content:
			return faultContentPrefix
		}
	}
	for i := range s.attrs.n {
		a := s.attrs.at(i)
		a.ns = nsNone
		if _, ok := a.declares(b); !ok && a.name.colon != 0 {
			if a.ns, _, ok = r.lookup(s, b, a.name.prefix(b)); !ok {
				return faultPrefixUnknown
			}
		}
		for j := range i {
			if a.same(s.attrs.at(j), b) {
				return faultDuplicate
			}
		}
	}
	return stepOK
}

// same reports whether two attributes have one name.
func (a *tagAttr) same(o *tagAttr, b []byte) bool {
	if a.name.to-a.name.from == o.name.to-o.name.from && string(a.name.of(b)) == string(o.name.of(b)) {
		return true
	}
	return a.ns != nsNone && a.ns == o.ns && string(a.name.local(b)) == string(o.name.local(b))
}

// space is the namespace a resolved prefix stands for.
func (r *Reader) space(s *scanner, b []byte, id nsID) string {
	if i, ok := id.root(); ok {
		return r.root.prefixes[i].URI
	}
	if id == nsXML {
		return NSXML
	}
	return intern(s.bindings.at(int(id)).text(b))
}

// topName is the resolved name of the first-level element or the header.
func (r *Reader) topName(s *scanner, b []byte) Name {
	name := Name{Local: intern(s.top.local(b))}
	if s.top.colon != 0 {
		id, _, _ := r.lookup(s, b, s.top.prefix(b))
		name.Space = r.space(s, b, id)
		return name
	}
	for i := range s.bindings.n {
		if n := s.bindings.at(i); n.prefix == (extent{}) {
			name.Space = intern(n.text(b))
			return name
		}
	}
	name.Space = r.root.defaultNS
	return name
}

// header makes the header's token and keeps its scope.
func (r *Reader) header(s *scanner, b []byte) (Token, outcome) {
	tok := Token{Kind: Open, Name: r.topName(s, b)}
	tok.Open = &Element{Name: tok.Name}
	for i := range s.attrs.n {
		a := s.attrs.at(i)
		value := intern(a.text(b))
		prefix, ok := a.declares(b)
		switch {
		case ok && a.name.colon == 0:
			tok.DefaultNS = value
		case ok && string(prefix.of(b)) != "xml":
			tok.Prefixes = append(tok.Prefixes, Prefix{intern(prefix.of(b)), value})
		case !ok:
			name := Name{Local: string(a.name.local(b))}
			if a.ns != nsNone {
				name.Space = r.space(s, b, a.ns)
			}
			tok.Open.Attrs = append(tok.Open.Attrs, Attr{name, value})
		}
	}
	if len(tok.Prefixes) > maxRootPrefixes {
		return Token{}, faultPrefixes
	}
	r.root = rootScope{intern(s.top.of(b)), tok.DefaultNS, append([]Prefix(nil), tok.Prefixes...)}
	return tok, stepDone
}

// item makes the token of a complete first-level element: the copy of its
// bytes, with the root's prefixes it relies on declared on its start tag (RFC
// 6120 §4.8.5: they must be, where the element goes).
func (r *Reader) item(s *scanner, b []byte) Token {
	tok := Token{Kind: Item, Name: r.topName(s, b)}
	if s.used == 0 {
		tok.Raw = make([]byte, len(b))
		copy(tok.Raw, b)
		return tok
	}
	tok.Raw = append(make([]byte, 0, len(b)+64*bits.OnesCount64(s.used)), b[:s.top.to]...)
	for i, p := range r.root.prefixes {
		if s.used&(1<<i) != 0 {
			tok.Raw = appendAttr(tok.Raw, "xmlns:"+p.Prefix, p.URI)
		}
	}
	tok.Raw = append(tok.Raw, b[s.top.to:]...)
	return tok
}
