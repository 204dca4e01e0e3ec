package vcard

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
)

// Cards are the vCards of all accounts. It is the plugin's contract.
type Cards struct {
	env    plugins.Env
	beside atomic.Pointer[Beside]
}

// Stored is a vCard as it is in the database. At, in unix microseconds, is another
// one for each time that the account's was stored.
type Stored struct {
	Owner jid.JID         // bare
	Card  *stanza.Element // must not be changed
	At    int64
}

// Beside adds to the set that stores a vCard what another feature keeps of it, so
// that neither is ever there without the other. It must not wait.
type Beside func(s Stored, w *storage.WriteSet)

// Beside lets f take part in all that is stored, whoever changes it, until leave is
// called or somebody else takes the place.
func (c *Cards) Beside(f Beside) (leave func()) {
	c.beside.Store(&f)
	return func() { c.beside.CompareAndSwap(&f, nil) }
}

var stmtSet = &storage.Stmt{Name: "vcard.set", Idempotent: true,
	SQL: `INSERT INTO vcard (owner, card, changed_at) VALUES ($1, $2, $3) ON CONFLICT (owner) DO UPDATE SET card = excluded.card, changed_at = excluded.changed_at`}

const (
	sqlGet    = `SELECT card, changed_at FROM vcard WHERE owner = $1`
	sqlStamps = `SELECT owner, changed_at FROM vcard WHERE owner > $1 ORDER BY owner LIMIT $2`
	sqlForget = `DELETE FROM vcard WHERE owner = $1`
)

// Get returns the account's vCard, or nil when it has none. owner is bare.
func (c *Cards) Get(ctx context.Context, owner jid.JID) (*stanza.Element, error) {
	s, err := c.Stored(ctx, owner)
	return s.Card, err
}

// Stored is Get with when it was stored.
func (c *Cards) Stored(ctx context.Context, owner jid.JID) (Stored, error) {
	s := Stored{Owner: owner}
	var raw []byte
	err := c.env.DB.QueryRow(ctx, sqlGet, owner.String()).Scan(&raw, &s.At)
	if errors.Is(err, storage.ErrNoRows) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("vCard: %w", err)
	}
	if s.Card, err = stanza.ParseElement(raw, ""); err != nil {
		return s, fmt.Errorf("stored vCard: %w", err)
	}
	return s, nil
}

// Stamps are who has a vCard, behind an address and in the database's order ("":
// from the beginning), with when it was stored and without it.
func (c *Cards) Stamps(ctx context.Context, after string, limit int) ([]Stored, error) {
	out, err := storage.All(ctx, c.env.DB, func(row storage.Row) (s Stored, err error) {
		var owner string
		if err = row.Scan(&owner, &s.At); err != nil {
			return s, err
		}
		s.Owner, err = jid.Parse(owner)
		return s, err
	}, sqlStamps, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list vCards: %w", err)
	}
	return out, nil
}

// Set stores the account's vCard. It fires no hook: that is for those whom
// the change comes from.
func (c *Cards) Set(ctx context.Context, owner jid.JID, card *stanza.Element) error {
	s := Stored{Owner: owner, Card: card, At: c.env.Clock.Now().UnixMicro()}
	var w storage.WriteSet
	w.Add(stmtSet, owner.String(), card.Bytes(""), s.At)
	if f := c.beside.Load(); f != nil {
		(*f)(s, &w)
	}
	if err := c.env.DB.Commit(ctx, &w); err != nil {
		return fmt.Errorf("store vCard: %w", err)
	}
	return nil
}

func (c *Cards) forget(ctx context.Context, owner jid.JID) error {
	if _, err := c.env.DB.Exec(ctx, sqlForget, owner.String()); err != nil {
		return fmt.Errorf("forget vCard: %w", err)
	}
	return nil
}
