package quarantine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/processor"
	"parley/storage"
	"parley/storage/atrest"
)

// sealed is what of the table is encrypted; the reason may quote the stanza,
// but is in the log anyway.
var sealed = atrest.Table{Name: "quarantine", Row: []string{"id"}, Content: "stanza", KeyID: "key_id"}

// store is the table.
type store struct {
	env plugins.Env
	ids *storage.IDs
}

func newStore(env plugins.Env) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	var highest int64
	if err := env.DB.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM quarantine`).Scan(&highest); err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	return &store{env, storage.NewIDs(env.Clock.Now, env.Slot, highest)}, nil
}

// startLimit bounds what is read at start.
const startLimit = 30 * time.Second

// put adds a row; the oldest beyond keep go.
func (s *store) put(ctx context.Context, x *processor.Poison, keep int) error {
	id := s.ids.Next()
	bytes, key := s.env.AtRest.Seal(&sealed, x.Raw, id)
	return s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO quarantine (id, sender, account, pending, reason, tries, stanza, key_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			id, x.Sender.String(), accountOf(x), x.Pending, x.Reason, x.Tries, bytes, key); err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
		_, err := tx.Exec(ctx, `DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine ORDER BY id DESC LIMIT 1000000 OFFSET $1)`, keep)
		return err
	})
}

func accountOf(x *processor.Poison) string {
	if x.Pending == 0 {
		return ""
	}
	return x.Account.String()
}

const columns = `id, sender, account, pending, reason, tries`

func scan(row storage.Row, e *Entry, more ...any) error {
	err := row.Scan(append([]any{&e.ID, &e.Sender, &e.Account, &e.Pending, &e.Reason, &e.Tries}, more...)...)
	e.Since = time.UnixMicro(e.ID).UTC()
	return err
}

// list returns the rows, the oldest first, without what was written.
func (s *store) list(ctx context.Context) ([]Entry, error) {
	all, err := storage.All(ctx, s.env.DB, func(row storage.Row) (e Entry, err error) { return e, scan(row, &e) },
		`SELECT `+columns+` FROM quarantine ORDER BY id`)
	if all == nil {
		all = []Entry{}
	}
	return all, err
}

func (s *store) show(ctx context.Context, id int64) (e Entry, err error) {
	var raw []byte
	var key int64
	err = scan(s.env.DB.QueryRow(ctx, `SELECT `+columns+`, stanza, key_id FROM quarantine WHERE id = $1`, id), &e, &raw, &key)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return e, unknown(id)
	case err != nil:
		return e, err
	}
	raw, err = s.env.AtRest.Open(&sealed, key, raw, id)
	e.Stanza = string(raw)
	return e, err
}

func (s *store) drop(ctx context.Context, id int64) error {
	n, err := s.env.DB.Exec(ctx, `DELETE FROM quarantine WHERE id = $1`, id)
	if err == nil && n == 0 {
		return unknown(id)
	}
	return err
}

func unknown(id int64) error {
	return admin.Fail(http.StatusNotFound, "nothing is in quarantine under %d", id)
}

// forget removes what an account has sent and what was for it.
func (s *store) forget(ctx context.Context, account jid.JID) error {
	_, err := s.env.DB.Exec(ctx, `DELETE FROM quarantine WHERE sender = $1 OR account = $1`, account.String())
	return err
}
