package muc

import (
	"crypto/subtle"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/message/kinds"
)

// What rooms make of stanzas: who they come from, what only the room may say, and
// nothing else changed.

// copied is st from another address, without some of its children and with others.
// It has no 'to'.
func copied(st *stanza.Stanza, from jid.JID, typ string, cut func(stanza.Child) bool, add ...*stanza.Element) (*stanza.Stanza, error) {
	own := *st
	own.From, own.To, own.Type = from, jid.JID{}, typ
	e := own.Stamp()
	for _, c := range st.Children {
		if cut != nil && cut(c) {
			e.Cut = append(e.Cut, c.Span)
		}
	}
	for _, el := range add {
		if el != nil {
			e.Append = el.Append(e.Append, stanza.NSClient)
		}
	}
	return stanza.Parse(e.Render(nil, st.Raw), stanza.NSClient, nil)
}

// must is for what was made of stanzas that were parsed already.
func must(st *stanza.Stanza, err error) *stanza.Stanza {
	if err != nil {
		panic(err)
	}
	return st
}

// roomsOwn are the namespaces in which the room alone speaks to its occupants
// (XEP-0045 §17.3, XEP-0421 §4).
var roomsOwn = []string{NS, NSUser, NSAdmin, NSOwner, nsOccupantID, nsHats}

// forged reports whether a child of what an occupant sends says what only the room,
// or the recipient's server, may say (XEP-0313 §8.4, XEP-0359 §6).
func (r *room) forged(st *stanza.Stanza, c stanza.Child) bool {
	switch {
	case slices.Contains(roomsOwn, c.Name.Space), kinds.IsWrapper(c.Name):
		return true
	case c.Name.Space == stanza.NSStanzaID && c.Name.Local == "stanza-id":
		by, err := jid.Parse(st.Element(c).Get("by"))
		return err != nil || by.Bare() == r.jid
	case c.Name == stanza.Name{Space: stanza.NSDelay, Local: "delay"}:
		from, err := jid.Parse(st.Element(c).Get("from"))
		return err == nil && from.Bare() == r.jid
	}
	return moderates(st, c)
}

// told is what the room says of somebody beside what is so anyway.
type told struct {
	statuses  []string
	newNick   string
	actor     string // nickname of who did it
	reason    string
	destroyed *stanza.Element
	versions  *stanza.Element // of the affiliations (XEP-0463)
	lost      bool            // nobody can tell the session itself now
}

// x is the element that tells of an occupant (XEP-0045 §7.2.2). at is the address
// to show; zero: none.
func (r *room) x(o *occupant, role Role, at jid.JID, t told) *stanza.Element {
	item := stanza.El(NSUser, "item").With("affiliation", r.affiliationOf(o.bare).String()).With("role", role.String()).
		WithOpt("jid", at.String()).WithOpt("nick", t.newNick)
	if t.actor != "" {
		item.Add(stanza.El(NSUser, "actor").With("nick", t.actor))
	}
	if t.reason != "" {
		item.Add(stanza.El(NSUser, "reason").AddText(t.reason))
	}
	return statuses(stanza.El(NSUser, "x").Add(item, t.destroyed, t.versions), t.statuses...)
}

func statuses(x *stanza.Element, codes ...string) *stanza.Element {
	for _, code := range codes {
		x.Add(stanza.El(NSUser, "status").With("code", code))
	}
	return x
}

// presence is a session's presence as the room shows it; typ and role say whether
// it is there.
func (r *room) presence(x *session, typ string, role Role, at jid.JID, t told) *stanza.Stanza {
	add := []*stanza.Element{r.x(x.occupant, role, at, t), occupantID(x.id)}
	if typ == "" {
		for _, badge := range r.s.badges {
			add = append(add, badge(r, x.occupant))
		}
	}
	return must(copied(x.presence, x.at, typ, nil, add...))
}

