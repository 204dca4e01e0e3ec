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
	env := &r.server.env
	var batch []*channel.Envelope
	var here *channel.Envelope // for all of them
	for _, j := range to {
		if !env.Local(j.Domain()) {
			own := *st
			own.To = j
			batch = append(batch, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: &own, Edits: own.Stamp()})
			continue
		}
		if e, ok := env.Sessions.Find(j); ok {
			if here == nil {
				here = channel.Spread(sessions.Ref{}, st, channel.Full, nil)
				batch = append(batch, here)
			}
			here.Address(e.Ref, len(to))
		}
	}
	return batch
}
