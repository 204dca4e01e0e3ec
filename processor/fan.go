package processor

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// Fan routes one stanza to many full JIDs: the occupants of a room. Each gets it
// as if it were for that one alone, and in order with everything else that the
// component routes to it; the bytes are shared, st.To is not looked at, and no hook
// sees it. It is on its way before Fan returns; st must not be changed after.
func (r *Registrar) Fan(ctx context.Context, st *stanza.Stanza, to []jid.JID) {
	r.server.send(ctx, r.Fanned(st, to))
}

// Fanned is what Fan routes, for Route: a batch of several writes to each recipient
// once.
//
// Sessions of our users have one envelope, which the way to them divides by their
// nodes. A JID that has no session is left out: what it misses is for the caller to
// keep. Other servers and external components get a stanza each.
//
// What does not reach a session after that comes back as with Emit: of messages
// the sender hears an error (Undelivered), presence is lost.
func (r *Registrar) Fanned(st *stanza.Stanza, to []jid.JID) []*channel.Envelope {
	return r.Linked(st, to, nil)
}

// Linked is Fanned for what is a link of a chain (channel.Link) to the sessions of our
// users: one that has missed what comes before it says so to Noted (channel.Gap), as
// soon as something of the chain comes to it. With st nil it is a mark, for those
// sessions alone. l is nil for what has no place in a chain; its Feature is filled in.
func (r *Registrar) Linked(st *stanza.Stanza, to []jid.JID, l *channel.Link) []*channel.Envelope {
	env := &r.server.env
	var batch []*channel.Envelope
	var here *channel.Envelope // for all of them
	for _, j := range to {
		if !env.Local(j.Domain()) {
			if st == nil {
				continue
			}
			own := *st
			own.To = j
			batch = append(batch, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: &own, Edits: own.Stamp()})
			continue
		}
		if e, ok := env.Sessions.Find(j); ok {
			if here == nil {
				here = r.linked(st, l)
				batch = append(batch, here)
			}
			here.Address(e.Ref, len(to))
		}
	}
	return batch
}

// linked is an envelope for sessions of our users.
func (r *Registrar) linked(st *stanza.Stanza, l *channel.Link) *channel.Envelope {
	if l != nil {
		l.Feature = r.name
	}
	if st == nil {
		return channel.Mark(*l, nil)
	}
	e := channel.Spread(sessions.Ref{}, st, channel.Full, nil)
	e.Link = l
	return e
}
