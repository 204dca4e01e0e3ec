package muc

import (
	"parley/parser/jid"
	"parley/parser/stanza"
)

// rename is presence to another nickname (XEP-0045 §7.6). A session that shares its
// old one with others of its person takes them along, unless the new one is its
// person's already: then it joins that.
func (r *room) rename(o *op, x *session, e *entry) error {
	if err := r.s.checkNick(e.nick); err != nil {
		return err
	}
	there := r.nicks[e.nick]
	reserved, isReserved := r.reservedBy(e.nick)
	switch {
	case there != nil && there.bare != x.bare, isReserved && reserved != x.bare:
		return stanza.NewError(stanza.Conflict, "the nickname is somebody else's; choose another one")
	case there != nil && len(there.sessions) >= maxSessions:
		return r.s.limit("sessions", stanza.ResourceConstraint, "too many of your devices have this nickname")
	case x.role < Participant && r.cfg.Moderated && there == nil: // XEP-0045 §14.6: long nicknames are no way to speak
		return stanza.NewError(stanza.NotAcceptable, "visitors keep their nickname")
	case !x.changes.take(r.s.env.Clock.Now()):
		return r.s.tooFast("presence")
	}
	at, err := r.addressOf(e.nick)
	if err != nil {
		return stanza.NewError(stanza.JIDMalformed, "")
	}
	x.presence = e.shown
	if there != nil {
		r.joinNick(o, x, there)
		return nil
	}
	x.front()
	r.goneAs(o, x, e.nick)
	delete(r.nicks, x.nick)
	x.occupant.nick, x.occupant.at = e.nick, at
	r.nicks[e.nick] = x.occupant
	x.changed()
	for _, y := range x.sessions {
		r.saveSession(o, y)
	}
	r.show(o, x, told{})
	return nil
}

// goneAs tells that an occupant is called otherwise from now on.
func (r *room) goneAs(o *op, x *session, nick string) {
	t := told{newNick: nick, statuses: []string{statusNickChanged}}
	self := t
	self.statuses = append([]string{statusSelf}, t.statuses...)
	knowing, others := r.split(x.occupant)
	gone := func(at jid.JID, t told) *stanza.Stanza {
		st := stanza.Make(stanza.Presence, stanza.TypeUnavailable, x.at, jid.JID{}, "", r.x(x.occupant, x.role, at, t), occupantID(x.id))
		return st
	}
	o.sendSure(gone(x.jid, self), x.addresses()...)
	o.send(gone(x.jid, t), knowing...)
	o.send(gone(jid.JID{}, t), others...)
}

// joinNick lets a session go over to another occupant of the same person.
func (r *room) joinNick(o *op, x *session, there *occupant) {
	old := x.occupant
	alone := len(old.sessions) == 1
	if alone {
		r.goneAs(o, x, there.nick)
	} else {
		t := told{newNick: there.nick, statuses: []string{statusSelf, statusNickChanged}}
		o.sendSure(stanza.Make(stanza.Presence, stanza.TypeUnavailable, old.at, jid.JID{}, "", r.x(old, old.role, x.jid, t), occupantID(old.id)), x.jid)
	}
	r.remove(x)
	fresh := r.seat(there.nick, x.jid, there.role, x.presence, x.since)
	fresh.bound, fresh.versions = x.bound, x.versions
	r.saveSession(o, fresh)
	if !alone {
		r.show(o, old.face(), told{})
	}
	r.show(o, fresh, told{})
}