// farewell is the presence that somebody leaves with: what it has said with it, if
// anything.
func (r *room) farewell(x *session, said *stanza.Stanza, at jid.JID, t told) *stanza.Stanza {
	if said == nil {
		said = stanza.Make(stanza.Presence, stanza.TypeUnavailable, x.at, jid.JID{}, "")
	}
	return must(copied(said, x.at, stanza.TypeUnavailable, func(c stanza.Child) bool { return r.forged(said, c) },
		r.x(x.occupant, NoRole, at, t), occupantID(x.id)))
}

// seen is the presence that an occupant is shown with, with its address or without.
func (r *room) seen(o *occupant, address bool) *stanza.Stanza {
	i, at := 0, jid.JID{}
	if address {
		i, at = 1, o.face().jid
	}
	if o.shown[i] == nil {
		o.shown[i] = r.presence(o.face(), "", o.role, at, told{})
	}
	return o.shown[i]
}

// knows reports whether somebody of the role is shown addresses (XEP-0045 §7.2.4).
func (r *room) knows(role Role) bool { return role == Moderator || r.cfg.Whois == Anyone }

// split are the sessions of all others that are shown an occupant's presence: those that are shown the address, and the others.
func (r *room) split(but *occupant) (knowing, others []jid.JID) {
	for _, o := range r.nicks {
		if o == but || !r.sees(o.role, but.role, but.hushed) {
			continue
		}
		to := &others
		if r.knows(o.role) {
			to = &knowing
		}
		for _, x := range o.sessions {
			*to = append(*to, x.jid)
		}
	}
	return knowing, others
}

// sees reports whether an occupant of the role is shown presence of one of another
// role: moderators see everybody (muc#roomconfig_presencebroadcast), and nobody else
// sees who has entered a room that was large (Config.Large).
func (r *room) sees(role, of Role, hushed bool) bool {
	return role == Moderator || of == Moderator || !hushed && r.cfg.shows(of)
}

// show sends the session's presence to the others, and to the occupant itself with
// further statuses (XEP-0045 §7.2.2).
func (r *room) show(o *op, x *session, t told, own ...string) {
	r.showOthers(o, x, t)
	r.showSelf(o, x, x.addresses(), t, own...)
}

func (r *room) showOthers(o *op, x *session, t told) {
	knowing, others := r.split(x.occupant)
	plain := len(t.statuses) == 0 && t.newNick == "" && t.actor == "" && t.reason == "" && t.versions == nil && x == x.face()
	for _, v := range []struct {
		to      []jid.JID
		address jid.JID
	}{{knowing, x.jid}, {others, jid.JID{}}} {
		if len(v.to) == 0 {
			continue
		}
		st := (*stanza.Stanza)(nil)
		if plain {
			st = r.seen(x.occupant, !v.address.IsZero())
		} else {
			st = r.presence(x, "", x.role, v.address, t)
		}
		o.send(st, v.to...)
	}
}

func (r *room) showSelf(o *op, x *session, to []jid.JID, t told, own ...string) {
	t.statuses = append(append([]string{statusSelf}, own...), t.statuses...)
	o.sendSure(r.presence(x, "", x.role, x.jid, t), to...)
}

func (o *op) send(st *stanza.Stanza, to ...jid.JID) {
	if len(to) > 0 {
		o.out = append(o.out, delivery{st: st, to: to})
	}
}

// sendSure is send for what is about the recipient itself.
func (o *op) sendSure(st *stanza.Stanza, to ...jid.JID) {
	if len(to) > 0 {
		o.out = append(o.out, delivery{st: st, to: to, sure: true})
	}
}

// delay says that the room has had something since (XEP-0203 §4).
func (r *room) delay(at time.Time) *stanza.Element {
	return stanza.El(stanza.NSDelay, "delay").With("from", r.jid.String()).With("stamp", at.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// addressed is the stanza for one recipient, in bytes of its own.
func addressed(st *stanza.Stanza, to jid.JID) *stanza.Stanza {
	own := *st
	own.To = to
	e := own.Stamp()
	return must(stanza.Parse(e.Render(nil, st.Raw), stanza.NSClient, nil))
}

// same compares secrets.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// jidFor is the session's address, if the other one is shown it.
func (x *session) jidFor(r *room, other *occupant) jid.JID {
	if r.knows(other.role) {
		return x.jid
	}
	return jid.JID{}
}
