package muc

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// change is another standing of somebody.
type change struct {
	at      jid.JID // bare, or a domain
	was, is affiliate
}

// changeOf reads what a wish leads to. A nickname reserves it (XEP-0045 §9.5), or
// says whose the affiliation is.
func (r *room) changeOf(w wish) (change, error) {
	c := change{at: w.at}
	nick := w.named
	if c.at.IsZero() {
		o := r.nicks[w.nick]
		if o == nil {
			return c, stanza.NewError(stanza.ItemNotFound, "nobody has this nickname")
		}
		c.at, nick = o.bare, false
	}
	c.was = r.people[c.at]
	c.is = affiliate{Affiliation: w.Affiliation, nick: c.was.nick, reason: w.reason}
	if nick {
		c.is.nick = w.nick
	}
	if w.Affiliation <= IsNone { // XEP-0045 §9.1, §9.4
		c.is.nick = ""
	}
	if c.is.nick != "" && c.is.nick != c.was.nick {
		if err := r.s.checkNick(c.is.nick); err != nil {
			return c, err
		}
		if _, err := r.addressOf(c.is.nick); err != nil {
			return c, stanza.NewError(stanza.JIDMalformed, "that is no nickname")
		}
	}
	return c, nil
}

// mayAffiliate returns why somebody may not change a standing; nil: it may (XEP-0045
// §5.2.2, §9.1, §10.3 to §10.8).
func (r *room) mayAffiliate(by actor, c change) error {
	switch {
	case by.Affiliation < IsAdmin:
		return forbidden()
	case by.bare == c.at && c.is.Affiliation == IsOutcast:
		return stanza.NewError(stanza.Conflict, "nobody bans himself")
	case by.Affiliation == IsOwner:
		return nil
	case c.was.Affiliation >= IsAdmin:
		return stanza.NewError(stanza.NotAllowed, "only owners change what admins and owners are")
	case c.is.Affiliation >= IsAdmin:
		return stanza.NewError(stanza.Forbidden, "only owners make admins and owners")
	}
	return nil
}

// possible returns why the changes cannot all be; nil: they can. A room has an owner
// (rule 67, XEP-0045 §10.4).
func (r *room) possible(changes []change) error {
	now := map[jid.JID]affiliate{}
	fresh := 0
	for _, c := range changes {
		if c.at.Local() == "" && c.is.Affiliation > IsNone { // XEP-0045 §9.2
			return stanza.NewError(stanza.BadRequest, "a whole domain can be an outcast, nothing else")
		}
		if _, known := r.people[c.at]; !known && c.is.Affiliation != IsNone {
			fresh++
		}
		now[c.at] = c.is
	}
	if fresh > 0 && len(r.people)+fresh > r.s.cfg.MaxAffiliations {
		return r.s.limit("affiliations", stanza.ResourceConstraint, "the room remembers too many people; remove some first")
	}
	owners, nicks := 0, map[string]jid.JID{}
	look := func(at jid.JID, a affiliate) error {
		if a.Affiliation == IsOwner {
			owners++
		}
		if a.nick == "" {
			return nil
		}
		if other, taken := nicks[a.nick]; taken && other != at {
			return stanza.NewError(stanza.Conflict, "the nickname is somebody else's")
		}
		nicks[a.nick] = at
		return nil
	}
	for at, a := range r.people {
		if _, changes := now[at]; !changes {
			if err := look(at, a); err != nil {
				return err
			}
		}
	}
	for at, a := range now {
		if err := look(at, a); err != nil {
			return err
		}
		if o := r.nicks[a.nick]; a.nick != "" && a.nick != r.people[at].nick && o != nil && o.bare != at {
			return stanza.NewError(stanza.Conflict, "the nickname is in use")
		}
	}
	if owners == 0 {
		return stanza.NewError(stanza.Conflict, "a room needs an owner")
	}
	return nil
}

// affiliate makes a change, which is possible, and shows it.
func (r *room) affiliate(o *op, c change, t told) {
	if r.state == vacant || c.was.Affiliation == c.is.Affiliation && c.was.nick == c.is.nick {
		return // an earlier change of the same request may have ended the room
	}
	r.version++
	c.is.version = r.version
	t.versions = r.mav(r.version-1, r.version)
	r.departs(o, c)
	if c.is.Affiliation == IsNone && c.is.nick == "" {
		delete(r.people, c.at)
	} else {
		r.people[c.at] = c.is
	}
	r.members = nil
	r.saveAffiliation(o, c.at, c.is)
	event := &Affiliating{Room: r.jid, JID: c.at, Was: c.was.Affiliation, Is: c.is.Affiliation, Nick: c.is.nick, Reason: c.is.reason, Version: r.version}
	o.after = append(o.after, func(ctx context.Context) { tell(ctx, r.s, Affiliated, event) })
	r.tellStanding(o, c, t.versions)
	for _, who := range r.concerned(c.at) {
		r.stands(o, who, c, t)
	}
}

// concerned are the occupants whose affiliation is that of the address.
func (r *room) concerned(at jid.JID) (out []*occupant) {
	for _, o := range r.nicks {
		_, own := r.people[o.bare]
		if o.bare == at || at.Local() == "" && !own && o.bare.Host() == at {
			out = append(out, o)
		}
	}
	return out
}

// stands shows an occupant's new affiliation, or takes it out of a room that it may
// not be in (XEP-0045 §9.1, §9.4).
func (r *room) stands(o *op, who *occupant, c change, t told) {
	a := r.affiliationOf(who.bare)
	switch {
	case a == IsOutcast:
		t.statuses = append(t.statuses, statusBanned)
		r.outAll(o, who, t)
		return
	case r.cfg.MembersOnly && a < IsMember:
		t.statuses = append(t.statuses, statusAffiliationLost)
		r.outAll(o, who, t)
		return
	}
	role, usual := who.role, r.cfg.defaultRole(a)
	switch {
	case a > c.was.Affiliation:
		role = max(role, usual)
	case c.was.Affiliation >= IsAdmin || r.cfg.Moderated:
		role = usual
	}
	r.becomes(o, who, role, t)
}

// forget takes somebody off the list, whose account is gone. The only owner stays: a
// room has one.
func (r *room) forget(ctx context.Context, account string) error {
	who, err := jid.Parse(account)
	if err != nil {
		return fmt.Errorf("forget %q: %w", account, err)
	}
	return r.do(ctx, false, func(o *op) error {
		o.redo = &errand{"forget", account}
		was, known := r.people[who]
		c := change{at: who, was: was}
		if known && r.possible([]change{c}) == nil {
			r.affiliate(o, c, told{})
		}
		r.forgetExtras(o, who)
		return nil
	})
}
