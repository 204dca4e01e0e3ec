package channel

import (
	"encoding/binary"
	"fmt"

	"parley/parser/jid"
	"parley/router/sessions"
)

// Link is a Deliver's place in a chain: what a feature tells many sessions in one
// order, and each of them is to get whole from its start on (D3 in a room). Whatever is
// lost on the way to a streamer, or comes twice because another node goes on with the
// chain, the session sees: it takes a link that begins where it is, passes over one that
// it has been at, and says (Gap) that it has missed something when a link begins beyond
// that. Its feature then sends it what follows on what it has.
//
// A session remembers a place for each chain, and nothing of what it has got or missed.
type Link struct {
	Feature string  // whose chain it is; its part in the processor hears of gaps as of notes
	Chain   jid.JID // which of its
	After   int64   // where it begins: the place before it that a session must have got to
	At      int64   // where a session is that has it; places rise
	Start   bool    // the session goes on from here, wherever it is
	End     bool    // it has no part in the chain any more
	Check   bool    // it is no place: the session only says whether it has got to After
}

// Mark is a Deliver of a link alone: clients see nothing of it.
func Mark(l Link, to []sessions.Ref) *Envelope {
	return &Envelope{Kind: Deliver, To: to, Class: ChatState, Link: &l, rendered: true}
}

// mark reports whether the envelope is one.
func (e *Envelope) mark() bool { return e.Link != nil && len(e.Raw) == 0 }

// Gap is what a session says of a chain.
type Gap struct {
	Chain jid.JID
	After int64 // it has everything up to here; 0: it does not know
	Since int64 // with After 0: what was handed over before it has got, unix microseconds
	At    int64 // where the link was that it could not take
	// Stranger: it has no part in the chain, and its client does not know that somebody
	// thinks so: an earlier session had the address.
	Stranger bool
}

// Encode returns the gap as a note.
func (g *Gap) Encode() []byte {
	w := writer{}
	w.str(g.Chain.String())
	for _, n := range [...]int64{g.After, g.Since, g.At} {
		w.b = binary.AppendVarint(w.b, n)
	}
	w.flags(g.Stranger)
	return w.b
}

// DecodeGap reads what Encode wrote. Errors wrap ErrWire.
func DecodeGap(b []byte) (g Gap, err error) {
	r := reader{b: b}
	g.Chain = r.jid()
	for _, n := range [...]*int64{&g.After, &g.Since, &g.At} {
		var size int
		if *n, size = binary.Varint(r.b); size <= 0 {
			return Gap{}, fmt.Errorf("gap: %w", ErrWire)
		}
		r.b = r.b[size:]
	}
	r.flags(&g.Stranger)
	if r.failed || g.Chain.IsZero() {
		return Gap{}, fmt.Errorf("gap: %w", ErrWire)
	}
	return g, nil
}

func (w *writer) link(l *Link) {
	if l == nil {
		w.str("")
		return
	}
	w.str(l.Feature)
	w.str(l.Chain.String())
	w.uint(uint64(l.After))
	w.uint(uint64(l.At))
	w.flags(l.Start, l.End, l.Check)
}

func (r *reader) link() *Link {
	feature := r.str()
	if feature == "" {
		return nil
	}
	l := &Link{Feature: feature, Chain: r.jid(), After: int64(r.uint()), At: int64(r.uint())}
	r.flags(&l.Start, &l.End, &l.Check)
	return l
}
