package roster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/storage"
)

// maxTombstones is how many removed items an account's roster remembers for
// clients that come with an old version. Older versions get the whole roster.
const maxTombstones = 1000

// store is the SQL. A change is written as a set that fails as stale when
// somebody else has changed the same roster since it was read.
type store struct {
	db   storage.DB
	keep int64 // tombstones of one roster
}

var (
	stmtVersion = &storage.Stmt{Name: "roster.version", Must: true,
		SQL: `INSERT INTO roster_versions (owner, ver, floor) VALUES ($1, $2, $2)
			ON CONFLICT (owner) DO UPDATE SET ver = excluded.ver WHERE roster_versions.ver = $3`}
	stmtItem = &storage.Stmt{Name: "roster.item", Idempotent: true,
		SQL: `INSERT INTO roster_items (owner, jid, name, in_groups, state, approved, removed, ver) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (owner, jid) DO UPDATE SET name = excluded.name, in_groups = excluded.in_groups, state = excluded.state,
				approved = excluded.approved, removed = excluded.removed, ver = excluded.ver`}
	stmtFloor = &storage.Stmt{Name: "roster.floor", Idempotent: true,
		SQL: `UPDATE roster_versions SET floor = coalesce((SELECT ver FROM roster_items WHERE owner = $1 AND removed
			ORDER BY ver DESC LIMIT 1 OFFSET $2), floor) WHERE owner = $1`}
	stmtForgetTombstones = &storage.Stmt{Name: "roster.tombstones", Idempotent: true,
		SQL: `DELETE FROM roster_items WHERE owner = $1 AND removed AND ver <= (SELECT floor FROM roster_versions WHERE owner = $1)`}
	stmtRequest = &storage.Stmt{Name: "roster.request", Idempotent: true,
		SQL: `INSERT INTO roster_requests (owner, jid, stanza, at) VALUES ($1, $2, $3, $4) ON CONFLICT (owner, jid) DO NOTHING`}
	stmtAnswered = &storage.Stmt{Name: "roster.answered", Idempotent: true,
		SQL: `DELETE FROM roster_requests WHERE owner = $1 AND jid = $2`}
	stmtForget = []*storage.Stmt{
		{Name: "roster.forget-requests", Idempotent: true, SQL: `DELETE FROM roster_requests WHERE owner = $1`},
		{Name: "roster.forget-items", Idempotent: true, SQL: `DELETE FROM roster_items WHERE owner = $1`},
		{Name: "roster.forget-version", Idempotent: true, SQL: `DELETE FROM roster_versions WHERE owner = $1`},
	}
)

// change is what one action does to a roster. Zero parts stay as they are.
type change struct {
	item     Item   // ver 0: nothing that a client would see has changed
	request  []byte // the contact asks; the complete stanza
	answered bool   // the contact's request is answered, or taken back
}

// visible reports whether clients are told (RFC 6121 §2.6.3, "roster
// modification").
func (ch change) visible() bool { return ch.item.ver != 0 }

func (ch change) empty() bool { return !ch.visible() && ch.request == nil && !ch.answered }

// save writes the change to the roster that was read as s. The error wraps
// storage.ErrStale when s was not the latest.
func (st store) save(ctx context.Context, s *Snapshot, ch change, now time.Time) error {
	var w storage.WriteSet
	owner, contact := s.owner.String(), ch.item.JID.String()
	if ch.visible() {
		groups, err := json.Marshal(ch.item.Groups)
		if err != nil {
			return fmt.Errorf("roster groups: %w", err)
		}
		w.Add(stmtVersion, owner, ch.item.ver, s.ver)
		w.Add(stmtItem, owner, contact, ch.item.Name, string(groups), int64(ch.item.State), ch.item.Approved, ch.item.removed, ch.item.ver)
		if ch.item.removed {
			w.Add(stmtFloor, owner, st.keep)
			w.Add(stmtForgetTombstones, owner)
		}
	}
	switch {
	case ch.request != nil:
		w.Add(stmtRequest, owner, contact, ch.request, now.UnixMicro())
	case ch.answered:
		w.Add(stmtAnswered, owner, contact)
	}
	if err := st.db.Commit(ctx, &w); err != nil {
		return fmt.Errorf("roster of %s: %w", owner, err)
	}
	return nil
}

// load reads a roster; one that was never written is empty.
func (st store) load(ctx context.Context, owner jid.JID) (*Snapshot, error) {
	s := &Snapshot{owner: owner}
	if err := st.version(ctx, s); err != nil {
		return nil, fmt.Errorf("roster of %s: %w", owner, err)
	}
	var err error
	s.made, err = storage.All(ctx, st.db, scanItem, `SELECT jid, name, in_groups, state, approved, removed, ver FROM roster_items
		WHERE owner = $1 AND NOT removed`, owner.String())
	if err != nil {
		return nil, fmt.Errorf("roster of %s: %w", owner, err)
	}
	s.asked, err = storage.All(ctx, st.db, scanJID, `SELECT jid FROM roster_requests WHERE owner = $1`, owner.String())
	if err != nil {
		return nil, fmt.Errorf("roster requests of %s: %w", owner, err)
	}
	s.sort()
	return s.index(), nil
}

func (st store) version(ctx context.Context, s *Snapshot) error {
	rows, err := st.db.Query(ctx, `SELECT ver, floor FROM roster_versions WHERE owner = $1`, s.owner.String())
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(&s.ver, &s.floor); err != nil {
			return err
		}
	}
	return rows.Err()
}

// since returns what changed after a version, tombstones included, in the
// order of modification.
func (st store) since(ctx context.Context, owner jid.JID, ver int64) ([]Item, error) {
	return storage.All(ctx, st.db, scanItem, `SELECT jid, name, in_groups, state, approved, removed, ver FROM roster_items
		WHERE owner = $1 AND ver > $2 ORDER BY ver`, owner.String(), ver)
}

func scanItem(r storage.Row) (Item, error) {
	var it Item
	var address, groups string
	var state int64
	if err := r.Scan(&address, &it.Name, &groups, &state, &it.Approved, &it.removed, &it.ver); err != nil {
		return it, err
	}
	it.State = State(state)
	var err error
	if it.JID, err = jid.Parse(address); err != nil {
		return it, fmt.Errorf("roster item %q: %w", address, err)
	}
	if err := json.Unmarshal([]byte(groups), &it.Groups); err != nil {
		return it, fmt.Errorf("groups of roster item %q: %w", address, err)
	}
	return it, nil
}

func scanJID(r storage.Row) (jid.JID, error) {
	var address string
	if err := r.Scan(&address); err != nil {
		return jid.JID{}, err
	}
	return jid.Parse(address)
}

// request is one that waits for an answer, complete.
type request struct {
	from jid.JID
	raw  []byte
}

// requests returns the requests that wait, oldest first.
func (st store) requests(ctx context.Context, owner jid.JID) ([]request, error) {
	return storage.All(ctx, st.db, scanRequest,
		`SELECT jid, stanza FROM roster_requests WHERE owner = $1 ORDER BY at, jid`, owner.String())
}

func scanRequest(r storage.Row) (q request, err error) {
	var address string
	if err = r.Scan(&address, &q.raw); err != nil {
		return q, err
	}
	q.from, err = jid.Parse(address)
	return q, err
}

// forget deletes everything about the account.
func (st store) forget(ctx context.Context, owner jid.JID) error {
	var w storage.WriteSet
	for _, s := range stmtForget {
		w.Add(s, owner.String())
	}
	if err := st.db.Commit(ctx, &w); err != nil {
		return fmt.Errorf("roster of %s: %w", owner, err)
	}
	return nil
}
