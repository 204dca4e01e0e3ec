package bosh

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"parley/parser/stanza"
)

// Namespaces of XEP-0124 and XEP-0206.
const (
	nsBind = "http://jabber.org/protocol/httpbind"
	nsXMPP = "urn:xmpp:xbosh"
)

// maxRID is the largest request identifier (XEP-0124 §14.1).
const maxRID = 1<<53 - 1

// headSize is how much of a body is read before it is known whose it is, and
// all that somebody who has not logged in may send at once, in bytes.
const headSize = 16 << 10

// condition is a terminal binding condition (XEP-0124 §17.2).
type condition string

const (
	badRequest         condition = "bad-request"
	improperAddressing condition = "improper-addressing"
	itemNotFound       condition = "item-not-found"
	otherRequest       condition = "other-request"
	policyViolation    condition = "policy-violation"
	connectionFailed   condition = "remote-connection-failed"
	streamError        condition = "remote-stream-error"
)

// Error implements error.
func (c condition) Error() string { return string(c) }

// request is a <body/> of a client (XEP-0124 §6).
type request struct {
	rid                     uint64
	sid                     string
	to, from, lang, version string
	wait, hold              int // -1: not said
	pause                   int // seconds; 0: none
	acks                    bool
	terminate, restart      bool
	frames                  [][]byte // its elements, each a document of its own
}

// bodyReader takes a body in two steps: its start tag says whose it is, and so
// how long the rest may be.
type bodyReader struct {
	rd   *stanza.Reader
	src  io.Reader
	read int
}

// The stream has limits of its own for what is inside, which are never above
// these.
func newBodyReader(src io.Reader, most int) *bodyReader {
	return &bodyReader{rd: stanza.NewReader(stanza.Stream, stanza.Limits{Bytes: most, Depth: 1000, Attrs: 1000}), src: src}
}

// head reads the start tag.
func (b *bodyReader) head() (*request, error) {
	if err := b.fill(headSize); err != nil {
		return nil, err
	}
	t, err := b.rd.Next()
	if err != nil || t.Kind != stanza.Open || t.Name != (stanza.Name{Space: nsBind, Local: "body"}) {
		return nil, badRequest
	}
	q := &request{lang: t.Open.Lang()}
	for _, a := range t.Open.Attrs {
		if !q.set(a.Name, a.Value) {
			return nil, badRequest
		}
	}
	if q.rid == 0 {
		return nil, badRequest
	}
	return q, nil
}

// fill reads up to n bytes more; a body that ends sooner is no error.
func (b *bodyReader) fill(n int) error {
	p, err := io.ReadAll(io.LimitReader(b.src, int64(n)))
	if err != nil {
		return fmt.Errorf("BOSH request: %w", err) // a connection that is lost costs no session
	}
	b.read += len(p)
	if b.read == len(p) { // no document begins with white space, but bodies do
		p = bytes.TrimLeft(p, " \t\r\n")
	}
	b.rd.Feed(p)
	return nil
}

// rest reads the elements into q; the whole body has at most so many bytes.
func (b *bodyReader) rest(q *request, most int) error {
	if b.read >= headSize || b.read > most {
		if err := b.fill(max(most-b.read, 0) + 1); err != nil {
			return err
		}
	}
	if b.read > most {
		return policyViolation
	}
	for {
		t, err := b.rd.Next()
		switch {
		case err != nil: // ErrMore too: nothing more comes
			return badRequest
		case t.Kind == stanza.Close:
			return nil
		}
		q.frames = append(q.frames, document(t))
	}
}

// document makes a document of an element. Clients that leave its namespace
// out mean the one of stanzas (XEP-0206 §3).
func document(t stanza.Token) []byte {
	if t.Name.Space != nsBind {
		return t.Raw
	}
	at := stanza.NameEnd(t.Raw)
	const attr = " xmlns='" + stanza.NSClient + "'"
	out := make([]byte, 0, len(t.Raw)+len(attr))
	return append(append(append(out, t.Raw[:at]...), attr...), t.Raw[at:]...)
}

// set takes an attribute of a request; false: the value is none. Others are not ours.
func (q *request) set(name stanza.Name, v string) bool {
	switch name {
	case stanza.Name{Local: "rid"}:
		return number(&q.rid, v)
	case stanza.Name{Local: "sid"}:
		q.sid = v
		return v != ""
	case stanza.Name{Local: "to"}:
		q.to = v
	case stanza.Name{Local: "from"}:
		q.from = v
	case stanza.Name{Local: "wait"}:
		return seconds(&q.wait, v)
	case stanza.Name{Local: "hold"}:
		return seconds(&q.hold, v)
	case stanza.Name{Local: "pause"}:
		return seconds(&q.pause, v) && q.pause > 0
	case stanza.Name{Local: "ack"}:
		q.acks = true
	case stanza.Name{Local: "type"}:
		q.terminate = v == "terminate"
	case stanza.Name{Space: nsXMPP, Local: "version"}:
		q.version = v
	case stanza.Name{Space: nsXMPP, Local: "restart"}:
		q.restart = v == "true" || v == "1"
	}
	return true
}

func number(n *uint64, v string) bool {
	x, err := strconv.ParseUint(v, 10, 64)
	*n = x
	return err == nil && x > 0 && x <= maxRID
}

func seconds(n *int, v string) bool {
	x, err := strconv.ParseUint(v, 10, 31)
	*n = int(x)
	return err == nil
}

// opening is the header of a stream that begins (RFC 7395 §3.4), as the
// session's transport has it.
func (q *request) opening() []byte {
	version := q.version
	if version == "" {
		version = "1.0"
	}
	return stanza.El(stanza.NSFraming, "open").With("to", q.to).With("version", version).
		WithOpt("from", q.from).WithOpt("xml:lang", q.lang).Bytes("")
}

// closing ends it (RFC 7395 §3.6).
func closing() []byte { return stanza.El(stanza.NSFraming, "close").Bytes("") }

// response is a <body/> of ours.
type response struct {
	attrs   []byte // each with a blank before it
	payload [][]byte
}

func (r *response) set(name, value string) {
	el := stanza.El("", "x").With("v", value).Bytes("")
	r.attrs = append(append(append(r.attrs, ' '), name...), el[len("<x v"):len(el)-len("/>")]...)
}

func (r *response) setInt(name string, n uint64) { r.set(name, strconv.FormatUint(n, 10)) }

func (r *response) end(c condition) {
	r.set("type", "terminate")
	if c != "" {
		r.set("condition", string(c))
	}
}

// render declares the prefixes that elements of streams have (XEP-0206 §4).
func (r *response) render() []byte {
	n := len(r.attrs) + 256
	for _, p := range r.payload {
		n += len(p)
	}
	b := append(make([]byte, 0, n), "<body xmlns='"+nsBind+"' xmlns:xmpp='"+nsXMPP+"' xmlns:stream='"+stanza.NSStream+"'"...)
	b = append(b, r.attrs...)
	if len(r.payload) == 0 {
		return append(b, "/>"...)
	}
	b = append(b, '>')
	for _, p := range r.payload {
		b = append(b, p...)
	}
	return append(b, "</body>"...)
}

// terminated is a body that says only that, and why.
func terminated(c condition) []byte {
	var r response
	r.end(c)
	return r.render()
}
