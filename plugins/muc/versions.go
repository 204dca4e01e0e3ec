package muc

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// nsVersions is that of XEP-0463: clients learn what has changed in the lists of
// affiliations since they have seen them last.
const nsVersions = "urn:xmpp:muc:affiliations:1"

// departures are those who have no affiliation any more, or are outcasts, by address.
type departures struct {
	floor int64 // before it, nothing is known
	since map[jid.JID]departure
}

// departure is since which version somebody is no member any more. Who was an outcast,
// and nothing else as far as is known, nobody learns but who may know outcasts.
type departure struct {
	version int64
	outcast bool
}

// number is how it is stored.
func (d departure) number() int64 {
	if d.outcast {
		return -d.version
	}
	return d.version
}

func departureOf(number int64) departure { return departure{max(number, -number), number < 0} }

const (
	// maxDepartures is how many a room remembers. Who has missed more gets the whole
	// lists.
	maxDepartures = 500
	// versionPage is how many people one message tells of.
	versionPage = 200
)

var (
	putDeparture = storage.Stmt{
		Name: "muc.departure", SQL: `INSERT INTO muc_departure (room, jid, version) VALUES ($1, $2, $3) ON CONFLICT (room, jid) DO UPDATE SET version = excluded.version`,
		Idempotent: true,
	}
	dropDeparture  = storage.Stmt{Name: "muc.departure.drop", SQL: `DELETE FROM muc_departure WHERE room = $1 AND jid = $2`, Idempotent: true}
	dropDepartures = storage.Stmt{Name: "muc.departures.drop", SQL: `DELETE FROM muc_departure WHERE room = $1`, Idempotent: true}
	putFloor       = storage.Stmt{
		Name: "muc.floor", SQL: `INSERT INTO muc_departure (room, jid, version) VALUES ($1, '', $2) ON CONFLICT (room, jid) DO UPDATE SET version = excluded.version`,
		Idempotent: true,
	}
)

// The row without an address is the floor.
const sqlDepartures = `SELECT jid, version FROM muc_departure WHERE room = $1`

func (r *room) fillDepartures(ctx context.Context) error {
	r.past = departures{since: map[jid.JID]departure{}}
	_, err := storage.All(ctx, r.s.env.DB, func(row storage.Row) (struct{}, error) {
		var who string
		var version int64
		if err := row.Scan(&who, &version); err != nil {
			return struct{}{}, err
		}
		if who == "" {
			r.past.floor = version
			return struct{}{}, nil
		}
		at, err := jid.Parse(who)
		r.past.since[at] = departureOf(version)
		return struct{}{}, err
	}, sqlDepartures, r.jid.String())
	if err != nil {
		return fmt.Errorf("departures: %w", err)
	}
	return nil
}

// departs notes what somebody is from now on.
func (r *room) departs(o *op, c change) {
	who, was, is := c.at, c.was.Affiliation, c.is.Affiliation
	before, noted := r.past.since[who]
	switch {
	case is > IsNone:
		if noted {
			delete(r.past.since, who)
			o.rows.Add(&dropDeparture, r.jid.String(), who.String())
		}
		return
	case was == IsNone && is == IsOutcast: // who knows outcasts finds it among them, and nobody else is to hear of it
		return
	}
	if len(r.past.since) >= maxDepartures {
		r.forgetDepartures(o, maxDepartures/4)
	}
	if r.past.since == nil {
		r.past.since = map[jid.JID]departure{}
	}
	d := departure{r.version, was == IsOutcast && (!noted || before.outcast)}
	r.past.since[who] = d
	o.rows.Add(&putDeparture, r.jid.String(), who.String(), d.number())
}

// forgetDepartures forgets the n oldest.
func (r *room) forgetDepartures(o *op, n int) {
	var all []standing
	for at, d := range r.past.since {
		all = append(all, standing{at, IsNone, d.version})
	}
	slices.SortFunc(all, byVersion)
	for _, d := range all[:min(n, len(all))] {
		delete(r.past.since, d.at)
		o.rows.Add(&dropDeparture, r.jid.String(), d.at.String())
		r.past.floor = d.version
	}
	o.rows.Add(&putFloor, r.jid.String(), r.past.floor)
}

// forgetDeparture keeps no address whose account is gone: who has missed that gets the
// whole lists.
func (r *room) forgetDeparture(o *op, who jid.JID) {
	at, noted := r.past.since[who]
	if !noted {
		return
	}
	delete(r.past.since, who)
	r.past.floor = max(r.past.floor, at.version)
	o.rows.Add(&dropDeparture, r.jid.String(), who.String())
	o.rows.Add(&putFloor, r.jid.String(), r.past.floor)
}

// versionName is what clients call a version: nobody can guess one that it was not told
// (XEP-0463 §6), and none is known to a room that was made anew.
func (r *room) versionName(v int64) string {
	h := hmac.New(sha256.New, r.s.people.key)
	fmt.Fprintf(h, "version\x00%s\x00%d\x00%d", r.jid, r.created, v)
	return strconv.FormatInt(v, 36) + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:9])
}

