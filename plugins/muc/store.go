package muc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/storage"
)

// store has the rooms' rows. Only a room's owner writes them, with its guard.
type store struct{ db storage.DB }

var (
	putRoom = storage.Stmt{
		Name: "muc.room",
		SQL: `INSERT INTO muc_room (room, service, creator, created_at, listed, name, locked, config, version, subject, subject_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, 0)
ON CONFLICT (room) DO UPDATE SET listed = excluded.listed, name = excluded.name, locked = excluded.locked, config = excluded.config, version = excluded.version`,
		Idempotent: true,
	}
	putVersion = storage.Stmt{Name: "muc.version", SQL: `UPDATE muc_room SET version = $2 WHERE room = $1`, Idempotent: true}
	putSubject = storage.Stmt{Name: "muc.subject", SQL: `UPDATE muc_room SET subject = $2, subject_at = $3 WHERE room = $1`, Idempotent: true}
	dropRoom   = storage.Stmt{Name: "muc.drop", SQL: `DELETE FROM muc_room WHERE room = $1`, Idempotent: true}

	putAffiliation = storage.Stmt{
		Name: "muc.affiliation",
		SQL: `INSERT INTO muc_affiliation (room, jid, affiliation, nick, reason, version) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (room, jid) DO UPDATE SET affiliation = excluded.affiliation, nick = excluded.nick, reason = excluded.reason, version = excluded.version`,
		Idempotent: true,
	}
	dropAffiliation  = storage.Stmt{Name: "muc.affiliation.drop", SQL: `DELETE FROM muc_affiliation WHERE room = $1 AND jid = $2`, Idempotent: true}
	dropAffiliations = storage.Stmt{Name: "muc.affiliations.drop", SQL: `DELETE FROM muc_affiliation WHERE room = $1`, Idempotent: true}

	putOccupant = storage.Stmt{
		Name: "muc.occupant",
		SQL: `INSERT INTO muc_occupant (room, jid, nick, role, presence, since, versions, bound) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (room, jid) DO UPDATE SET nick = excluded.nick, role = excluded.role, presence = excluded.presence, since = excluded.since, versions = excluded.versions, bound = excluded.bound`,
		Idempotent: true,
	}
	dropOccupant = storage.Stmt{Name: "muc.occupant.drop", SQL: `DELETE FROM muc_occupant WHERE room = $1 AND jid = $2`, Idempotent: true}
	// lostOccupant leaves of a session that was taken out while nobody could tell it what
	// it takes to tell it when it comes back: it is none any more, since then.
	lostOccupant  = storage.Stmt{Name: "muc.occupant.lost", SQL: `UPDATE muc_occupant SET role = 'none', since = $3 WHERE room = $1 AND jid = $2`, Idempotent: true}
	dropOccupants = storage.Stmt{Name: "muc.occupants.drop", SQL: `DELETE FROM muc_occupant WHERE room = $1`, Idempotent: true}
)

const (
	sqlRoom         = `SELECT creator, created_at, locked, config, version, subject, subject_at FROM muc_room WHERE room = $1`
	sqlAffiliations = `SELECT jid, affiliation, nick, reason, version FROM muc_affiliation WHERE room = $1`
	sqlOccupants    = `SELECT jid, nick, role, presence, since, versions, bound FROM muc_occupant WHERE room = $1 AND role <> 'none' ORDER BY since, jid`
	sqlMade         = `SELECT count(*) FROM muc_room WHERE creator = $1`
	sqlListed       = `SELECT room, name FROM muc_room WHERE service = $1 AND listed AND room > $2 ORDER BY room LIMIT $3`
	sqlListedBefore = `SELECT room, name FROM muc_room WHERE service = $1 AND listed AND room < $2 ORDER BY room DESC LIMIT $3`
	sqlListedLast   = `SELECT room, name FROM muc_room WHERE service = $1 AND listed ORDER BY room DESC LIMIT $2`
	sqlSeats        = `SELECT room, nick FROM muc_occupant WHERE jid = $1`
	sqlSeated       = `SELECT room, jid FROM muc_occupant WHERE role <> 'none' AND (room, jid) > ($1, $2) ORDER BY room, jid LIMIT $3`
	sqlAccess       = `SELECT config, locked FROM muc_room WHERE room = $1`
	sqlStanding     = `SELECT affiliation FROM muc_affiliation WHERE room = $1 AND jid IN ($2, $3) ORDER BY length(jid) DESC LIMIT 1`
	sqlInside       = `SELECT count(*) FROM muc_occupant WHERE room = $1 AND jid = $2 AND role <> 'none'`
	sqlForgotten    = `DELETE FROM muc_occupant WHERE role = 'none' AND since < $1`
	sqlStandings    = `SELECT room FROM muc_affiliation WHERE jid = $1 UNION SELECT room FROM muc_hat_worn WHERE jid = $1 UNION SELECT room FROM muc_token WHERE creator = $1 UNION SELECT room FROM muc_departure WHERE jid = $1`
)

