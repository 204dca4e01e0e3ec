package stanza

// The scanner is an automaton over bytes: what it says of a byte depends on
// the bytes before it and on nothing else, so no way of cutting the input can
// change tokens or errors. Its offsets count from the '<' of the element.

type state uint8

const (
	inOpen    state = iota // after '<'
	inBang                 // after "<!"
	inCDATA                // in a CDATA section
	inContent              // in character data
	inElement              // in the name of a start tag
	inGap                  // after a name or a value in a start tag
	inAttr                 // in the name of an attribute
	inEquals               // before '='
	inQuote                // before the opening quote
	inValue                // in the value of an attribute
	inEmpty                // after the '/' of an empty element
	inEndName              // in the name of an end tag
	inEndGap               // after the name of an end tag
	inDecl                 // in the XML declaration
)

type extent struct{ from, to int32 }

func (e extent) of(b []byte) []byte { return b[e.from:e.to] }

// qname is where a name stands; colon is 0 when it has no prefix.
type qname struct {
	extent
	colon int32
}

func (q qname) prefix(b []byte) []byte { return b[q.from:max(q.from, q.colon)] }
func (q qname) local(b []byte) []byte {
	if q.colon == 0 {
		return q.of(b)
	}
	return b[q.colon+1 : q.to]
}

type tagAttr struct {
	name  qname
	value extent
	ns    nsID // of a prefixed attribute, once resolved
	plain bool // the value reads as it stands
}

// openTag is an element whose end tag has not come.
type openTag struct {
	name     extent
	bindings int32 // how many were in force outside it
}

// list grows onto the heap only when few is full, so that a scanner can live on the stack.
type list[T any] struct {
	n    int
	few  [8]T
	more []T
}

func (l *list[T]) at(i int) *T {
	if i < len(l.few) {
		return &l.few[i]
	}
	return &l.more[i-len(l.few)]
}

func (l *list[T]) push(v T) {
	if l.n < len(l.few) {
		l.few[l.n] = v
	} else {
		l.more = append(l.more[:l.n-len(l.few)], v)
	}
	l.n++
}

// scanner is the place reached in one element.
type scanner struct {
	pos      int // the next byte to look at
	mark     int // where the name, value or end tag began
	colon    int32
	state    state
	quote    byte
	brackets uint8 // how many ']' came last, at most 2
	midName  bool  // past the first character of the name or its local part
	spaced   bool  // white space came since the last name or value
	plain    bool
	header   bool   // what is complete is the stream header or the root's end tag
	closed   bool   // the header is an empty element
	top      qname  // name of the first-level element
	element  qname  // name of the start tag at hand
	used     uint64 // prefixes of the root the element makes use of
	attrs    list[tagAttr]
	open     list[openTag]
	bindings list[nsBinding]
}

// scan goes on over b, the element's bytes so far, until it is complete.
func (r *Reader) scan(s *scanner, b []byte) outcome {
	o := stepOK
	for s.pos < len(b) && o == stepOK {
		switch s.state {
		case inContent, inCDATA:
			o = s.content(b)
		case inElement, inAttr:
			o = s.name(b, r.limits.NameBytes)
		case inGap:
			o = r.gap(s, b)
		case inEquals, inQuote:
			o = s.assign(b)
		case inValue:
			o = s.value(b)
		case inEmpty:
			if b[s.pos] != '>' {
				return faultTag
			}
			s.pos++
			o = r.startTag(s, b, true)
		case inOpen:
			o = r.markup(s, b)
		case inEndName, inEndGap:
			o = r.endTag(s, b)
		case inBang:
			o = r.bang(s, b)
		case inDecl:
			o = s.declaration(b)
		}
	}
	if o == stepOK {
		return stepMore
	}
	return o
}

// markup looks at the character after '<'.
func (r *Reader) markup(s *scanner, b []byte) outcome {
	switch b[s.pos] {
	case '/':
		if s.open.n == 0 && r.phase != phaseBody {
			return faultNoOpen
		}
		s.state, s.mark = inEndName, s.pos+1
	case '!':
		s.state, s.mark = inBang, s.pos+1
	case '?':
		if r.phase != phaseStart || s.open.n > 0 {
			return faultPI // RFC 6120 §11.1
		}
		s.state = inDecl
	default:
		if s.open.n >= r.limits.Depth {
			return faultDepth
		}
		s.state, s.mark, s.colon, s.midName = inElement, s.pos, 0, false
		return stepOK
	}
	s.pos++
	return stepOK
}

