package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
)

// mayCreate returns why somebody, bare, may not make a room; nil: it may (XEP-0045
// §10.1.1).
func (s *service) mayCreate(ctx context.Context, who jid.JID) error {
	if s.admins[who] {
		return nil
	}
	if !s.creators(who) {
		return stanza.NewError(stanza.NotAllowed, "there is no such room, and you cannot make rooms here")
	}
	n, err := s.store.made(ctx, who)
	if err != nil {
		return err
	}
	if n >= int64(s.cfg.RoomsPerUser) {
		return s.limit("rooms-per-user", stanza.ResourceConstraint, "you have made too many rooms; destroy one that is not needed")
	}
	return nil
}

func (s *service) creators(who jid.JID) bool {
	switch s.cfg.Create {
	case ByAnybody:
		return true
	case ByLocals:
		return s.env.Local(who.Domain())
	}
	return false
}

// create makes the room, which waits for its configuration: nobody but its owner
// gets in (XEP-0045 §10.1).
func (r *room) create(o *op, who jid.JID, kept *archive.Room) {
	r.wipe()
	r.kept = kept
	r.state, r.creator, r.created = locked, who, r.s.env.Clock.Now().UnixMicro()
	r.saveRoom(o)
	r.version++
	a := affiliate{Affiliation: IsOwner, version: r.version}
	r.people[who] = a
	r.saveAffiliation(o, who, a)
	r.counted()
	o.done = func() { r.subject, r.recent.kept, r.recent.bytes = subject{}, nil, 0 }
}

// destruction is how a room ends.
type destruction struct {
	alternate jid.JID
	password  string
	reason    string
}

func (d destruction) element() *stanza.Element {
	el := stanza.El(NSUser, "destroy").WithOpt("jid", d.alternate.String())
	if d.password != "" {
		el.Add(stanza.El(NSUser, "password").AddText(d.password))
	}
	if d.reason != "" {
		el.Add(stanza.El(NSUser, "reason").AddText(d.reason))
	}
	return el
}

// destroy ends the room, and with it everybody's stay (XEP-0045 §10.9).
func (r *room) destroy(o *op, d destruction) {
	for _, x := range r.sessions {
		item := stanza.El(NSUser, "item").With("affiliation", IsNone.String()).With("role", NoRole.String())
		el := statuses(stanza.El(NSUser, "x").Add(item, d.element()), statusSelf)
		bye := stanza.Make(stanza.Presence, stanza.TypeUnavailable, x.at, jid.JID{}, "", el, occupantID(x.id))
		o.out = append(o.out, delivery{st: bye, to: []jid.JID{x.jid}, sure: true, link: r.over()})
	}
	at := r.jid.String()
	o.rows.Add(&dropOccupants, at)
	o.rows.Add(&dropAffiliations, at)
	o.rows.Add(&dropRoom, at)
	r.dropExtras(o)
	forgotten := r.kept.Forget(o.rows.Add)
	r.wipe()
	o.done = func() { r.subject, r.recent.kept, r.recent.bytes = subject{}, nil, 0 }
	stored := false
	o.settled = func(ok bool) { stored = ok }
	o.after = append(o.after, func(ctx context.Context) { forgotten(ctx, stored) })
	event := &Destruction{Room: r.jid, Alternate: d.alternate, Reason: d.reason}
	o.after = append(o.after, func(ctx context.Context) { tell(ctx, r.s, Destroyed, event) })
}