// stored is a room as its rows say.
type stored struct {
	state     state
	config    *RoomConfig
	creator   jid.JID
	created   int64
	version   int64
	people    map[jid.JID]affiliate
	occupants []storedOccupant
	subject   subject
}

type storedOccupant struct {
	jid      jid.JID
	nick     string
	role     Role
	presence *stanza.Stanza
	since    int64
	versions bool
	bound    time.Time
}

// load reads a room; nil: there is none.
func (s *store) load(ctx context.Context, room jid.JID) (*stored, error) {
	out := &stored{state: open, people: map[jid.JID]affiliate{}}
	var creator, config string
	var locks bool
	var changed []byte
	var changedAt int64
	err := s.db.QueryRow(ctx, sqlRoom, room.String()).Scan(&creator, &out.created, &locks, &config, &out.version, &changed, &changedAt)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("room: %w", err)
	}
	if locks {
		out.state = locked
	}
	if out.config, err = decodeConfig(config); err != nil {
		return nil, err
	}
	if out.creator, err = jid.Parse(creator); err != nil {
		return nil, fmt.Errorf("creator of a room: %w", err)
	}
	if changed != nil {
		if out.subject.stanza, err = stanza.Parse(changed, stanza.NSClient, nil); err != nil {
			return nil, fmt.Errorf("subject of a room: %w", err)
		}
		out.subject.at = time.UnixMicro(changedAt)
	}
	if err := s.affiliations(ctx, room, out.people); err != nil {
		return nil, err
	}
	out.occupants, err = storage.All(ctx, s.db, scanOccupant, sqlOccupants, room.String())
	if err != nil {
		return nil, fmt.Errorf("occupants: %w", err)
	}
	return out, nil
}

