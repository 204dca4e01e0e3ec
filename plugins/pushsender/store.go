package pushsender

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

// store keeps the registrations.
type store struct{ env plugins.Env }

// registration is where a device of an account is reached.
type registration struct {
	node         string
	owner        jid.JID
	kind         string
	endpoint     string // the URL, or the token
	p256dh, auth string // Web Push: base64url
	app          string
	text         bool   // the client wants what stands for the text
	secret       string // its digest
	failures     int    // in a row
	failingSince int64  // unix microseconds; 0: it is well
	retryAt      int64  // unix microseconds
}

// opens reports whether the secret is the registration's.
func (r *registration) opens(secret string) bool {
	return subtle.ConstantTimeCompare([]byte(digest(secret)), []byte(r.secret)) == 1
}

// digest is what is kept of a secret, which is random and long.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

const (
	columns = `node, owner, kind, endpoint, p256dh, auth, app, with_text, secret, failures, failing_since, retry_at`
	// Who registers again keeps the node, and gets another secret.
	sqlRegister = `INSERT INTO push_registration (node, owner, kind, endpoint, p256dh, auth, app, with_text, secret, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (owner, kind, endpoint) DO UPDATE SET p256dh = excluded.p256dh, auth = excluded.auth, app = excluded.app, with_text = excluded.with_text,
		secret = excluded.secret, created_at = excluded.created_at, failures = 0, failing_since = 0, retry_at = 0 RETURNING node`
	sqlSurplus = `DELETE FROM push_registration WHERE owner = $1 AND node IN
		(SELECT node FROM push_registration WHERE owner = $1 ORDER BY created_at DESC, node LIMIT 1000 OFFSET $2)`
	sqlFind   = `SELECT ` + columns + ` FROM push_registration WHERE node = $1`
	sqlOf     = `SELECT ` + columns + ` FROM push_registration WHERE owner = $1 ORDER BY created_at, node LIMIT 1000`
	sqlRemove = `DELETE FROM push_registration WHERE owner = $1 AND node = $2`
	sqlForget = `DELETE FROM push_registration WHERE owner = $1`
	sqlWell   = `UPDATE push_registration SET failures = 0, failing_since = 0, retry_at = 0 WHERE node = $1`
	sqlFailed = `UPDATE push_registration SET failures = failures + 1, retry_at = $2,
		failing_since = CASE WHEN failing_since = 0 THEN CAST($3 AS bigint) ELSE failing_since END WHERE node = $1`
	// What has been registered again meanwhile is another one.
	sqlEnd = `DELETE FROM push_registration WHERE node = $1 AND secret = $2`
)

func (s store) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := s.env.DB.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("push registrations: %w", err)
	}
	return nil
}

// register keeps r, whose secret is given as it is, and of the account's the limit
// newest; it sets r's node to the one that counts.
func (s store) register(ctx context.Context, r *registration, secret string, limit int) error {
	with := 0
	if r.text {
		with = 1
	}
	err := s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		row := tx.QueryRow(ctx, sqlRegister, r.node, r.owner.String(), r.kind, r.endpoint, r.p256dh, r.auth, r.app, with, digest(secret), s.now().UnixMicro())
		if err := row.Scan(&r.node); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlSurplus, r.owner.String(), limit)
		return err
	})
	if err != nil {
		return fmt.Errorf("push registrations: %w", err)
	}
	return nil
}

func scan(row storage.Row) (registration, error) {
	var r registration
	var owner string
	var with int
	if err := row.Scan(&r.node, &owner, &r.kind, &r.endpoint, &r.p256dh, &r.auth, &r.app, &with, &r.secret, &r.failures, &r.failingSince, &r.retryAt); err != nil {
		return r, err
	}
	r.text = with == 1
	var err error
	r.owner, err = jid.Parse(owner)
	return r, err
}

// find returns the registration of a node; nil: there is none.
func (s store) find(ctx context.Context, node string) (*registration, error) {
	r, err := scan(s.env.DB.QueryRow(ctx, sqlFind, node))
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return &r, nil
}

// of are the registrations of an account, the oldest first.
func (s store) of(ctx context.Context, owner jid.JID) ([]registration, error) {
	all, err := storage.All(ctx, s.env.DB, scan, sqlOf, owner.String())
	if err != nil {
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return all, nil
}

func (s store) remove(ctx context.Context, owner jid.JID, node string) error {
	return s.exec(ctx, sqlRemove, owner.String(), node)
}

func (s store) forget(ctx context.Context, owner jid.JID) error {
	return s.exec(ctx, sqlForget, owner.String())
}

// well notes that the outside service has taken something.
func (s store) well(ctx context.Context, r *registration) error {
	if r.failures == 0 {
		return nil
	}
	return s.exec(ctx, sqlWell, r.node)
}

// failed lets the outside service be left alone for a while.
func (s store) failed(ctx context.Context, r *registration, pause time.Duration) error {
	now := s.now()
	return s.exec(ctx, sqlFailed, r.node, now.Add(pause).UnixMicro(), now.UnixMicro())
}

// end removes a registration that leads nowhere any more.
func (s store) end(ctx context.Context, r *registration) error {
	return s.exec(ctx, sqlEnd, r.node, r.secret)
}

func (s store) now() time.Time { return s.env.Clock.Now() }
