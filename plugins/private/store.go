package private

import (
	"context"
	"errors"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
)

// Store is what accounts have stored. It is the plugin's contract.
type Store struct{ env plugins.Env }

// Item is what is stored under one name: one or more elements of that name,
// serialised so that they can stand in any namespace.
type Item struct {
	Name stanza.Name
	Data []byte
}

const (
	sqlGet    = `SELECT data FROM private_item WHERE owner = $1 AND space = $2 AND name = $3`
	sqlPut    = `INSERT INTO private_item (owner, space, name, data) VALUES ($1, $2, $3, $4) ON CONFLICT (owner, space, name) DO UPDATE SET data = excluded.data`
	sqlUsed   = `SELECT count(*), coalesce(sum(length(data)), 0) FROM private_item WHERE owner = $1`
	sqlForget = `DELETE FROM private_item WHERE owner = $1`
)

// Get returns what the account, bare, has stored under the name; nil: nothing.
func (s *Store) Get(ctx context.Context, owner jid.JID, name stanza.Name) ([]byte, error) {
	var data []byte
	err := s.env.DB.QueryRow(ctx, sqlGet, owner.String(), name.Space, name.Local).Scan(&data)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("private XML: %w", err)
	}
	return data, nil
}

// Put stores an item in the name of the house: past the account's limits.
func (s *Store) Put(ctx context.Context, owner jid.JID, i Item) error {
	if _, err := s.env.DB.Exec(ctx, sqlPut, owner.String(), i.Name.Space, i.Name.Local, i.Data); err != nil {
		return fmt.Errorf("private XML: %w", err)
	}
	return nil
}

// put stores all or nothing. The error is a *stanza.Error when the account
// would have more than it may.
func (s *Store) put(ctx context.Context, owner jid.JID, items []Item, most Config) error {
	err := s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		for _, i := range items {
			if _, err := tx.Exec(ctx, sqlPut, owner.String(), i.Name.Space, i.Name.Local, i.Data); err != nil {
				return err
			}
		}
		var n, size int64
		if err := tx.QueryRow(ctx, sqlUsed, owner.String()).Scan(&n, &size); err != nil {
			return err
		}
		if n > int64(most.MaxItems) || size > int64(most.MaxTotal) {
			return stanza.NewError(stanza.PolicyViolation, "the account's private storage is full")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("private XML: %w", err)
	}
	return nil
}

func (s *Store) forget(ctx context.Context, owner jid.JID) error {
	if _, err := s.env.DB.Exec(ctx, sqlForget, owner.String()); err != nil {
		return fmt.Errorf("forget private XML: %w", err)
	}
	return nil
}