const cdataTag = "[CDATA["

// bang follows "<!": all but a CDATA section is forbidden (RFC 6120 §11.1).
func (r *Reader) bang(s *scanner, b []byte) outcome {
	if b[s.pos] != cdataTag[s.pos-s.mark] {
		return faultMarkup
	}
	s.pos++
	switch {
	case s.open.n > 0:
	case r.phase == phaseBody:
		return faultStray
	default:
		return faultProlog
	}
	if s.pos-s.mark == len(cdataTag) {
		s.state, s.brackets = inCDATA, 0
	}
	return stepOK
}

// content follows character data and CDATA sections.
func (s *scanner) content(b []byte) outcome {
	i := s.pos
	for i < len(b) {
		if classes[b[i]]&asText != 0 {
			s.brackets = 0
			for i++; i < len(b) && classes[b[i]]&asText != 0; i++ {
			}
			continue
		}
		n, o, brackets := 1, stepOK, uint8(0)
		switch c := b[i]; {
		case c == '<' && s.state == inContent:
			s.pos, s.brackets, s.state = i+1, 0, inOpen
			return stepOK
		case c == '&' && s.state == inContent:
			n, o = reference(b, i)
		case c == ']':
			brackets = min(s.brackets+1, 2)
		case c == '>' && s.brackets == 2:
			if s.state == inContent {
				return faultCDATAEnd // XML 1.0 §2.4
			}
			s.state = inContent
		case c >= 0x80:
			_, n, o = runeAt(b, i)
		case c < 0x20:
			return faultChar
		}
		if o != stepOK {
			s.pos = i
			return o
		}
		s.brackets = brackets
		i += n
	}
	s.pos = i
	return stepMore
}

// name follows the name of an element or an attribute: at most one colon, with
// a name on either side (Namespaces in XML 1.0 §4).
func (s *scanner) name(b []byte, limit int) outcome {
	i := s.pos
	for i < len(b) {
		for s.midName && i < len(b) && classes[b[i]]&asName != 0 {
			i++
		}
		if i-s.mark > limit {
			return faultNameBytes
		}
		if i == len(b) {
			break
		}
		c := b[i]
		switch {
		case c >= 0x80:
			r, n, o := runeAt(b, i)
			if o != stepOK {
				s.pos = i
				return o
			}
			if !nameRune(r, !s.midName) {
				return faultName
			}
			i += n
			s.midName = true
		case !s.midName:
			if classes[c]&asStart == 0 {
				return faultName
			}
			i++
			s.midName = true
		case c == ':':
			if s.colon != 0 {
				return faultName
			}
			s.colon, s.midName = int32(i), false
			i++
		default:
			s.pos = i
			s.named()
			return stepOK
		}
	}
	s.pos = i
	return stepMore
}

// named takes the name that ends here.
func (s *scanner) named() {
	q := qname{extent{int32(s.mark), int32(s.pos)}, s.colon}
	if s.state == inAttr {
		s.attrs.push(tagAttr{name: q})
		s.state = inEquals
		return
	}
	s.element = q
	s.attrs.n = 0
	s.state, s.spaced = inGap, false
}

// gap follows what may come after a name or a value in a start tag.
func (r *Reader) gap(s *scanner, b []byte) outcome {
	for isSpace(b[s.pos]) {
		s.spaced = true
		s.pos++
		if s.pos == len(b) {
			return stepMore
		}
	}
	switch c := b[s.pos]; {
	case c == '>':
		s.pos++
		return r.startTag(s, b, false)
	case c == '/':
		s.pos++
		s.state = inEmpty
	case c == '<':
		return faultLess
	case !s.spaced && s.attrs.n == 0:
		return faultName // the name goes on with what no name has
	case !s.spaced:
		return faultSpace // XML 1.0 §3.1
	case s.attrs.n >= r.limits.Attrs:
		return faultAttrs
	default:
		s.state, s.mark, s.colon, s.midName = inAttr, s.pos, 0, false
	}
	return stepOK
}

