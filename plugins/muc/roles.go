package muc

import "parley/parser/stanza"

// mayRole returns why somebody may not give a role; nil: it may (XEP-0045 §8.2 to
// §8.5, §9.6 to §9.8).
func (r *room) mayRole(by actor, w wish) error {
	if by.role < Moderator {
		return forbidden()
	}
	o := r.nicks[w.nick]
	if o == nil {
		return stanza.NewError(stanza.ItemNotFound, "nobody has this nickname")
	}
	a := r.affiliationOf(o.bare)
	switch {
	case w.role == o.role:
		return nil
	case w.role == NoRole: // XEP-0045 §8.2
		if a > by.Affiliation {
			return stanza.NewError(stanza.NotAllowed, "who stands higher in the room cannot be kicked")
		}
	case w.role == Moderator: // XEP-0045 §9.6
		if by.Affiliation < IsAdmin {
			return stanza.NewError(stanza.Forbidden, "admins make moderators")
		}
	case o.role == Moderator: // XEP-0045 §9.7
		if by.Affiliation < IsAdmin || a >= IsAdmin {
			return stanza.NewError(stanza.NotAllowed, "who stands as high stays moderator")
		}
	case w.role < o.role: // XEP-0045 §8.4
		if a >= IsAdmin || a >= IsMember && a >= by.Affiliation {
			return stanza.NewError(stanza.NotAllowed, "who stands as high keeps its voice")
		}
	}
	return nil
}

// setRole gives an occupant another role, or takes it out of the room.
func (r *room) setRole(o *op, by actor, w wish) {
	who := r.nicks[w.nick]
	if who == nil || who.role == w.role { // another item of the same request has taken it
		return
	}
	t := told{actor: by.nick, reason: w.reason}
	if w.role == NoRole {
		t.statuses = []string{statusKicked}
		r.outAll(o, who, t)
		return
	}
	r.becomes(o, who, w.role, t)
}

// becomes changes an occupant's role, and shows it. Who is not shown it any more
// sees it leave.
func (r *room) becomes(o *op, who *occupant, role Role, t told) {
	was := who.role
	if was != role {
		var hidden []*occupant
		for _, other := range r.nicks {
			if other != who && r.sees(other.role, was, who.hushed) && !r.sees(other.role, role, who.hushed) {
				hidden = append(hidden, other)
			}
		}
		for _, other := range hidden {
			o.send(r.farewell(who.face(), nil, who.face().jidFor(r, other), told{}), other.addresses()...)
		}
		who.role = role
	}
	who.changed()
	for _, x := range who.sessions {
		r.saveSession(o, x)
	}
	r.show(o, who.face(), t)
	if was != role && role == Moderator && r.cfg.Whois != Anyone {
		r.reveal(o, who)
	}
}

// reveal shows a new moderator everybody's address (XEP-0045 §7.2.4).
func (r *room) reveal(o *op, who *occupant) {
	for _, other := range r.nicks {
		if other != who {
			o.send(r.seen(other, true), who.addresses()...)
		}
	}
}
