package channel

import (
	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// Spread is a Deliver of one stanza to many streams, which share its bytes: each
// gets it from the same sender with its own address, of which Splice tells more.
// st.To is not looked at, and st must not be changed after. from keeps it in line with what else that stream sends;
// zero: the house itself.
func Spread(from sessions.Ref, st *stanza.Stanza, splice Splice, to []sessions.Ref) *Envelope {
	return &Envelope{Kind: Deliver, Session: from, Raw: st.AppendShared(nil), Stanza: st, To: to, Class: ClassOf(st), Splice: splice, rendered: true}
}

// Shared is what all recipients of a Deliver get, but for Splice. It must not be
// changed.
func (e *Envelope) Shared() []byte {
	if e.rendered || e.mark() {
		return e.Raw
	}
	return e.Edits.Render(nil, e.Raw)
}

// Rendered appends what a recipient of a Deliver gets.
func (e *Envelope) Rendered(dst []byte, to jid.JID) []byte {
	shared, own := e.Shared(), e.Splice.Of(to)
	if own.IsZero() {
		return append(dst, shared...)
	}
	at := stanza.NameEnd(shared)
	dst = append(dst, shared[:at]...)
	return append(stanza.AppendTo(dst, own), shared[at:]...)
}

// Apart returns a Deliver as one for each recipient, with bytes of its own, for
// who does not know of Splice.
func (e *Envelope) Apart() []*Envelope {
	out := make([]*Envelope, len(e.To))
	for i, ref := range e.To {
		one := *e
		one.Raw, one.Edits, one.Splice, one.To = e.Rendered(nil, ref.JID), stanza.Edits{}, Nobody, nil
		one.Address(ref, 1)
		if e.Stanza != nil {
			one.Stanza = &stanza.Stanza{From: e.Stanza.From, To: e.Splice.Of(ref.JID), Lang: e.Stanza.Lang, Raw: one.Raw}
		}
		out[i] = &one
	}
	return out
}

// Divide returns an envelope's parts by something that its recipients differ in.
func Divide[K comparable](e *Envelope, by func(sessions.Ref) K) map[K]*Envelope {
	out := map[K]*Envelope{}
	for _, ref := range e.To {
		k := by(ref)
		p := out[k]
		if p == nil {
			fresh := *e
			fresh.To = nil
			p = &fresh
			out[k] = p
		}
		p.To = append(p.To, ref)
	}
	return out
}

// ClassOf tells how urgent the stanza is to a client that nobody looks at
// (XEP-0352 §5.1).
func ClassOf(st *stanza.Stanza) Class {
	switch {
	case st.Kind == stanza.Presence && (st.Type == "" || st.Type == stanza.TypeUnavailable):
		return Presence
	case st.Kind == stanza.Message && chatStateOnly(st):
		return ChatState
	}
	return Urgent
}

func chatStateOnly(st *stanza.Stanza) bool {
	state := false
	for _, c := range st.Children {
		switch c.Name.Space {
		case stanza.NSChatStates:
			state = true
		case stanza.NSHints:
		default:
			if c.Name.Local != "thread" {
				return false
			}
		}
	}
	return state
}
