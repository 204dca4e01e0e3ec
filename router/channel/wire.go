package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// WireVersion is the newest form of envelopes that is read here. Nodes of two
// releases that follow each other talk to each other:
//
//  1. The first byte of an envelope is the oldest version whose readers
//     understand it. They take what is at most their own, and refuse the rest as
//     a whole (ErrNewer): who has sent it deals with that.
//  2. A new field goes to the end, whatever it belongs to. Who does not know it
//     skips it; to who knows it, one that is missing is zero. So are bits of flags.
//  3. What must not be overlooked (a kind, a class, a field that changes what the
//     rest means) raises the version, and the first byte of the envelopes that
//     have it, which travel in a batch of their own. What shows sessions (Bind,
//     Change) must stay readable: a node would take people for absent.
//  4. Another layout of what there is takes two releases: one that reads both,
//     then one that writes the new one.
//
// What a version has written is read for ever (testdata/envelope-*.hex).
const WireVersion = 4

// oldestWire is the first version that there are bytes of; spliceWire has Splice,
// markWire a Mark, which is no stanza.
const (
	oldestWire = 2
	spliceWire = 3
	markWire   = 4
)

// Version is the oldest version whose readers understand the envelope.
func (e *Envelope) Version() byte {
	switch {
	case e.mark():
		return markWire
	case e.Splice != Nobody:
		return spliceWire
	}
	return oldestWire
}

// Errors of Decode.
var (
	// ErrWire says that bytes are no Envelope.
	ErrWire = errors.New("not an envelope")
	// ErrNewer says that they are one that only a later release understands.
	ErrNewer = errors.New("an envelope of a newer version than this node reads")
)

// Encode appends the envelope's form for the network. Everything but the
// parsed form of the stanza goes along; of that, what may differ from Raw: the
// addresses and the language.
func Encode(dst []byte, e *Envelope) []byte {
	w := writer{append(dst, e.Version(), byte(e.Kind), byte(e.Class))}
	w.flags(e.Private, e.Replay, e.Solicited, e.Stanza != nil, e.State != nil, e.Stored, e.AtOnce, e.Behind)
	w.ref(e.Session)
	w.uint(e.Seq)
	w.str(e.Lang)
	w.bytes(e.Raw)
	w.uint(uint64(len(e.To)))
	for _, r := range e.To {
		w.ref(r)
	}
	w.edits(&e.Edits)
	w.uint(uint64(e.Pending))
	w.uint(uint64(len(e.Rows)))
	for _, id := range e.Rows {
		w.uint(uint64(id))
	}
	w.uint(uint64(e.Hops))
	w.str(e.Reason)
	w.uint(uint64(e.Stamp))
	if e.Stanza != nil {
		w.str(e.Stanza.From.String())
		w.str(e.Stanza.To.String())
		w.str(e.Stanza.Lang)
	}
	if e.State != nil {
		w.state(e.State)
	}
	w.b = append(w.b, byte(e.Splice))
	w.link(e.Link)
	return w.b
}

// Decode reads what Encode wrote and parses the stanza again. The envelope
// keeps references into b. Errors wrap ErrWire or ErrNewer.
func Decode(b []byte, jids *jid.Cache) (*Envelope, error) {
	switch {
	case len(b) < 3 || b[0] < oldestWire:
		return nil, ErrWire
	case b[0] > WireVersion:
		return nil, fmt.Errorf("%w: %d, and kind %d", ErrNewer, b[0], b[1])
	}
	e := &Envelope{Kind: Kind(b[1]), Class: Class(b[2])}
	r := reader{b: b[3:], jids: jids}
	var hasStanza, hasState bool
	r.flags(&e.Private, &e.Replay, &e.Solicited, &hasStanza, &hasState, &e.Stored, &e.AtOnce, &e.Behind)
	e.Session = r.ref()
	e.Seq = r.uint()
	e.Lang = r.str()
	e.Raw = r.bytes()
	for range r.count() {
		e.To = append(e.To, r.ref())
	}
	r.edits(&e.Edits, len(e.Raw))
	e.Pending = int64(r.uint())
	for range r.count() {
		e.Rows = append(e.Rows, int64(r.uint()))
	}
	e.Hops = uint8(r.uint())
	e.Reason = r.str()
	e.Stamp = int64(r.uint())
	var from, to jid.JID
	var lang string
	if hasStanza {
		from, to, lang = r.jid(), r.jid(), r.str()
	}
	if hasState {
		e.State = r.state()
	}
	if len(r.b) > 0 { // since version 3
		e.Splice = Splice(r.byte())
	}
	if len(r.b) > 0 { // since version 4
		e.Link = r.link()
	}
	if r.failed || !e.Kind.known() || e.Splice > Bare {
		return nil, ErrWire
	}
	if hasStanza {
		return e, e.parse(jids, from, to, lang)
	}
	return e, nil
}

// EncodeBatch appends a batch's form for the network.
func EncodeBatch(dst []byte, batch []*Envelope) []byte {
	var one []byte
	for _, e := range batch {
		one = Encode(one[:0], e)
		dst = binary.AppendUvarint(dst, uint64(len(one)))
		dst = append(dst, one...)
	}
	return dst
}

