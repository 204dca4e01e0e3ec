package stanza

// Reader cuts the bytes of one stream into tokens. It is the only gate: what it
// hands out is well-formed and namespace-well-formed XML within the
// restrictions of RFC 6120 §11, to the last byte, so that it may go out raw on
// other streams. Limits hold while bytes come, complete or not; tokens and
// errors are the same however the bytes are cut. Between elements it holds no
// buffer. Not safe for concurrent use.
type Reader struct {
	data   []byte   // bytes not consumed yet, from off; the caller's, unless owned
	saved  *scanner // the place in an unfinished element
	err    *StreamError
	limits Limits
	root   rootScope
	off    int
	mode   Mode
	phase  phase
	owned  bool
	again  bool // after Restart: white space may come before the XML declaration
}

// phase is how far the stream has come.
type phase uint8

const (
	phaseStart   phase = iota // at the very first byte (Framed: of a frame)
	phaseProlog               // after the XML declaration or white space
	phaseBody                 // the root is open
	phaseClosing              // the root was an empty element: Close is due
	phaseClosed
)

// NewReader returns a Reader for one stream. Fields of limits that are zero mean their defaults.
func NewReader(mode Mode, limits Limits) *Reader {
	return &Reader{mode: mode, limits: limits.filled()}
}

// SetLimits takes effect from the next byte looked at, inside an element too.
func (r *Reader) SetLimits(limits Limits) { r.limits = limits.filled() }

// Reset begins a new stream: after TLS, SASL (RFC 6120 §4.3.3), or a framed
// restart. Every byte fed and not returned is dropped, so that nothing sent
// before a TLS handshake can count as sent within (RFC 6120 §5.4.3.3). Limits stay.
func (r *Reader) Reset(mode Mode) { *r = Reader{mode: mode, limits: r.limits} }

// Restart is Reset for a restart inside the same encryption, as after SASL
// (RFC 6120 §6.4.6): bytes that came behind the element it follows belong to
// the new stream and are kept. White space before its XML declaration is still
// the old stream's (RFC 6120 §11.7): clients end <auth/> with a line break.
func (r *Reader) Restart(mode Mode) {
	*r = Reader{mode: mode, limits: r.limits, data: r.data, off: r.off, owned: r.owned, again: mode == Stream}
}

// Buffered is how many bytes fed have not been returned as tokens or skipped.
// Zero after ErrMore: the Reader stands between elements and holds no buffer.
// In Framed mode a message is one element when it yields an Item and leaves zero.
func (r *Reader) Buffered() int { return len(r.data) - r.off }

// Feed adds bytes. p is the Reader's until Next returns ErrMore or an error:
// what is left over by then is copied. Bytes after Close or an error are ignored.
func (r *Reader) Feed(p []byte) {
	switch {
	case r.err != nil, r.phase >= phaseClosing, len(p) == 0:
	case r.Buffered() == 0:
		r.data, r.off, r.owned = p, 0, false
	default:
		r.detach()
		r.data = append(r.data, p...)
	}
}

// Next returns the next token. The error is ErrMore, or a *StreamError to close
// the stream with, which stays.
func (r *Reader) Next() (Token, error) {
	switch {
	case r.err != nil:
		return Token{}, r.err
	case r.phase == phaseClosing:
		r.phase = phaseClosed
		return Token{Kind: Close}, nil
	case r.phase == phaseClosed:
		return Token{}, ErrMore
	}
	for {
		if r.saved == nil {
			if o := r.between(); o != stepOK {
				return r.stop(o)
			}
		}
		tok, o := r.element()
		switch {
		case o != stepDone:
			return r.stop(o)
		case tok.Kind != 0:
			return tok, nil
		}
	}
}

// between skips white space up to the next '<' (RFC 6120 §11.7).
func (r *Reader) between() outcome {
	for ; r.off < len(r.data); r.off++ {
		c := r.data[r.off]
		switch {
		case c == '<':
			return stepOK
		case !isSpace(c):
			return r.stray(c)
		case r.phase != phaseStart, r.again:
		case r.mode == Framed:
			return faultFrame // RFC 7395 §3.3.3, §3.8
		default:
			r.phase = phaseProlog
		}
	}
	return stepMore
}

// stray says what is wrong with a character between elements.
func (r *Reader) stray(c byte) outcome {
	switch {
	case r.phase == phaseStart && c >= 0xfe:
		return faultEncoding // a UTF-16 byte order mark, RFC 6120 §11.6
	case c < 0x20:
		return faultChar
	case c >= 0x80:
		if _, _, o := runeAt(r.data, r.off); o != stepOK {
			return o
		}
	}
	switch {
	case r.phase == phaseBody:
		return faultStray
	case r.mode == Framed && r.phase == phaseStart:
		return faultFrame
	}
	return faultProlog
}

// element goes on with the element at r.off. A window that ends at the limit
// keeps bytes beyond it out of sight.
func (r *Reader) element() (Token, outcome) {
	b := r.data[r.off:]
	tooBig := len(b) > r.limits.Bytes
	if tooBig {
		b = b[:r.limits.Bytes]
	}
	s := r.saved
	var fresh scanner
	if s == nil {
		s = &fresh
		s.pos = 1
	}
	o := r.scan(s, b)
	switch {
	case o == stepDone:
		r.saved = nil
		return r.complete(s, b[:s.pos])
	case o != stepMore:
		return Token{}, o
	case tooBig:
		return Token{}, faultBytes
	case r.saved == nil:
		saved := fresh
		r.saved = &saved
	}
	return Token{}, stepMore
}

// complete consumes b, which is exactly what the scanner found complete, and makes its token.
func (r *Reader) complete(s *scanner, b []byte) (tok Token, o outcome) {
	o = stepDone
	switch {
	case s.state == inDecl:
		r.phase = phaseProlog
	case s.state == inEndGap && s.header:
		tok.Kind, r.phase = Close, phaseClosed
	case s.header:
		if tok, o = r.header(s, b); o != stepDone {
			return tok, o
		}
		r.phase = phaseBody
		if s.closed {
			r.phase = phaseClosing
		}
	default:
		tok = r.item(s, b)
		if r.mode == Framed {
			r.phase = phaseStart
		}
	}
	r.off += len(b)
	if r.off == len(r.data) || r.phase >= phaseClosing {
		r.release()
	}
	return tok, o
}

// stop ends Next without a token.
func (r *Reader) stop(o outcome) (Token, error) {
	if o != stepMore {
		r.err = o.streamError()
		r.saved = nil
		r.release()
		return Token{}, r.err
	}
	if r.off == len(r.data) {
		r.release()
	} else {
		r.detach()
	}
	return Token{}, ErrMore
}

func (r *Reader) release() { r.data, r.off, r.owned = nil, 0, false }

// detach makes the bytes left over the Reader's own, in a buffer that suits them.
func (r *Reader) detach() {
	left := r.data[r.off:]
	switch {
	case !r.owned || r.off > 0 && cap(r.data) > 4*len(left)+4096:
		left = append([]byte(nil), left...)
	case r.off > 0:
		left = r.data[:copy(r.data, left)]
	}
	r.data, r.off, r.owned = left, 0, true
}
