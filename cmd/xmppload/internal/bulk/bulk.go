// Package bulk fills Parley's own tables, as its migrations have made them:
// accounts and archives of a size that nobody has the patience to send through
// a socket. The server must not run. What is written depends on its numbers
// alone, so that every run has the same rows.
//
// Rows go through storage's committer, as the server's do; the statements are
// those of plugins/accounts and plugins/archive.
package bulk

import (
	"context"
	"fmt"
	"log/slog"

	"parley/plugins/accounts"
	"parley/storage"
	"parley/stream/sasl"
)

// rowsPerSet is a little less than the committer takes at once.
const rowsPerSet = 4000

// DB is Parley's database.
type DB struct {
	storage.DB
	// Progress, when set, is told how many are written.
	Progress func(what string, done, all int)
}

// Open opens it; its tables must be there.
func Open(ctx context.Context, c storage.Config) (*DB, error) {
	db, err := storage.Open(ctx, c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	return &DB{DB: db}, nil
}

// writer fills sets and commits them.
type writer struct {
	*DB
	set storage.WriteSet
}

func (w *writer) add(ctx context.Context, s *storage.Stmt, args ...any) error {
	w.set.Add(s, args...)
	if w.set.Len() < rowsPerSet {
		return nil
	}
	return w.flush(ctx)
}

func (w *writer) flush(ctx context.Context) error {
	err := w.Commit(ctx, &w.set)
	w.set = storage.WriteSet{}
	return err
}

// each calls f for from to to-1 and tells how far it is.
func (w *writer) each(ctx context.Context, what string, from, to int, f func(int) error) error {
	for i := from; i < to; i++ {
		if err := f(i); err != nil {
			return fmt.Errorf("%s %d: %w", what, i, err)
		}
		if w.Progress != nil && (i+1-from)%1_000_000 == 0 {
			w.Progress(what, i+1, to)
		}
	}
	return w.flush(ctx)
}

var (
	insertAccount = storage.Stmt{
		Name: "bulk.account", SQL: `INSERT INTO account (jid, domain, skeleton, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, Idempotent: true,
	}
	insertKey = storage.Stmt{
		Name: "bulk.key", SQL: `INSERT INTO account_key (jid, hash, salt, iterations, stored_key, server_key) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, Idempotent: true,
	}
)

// Accounts makes accounts from to to-1. They share their salt, and one
// iteration has to do: it is the sessions that are measured, not their first login.
func (db *DB) Accounts(ctx context.Context, domain, password string, name func(int) string, from, to int) error {
	var keys []sasl.Keys
	for _, h := range []sasl.Hash{sasl.SHA1, sasl.SHA256} {
		k, err := sasl.Derive(password, []byte("salt of the crowd"), 1, h)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	w := &writer{DB: db}
	return w.each(ctx, "accounts", from, to, func(i int) error {
		user := name(i)
		jid := user + "@" + domain
		if err := w.add(ctx, &insertAccount, jid, domain, accounts.Skeleton(user), firstMoment); err != nil {
			return err
		}
		for _, k := range keys {
			if err := w.add(ctx, &insertKey, jid, int64(k.Hash), k.Salt, int64(k.Iterations), k.StoredKey, k.ServerKey); err != nil {
				return err
			}
		}
		return nil
	})
}
