package accounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/storage"
	"parley/stream/sasl"
)

// store is the SQL of tables account and account_key; tokens.go has that of
// account_token.
type store struct{ db storage.DB }

const (
	sqlState  = `SELECT disabled_at, removed_at FROM account WHERE jid = $1`
	sqlInsert = `INSERT INTO account (jid, domain, skeleton, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (jid) DO NOTHING`
	sqlKeyPut = `INSERT INTO account_key (jid, hash, salt, iterations, stored_key, server_key) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (jid, hash) DO UPDATE SET salt = excluded.salt, iterations = excluded.iterations, stored_key = excluded.stored_key, server_key = excluded.server_key`
	sqlStoredKey = `SELECT stored_key FROM account_key WHERE jid = $1 AND hash = $2`
	sqlKeys      = `SELECT a.disabled_at, k.hash, k.salt, k.iterations, k.stored_key, k.server_key
		FROM account a JOIN account_key k ON k.jid = a.jid WHERE a.jid = $1 AND a.removed_at = 0 ORDER BY k.hash DESC`
	sqlPasswordSet   = `UPDATE account SET password_at = $2 WHERE jid = $1`
	sqlPasswordSince = `SELECT CASE WHEN password_at > created_at THEN password_at ELSE created_at END FROM account WHERE jid = $1 AND removed_at = 0`
	sqlDisable       = `UPDATE account SET disabled_at = $2 WHERE jid = $1 AND removed_at = 0`
	sqlMark          = `UPDATE account SET removed_at = $2 WHERE jid = $1 AND removed_at = 0`
	sqlDeleteKeys    = `DELETE FROM account_key WHERE jid = $1`
	sqlDeleteTokens  = `DELETE FROM account_token WHERE jid = $1`
	sqlErase         = `DELETE FROM account WHERE jid = $1 AND removed_at = $2`
	sqlRemoved       = `SELECT jid, removed_at FROM account WHERE removed_at <> 0 AND removed_at < $1 ORDER BY removed_at LIMIT 100`
	sqlShow          = `SELECT jid, created_at, login_at, disabled_at FROM account WHERE jid = $1 AND removed_at = 0`
	sqlList          = `SELECT jid, created_at, login_at, disabled_at FROM account WHERE domain = $1 AND jid > $2 AND removed_at = 0 ORDER BY jid LIMIT $3`
	sqlCount         = `SELECT count(*) FROM account WHERE domain = $1 AND removed_at = 0`
	sqlCountDisabled = `SELECT count(*) FROM account WHERE domain = $1 AND disabled_at <> 0 AND removed_at = 0`
	sqlListDisabled  = `SELECT jid, created_at, login_at, disabled_at FROM account WHERE domain = $1 AND jid > $2 AND disabled_at <> 0 AND removed_at = 0 ORDER BY jid LIMIT $3`
	sqlAlike         = `SELECT count(*) FROM account WHERE skeleton = $1 AND domain = $2 AND jid <> $3 AND removed_at = 0`
)

// loginStmt records a login; a later one that was written first stays.
var loginStmt = storage.Stmt{
	Name:       "accounts.login",
	SQL:        `UPDATE account SET login_at = $2 WHERE jid = $1 AND login_at < $2`,
	Idempotent: true,
}

// errTombstone says that the name belongs to an account that is leaving.
var errTombstone = errors.New("account is being forgotten")

// insert makes an account with its keys. Errors: ErrExists, errTombstone.
func (s store) insert(ctx context.Context, j jid.JID, now time.Time, keys []sasl.Keys) error {
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		n, err := tx.Exec(ctx, sqlInsert, j.String(), j.Domain(), Skeleton(j.Local()), now.UnixMicro())
		if err != nil {
			return fmt.Errorf("insert account: %w", err)
		}
		if n == 0 {
			var disabledAt, removedAt int64
			if err := tx.QueryRow(ctx, sqlState, j.String()).Scan(&disabledAt, &removedAt); err != nil {
				return fmt.Errorf("insert account: %w", err)
			}
			if removedAt != 0 {
				return errTombstone
			}
			return ErrExists
		}
		return putKeys(ctx, tx, j, keys)
	})
}

func putKeys(ctx context.Context, tx storage.Tx, j jid.JID, keys []sasl.Keys) error {
	for _, k := range keys {
		if _, err := tx.Exec(ctx, sqlKeyPut, j.String(), int64(k.Hash), k.Salt, int64(k.Iterations), k.StoredKey, k.ServerKey); err != nil {
			return fmt.Errorf("store keys: %w", err)
		}
	}
	return nil
}

// swapKeys replaces the keys of an account if old are still among them.
func (s store) swapKeys(ctx context.Context, j jid.JID, old sasl.Keys, keys []sasl.Keys) error {
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		var stored []byte
		err := tx.QueryRow(ctx, sqlStoredKey, j.String(), int64(old.Hash)).Scan(&stored)
		switch {
		case errors.Is(err, storage.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("look up keys: %w", err)
		case !bytes.Equal(stored, old.StoredKey):
			return nil
		}
		return putKeys(ctx, tx, j, keys)
	})
}

