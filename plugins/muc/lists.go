package muc

import (
	"context"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// admin reads or changes who may do what (XEP-0045 §8, §9, §10.3 to §10.8): roles
// by nickname, affiliations by address. All items of a request are changed, or
// none.
func (s *service) admin(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return r.list(q)
	}
	wishes, err := r.wishes(q.query)
	if err != nil {
		return nil, err
	}
	var invited []*stanza.Stanza
	err = r.do(ctx, true, func(o *op) error {
		by, err := r.actorOf(q.From)
		if err != nil {
			return err
		}
		invited, err = r.grant(o, by, wishes)
		return err
	})
	if err == nil {
		r.s.reg.Submit(ctx, invited...)
	}
	return nil, err
}

// actor is who wants to change something.
type actor struct {
	bare jid.JID
	nick string // "": it is not in the room
	Affiliation
	role Role
}

// actorOf is who asks. Admins may act without being in the room.
func (r *room) actorOf(at jid.JID) (actor, error) {
	a := actor{bare: at.Bare(), Affiliation: r.affiliationOf(at.Bare())}
	if r.state == vacant {
		return a, noRoom()
	}
	if x := r.sessions[at]; x != nil {
		a.nick, a.role = x.nick, x.role
	} else if a.Affiliation >= IsAdmin {
		a.role = Moderator
	}
	return a, nil
}

// wish is one item of a request: a role or an affiliation, and for whom.
type wish struct {
	nick   string
	at     jid.JID // bare; zero: whoever has the nickname
	named  bool    // nick is there
	role   Role
	byRole bool
	Affiliation
	reason string
}

// maxItems is how many changes one request may ask for.
const maxItems = 500

func (r *room) wishes(query *stanza.Element) (out []wish, err error) {
	for el := range query.Elements() {
		if el.Name != (stanza.Name{Space: NSAdmin, Local: "item"}) {
			continue
		}
		w, err := readWish(el)
		if err != nil {
			return nil, err
		}
		if len(w.reason) > int(r.s.cfg.MaxDescription) {
			return nil, stanza.NewError(stanza.PolicyViolation, "the reason is too long")
		}
		if out = append(out, w); len(out) > maxItems {
			return nil, stanza.NewError(stanza.PolicyViolation, "too many changes in one request")
		}
	}
	if len(out) == 0 {
		return nil, stanza.NewError(stanza.BadRequest, "no item in it")
	}
	return out, nil
}

func readWish(el *stanza.Element) (w wish, err error) {
	bad := func(why string) (wish, error) { return w, stanza.NewError(stanza.BadRequest, why) }
	w.nick, w.named = el.Get("nick"), el.Has("nick")
	w.byRole = el.Has("role")
	if reason := el.Child(NSAdmin, "reason"); reason != nil {
		w.reason = reason.Text()
	}
	if el.Has("jid") {
		at, err := jid.Parse(el.Get("jid"))
		if err != nil {
			return w, stanza.NewError(stanza.JIDMalformed, "not an address")
		}
		w.at = at.Bare()
	}
	ok := true
	switch {
	case w.byRole == el.Has("affiliation"): // XEP-0045 §17.4
		return bad("an item has either a role or an affiliation")
	case w.byRole && w.nick == "":
		return bad("roles are those of nicknames")
	case w.byRole:
		w.role, ok = ParseRole(el.Get("role"))
	case w.at.IsZero() && w.nick == "":
		return bad("whose affiliation?")
	default:
		w.Affiliation, ok = ParseAffiliation(el.Get("affiliation"))
	}
	if !ok {
		return bad("no such role or affiliation")
	}
	return w, nil
}

// grant does what the wishes say, after all of them have been checked. What it
// returns are invitations to those who may enter from now on (XEP-0045 §9.5).
func (r *room) grant(o *op, by actor, wishes []wish) (invited []*stanza.Stanza, err error) {
	var roles []wish
	var changes []change
	for _, w := range wishes {
		if w.byRole {
			if err := r.mayRole(by, w); err != nil {
				return nil, err
			}
			roles = append(roles, w)
			continue
		}
		c, err := r.changeOf(w)
		if err != nil {
			return nil, err
		}
		if err := r.mayAffiliate(by, c); err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	if err := r.possible(changes); err != nil {
		return nil, err
	}
	for _, w := range roles {
		r.setRole(o, by, w)
	}
	for _, c := range changes {
		if c.is.Affiliation == IsMember && c.was.Affiliation == IsNone && r.cfg.MembersOnly && !r.inRoom(c.at) {
			invited = append(invited, r.invitation(r.jid, c.at, c.is.reason, nil))
		}
		r.affiliate(o, c, told{actor: by.nick, reason: c.is.reason})
	}
	return invited, nil
}

func (r *room) inRoom(bare jid.JID) bool {
	_, ok := r.everybody().bare[bare]
	return ok
}

// list answers who has a role or an affiliation.
func (r *room) list(q *request) (*stanza.Element, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by, err := r.actorOf(q.From)
	if err != nil {
		return nil, err
	}
	item := q.query.Child(NSAdmin, "item")
	if item == nil || item.Has("role") == item.Has("affiliation") {
		return nil, stanza.NewError(stanza.BadRequest, "ask for a role or an affiliation")
	}
	out := stanza.El(NSAdmin, "query")
	if item.Has("role") {
		role, ok := ParseRole(item.Get("role"))
		switch {
		case !ok || role == NoRole:
			return nil, stanza.NewError(stanza.BadRequest, "no such role")
		case by.role < Moderator: // XEP-0045 §8
			return nil, forbidden()
		}
		return out.Add(r.withRole(role)...), nil
	}
	a, ok := ParseAffiliation(item.Get("affiliation"))
	switch {
	case !ok || a == IsNone:
		return nil, stanza.NewError(stanza.BadRequest, "no such affiliation")
	case !r.mayList(by, a):
		return nil, forbidden()
	}
	return out.Add(r.withAffiliation(a)...), nil
}

// mayList reports whether somebody may read a list of affiliations: admins may, and
// where addresses are no secret members and who the room's owners say (XEP-0045 §9.5).
func (r *room) mayList(by actor, a Affiliation) bool {
	if by.Affiliation >= IsAdmin {
		return true
	}
	if a == IsOutcast || r.cfg.Whois != Anyone {
		return false
	}
	return by.Affiliation == IsMember || slices.Contains(r.cfg.MemberList, by.role)
}

func (r *room) withRole(role Role) (out []*stanza.Element) {
	for _, o := range r.nicks {
		if o.role == role {
			out = append(out, stanza.El(NSAdmin, "item").With("affiliation", r.affiliationOf(o.bare).String()).
				With("jid", o.face().jid.String()).With("nick", o.nick).With("role", role.String()))
		}
	}
	slices.SortFunc(out, func(a, b *stanza.Element) int { return strings.Compare(a.Get("nick"), b.Get("nick")) })
	return out
}

func (r *room) withAffiliation(a Affiliation) (out []*stanza.Element) {
	for at, p := range r.people {
		if p.Affiliation != a {
			continue
		}
		el := stanza.El(NSAdmin, "item").With("affiliation", a.String()).With("jid", at.String()).WithOpt("nick", p.nick)
		if p.reason != "" && a == IsOutcast {
			el.Add(stanza.El(NSAdmin, "reason").AddText(p.reason))
		}
		out = append(out, el)
	}
	slices.SortFunc(out, func(a, b *stanza.Element) int { return strings.Compare(a.Get("jid"), b.Get("jid")) })
	return out
}
