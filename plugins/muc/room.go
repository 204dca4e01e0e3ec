package muc

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/router/cluster/owner"
)

// state is how far a room has come.
type state uint8

// The states.
const (
	vacant state = iota // there is no such room
	locked              // it waits for its first configuration (XEP-0045 §10.1)
	open
)

// room is a room in the memory of its owner. It lives as long as the hold; one that
// is broken is read anew.
type room struct {
	s    *service
	jid  jid.JID
	hold *owner.Hold
	load sync.Once
	bad  error // of load

	// With memory.mu.
	users int
	used  time.Time

	// For whoever has no lock.
	seats    atomic.Int64 // sessions in it
	there    atomic.Bool  // there is such a room
	unmarked atomic.Bool  // somebody may not know how far the room has come (mark)

	mu       sync.Mutex // leaf
	line     line
	state    state
	cfg      *RoomConfig // never changed in place
	creator  jid.JID
	created  int64
	version  int64 // of the affiliations
	people   map[jid.JID]affiliate
	nicks    map[string]*occupant
	sessions map[jid.JID]*session // by full address
	entries  limiter[jid.JID]
	topic    string               // the subject, for those who ask
	cached   *crowd               // nil: it has changed
	members  []Member             // nil: they have changed
	outcasts map[jid.JID]struct{} // likewise
	resent   resent
	extras

	kept *archive.Room // nil: the room is not there

	// The leader's (line.go).
	subject subject
	recent  history
	reached int64 // the place of the last message that has gone out, or may have
}

// affiliate is what a room remembers of somebody; never of none without a nick.
type affiliate struct {
	Affiliation
	nick    string // reserved; "": none
	reason  string
	version int64
}

// occupant is who is in the room under a nickname: one person, with one session
// or several (XEP-0045 §7.2.8).
type occupant struct {
	nick     string
	at       jid.JID // in the room
	bare     jid.JID
	role     Role
	hushed   bool       // its presence is the moderators' to see: the room was large when it came
	id       string     // XEP-0421
	sessions []*session // who has shown itself last is last
	shown    [2]*stanza.Stanza
	messages bucket
	changes  bucket
}

// session is one of an occupant's.
type session struct {
	*occupant
	jid      jid.JID // full
	presence *stanza.Stanza
	since    int64     // when it came, as a place among the room's messages
	bound    time.Time // when its session was bound; zero: nobody knows
	absent   time.Time // since when it is not known to be bound; zero: it is
	versions bool      // it has asked for affiliations (XEP-0463)
}

// crowd is who is in a room, at one time.
type crowd struct {
	all  []jid.JID            // full addresses
	bare map[jid.JID]struct{} // accounts
}

// subject is the last change of it.
type subject struct {
	stanza *stanza.Stanza // as it went out; nil: there was none
	at     time.Time
}

// affiliationOf is what somebody, bare, is to the room; domains may be outcasts
// (XEP-0045 §9.2).
func (r *room) affiliationOf(bare jid.JID) Affiliation {
	if r.s.admins[bare] {
		return IsOwner
	}
	if a, ok := r.people[bare]; ok {
		return a.Affiliation
	}
	return r.people[bare.Host()].Affiliation
}

// everybody is who is in the room now. What it returns never changes.
func (r *room) everybody() *crowd {
	if r.cached == nil {
		c := &crowd{all: make([]jid.JID, 0, len(r.sessions)), bare: make(map[jid.JID]struct{}, len(r.nicks))}
		for at, x := range r.sessions {
			c.all = append(c.all, at)
			c.bare[x.bare] = struct{}{}
		}
		r.cached = c
	}
	return r.cached
}

// affiliates are the members, admins and owners, and beside them the outcasts. What it returns never changes.
func (r *room) affiliates() ([]Member, map[jid.JID]struct{}) {
	if r.members == nil {
		r.members, r.outcasts = make([]Member, 0, len(r.people)), map[jid.JID]struct{}{}
		for at, a := range r.people {
			switch {
			case a.Affiliation >= IsMember:
				r.members = append(r.members, Member{at, a.Affiliation, a.nick})
			case a.Affiliation == IsOutcast:
				r.outcasts[at] = struct{}{}
			}
		}
	}
	return r.members, r.outcasts
}