// versionOf reads what versionName writes.
func (r *room) versionOf(name string) (int64, bool) {
	number, _, _ := strings.Cut(name, ".")
	v, err := strconv.ParseInt(number, 36, 64)
	return v, err == nil && v <= r.version && v >= r.past.floor && same(r.versionName(v), name)
}

// mav is the element that names versions; negative: not.
func (r *room) mav(since, until int64) *stanza.Element {
	el := stanza.El(nsVersions, "mav")
	if since >= 0 {
		el.With("since", r.versionName(since))
	}
	if until >= 0 {
		el.With("until", r.versionName(until))
	}
	return el
}

// standing is somebody's affiliation, and since which version.
type standing struct {
	at      jid.JID
	is      Affiliation
	version int64
}

func byVersion(a, b standing) int {
	return cmp.Or(cmp.Compare(a.version, b.version), byName(a.at, b.at))
}

// observes is who asks for affiliations.
func (r *room) observes(x *session) actor {
	return actor{bare: x.bare, nick: x.nick, Affiliation: r.affiliationOf(x.bare), role: x.role}
}

// shownTo is an affiliation as somebody may see it, who may see some (XEP-0463 §5.2.3).
func (r *room) shownTo(by actor, a Affiliation) Affiliation {
	if a != IsNone && !r.mayList(by, a) {
		return IsNone
	}
	return a
}

// observesVersions reports whether a session that enters gets to know of changes.
func (r *room) observesVersions(x *session, asked *stanza.Element) bool {
	return asked.Child(nsVersions, "mav") != nil && r.mayList(r.observes(x), IsMember)
}

// catchUp tells a session that enters what has changed since it was here (XEP-0463
// §5.2.1). What it returns is for its self-presence; nil: it did not ask.
func (r *room) catchUp(o *op, x *session, asked *stanza.Element) *stanza.Element {
	if asked == nil {
		return nil
	}
	mav := asked.Child(nsVersions, "mav")
	if mav == nil {
		return nil
	}
	by := r.observes(x)
	if !x.versions {
		e := stanza.NewError(stanza.Forbidden, "you may not see who stands how in this room")
		e.By = r.jid
		o.sendSure(stanza.Make(stanza.Message, stanza.TypeError, r.jid, jid.JID{}, newID(), e.Element()), x.jid)
		return nil
	}
	since, known := r.versionOf(mav.Get("since"))
	if !known {
		since = -1
	}
	if since != r.version {
		r.tellVersions(o, x, by, since)
	}
	return r.mav(-1, r.version)
}

// tellVersions sends what has changed since a version; negative: everything.
func (r *room) tellVersions(o *op, x *session, by actor, since int64) {
	var all []standing
	for at, a := range r.people {
		is := r.shownTo(by, a.Affiliation)
		if a.version > since && (is != IsNone || since >= 0 && a.Affiliation > IsNone) {
			all = append(all, standing{at, is, a.version})
		}
	}
	outcasts := r.mayList(by, IsOutcast)
	for at, d := range r.past.since {
		known := outcasts && r.people[at].Affiliation == IsOutcast // it is among the others
		if since >= 0 && d.version > since && !known && (outcasts || !d.outcast) {
			all = append(all, standing{at, IsNone, d.version})
		}
	}
	slices.SortFunc(all, byVersion)
	for {
		page := all[:min(versionPage, len(all))]
		all = all[len(page):]
		until := r.version
		if len(all) > 0 {
			until = page[len(page)-1].version
		}
		out := stanza.El(NSUser, "x").Add(r.mav(since, until))
		for _, s := range page {
			out.Add(stanza.El(NSUser, "item").With("jid", s.at.String()).With("affiliation", s.is.String()))
		}
		o.sendSure(stanza.Make(stanza.Message, "", r.jid, jid.JID{}, newID(), out), x.jid)
		if since = until; len(all) == 0 {
			return
		}
	}
}

// tellStanding tells of a change those who have asked for affiliations, and do not see
// it in the presence of whom it is about (XEP-0463 §5.2.2).
func (r *room) tellStanding(o *op, c change, mav *stanza.Element) {
	about := r.concerned(c.at)
	to := map[Affiliation][]jid.JID{}
	var besides []jid.JID // to them nobody has changed
	for _, x := range r.sessions {
		by := r.observes(x)
		seen := slices.ContainsFunc(about, func(who *occupant) bool {
			return x.occupant == who || r.sees(x.role, who.role, who.hushed) && r.knows(x.role)
		})
		if !x.versions || seen || !r.mayList(by, IsMember) {
			continue
		}
		is := r.shownTo(by, c.is.Affiliation)
		if is == IsNone && r.shownTo(by, c.was.Affiliation) == IsNone {
			besides = append(besides, x.jid)
			continue
		}
		to[is] = append(to[is], x.jid)
	}
	o.send(stanza.Make(stanza.Message, "", r.jid, jid.JID{}, newID(), stanza.El(NSUser, "x").Add(mav)), besides...)
	for is, whom := range to {
		item := stanza.El(NSUser, "item").With("jid", c.at.String()).With("affiliation", is.String()).With("role", NoRole.String())
		o.send(stanza.Make(stanza.Message, "", r.jid, jid.JID{}, newID(), stanza.El(NSUser, "x").Add(mav, item)), whom...)
	}
}
