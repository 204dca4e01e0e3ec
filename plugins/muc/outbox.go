package muc

import (
	"context"

	"parley/parser/jid"
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
		if d.st == nil {
			o.fan(&d, d.to)
			continue
		}
		to, without := d.to, []jid.JID(nil)
		if !d.sure {
			to, without = o.wanting(d.st.From, to)
		}
		o.s.m.sent.Add(float64(len(to)))
		o.fan(&d, to)
		if d.link != nil && len(without) > 0 { // they have not missed it
			o.fan(&delivery{link: d.link}, without)
		}
	}
}

// fan sends one stanza to many; the bytes are the same for all.
func (o *outbox) fan(d *delivery, to []jid.JID) {
	out := o.s.reg.Linked(d.st, to, d.link)
	for _, e := range out {
		e.Solicited = d.asked
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
// service (XEP-0191 §3.3), and those whose has. Of whom nobody can say it now is in
// neither.
func (o *outbox) wanting(from jid.JID, to []jid.JID) (out, without []jid.JID) {
	out = to
	for i, at := range to {
		no, unknown := false, false
		if o.s.env.Local(at.Domain()) {
			no, unknown = o.blocked(at.Bare(), from)
		}
		switch {
		case (no || unknown) && len(out) == len(to):
			out = append(make([]jid.JID, 0, len(to)), to[:i]...)
		case !no && !unknown && len(out) != len(to):
			out = append(out, at)
		}
		if no {
			without = append(without, at)
		}
	}
	return out, without
}

// blocked looks into a cache each time: that costs less than to remember it for the
// group.
func (o *outbox) blocked(account, from jid.JID) (no, unknown bool) {
	no, err := o.s.lists.Blocked(o.ctx, account, from)
	if err != nil {
		o.s.env.Log.Error("an occupant gets a stanza late or not at all: who is blocked cannot be read", "jid", account.String(), "err", err)
		return false, true
	}
	return no, false
}
