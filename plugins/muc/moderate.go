package muc

import (
	"context"
	"errors"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/processor"
)

// Namespaces of messages that are taken back: by their author (XEP-0424), or by a
// moderator (XEP-0425).
const (
	nsRetract  = "urn:xmpp:message-retract:1"
	nsModerate = "urn:xmpp:message-moderate:1"
)

// Retraction is what takes an earlier message of the room back.
type Retraction struct {
	ID        int64           // which message
	Moderated *stanza.Element // <moderated/>; nil: its author takes it back
	Reason    string          // of a moderator; "": none

	stanzaID string // what clients call the message
	kept     *archive.Room
	may      func(kept *stanza.Stanza) error
	found    bool // the leader's: the room has the message
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
		id, ok := r.placeOf(q.query.Get("id"))
		if !ok {
			return noMessage()
		}
		r.moderated(o, by, &Retraction{
			ID: id, Moderated: r.moderatedBy(by), Reason: reason, stanzaID: q.query.Get("id"), kept: r.kept,
			may: func(*stanza.Stanza) error { return nil },
		})
		return nil
	})
}

// placeOf reads what a client calls a message of the room.
func (r *room) placeOf(stanzaID string) (int64, bool) {
	if len(stanzaID) > maxStanzaID {
		return 0, false
	}
	return r.kept.ID(stanzaID)
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
	el := stanza.El(nsRetract, "retract").With("id", what.stanzaID).Add(what.Moderated)
	if what.Reason != "" {
		el.Add(stanza.El(nsRetract, "reason").AddText(what.Reason))
	}
	id, now := r.kept.Next(), r.s.env.Clock.Now()
	sid := r.kept.StanzaID(id)
	out := stanza.Make(stanza.Message, stanza.TypeGroupchat, r.jid, jid.JID{}, newID(), el, sid)
	o.settled = r.kept.Keep(id, out, o.rows.Add)
	crowd := r.everybody()
	members, outcasts := r.affiliates()
	o.post = &Post{
		Room: r.jid, ID: id, StanzaID: sid.Get("id"), Lasting: true, From: r.jid, Author: by.bare, Role: by.role, Standing: by.Affiliation,
		Stanza: out, Config: r.cfg, Members: members, Retraction: what, present: crowd.bare, outcasts: outcasts, rows: &o.rows,
	}
	o.send(out, crowd.all...)
	o.done = func() {
		r.recent.forget(what.ID)
		r.recent.add(remembered{id, out, now})
	}
}

// retraction is what an occupant's message takes back; nil: nothing. Only the room says
// that a moderator does (XEP-0425 §5), and there only is what has an id of its own.
func (r *room) retraction(p *posting) *Retraction {
	el := p.st.Child(nsRetract, "retract")
	if el == nil || el.Child(nsModerate, "moderated") != nil || p.st.ID == "" {
		return nil
	}
	id, ok := r.placeOf(el.Get("id"))
	if !ok {
		return nil
	}
	return &Retraction{ID: id, stanzaID: el.Get("id"), kept: r.kept, may: func(kept *stanza.Stanza) error {
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
// sender may not.
func (r *room) offer(ctx context.Context, p *Post) error {
	if what := p.Retraction; what != nil {
		if err := r.takeBack(ctx, p, what); err != nil {
			return err
		}
	}
	_, err := processor.Fire(ctx, r.s.reg, Posting, p)
	return err
}

// takeBack puts a tombstone in the place of a message, with the commit of the one that
// says so (XEP-0424 §4, XEP-0425 §4). An author may ask the occupants to forget what
// the room does not know any more: they check who asks (XEP-0424 §5).
func (r *room) takeBack(ctx context.Context, p *Post, what *Retraction) error {
	how := archive.Retraction{ID: what.ID, By: p.Stanza.ID, Moderated: what.Moderated, Reason: what.Reason}
	err := what.kept.Retract(ctx, how, what.may, p.Store)
	var none *stanza.Error
	if !errors.As(err, &none) || none.Condition != stanza.ItemNotFound {
		what.found = err == nil
		return err
	}
	if m := r.recent.find(what.ID); m != nil { // an archive that keeps nothing
		what.found = true
		return what.may(m)
	}
	if what.Moderated != nil {
		return noMessage()
	}
	return nil
}

// find is the message of a place; nil: it is not there.
func (h *history) find(id int64) *stanza.Stanza {
	if i := h.index(id); i >= 0 {
		return h.kept[i].st
	}
	return nil
}

func (h *history) index(id int64) int {
	return slices.IndexFunc(h.kept, func(m remembered) bool { return m.id == id })
}

// forget shows a message to nobody any more who enters (XEP-0424 §5).
func (h *history) forget(id int64) {
	i := h.index(id)
	if i < 0 {
		return
	}
	h.bytes -= len(h.kept[i].st.Raw)
	h.kept = append(h.kept[:i:i], h.kept[i+1:]...)
}
