package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
)

// outbox is what a group of operations sends: one batch, so that each recipient is
// written to once.
type outbox struct {
	s     *service
	ctx   context.Context //nolint:containedctx // of one group
	batch []*channel.Envelope
}

func (o *outbox) add(out []delivery) {
	for _, d := range out {
		if d.later != nil {
			o.add(d.later())
			continue
		}
		to := d.to
		if !d.sure {
			to = o.s.wanting(o.ctx, d.st.From, to)
		}
		o.fan(d.st, to)
	}
}

// fan sends one stanza to many; the bytes are the same for all.
func (o *outbox) fan(st *stanza.Stanza, to []jid.JID) {
	o.s.m.sent.Add(float64(len(to)))
	o.batch = append(o.batch, o.s.reg.Fanned(st, to)...)
}

func (o *outbox) flush() {
	if len(o.batch) > 0 {
		o.s.reg.Route(o.ctx, o.batch...)
	}
	o.batch = nil
}

// wanting are those of to whose account has not blocked the sender, the room or the
// service (XEP-0191 §3.3). What cannot be known is not sent.
func (s *service) wanting(ctx context.Context, from jid.JID, to []jid.JID) []jid.JID {
	out := to
	for i, at := range to {
		no := false
		if s.env.Local(at.Domain()) {
			var err error
			if no, err = s.lists.Blocked(ctx, at.Bare(), from); err != nil {
				s.env.Log.Error("an occupant does not get a stanza: who is blocked cannot be read", "jid", at.String(), "err", err)
				no = true
			}
		}
		switch {
		case no && len(out) == len(to):
			out = append(make([]jid.JID, 0, len(to)), to[:i]...)
		case !no && len(out) != len(to):
			out = append(out, at)
		}
	}
	return out
}
