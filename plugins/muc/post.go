package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// posting is a message that looks for its place.
type posting struct {
	x       *session
	st      *stanza.Stanza // as it came
	cut     func(stanza.Child) bool
	add     []*stanza.Element
	subject bool
	lasts   bool
}

// post is a message to everybody (XEP-0045 §7.4). When it returns nil the message
// is committed and on its way (D1).
func (r *room) post(ctx context.Context, st *stanza.Stanza) error {
	if !r.there.Load() {
		return noRoom()
	}
	kept, err := r.s.kept.Room(ctx, r.jid) // with no lock held
	if err != nil {
		return err
	}
	return r.do(ctx, true, func(o *op) error {
		x, err := r.occupantOf(st.From)
		if err != nil {
			return err
		}
		p := &posting{x: x, st: st, subject: changesSubject(st), cut: func(c stanza.Child) bool { return r.forged(st, c) }}
		p.lasts = p.subject || lasting(st)
		if p.lasts && r.resent.knows(st, x.id) { // it has its place; the answer waits for what is under way
			r.s.m.resent.Inc()
			return nil
		}
		if err := r.mayPost(p); err != nil {
			return err
		}
		r.kept = kept
		return r.accept(o, p)
	})
}

// mayPost returns why an occupant may not send a message; nil: it may.
func (r *room) mayPost(p *posting) error {
	x := p.x
	switch {
	case p.subject && !r.maySetSubject(x.occupant):
		return stanza.NewError(stanza.Forbidden, "you cannot change the subject")
	case p.subject && len(p.st.Raw) > int(r.s.cfg.MaxSubject):
		return r.s.limit("subject", stanza.PolicyViolation, "the subject is too long")
	case !p.subject && x.role < Participant: // XEP-0045 §7.4
		return stanza.NewError(stanza.Forbidden, "visitors have no voice in this room")
	}
	for _, check := range r.s.checks {
		if err := check(r, p); err != nil {
			return err
		}
	}
	if !x.messages.take(r.s.env.Clock.Now()) {
		return r.s.tooFast("messages")
	}
	return nil
}

// accept gives the message its place. Subject changes count as messages: they are
// in the archive (rule 63).
func (r *room) accept(o *op, p *posting) error {
	id := r.kept.Next()
	el := r.kept.StanzaID(id)
	add := append([]*stanza.Element{occupantID(p.x.id)}, p.add...)
	if p.lasts {
		add = append(add, el)
	}
	src := *p.st
	if src.ID == "" { // XEP-0045 §7.4: so that all have the same
		src.ID = el.Get("id")
	}
	out, err := copied(&src, p.x.at, stanza.TypeGroupchat, p.cut, add...)
	if err != nil {
		return err
	}
	if p.lasts {
		r.resent.note(out)
	}
	now := r.s.env.Clock.Now()
	if p.subject {
		o.rows.Add(&putSubject, r.jid.String(), out.Raw, now.UnixMicro())
		r.topic = subjectOf(out)
	}
	if p.lasts {
		o.settled = r.kept.Keep(id, r.storedForm(out, p.x), o.rows.Add)
	}
	crowd := r.everybody()
	members, outcasts := r.affiliates()
	o.post = &Post{
		Room: r.jid, ID: id, StanzaID: el.Get("id"), Lasting: p.lasts, From: p.x.at, Author: p.x.bare, Role: p.x.role, Standing: r.affiliationOf(p.x.bare),
		Stanza: out, Subject: p.subject, Config: r.cfg, Members: members, Retraction: r.retraction(p), present: crowd.bare, outcasts: outcasts, rows: &o.rows,
	}
	o.send(out, crowd.all...)
	o.done = func() {
		r.s.m.messages.Inc()
		if p.subject {
			r.subject = subject{out, now}
			return
		}
		if what := o.post.Retraction; what != nil && what.found {
			r.recent.forget(what.ID)
		}
		if p.lasts {
			r.recent.add(remembered{id, out, now})
		}
	}
	return nil
}

// refuse takes back what accept has noted of a message that somebody has refused.
func (r *room) refuse(p *Post) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resent.forget(p.Stanza)
}

// systemMessage is what the room itself says to everybody, and does not keep.
func (r *room) systemMessage(o *op, children ...*stanza.Element) {
	o.send(stanza.Make(stanza.Message, stanza.TypeGroupchat, r.jid, jid.JID{}, "", children...), r.everybody().all...)
}
