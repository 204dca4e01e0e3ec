package muc

import (
	"context"
	"strings"
	"time"
	"unicode"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
)

// enter is available presence: somebody enters the room (XEP-0045 §7.2), has lost
// track of it, shows itself anew (§7.7), or takes another nickname (§7.6).
func (r *room) enter(ctx context.Context, st *stanza.Stanza, bound time.Time) error {
	if st.To.IsBare() { // XEP-0045 §7.2.1
		return stanza.NewError(stanza.JIDMalformed, "a nickname is needed to enter a room")
	}
	if len(st.Raw) > int(r.s.cfg.MaxPresence) {
		return r.s.limit("presence", stanza.PolicyViolation, "the presence is too large")
	}
	e := &entry{r: r, st: st, nick: st.To.Resource(), bound: bound}
	e.x = st.Child(NS, "x")
	if !r.there.Load() && e.x != nil { // with no lock held
		if err := r.s.checkNick(e.nick); err != nil { // nothing is left of a room that cannot be
			return err
		}
		if err := r.s.mayCreate(ctx, st.From.Bare()); err != nil {
			return err
		}
		var err error
		if e.kept, err = r.s.kept.Room(ctx, r.jid); err != nil {
			return err
		}
	}
	shown, err := copied(st, jid.JID{}, "", func(c stanza.Child) bool { return r.forged(st, c) })
	if err != nil {
		return err
	}
	e.shown = shown
	return r.do(ctx, true, e.place)
}

// entry is available presence that looks for its place.
type entry struct {
	r     *room
	st    *stanza.Stanza
	nick  string
	x     *stanza.Element // nil: it is no request to enter
	shown *stanza.Stanza  // what the room shows of it
	kept  *archive.Room   // the room may be made, and this is its archive; nil: it is there
	bound time.Time       // when its session was (processor.Owned); zero: nobody knows
	token *token          // it invites somebody (XEP-0488); nil: none
}

func (e *entry) place(o *op) error {
	r := e.r
	if x := r.sessions[e.st.From]; x != nil {
		if x.follows(e.bound) {
			return nil
		}
		if e.x != nil {
			x.bound = e.bound
		}
		switch {
		case x.nick != e.nick:
			return r.rename(o, x, e)
		case !x.changes.take(r.s.env.Clock.Now()):
			return r.s.tooFast("presence")
		case e.x != nil:
			r.again(o, x, e)
		default:
			r.update(o, x, e.shown, "")
		}
		return nil
	}
	if e.x == nil {
		r.stray(o, e.st)
		return nil
	}
	return r.admit(o, e)
}

// stray tells a client that believes to be in the room that it is not (rule 67,
// XEP-0045 §7.2.18).
func (r *room) stray(o *op, st *stanza.Stanza) {
	item := stanza.El(NSUser, "item").With("affiliation", max(r.affiliationOf(st.From.Bare()), IsNone).String()).With("role", NoRole.String())
	x := statuses(stanza.El(NSUser, "x").Add(item), statusSelf, statusKicked, statusTechnicalProblems)
	o.sendSure(stanza.Make(stanza.Presence, stanza.TypeUnavailable, st.To, jid.JID{}, st.ID, x), st.From)
}

// admit lets a session in, or says why not (XEP-0045 §7.2.17).
func (r *room) admit(o *op, e *entry) error {
	now := r.s.env.Clock.Now()
	who := e.st.From.Bare()
	if err := r.s.checkNick(e.nick); err != nil {
		return err
	}
	if r.state == vacant && e.kept == nil {
		return errAgain // it was there a moment ago
	}
	if err := r.refusal(e, who); err != nil {
		return err
	}
	if !r.entries.take(who, now) {
		return r.s.tooFast("entry")
	}
	if e.token != nil {
		if err := r.admitBy(o, e.token, who); err != nil {
			return err
		}
	}
	var own []string
	if r.state == vacant {
		r.create(o, who, e.kept)
		own = append(own, statusCreated)
	}
	old := r.nicks[e.nick]
	role := r.cfg.defaultRole(r.affiliationOf(who))
	if old != nil {
		role = old.role
	}
	x := r.seat(e.nick, e.st.From, role, e.shown, r.kept.Next())
	x.bound, x.versions = e.bound, r.observesVersions(x, e.x)
	if most := r.s.cfg.Large; old == nil && most > 0 && len(r.nicks) > most {
		x.hushed = true
	}
	r.saveSession(o, x)
	r.s.m.entries.Inc()
	r.showOthers(o, x, told{})
	if old != nil {
		var others []jid.JID
		for _, y := range old.sessions {
			if y != x {
				others = append(others, y.jid)
			}
		}
		r.showSelf(o, x, others, told{})
	}
	r.welcome(o, x, e.x, own...)
	return nil
}

// welcome is what a session gets that has entered (rule 67, XEP-0045 §7.1): the
// others' presence, its own, the history, the subject.
func (r *room) welcome(o *op, x *session, asked *stanza.Element, own ...string) {
	r.roster(o, x, told{versions: r.catchUp(o, x, asked)}, own...)
	wanted, most, start := historyRequest(asked, r.s.env.Clock.Now()), r.cfg.MaxHistory, r.start(x)
	o.out = append(o.out, delivery{later: func() []delivery {
		out := r.recent.replay(r, wanted, most, x.jid)
		return append(out, delivery{st: r.subject.shown(r), to: []jid.JID{x.jid}, sure: true, link: start})
	}})
}