// reservedBy is who has reserved the nickname.
func (r *room) reservedBy(nick string) (jid.JID, bool) {
	for at, a := range r.people {
		if a.nick != "" && a.nick == nick {
			return at, true
		}
	}
	return jid.JID{}, false
}

// face is the session whose presence the occupant is shown with.
func (o *occupant) face() *session { return o.sessions[len(o.sessions)-1] }

// changed lets what is remembered of the occupant's presence be made anew.
func (o *occupant) changed() { o.shown = [2]*stanza.Stanza{} }

// addresses are those of the occupant's sessions.
func (o *occupant) addresses() []jid.JID {
	out := make([]jid.JID, len(o.sessions))
	for i, x := range o.sessions {
		out[i] = x.jid
	}
	return out
}

// remove takes a session out of the room, and reports whether it was the
// occupant's last.
func (r *room) remove(x *session) (last bool) {
	o := x.occupant
	o.sessions = slices.DeleteFunc(o.sessions, func(y *session) bool { return y == x })
	delete(r.sessions, x.jid)
	if last = len(o.sessions) == 0; last {
		delete(r.nicks, o.nick)
	}
	o.changed()
	r.cached = nil
	r.counted()
	return last
}

// moderators are their sessions.
func (r *room) moderators() (out []jid.JID) {
	for _, o := range r.nicks {
		if o.role == Moderator {
			out = append(out, o.addresses()...)
		}
	}
	return out
}

// addressOf is the address of a nickname in the room.
func (r *room) addressOf(nick string) (jid.JID, error) { return r.jid.WithResource(nick) }

// wipe makes the room one that is not there.
func (r *room) wipe() {
	r.state, r.cfg, r.version, r.creator, r.created = vacant, r.s.cfg.initial(), 0, jid.JID{}, 0
	r.people, r.nicks, r.sessions = map[jid.JID]affiliate{}, map[string]*occupant{}, map[jid.JID]*session{}
	r.cached, r.members, r.topic, r.kept = nil, nil, "", nil
	r.resent, r.extras = resent{}, noExtras()
	r.counted()
}

// counted is for whoever has no lock.
func (r *room) counted() {
	r.seats.Store(int64(len(r.sessions)))
	r.there.Store(r.state != vacant)
}

// fill reads the room.
func (r *room) fill(ctx context.Context) error {
	r.wipe()
	r.entries.rate = r.s.cfg.Entries
	r.recent.most = r.s.cfg.MaxHistory
	in, err := r.s.store.load(ctx, r.jid)
	if err != nil || in == nil {
		return err
	}
	r.state, r.cfg, r.version, r.creator, r.created = in.state, in.config, in.version, in.creator, in.created
	r.people, r.subject = in.people, in.subject
	if r.subject.stanza != nil {
		r.topic = subjectOf(r.subject.stanza)
	}
	for _, x := range in.occupants {
		r.reseat(x)
	}
	r.counted()
	r.s.absences(r, r.s.env.Clock.Now())
	if err := r.fillExtras(ctx); err != nil {
		return err
	}
	if err := r.remember(ctx); err != nil {
		return err
	}
	if len(r.sessions) > 0 { // what the owner before this one has stored it may not have told
		r.unmarked.Store(true)
		r.s.tidy.ring()
	}
	return nil
}

// reseat puts a session into the room that was there before it was read.
func (r *room) reseat(o storedOccupant) {
	x := r.seat(o.nick, o.jid, o.role, o.presence, o.since)
	x.versions, x.bound = o.versions, o.bound
}

// seat puts a session into the room; the nickname is free or its own person's.
func (r *room) seat(nick string, at jid.JID, role Role, presence *stanza.Stanza, since int64) *session {
	o := r.nicks[nick]
	if o == nil {
		o = &occupant{
			nick: nick, bare: at.Bare(), role: role, id: r.s.people.of(r.jid, at.Bare()),
			messages: bucket{rate: r.s.cfg.Messages}, changes: bucket{rate: r.s.cfg.Presences},
		}
		o.at, _ = r.addressOf(nick) // it has been one
		r.nicks[nick] = o
	}
	x := &session{occupant: o, jid: at, presence: presence, since: since}
	o.sessions = append(o.sessions, x)
	o.changed()
	r.sessions[at] = x
	r.cached = nil
	r.counted()
	return x
}