// assign follows the '=' and the opening quote of an attribute.
func (s *scanner) assign(b []byte) outcome {
	c := b[s.pos]
	s.pos++
	switch {
	case isSpace(c):
	case s.state == inEquals && c == '=':
		s.state = inQuote
	case s.state == inQuote && (c == '\'' || c == '"'):
		s.state, s.quote, s.mark, s.plain = inValue, c, s.pos, true
	default:
		return faultTag
	}
	return stepOK
}

// value follows the value of an attribute.
func (s *scanner) value(b []byte) outcome {
	i := s.pos
	for i < len(b) {
		if classes[b[i]]&asValue != 0 {
			i++
			continue
		}
		n, o := 1, stepOK
		switch c := b[i]; {
		case c == s.quote:
			a := s.attrs.at(s.attrs.n - 1)
			a.value, a.plain = extent{int32(s.mark), int32(i)}, s.plain
			s.pos, s.state, s.spaced = i+1, inGap, false
			return stepOK
		case c == '<':
			return faultLess
		case c == '&':
			s.plain = false
			n, o = reference(b, i)
		case c >= 0x80:
			_, n, o = runeAt(b, i)
		case isSpace(c):
			s.plain = false
		case c < 0x20:
			return faultChar
		}
		if o != stepOK {
			s.pos = i
			return o
		}
		i += n
	}
	s.pos = i
	return stepMore
}

// endTag follows an end tag, which must name the innermost open element, or the root.
func (r *Reader) endTag(s *scanner, b []byte) outcome {
	if s.state == inEndName {
		if s.open.n == 0 {
			s.state = endName(s, b, r.root.name)
		} else {
			s.state = endName(s, b, s.open.at(s.open.n-1).name.of(b))
		}
		if s.state == inEndName && s.pos < len(b) {
			return faultEndTag
		}
	}
	for s.pos < len(b) {
		c := b[s.pos]
		s.pos++
		switch {
		case isSpace(c):
		case c != '>':
			return faultEndTag
		case s.open.n == 0:
			s.header = true
			return stepDone
		default:
			return s.leave()
		}
	}
	return stepMore
}

// endName compares the end tag with the name of the start tag as far as both
// are there; it stays inEndName when the name is not complete, or another.
func endName[T string | []byte](s *scanner, b []byte, name T) state {
	have := min(len(b), s.mark+len(name))
	if string(b[s.pos:have]) != string(name[s.pos-s.mark:have-s.mark]) {
		return inEndName
	}
	s.pos = have
	if have == s.mark+len(name) {
		return inEndGap
	}
	return inEndName
}

// leave closes the innermost element.
func (s *scanner) leave() outcome {
	s.open.n--
	s.state = inContent
	if s.open.n == 0 {
		return stepDone // its bindings stay: its name is yet to be resolved
	}
	s.bindings.n = int(s.open.at(s.open.n).bindings)
	return stepOK
}

const (
	declarationTag = "<?xml"
	maxDeclaration = 256 // bytes; an honest one has about 40
)

// declaration follows the XML declaration; any other processing instruction is forbidden.
func (s *scanner) declaration(b []byte) outcome {
	for ; s.pos < len(b); s.pos++ {
		c := b[s.pos]
		switch {
		case s.pos < len(declarationTag):
			if c != declarationTag[s.pos] {
				return faultPI
			}
		case s.pos == len(declarationTag) && c != '?' && !isSpace(c):
			return faultPI
		case c == '>':
			if s.pos == len(declarationTag)+1 || b[s.pos-1] != '?' {
				return faultDeclaration
			}
			s.pos++
			if o := xmlDeclaration(b[len(declarationTag) : s.pos-2]); o != stepOK {
				return o
			}
			return stepDone
		case c == '<', c >= 0x80, classes[c] == 0, s.pos >= maxDeclaration:
			return faultDeclaration
		}
	}
	return stepMore
}
