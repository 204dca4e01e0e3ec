// Package channel joins the stages of the house.
//
// What travels is an Envelope; it may cross a network, so it carries bytes and
// names, never a pointer into a stage's memory (Stanza is the one exception:
// it is derived from Raw and rebuilt where it does not arrive). A stage sends
// into a MessageChannel and receives from a DataReceiver; which of the
// implementations sits between them is configuration:
//
//	Inline  a function call on the sender's goroutine (the default)
//	Queue   n bounded shards, each with a worker; order kept per lane
package channel

import (
	"context"
	"errors"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// Kind tells what an Envelope carries. Control travels the same road as
// stanzas, so that it keeps its place among them.
type Kind uint8

// The kinds, with the direction they travel in.
const (
	Stanza      Kind = iota + 1 // streamer → parser → processor: an element of a bound stream
	Bind                        // streamer → … → processor: a stream wants Session.JID; answered by Handled
	Unbind                      // streamer → … → processor: a stream is gone for good
	Acked                       // streamer → … → processor: the recipient has these Pending rows
	Undelivered                 // streamer → … → processor: written to nobody, the session died
	Change                      // both ways: a session's state is now State
	Route                       // processor → router: find the recipients of Stanza
	Deliver                     // router → streamer: write Raw with Edits to every one of To
	Handled                     // router → streamer: everything of Session up to Seq is done and durable
	Close                       // router → streamer: end the streams To with the stream error Reason
	Poisoned                    // router, streamer → processor: handling it panicked with Reason (reliability row 38)
	Arrive                      // processor → router → processor of the node that has To: it knows more about them
	Note                        // both ways: the part of the feature Reason in the one Server tells its part in the other about Session, or To: Raw
)

var kindNames = [...]string{"none", "stanza", "bind", "unbind", "acked", "undelivered", "change", "route", "deliver", "handled", "close", "poisoned", "arrive", "note"}

func (k Kind) known() bool { return k >= Stanza && int(k) < len(kindNames) }

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Class tells a streamer how urgent a delivery is while its client is
// inactive (XEP-0352 §5.1).
type Class uint8

// The classes of deliveries.
const (
	Urgent    Class = iota // goes out at once
	Presence               // only the last one per sender matters
	ChatState              // of no use later
)

// Splice tells whose address each recipient of a Deliver finds in 'to', when the
// bytes that they share have none.
type Splice uint8

// The addresses.
const (
	Nobody Splice = iota // the bytes are complete
	Full                 // the recipient's full JID
	Bare                 // its account's
)

// Of is the address for a recipient; zero: none is added.
func (s Splice) Of(to jid.JID) jid.JID {
	switch s {
	case Full:
		return to
	case Bare:
		return to.Bare()
	}
	return jid.JID{}
}

// Envelope is what travels between Servers.
type Envelope struct {
	Kind      Kind
	Session   sessions.Ref    // the stream it came from or is about; zero: the house itself
	Seq       uint64          // position among the session's inbound stanzas (the XEP-0198 counter); Route, Deliver: of the one that this refuses
	Lang      string          // Stanza: the stream's language, when the stanza has to name it (RFC 6120 §8.1.5)
	Raw       []byte          // the element as it arrived; never modified
	Stanza    *stanza.Stanza  // its parsed form; local only, rebuilt on arrival at another node
	To        []sessions.Ref  // Deliver, Close: the streams on the node it goes to
	Edits     stanza.Edits    // Route, Deliver: fresh start tag, spans to cut, elements to append
	State     *sessions.State // Bind, Change; Unbind of a session of a node that is gone: its last
	Pending   int64           // Route, Deliver: the archive row that the recipient's acknowledgement frees; 0: none
	Rows      []int64         // Acked: freed rows
	Class     Class           // Deliver
	Private   bool            // Route: no copies to other devices (XEP-0280 §9)
	Replay    bool            // Route: goes to exactly this full JID, pending replay included
	Solicited bool            // Route, Deliver: the recipient has asked for it, so it waits for room instead of being cut off
	Stored    bool            // Handled: a restart does not forget Seq
	AtOnce    bool            // Close: the session ends without waiting for its client
	Behind    bool            // Deliver: something older may not have got there, so the recipient looks into the archive first
	Hops      uint8           // how often the house has re-routed it; bounded, so that loops end
	Reason    string          // Close: stream error condition; Unbind: why it ended, when by ours; Handled of a Bind: why it was refused
	Stamp     int64           // Undelivered: when it was first handed over; Arrive, to the owner of a key: when the session was bound that says it, 0: none of ours; unix microseconds
	Splice    Splice          // Deliver: each of To finds its own address in 'to', which neither Raw nor Edits have
	Link      *Link           // Deliver: its place in a chain; nil: it has none

	rendered bool            // Raw is as it goes out, and nothing else is in the same memory
	one      [1]sessions.Ref // room for To, which mostly is one
}

// Address adds to To, which will have up to n more.
func (e *Envelope) Address(to sessions.Ref, n int) {
	switch {
	case e.To != nil:
	case n == 1:
		e.To = e.one[:0]
	default:
		e.To = make([]sessions.Ref, 0, n)
	}
	e.To = append(e.To, to)
}

// FrontLost is the Reason of the Unbind of a session whose socket, and what its
// streamer knew, has gone with another process: it may be resumed all the same.
const FrontLost = "front-lost"

// MaxHops bounds Envelope.Hops.
const MaxHops = 8

// Lane is the key of the order that must be kept: envelopes of one lane are
// handled in the order of their sending. On the way in a stream is a lane; on a
// component's, which carries many users and counts nothing (XEP-0198), the pair of
// sender and bare recipient is (RFC 6120 §10.1). On the way out everything for one account is a lane, so
// that a push, the reply behind it and the Handled behind that stay in order.
func (e *Envelope) Lane() uint64 {
	switch {
	case e.Kind == Route && e.Stanza != nil:
		return lane(e.Stanza.To.Bare())
	case e.Kind == Handled:
		return lane(e.Session.JID.Bare())
	case len(e.To) > 0: // Deliver, Close
		return lane(e.To[0].JID.Bare())
	case e.Stanza != nil && (e.Session.Peer() == 0 || e.Session.Peer() == sessions.Component):
		return lane(e.Stanza.From, e.Stanza.To.Bare())
	}
	return e.Session.Conn
}

func lane(addresses ...jid.JID) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, a := range addresses {
		s := a.String()
		for i := 0; i < len(s); i++ {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return h
}

// Handler does a stage's work on one batch: what one read of one session
// brought, or what one batch of the stage before it led to.
type Handler func(context.Context, []*Envelope) error

// MessageChannel is a stage's way out. Send returns on acceptance; it blocks
// while the receiving stage is stopped or full and fails only with ctx or
// ErrClosed. It never drops silently. The envelopes belong to the receiver.
type MessageChannel interface {
	Send(ctx context.Context, batch []*Envelope) error
}

// DataReceiver is a stage's way in. Receive hands batches to h until ctx is
// done, one batch at a time and in order per lane, and returns when the last
// one that was accepted has been handled.
type DataReceiver interface {
	Receive(ctx context.Context, h Handler) error
}

// ErrClosed says that the channel is gone for good.
var ErrClosed = errors.New("channel closed")

// ErrLost says that the stage was another node's, which has gone, and nobody has
// taken its place yet. It is an ErrClosed.
var ErrLost = fmt.Errorf("the node that has the stage is gone: %w", ErrClosed)
