package archive

import (
	"parley/parser/jid"
	"parley/storage"
)

// The writes that go with a message. They are repeated when a connection
// breaks during the commit: a row's id is its own.
var (
	insertRow = storage.Stmt{
		Name:       "archive.insert",
		SQL:        `INSERT INTO archive (owner, id, peer, contact, resource, stanza, key_id) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		Idempotent: true,
	}
	insertPending = storage.Stmt{
		Name:       "archive.pending",
		SQL:        `INSERT INTO archive_pending (owner, id, stanza, key_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		Idempotent: true,
	}
)

// writes are rows that are committed together: those of a flow, or a caller's.
type writes interface {
	Store(s *storage.Stmt, args ...any)
	Settled(done func(stored bool))
}

// callers are writes that somebody else commits and tells of.
type callers struct {
	store func(*storage.Stmt, ...any)
	done  []func(stored bool)
}

// Store implements writes.
func (c *callers) Store(s *storage.Stmt, args ...any) { c.store(s, args...) }

// Settled implements writes.
func (c *callers) Settled(done func(stored bool)) { c.done = append(c.done, done) }

func (c *callers) settled(stored bool) {
	for _, done := range c.done {
		done(stored)
	}
}

// party is whom a row is with, and what a query asks for: peer finds it, the
// addresses are compared.
type party struct {
	peer           int64
	bare, resource string
}

func (p party) none() bool { return p.bare == "" }

// contactParty is an account's contact: its devices share one peer.
func contactParty(j jid.JID) party {
	bare := j.Bare()
	return party{peerKey(bare), bare.String(), j.Resource()}
}

// occupantParty is an occupant of a room: each has a peer of its own.
func occupantParty(j jid.JID) party {
	return party{peerKey(j), j.Bare().String(), j.Resource()}
}

// put adds a row and its day.
func (a *Archive) put(w writes, o *owner, id int64, with party, raw []byte) {
	body, key := a.env.AtRest.Seal(&sealedRows, raw, o.id, id, with.peer)
	w.Store(&insertRow, o.id, id, with.peer, with.bare, with.resource, body, key)
	a.days.note(w, o.id, with.peer, id)
	a.index.touch(o.id)
}