func (s *store) affiliations(ctx context.Context, room jid.JID, into map[jid.JID]affiliate) error {
	rows, err := s.db.Query(ctx, sqlAffiliations, room.String())
	if err != nil {
		return fmt.Errorf("affiliations: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var who, what string
		var a affiliate
		if err := rows.Scan(&who, &what, &a.nick, &a.reason, &a.version); err != nil {
			return fmt.Errorf("affiliations: %w", err)
		}
		at, err := jid.Parse(who)
		if err != nil {
			return fmt.Errorf("affiliations: %w", err)
		}
		a.Affiliation, _ = ParseAffiliation(what)
		into[at] = a
	}
	return rows.Err()
}

func scanOccupant(row storage.Row) (o storedOccupant, err error) {
	var at, role string
	var presence []byte
	var bound int64
	if err = row.Scan(&at, &o.nick, &role, &presence, &o.since, &o.versions, &bound); err != nil {
		return o, err
	}
	if bound != 0 {
		o.bound = time.UnixMicro(bound)
	}
	if o.jid, err = jid.Parse(at); err != nil {
		return o, err
	}
	o.role, _ = ParseRole(role)
	o.presence, err = stanza.Parse(presence, stanza.NSClient, nil)
	return o, err
}

// made is how many rooms somebody has made.
func (s *store) made(ctx context.Context, creator jid.JID) (n int64, err error) {
	if err = s.db.QueryRow(ctx, sqlMade, creator.String()).Scan(&n); err != nil {
		return 0, fmt.Errorf("rooms of %s: %w", creator, err)
	}
	return n, nil
}

// place is a room that is listed, or a seat in one.
type place struct {
	room jid.JID
	name string // of the room, or a nickname
}

func scanPlace(row storage.Row) (p place, err error) {
	var at string
	if err = row.Scan(&at, &p.name); err != nil {
		return p, err
	}
	p.room, err = jid.Parse(at)
	return p, err
}

// forgetLost removes what is left of sessions that nobody resumes any more.
func (s *store) forgetLost(ctx context.Context, before time.Time) error {
	if _, err := s.db.Exec(ctx, sqlForgotten, before.UnixMicro()); err != nil {
		return fmt.Errorf("occupants that were lost: %w", err)
	}
	return nil
}

// seats are where a session, by its full address, sits, or was taken out without
// having heard of it.
func (s *store) seats(ctx context.Context, session jid.JID) ([]place, error) {
	out, err := storage.All(ctx, s.db, scanPlace, sqlSeats, session.String())
	if err != nil {
		return nil, fmt.Errorf("seats of %s: %w", session, err)
	}
	return out, nil
}

// seated is the next page of who sits where, behind one of them.
func (s *store) seated(ctx context.Context, room, session string, limit int) ([]place, error) {
	out, err := storage.All(ctx, s.db, scanPlace, sqlSeated, room, session, limit)
	if err != nil {
		return nil, fmt.Errorf("seats: %w", err)
	}
	return out, nil
}

// standings are the rooms that remember somebody.
func (s *store) standings(ctx context.Context, who jid.JID) ([]jid.JID, error) {
	out, err := storage.All(ctx, s.db, func(row storage.Row) (jid.JID, error) {
		var at string
		if err := row.Scan(&at); err != nil {
			return jid.JID{}, err
		}
		return jid.Parse(at)
	}, sqlStandings, who.String())
	if err != nil {
		return nil, fmt.Errorf("affiliations of %s: %w", who, err)
	}
	return out, nil
}

// What a room writes.

func (r *room) saveRoom(o *op) {
	o.rows.Add(&putRoom, r.jid.String(), r.jid.Domain(), r.creator.String(), r.created,
		r.cfg.Public && r.state == open, r.cfg.Name, r.state == locked, r.cfg.encode(), r.version)
}

func (r *room) saveSession(o *op, x *session) {
	var bound int64
	if !x.bound.IsZero() {
		bound = x.bound.UnixMicro()
	}
	o.rows.Add(&putOccupant, r.jid.String(), x.jid.String(), x.nick, x.role.String(), x.presence.Raw, x.since, x.versions, bound)
}

func (r *room) saveAffiliation(o *op, who jid.JID, a affiliate) {
	if a.Affiliation == IsNone && a.nick == "" {
		o.rows.Add(&dropAffiliation, r.jid.String(), who.String())
	} else {
		o.rows.Add(&putAffiliation, r.jid.String(), who.String(), a.String(), a.nick, a.reason, a.version)
	}
	o.rows.Add(&putVersion, r.jid.String(), r.version)
}

// listed is a page of the public rooms of a service, in the order of their
// addresses; more: there are others beyond it.
func (s *store) listed(ctx context.Context, service string, q *rsm.Request, limit int) (out []place, more bool, err error) {
	text, args := sqlListed, []any{service, "", limit + 1}
	back := q != nil && q.Backward
	switch {
	case back && q.Before == "":
		text, args = sqlListedLast, []any{service, limit + 1}
	case back:
		text, args[1] = sqlListedBefore, q.Before
	case q != nil:
		args[1] = q.After
	}
	if out, err = storage.All(ctx, s.db, scanPlace, text, args...); err != nil {
		return nil, false, fmt.Errorf("public rooms: %w", err)
	}
	if more = len(out) > limit; more {
		out = out[:limit]
	}
	if back {
		slices.Reverse(out)
	}
	return out, more, nil
}

// access is what somebody, by its full address, is to a room that may be another
// node's; config nil: there is no such room.
func (s *store) access(ctx context.Context, room, who jid.JID) (config *RoomConfig, locks bool, a Affiliation, inside bool, err error) {
	var text, standing string
	err = s.db.QueryRow(ctx, sqlAccess, room.String()).Scan(&text, &locks)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, false, IsNone, false, nil
	}
	if err == nil {
		config, err = decodeConfig(text)
	}
	if err == nil {
		err = s.db.QueryRow(ctx, sqlStanding, room.String(), who.Bare().String(), who.Domain()).Scan(&standing)
		if errors.Is(err, storage.ErrNoRows) {
			standing, err = IsNone.String(), nil
		}
	}
	var n int64
	if err == nil {
		err = s.db.QueryRow(ctx, sqlInside, room.String(), who.String()).Scan(&n)
	}
	if err != nil {
		return nil, false, IsNone, false, fmt.Errorf("access to %s: %w", room, err)
	}
	a, _ = ParseAffiliation(standing)
	return config, locks, a, n > 0, nil
}