// roster shows a session who is in the room, itself last, with what the room tells it of
// itself.
func (r *room) roster(o *op, x *session, self told, own ...string) {
	address, from := r.knows(x.role), len(o.out)
	for _, other := range r.nicks {
		if other != x.occupant && r.sees(x.role, other.role, other.hushed) {
			o.send(r.seen(other, address), x.jid)
		}
	}
	for i := range o.out[from:] {
		o.out[from+i].asked = true
	}
	if r.cfg.Whois == Anyone { // XEP-0045 §7.2.3
		own = append(own, statusNonAnonymous)
	}
	if r.cfg.Logged { // XEP-0045 §7.2.12
		own = append(own, statusLogged)
	}
	r.showSelf(o, x, []jid.JID{x.jid}, self, own...)
}

// again is for a client that has lost track (XEP-0045 §7.2.1): it gets what it
// would if it entered now, and the others its presence.
func (r *room) again(o *op, x *session, e *entry) {
	x.presence, x.versions = e.shown, r.observesVersions(x, e.x)
	x.since, x.absent = r.kept.Next(), time.Time{} // a new session, perhaps, under the old address
	x.front()
	r.saveSession(o, x)
	r.showOthers(o, x, told{})
	r.welcome(o, x, e.x)
}

// update shows an occupant's presence anew (XEP-0045 §7.7).
func (r *room) update(o *op, x *session, shown *stanza.Stanza, own string) {
	x.presence = shown
	x.front()
	r.saveSession(o, x)
	if own != "" {
		r.show(o, x, told{}, own)
		return
	}
	r.show(o, x, told{})
}

// front makes the session the one that its occupant is shown with.
func (x *session) front() {
	all := x.sessions
	for i, y := range all {
		if y == x {
			copy(all[i:], all[i+1:])
			all[len(all)-1] = x
		}
	}
	x.changed()
}

// maxSessions is how many sessions may share a nickname.
const maxSessions = 20

// refusal is why somebody may not enter; nil: it may.
func (r *room) refusal(e *entry, who jid.JID) error {
	if r.state == vacant {
		return nil
	}
	a := r.affiliationOf(who)
	old := r.nicks[e.nick]
	reserved, isReserved := r.reservedBy(e.nick)
	password := ""
	if el := e.x.Child(NS, "password"); el != nil {
		password = el.Text()
	}
	invited := r.tokenOf(password)
	if invited != nil && a == IsNone {
		e.token, a = invited, IsMember
	}
	switch {
	case a == IsOutcast: // XEP-0045 §7.2.7
		return stanza.NewError(stanza.Forbidden, "you are banned from this room; only an admin of the room can change that")
	case r.state == locked && a < IsOwner: // XEP-0045 §7.2.10
		return stanza.NewError(stanza.ItemNotFound, "the room is not ready yet: its owner has to configure it first")
	case r.cfg.MembersOnly && a < IsMember && password != "" && !r.cfg.Protected:
		return r.notAuthorized(password)
	case r.cfg.MembersOnly && a < IsMember: // XEP-0045 §7.2.6
		return stanza.NewError(stanza.RegistrationRequired, "only members may enter this room; ask an admin of the room to make you one")
	case r.cfg.Protected && !same(password, r.cfg.Password) && invited == nil: // XEP-0045 §7.2.5
		return r.notAuthorized(password)
	case old != nil && old.bare != who, isReserved && reserved != who: // XEP-0045 §7.2.8
		return stanza.NewError(stanza.Conflict, "the nickname is somebody else's; choose another one")
	case old != nil && len(old.sessions) >= maxSessions:
		return r.s.limit("sessions", stanza.ResourceConstraint, "too many of your devices are in this room")
	case old == nil && r.full(a): // XEP-0045 §7.2.9
		return r.s.limit("occupants", stanza.ServiceUnavailable, "the room is full; try again when somebody has left")
	}
	return nil
}

// full reports whether there is no room for one more with that affiliation: owners
// and admins get in, up to a tenth more than may be there.
func (r *room) full(a Affiliation) bool {
	most := r.s.cfg.MaxOccupants
	if r.cfg.MaxUsers > 0 {
		most = min(most, r.cfg.MaxUsers)
	}
	if a >= IsAdmin {
		most += most/10 + 2
	}
	return len(r.nicks) >= most
}

// checkNick reports whether a nickname can be one (XEP-0045 §17.1).
func (s *service) checkNick(nick string) error {
	visible := strings.ContainsFunc(nick, func(c rune) bool { return !unicode.IsSpace(c) && unicode.IsPrint(c) })
	switch {
	case len(nick) > int(s.cfg.MaxNick):
		return s.limit("nick", stanza.NotAcceptable, "the nickname is too long")
	case !visible:
		return stanza.NewError(stanza.NotAcceptable, "the nickname cannot be seen")
	}
	return nil
}