// DecodeBatch reads what EncodeBatch wrote, or nothing of it. The envelopes keep
// references into b. Errors are those of Decode.
func DecodeBatch(b []byte, jids *jid.Cache) (batch []*Envelope, err error) {
	r := reader{b: b}
	for len(r.b) > 0 {
		one := r.bytes()
		if r.failed || one == nil {
			return nil, ErrWire
		}
		e, err := Decode(one, jids)
		if err != nil {
			return nil, err
		}
		batch = append(batch, e)
	}
	return batch, nil
}

// parse rebuilds Stanza from Raw and what the sending stage has decided.
func (e *Envelope) parse(jids *jid.Cache, from, to jid.JID, lang string) error {
	if e.Kind == Deliver { // Raw with Edits need not be a stanza without them; only the addresses matter
		e.Stanza = &stanza.Stanza{From: from, To: to, Lang: lang, Raw: e.Raw}
		return nil
	}
	st, err := stanza.Parse(e.Raw, ContentNS(e.Session), jids)
	var address *stanza.AddressError
	if err != nil && !errors.As(err, &address) { // the stage that sent it knows about addresses
		return fmt.Errorf("%w: %w", ErrWire, err)
	}
	st.Rebase()
	st.From, st.To, st.Lang = from, to, lang
	e.Stanza = st
	return nil
}

// ContentNS is the namespace of the stanzas of a stream; of the house's own for none.
func ContentNS(ref sessions.Ref) string {
	switch {
	case ref.IsZero():
	case ref.Peer() == sessions.Component:
		return stanza.NSComponent
	case ref.Peer() == sessions.Server:
		return stanza.NSServer
	}
	return stanza.NSClient
}

type writer struct{ b []byte }

func (w *writer) uint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }
func (w *writer) str(s string)  { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bytes(p []byte) {
	w.uint(uint64(len(p)))
	w.b = append(w.b, p...)
}

func (w *writer) flags(fs ...bool) {
	var n byte
	for i, f := range fs {
		if f {
			n |= 1 << i
		}
	}
	w.b = append(w.b, n)
}

func (w *writer) ref(r sessions.Ref) {
	w.str(r.Node)
	w.uint(r.Conn)
	w.str(r.JID.String())
}

func (w *writer) span(s stanza.Span) { w.uint(uint64(s.Start)); w.uint(uint64(s.End)) }

func (w *writer) edits(e *stanza.Edits) {
	w.bytes(e.Head)
	w.span(e.Inner)
	w.uint(uint64(len(e.Cut)))
	for _, c := range e.Cut {
		w.span(c)
	}
	w.bytes(e.Append)
	w.str(e.Tail)
}

func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.uint(0)
		return
	}
	w.uint(uint64(t.UnixMicro()))
}

func (w *writer) state(s *sessions.State) {
	w.b = append(w.b, byte(s.Kind), byte(s.Priority))
	w.flags(s.Available, s.Interested, s.Carbons, s.Blocking, s.Hibernated, s.Replaying, s.Secure, s.Paused)
	w.flags(s.Buried)
	w.bytes(s.Presence)
	w.time(s.PresenceAt)
	for _, v := range [...]string{s.CapsNode, s.CapsHash, s.Device, s.Remote, s.Transport} {
		w.str(v)
	}
	w.time(s.BoundAt)
}

// reader reads fields; after the first fault everything is zero.
type reader struct {
	b      []byte
	failed bool
	jids   *jid.Cache // may be nil
}

func (r *reader) fail() { r.failed, r.b = true, nil }

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count is a number of things that each take a byte at least.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count()
	if n == 0 {
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) str() string { return string(r.bytes()) }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) flags(fs ...*bool) {
	n := r.byte()
	for i, f := range fs {
		*f = n&(1<<i) != 0
	}
}

func (r *reader) jid() jid.JID {
	b := r.bytes()
	if b == nil {
		return jid.JID{}
	}
	j, err := r.parse(b)
	if err != nil {
		r.fail()
	}
	return j
}

func (r *reader) parse(b []byte) (jid.JID, error) {
	if r.jids != nil {
		return r.jids.Parse(b)
	}
	return jid.Parse(string(b))
}

func (r *reader) ref() sessions.Ref {
	return sessions.Ref{Node: r.str(), Conn: r.uint(), JID: r.jid()}
}

// span reads a place in Raw, which has the given size.
func (r *reader) span(size int) stanza.Span {
	s := stanza.Span{Start: int(r.uint()), End: int(r.uint())}
	if s.Start < 0 || s.End < s.Start || s.End > size {
		r.fail()
		return stanza.Span{}
	}
	return s
}

func (r *reader) edits(e *stanza.Edits, size int) {
	e.Head = r.bytes()
	e.Inner = r.span(size)
	for range r.count() {
		e.Cut = append(e.Cut, r.span(size))
	}
	e.Append = r.bytes()
	e.Tail = r.str()
}

func (r *reader) time() time.Time {
	n := r.uint()
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n))
}

func (r *reader) state() *sessions.State {
	s := &sessions.State{Kind: sessions.Kind(r.byte()), Priority: int8(r.byte())}
	r.flags(&s.Available, &s.Interested, &s.Carbons, &s.Blocking, &s.Hibernated, &s.Replaying, &s.Secure, &s.Paused)
	r.flags(&s.Buried)
	s.Presence = r.bytes()
	s.PresenceAt = r.time()
	for _, v := range [...]*string{&s.CapsNode, &s.CapsHash, &s.Device, &s.Remote, &s.Transport} {
		*v = r.str()
	}
	s.BoundAt = r.time()
	return s
}
