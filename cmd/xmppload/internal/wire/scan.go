package wire

import "bytes"

// Scanner cuts what a server sends into top-level elements, as cheaply as can
// be: it counts tags and checks nothing. The server's own checks are other
// programs' business; the generator has to be faster than any server.
//
// The stream's start tag and its end tag are handed out as they are. Restricted
// XML (RFC 6120 §11.1) has no comments, processing instructions or DTDs; CDATA
// sections and a raw '>' in an attribute are not expected from servers.
type Scanner struct {
	rest  []byte // an element that is not complete yet
	pos   int    // in rest: where to go on
	depth int
}

var streamTag = []byte("<stream:stream")

// Feed hands each element that p completes to emit. What emit gets is valid
// until it returns.
func (s *Scanner) Feed(p []byte, emit func(el []byte)) {
	b := p
	if len(s.rest) > 0 {
		s.rest = append(s.rest, p...)
		b = s.rest
	}
	start, pos, depth := 0, s.pos, s.depth
	for {
		i := bytes.IndexByte(b[pos:], '<')
		if i < 0 {
			if pos = len(b); depth == 0 {
				start = pos
			}
			break
		}
		i += pos
		if depth == 0 {
			start = i
		}
		j := bytes.IndexByte(b[i:], '>')
		if j < 0 || i+1 == len(b) {
			pos = i
			break
		}
		end := i + j + 1
		pos = end
		switch {
		case b[i+1] == '?':
		case b[i+1] == '/':
			if depth--; depth <= 0 {
				depth = 0
				emit(b[start:end])
			}
		case b[end-2] == '/':
			if depth == 0 {
				emit(b[start:end])
			}
		case depth == 0 && bytes.HasPrefix(b[i:], streamTag):
			emit(b[i:end])
		default:
			depth++
		}
		if depth == 0 {
			start = end
		}
	}
	s.keep(b, start, pos, depth)
}

// keep saves the unfinished element; nothing is held between elements.
func (s *Scanner) keep(b []byte, start, pos, depth int) {
	if start == len(b) {
		*s = Scanner{}
		return
	}
	*s = Scanner{rest: append(s.rest[:0:0], b[start:]...), pos: pos - start, depth: depth}
}

// Attr returns the value of an attribute of the element's start tag, nil when
// it has none. name comes as ` id=`, with the space and the equals sign.
func Attr(el []byte, name string) []byte {
	if end := bytes.IndexByte(el, '>'); end >= 0 {
		el = el[:end]
	}
	i := bytes.Index(el, []byte(name))
	if i < 0 || i+len(name) >= len(el) {
		return nil
	}
	v := el[i+len(name):]
	if j := bytes.IndexByte(v[1:], v[0]); j >= 0 {
		return v[1 : j+1]
	}
	return nil
}

// Number reads decimal digits; -1 when b is something else.
func Number(b []byte) int {
	if len(b) == 0 || len(b) > 12 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// Between returns the bytes between two marks, nil when they are not there.
func Between(el []byte, open, end string) []byte {
	i := bytes.Index(el, []byte(open))
	if i < 0 {
		return nil
	}
	el = el[i+len(open):]
	if i = bytes.Index(el, []byte(end)); i < 0 {
		return nil
	}
	return el[:i]
}
