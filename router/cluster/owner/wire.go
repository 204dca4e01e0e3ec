package owner

import (
	"encoding/binary"
	"errors"
)

// wireVersion is the first byte of what travels.
const wireVersion = 1

// errWire says that bytes are nothing of a version known here.
var errWire = errors.New("not a call or an answer")

// question is a call as it travels.
type question struct {
	id      uint64
	take    bool // nobody owned the key when it was sent
	topic   string
	key     string
	payload []byte
}

func (q question) encode() []byte {
	b := make([]byte, 0, 16+len(q.topic)+len(q.key)+len(q.payload))
	b = binary.AppendUvarint(append(b, wireVersion), q.id)
	take := byte(0)
	if q.take {
		take = 1
	}
	b = appendText(append(b, take), q.topic)
	return append(appendText(b, q.key), q.payload...)
}

func decodeQuestion(b []byte) (q question, err error) {
	r := reader{b: b}
	r.version()
	q.id = r.uint()
	q.take = r.byte() == 1
	q.topic, q.key = r.text(), r.text()
	q.payload = r.b
	return q, r.err
}

// outcome is what became of a call.
type outcome byte

// The outcomes.
const (
	done        outcome = iota + 1
	moved               // nothing was done: the key is another node's
	untaken             // nothing was done: this node takes no more
	unavailable         // the database, or the node's lease
	failed
	silent // no answer came; never sent
)

func (o outcome) String() string {
	return [...]string{"unknown", "done", "moved", "untaken", "unavailable", "failed", "silent"}[min(o, silent)]
}

// answer is what goes back.
type answer struct {
	id      uint64
	what    outcome
	payload []byte
}

func (a answer) encode() []byte {
	b := make([]byte, 0, 12+len(a.payload))
	b = binary.AppendUvarint(append(b, wireVersion), a.id)
	return append(append(b, byte(a.what)), a.payload...)
}

func decodeAnswer(b []byte) (a answer, err error) {
	r := reader{b: b}
	r.version()
	a.id = r.uint()
	a.what = outcome(r.byte())
	if r.err == nil && (a.what < done || a.what >= silent) {
		r.err = errWire
	}
	a.payload = r.b
	return a, r.err
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads fields; after the first fault everything is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, errWire }

func (r *reader) version() {
	if r.byte() != wireVersion {
		r.fail()
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) text() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
