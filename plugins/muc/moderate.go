package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// Namespaces of messages that are taken back: by their author (XEP-0424), or by a
// moderator (XEP-0425).
const (
	nsRetract  = "urn:xmpp:message-retract:1"
	nsModerate = "urn:xmpp:message-moderate:1"
)

// Retraction takes an earlier message of the room back. Who keeps the room's messages
// puts a tombstone in its place when Posting fires for the one that says so, in the
// same commit (XEP-0424 §4, XEP-0425 §4).
type Retraction struct {
	StanzaID  string          // which message
	ID        int64           // and its place
	By        string          // the id of the message that says so
	Moderated *stanza.Element // <moderated/>; nil: its author takes it back
	Reason    string          // of a moderator; "": none
	// May returns why the message, as it was kept, may not be taken back by who asks;
	// nil: it may.
	May func(kept *stanza.Stanza) error
	// Found is set by who has the message.
	Found bool
}

// maxStanzaID bounds what a client calls a message of the room, in bytes.
const maxStanzaID = 64

// moderate is XEP-0425 §3: a moderator takes back somebody's message.
func (s *service) moderate(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	what, reason := q.query.Child(nsRetract, "retract"), ""
	if c := q.query.Child(nsModerate, "reason"); c != nil {
		reason = c.Text()
	}
	switch {
	case !q.set() || what == nil:
		return nil, stanza.NewError(stanza.BadRequest, "moderation retracts a message")
	case len(reason) > int(s.cfg.MaxDescription):
		return nil, stanza.NewError(stanza.PolicyViolation, "the reason is too long")
	}
	id, err := s.placeOf(q.query.Get("id"))
	if err != nil {
		return nil, err
	}
	return nil, r.do(ctx, true, func(o *op) error {
		by, err := r.actorOf(q.From)
		if err != nil {
			return err
		}
		if by.role < Moderator {
			return stanza.NewError(stanza.Forbidden, "only moderators take back the messages of others")
		}
		if x := r.sessions[q.From]; x != nil && !x.messages.take(s.env.Clock.Now()) {
			return s.tooFast("messages")
		}
		r.moderated(o, by, &Retraction{
			StanzaID: q.query.Get("id"), ID: id, By: newID(), Reason: reason, Moderated: r.moderatedBy(by),
			May: func(*stanza.Stanza) error { return nil },
		})
		return nil
	})
}

// placeOf reads what a client calls a message of a room.
func (s *service) placeOf(stanzaID string) (int64, error) {
	if len(stanzaID) <= maxStanzaID {
		if id, ok := s.ids.mask.Decode(stanzaID); ok {
			return id, nil
		}
	}
	return 0, noMessage()
}

func noMessage() error { return stanza.NewError(stanza.ItemNotFound, "the room has no such message") }

// moderatedBy says who has done it: the occupant, when there is one.
func (r *room) moderatedBy(by actor) *stanza.Element {
	el := stanza.El(nsModerate, "moderated")
	if at, err := r.addressOf(by.nick); err == nil && by.nick != "" {
		el.With("by", at.String())
	}
	return el.Add(occupantID(r.s.people.of(r.jid, by.bare)))
}

// moderated is the room's message that says so to everybody (XEP-0425 §3.1).
func (r *room) moderated(o *op, by actor, what *Retraction) {
	el := stanza.El(nsRetract, "retract").With("id", what.StanzaID).Add(what.Moderated)
	if what.Reason != "" {
		el.Add(stanza.El(nsRetract, "reason").AddText(what.Reason))
	}
	id := r.next()
	sid := r.s.ids.mask.Encode(id)
	out := stanza.Make(stanza.Message, stanza.TypeGroupchat, r.jid, jid.JID{}, what.By, el,
		stanza.El(stanza.NSStanzaID, "stanza-id").With("by", r.jid.String()).With("id", sid))
	crowd := r.everybody()
	o.post = &Post{
		Room: r.jid, ID: id, StanzaID: sid, From: r.jid, Author: by.bare, Role: by.role, Standing: by.Affiliation,
		Stanza: out, Config: r.cfg, Members: r.affiliates(), Retraction: what, present: crowd.bare, rows: &o.rows,
	}
	o.send(out, crowd.all...)
	o.done = func() { r.recent.forget(what.StanzaID) }
}

// retraction is what an occupant's message takes back; nil: nothing. Only the room says
// that a moderator does (XEP-0425 §5), and there only is what has an id of its own.
func (r *room) retraction(p *posting) *Retraction {
	el := p.st.Child(nsRetract, "retract")
	if el == nil || el.Child(nsModerate, "moderated") != nil || p.st.ID == "" {
		return nil
	}
	id, err := r.s.placeOf(el.Get("id"))
	if err != nil {
		return nil
	}
	return &Retraction{StanzaID: el.Get("id"), ID: id, By: p.st.ID, May: func(kept *stanza.Stanza) error {
		if who := kept.Child(nsOccupantID, "occupant-id"); who == nil || who.Get("id") != p.x.id {
			return stanza.NewError(stanza.Forbidden, "only its author takes a message back")
		}
		return nil
	}}
}

// moderates reports whether an occupant's message says what only the room says.
func moderates(st *stanza.Stanza, c stanza.Child) bool {
	switch c.Name {
	case stanza.Name{Space: nsRetract, Local: "retract"}:
		return st.Element(c).Child(nsModerate, "moderated") != nil
	case stanza.Name{Space: nsRetract, Local: "retracted"}:
		return true
	}
	return c.Name.Space == nsModerate
}

// offer lets others take part in a message, and refuses one that takes back what its
// sender may not. An author may ask occupants to forget what the room does not know any
// more: they check who asks (XEP-0424 §5).
func (r *room) offer(ctx context.Context, p *Post) error {
	if _, err := processor.Fire(ctx, r.s.reg, Posting, p); err != nil {
		return err
	}
	what := p.Retraction
	if what == nil {
		return nil
	}
	if kept := r.recent.find(what.StanzaID); kept != nil {
		if err := what.May(kept); err != nil {
			return err
		}
		what.Found = true
	}
	if what.Moderated != nil && !what.Found {
		return noMessage()
	}
	return nil
}

// find is the message that has the id; nil: it is not there.
func (h *history) find(stanzaID string) *stanza.Stanza {
	if i := h.index(stanzaID); i >= 0 {
		return h.kept[i].st
	}
	return nil
}

func (h *history) index(stanzaID string) int {
	for i, m := range h.kept {
		if el := m.st.Child(stanza.NSStanzaID, "stanza-id"); el != nil && el.Get("id") == stanzaID {
			return i
		}
	}
	return -1
}

// forget shows a message to nobody any more who enters (XEP-0424 §5).
func (h *history) forget(stanzaID string) {
	i := h.index(stanzaID)
	if i < 0 {
		return
	}
	h.bytes -= len(h.kept[i].st.Raw)
	h.kept = append(h.kept[:i:i], h.kept[i+1:]...)
}