// replaceKeys sets a password and revokes every token: who changes a password
// because somebody else knows it wants that one out. Errors: ErrUnknown.
func (s store) replaceKeys(ctx context.Context, j jid.JID, now time.Time, keys []sasl.Keys) error {
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		var disabledAt, removedAt int64
		err := tx.QueryRow(ctx, sqlState, j.String()).Scan(&disabledAt, &removedAt)
		if errors.Is(err, storage.ErrNoRows) || err == nil && removedAt != 0 {
			return ErrUnknown
		}
		if err != nil {
			return fmt.Errorf("look up account: %w", err)
		}
		if _, err := tx.Exec(ctx, sqlDeleteTokens, j.String()); err != nil {
			return fmt.Errorf("revoke tokens: %w", err)
		}
		if _, err := tx.Exec(ctx, sqlPasswordSet, j.String(), now.UnixMicro()); err != nil {
			return fmt.Errorf("password changed: %w", err)
		}
		return putKeys(ctx, tx, j, keys)
	})
}

// passwordSince is since when the password is what it is. Errors: ErrUnknown.
func (s store) passwordSince(ctx context.Context, j jid.JID) (time.Time, error) {
	var at int64
	err := s.db.QueryRow(ctx, sqlPasswordSince, j.String()).Scan(&at)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return time.Time{}, ErrUnknown
	case err != nil:
		return time.Time{}, fmt.Errorf("password of %s: %w", j, err)
	}
	return moment(at), nil
}

// login is what one needs to know of an account: its keys, the strongest hash
// first, none when there is no such account.
type login struct {
	keys     []sasl.Keys
	disabled bool
}

// login reads what one needs, for an account's bare JID.
func (s store) login(ctx context.Context, account string) (l login, err error) {
	l.keys, err = storage.All(ctx, s.db, func(r storage.Row) (sasl.Keys, error) {
		var k sasl.Keys
		var disabledAt, hash, iterations int64
		err := r.Scan(&disabledAt, &hash, &k.Salt, &iterations, &k.StoredKey, &k.ServerKey)
		k.Hash, k.Iterations = sasl.Hash(hash), int(iterations)
		l.disabled = disabledAt != 0
		return k, err
	}, sqlKeys, account)
	if err != nil {
		return login{}, fmt.Errorf("read keys: %w", err)
	}
	return l, nil
}

// setDisabled disables since a time, or enables with the zero time.
func (s store) setDisabled(ctx context.Context, j jid.JID, since time.Time) error {
	var at int64
	if !since.IsZero() {
		at = since.UnixMicro()
	}
	n, err := s.db.Exec(ctx, sqlDisable, j.String(), at)
	if err != nil {
		return fmt.Errorf("disable account: %w", err)
	}
	if n == 0 {
		return ErrUnknown
	}
	return nil
}

// mark is the first step of an account's end: nobody logs in any more.
func (s store) mark(ctx context.Context, j jid.JID, now time.Time) error {
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		n, err := tx.Exec(ctx, sqlMark, j.String(), now.UnixMicro())
		if err != nil {
			return fmt.Errorf("remove account: %w", err)
		}
		if n == 0 {
			return ErrUnknown
		}
		for _, q := range []string{sqlDeleteKeys, sqlDeleteTokens} {
			if _, err := tx.Exec(ctx, q, j.String()); err != nil {
				return fmt.Errorf("remove account: %w", err)
			}
		}
		return nil
	})
}

// tombstone is an account that was marked as removed.
type tombstone struct {
	jid jid.JID
	at  int64
}

// tombstones lists those marked before a time, the oldest first.
func (s store) tombstones(ctx context.Context, before time.Time) ([]tombstone, error) {
	list, err := storage.All(ctx, s.db, func(r storage.Row) (t tombstone, err error) {
		var text string
		if err = r.Scan(&text, &t.at); err == nil {
			t.jid, err = jid.Parse(text)
		}
		return t, err
	}, sqlRemoved, before.UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("removed accounts: %w", err)
	}
	return list, nil
}

// erase is the last step of an account's end.
func (s store) erase(ctx context.Context, t tombstone) error {
	if _, err := s.db.Exec(ctx, sqlErase, t.jid.String(), t.at); err != nil {
		return fmt.Errorf("erase account: %w", err)
	}
	return nil
}

func (s store) show(ctx context.Context, j jid.JID) (Account, error) {
	acc, err := scanAccount(s.db.QueryRow(ctx, sqlShow, j.String()))
	if errors.Is(err, storage.ErrNoRows) {
		return Account{}, ErrUnknown
	}
	if err != nil {
		return Account{}, fmt.Errorf("read account: %w", err)
	}
	return acc, nil
}

func (s store) list(ctx context.Context, sql, domain, after string, limit int) ([]Account, error) {
	list, err := storage.All(ctx, s.db, scanAccount, sql, domain, after, int64(limit))
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return list, nil
}

func (s store) number(ctx context.Context, sql string, args ...any) (n int64, err error) {
	if err := s.db.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count accounts: %w", err)
	}
	return n, nil
}

func scanAccount(r storage.Row) (Account, error) {
	var text string
	var created, login, disabledAt int64
	if err := r.Scan(&text, &created, &login, &disabledAt); err != nil {
		return Account{}, err
	}
	j, err := jid.Parse(text)
	return Account{JID: j, Created: moment(created), LastLogin: moment(login), Disabled: moment(disabledAt)}, err
}

// moment is the time of a column; 0 is never.
func moment(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// tombstone returns the account's, with at 0 when there is none.
func (s store) tombstone(ctx context.Context, j jid.JID) (tombstone, error) {
	var disabledAt, removedAt int64
	err := s.db.QueryRow(ctx, sqlState, j.String()).Scan(&disabledAt, &removedAt)
	if err != nil && !errors.Is(err, storage.ErrNoRows) {
		return tombstone{}, fmt.Errorf("look up account: %w", err)
	}
	return tombstone{j, removedAt}, nil
}
