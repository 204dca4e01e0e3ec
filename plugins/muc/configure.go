package muc

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// owner is what owners do: configure the room, and destroy it (XEP-0045 §10).
func (s *service) owner(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return r.configuration(q)
	}
	if d := q.query.Child(NSOwner, "destroy"); d != nil {
		return nil, r.end(ctx, q, d)
	}
	x := form.In(q.query)
	if x == nil {
		return nil, stanza.NewError(stanza.BadRequest, "a form is needed")
	}
	f, err := form.Submitted(x, nsRoomConfig)
	if err != nil {
		return nil, err
	}
	return nil, r.do(ctx, true, func(o *op) error { return r.configure(o, q, f) })
}

// mayOwn returns why somebody may not do what owners do.
func (r *room) mayOwn(at jid.JID) error {
	switch {
	case r.state == vacant:
		return noRoom()
	case r.affiliationOf(at.Bare()) < IsOwner:
		return stanza.NewError(stanza.Forbidden, "only owners can do that")
	}
	return nil
}

// configuration is the form as it stands (XEP-0045 §10.2).
func (r *room) configuration(q *request) (*stanza.Element, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.mayOwn(q.From); err != nil {
		return nil, err
	}
	now := r.formNow()
	f := r.s.form.Form(form.Empty, nsRoomConfig, &now)
	f.Title = "Configuration of " + r.jid.String()
	return stanza.El(NSOwner, "query").Add(f.Element()), nil
}

func (r *room) formNow() roomForm {
	f := roomForm{RoomConfig: *r.cfg}
	for at, p := range r.people {
		switch p.Affiliation {
		case IsAdmin:
			f.admins = append(f.admins, at)
		case IsOwner:
			f.owners = append(f.owners, at)
		}
	}
	slices.SortFunc(f.admins, byName)
	slices.SortFunc(f.owners, byName)
	return f
}

// configure takes a submitted form. The first one opens the room; a cancelled first
// one ends it (XEP-0045 §10.1, §10.2).
func (r *room) configure(o *op, q *request, f *form.Form) error {
	if err := r.mayOwn(q.From); err != nil {
		return err
	}
	if f.Kind == form.Cancel {
		if r.state == locked {
			r.destroy(o, destruction{})
		}
		return nil
	}
	next := r.formNow()
	if err := r.s.form.Apply(&next, f); err != nil {
		return err
	}
	if why := next.check(); why != "" {
		return stanza.NewError(stanza.NotAcceptable, why)
	}
	changes := r.formChanges(&next, f)
	if err := r.possible(changes); err != nil {
		return err
	}
	first := r.state == locked
	was := r.cfg
	fresh := next.RoomConfig
	r.cfg, r.state = &fresh, open
	r.saveRoom(o)
	if !first {
		r.announce(o, was)
	}
	for _, c := range changes {
		r.affiliate(o, c, told{})
	}
	if r.cfg.MembersOnly && !was.MembersOnly {
		r.membersOnly(o)
	}
	if r.emptied() {
		r.destroy(o, destruction{})
	}
	return nil
}

// formChanges are the changes of the two lists that the form mentions: an owner that
// is on none is an admin from then on, an admin a member (XEP-0045 §10.2).
func (r *room) formChanges(next *roomForm, f *form.Form) (out []change) {
	_, admins := f.Field("muc#roomconfig_roomadmins")
	_, owners := f.Field("muc#roomconfig_roomowners")
	is := func(at jid.JID, a Affiliation) {
		was := r.people[at]
		if was.Affiliation != a {
			out = append(out, change{at, was, affiliate{Affiliation: a, nick: was.nick}})
		}
	}
	lost := func(had Affiliation, to Affiliation) {
		for at, p := range r.people {
			if p.Affiliation == had && !slices.Contains(next.owners, at) && !slices.Contains(next.admins, at) {
				is(at, to)
			}
		}
	}
	if owners {
		lost(IsOwner, IsAdmin)
		for _, at := range next.owners {
			is(at, IsOwner)
		}
	}
	if admins {
		lost(IsAdmin, IsMember)
		for _, at := range next.admins {
			if !slices.Contains(next.owners, at) {
				is(at, IsAdmin)
			}
		}
	}
	return out
}

// announce tells the occupants that the configuration has changed (XEP-0045 §10.2.1).
func (r *room) announce(o *op, was *RoomConfig) {
	var codes []string
	code := func(changed, now bool, yes, no string) {
		switch {
		case changed && now:
			codes = append(codes, yes)
		case changed:
			codes = append(codes, no)
		}
	}
	code(was.Logged != r.cfg.Logged, r.cfg.Logged, statusLogged, statusNotLogged)
	code(was.Whois != r.cfg.Whois, r.cfg.Whois == Anyone, statusNowNonAnonymous, statusNowSemiAnonymous)
	rest := *r.cfg
	rest.Logged, rest.Whois = was.Logged, was.Whois
	if rest.encode() != was.encode() {
		codes = append(codes, statusConfiguration)
	}
	if len(codes) > 0 {
		r.systemMessage(o, statuses(stanza.El(NSUser, "x"), codes...))
	}
}

// membersOnly takes out who may not be in the room any more (XEP-0045 §10.2).
func (r *room) membersOnly(o *op) {
	var gone []*occupant
	for _, who := range r.nicks {
		if r.affiliationOf(who.bare) < IsMember {
			gone = append(gone, who)
		}
	}
	for _, who := range gone {
		r.outAll(o, who, told{statuses: []string{statusNowMembersOnly}})
	}
}

// end destroys the room at an owner's wish (XEP-0045 §10.9).
func (r *room) end(ctx context.Context, q *request, el *stanza.Element) error {
	var d destruction
	if el.Has("jid") {
		at, err := jid.Parse(el.Get("jid"))
		if err != nil {
			return stanza.NewError(stanza.JIDMalformed, "the other room's address is none")
		}
		d.alternate = at
	}
	if c := el.Child(NSOwner, "password"); c != nil {
		d.password = c.Text()
	}
	if c := el.Child(NSOwner, "reason"); c != nil {
		d.reason = c.Text()
	}
	if len(d.reason)+len(d.password) > int(r.s.cfg.MaxDescription) {
		return stanza.NewError(stanza.PolicyViolation, "the reason is too long")
	}
	return r.do(ctx, true, func(o *op) error {
		if err := r.mayOwn(q.From); err != nil {
			return err
		}
		r.destroy(o, d)
		return nil
	})
}
