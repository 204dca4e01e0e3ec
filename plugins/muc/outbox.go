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
			to = o.wanting(d.st.From, to)
		}
		o.fan(d.st, to, d.asked)
	}
}

// fan sends one stanza to many; the bytes are the same for all.
func (o *outbox) fan(st *stanza.Stanza, to []jid.JID, asked bool) {
	o.s.m.sent.Add(float64(len(to)))
	out := o.s.reg.Fanned(st, to)
	for _, e := range out {
		e.Solicited = asked
	}
	o.batch = append(o.batch, out...)
}

func (o *outbox) flush() {
	if len(o.batch) > 0 {
		o.s.reg.Route(o.ctx, o.batch...)
	}
	o.batch = nil
}

// wanting are those of to whose account has not blocked the sender, the room or the
// service (XEP-0191 §3.3). What cannot be known is not sent.
func (o *outbox) wanting(from jid.JID, to []jid.JID) []jid.JID {
	out := to
	for i, at := range to {
		no := o.s.env.Local(at.Domain()) && o.blocked(at.Bare(), from)
		switch {
		case no && len(out) == len(to):
			out = append(make([]jid.JID, 0, len(to)), to[:i]...)
		case !no && len(out) != len(to):
			out = append(out, at)
		}
	}
	return out
}

// blocked looks into a cache each time: that costs less than to remember it for the
// group.
func (o *outbox) blocked(account, from jid.JID) bool {
	no, err := o.s.lists.Blocked(o.ctx, account, from)
	if err != nil {
		o.s.env.Log.Error("an occupant does not get a stanza: who is blocked cannot be read", "jid", account.String(), "err", err)
	}
	return no || err != nil
}
