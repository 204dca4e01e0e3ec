package invitations

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

// Tokens are the invitations that are open. It is the plugin's contract. Safe for
// concurrent use.
type Tokens struct {
	env     plugins.Env
	store   store
	opens   atomic.Pointer[func(domain string) bool] // whether accounts are made in this process by their tokens; nil: none are
	inviter atomic.Pointer[inviter]                  // nil while no processor runs here
}

func newTokens(env plugins.Env) *Tokens {
	t := &Tokens{env: env, store: store{env.DB}}
	env.OnAnswer(callBefriend, t.answerBefriend)
	return t
}

// Invitation is one of them.
type Invitation struct {
	ID      string    // the SHA-256 of its token, in hex: no secret
	Inviter jid.JID   // whose contact it makes, bare; zero: nobody's
	Account jid.JID   // whose account it is for, or the domain it is for when people choose a name
	Opens   bool      // an account can be made with it
	Expires time.Time //
}

// Opening notes at which domains tokens make accounts here: plugins/register knows.
func (t *Tokens) Opening(at func(domain string) bool) { t.opens.Store(&at) }

// opening reports whether tokens make accounts of a domain here.
func (t *Tokens) opening(domain string) bool {
	at := t.opens.Load()
	return at != nil && (*at)(domain)
}

// issue makes an invitation and returns its token. most is how many open ones the
// inviter may have; negative: any number. Errors: ErrMany.
func (t *Tokens) issue(ctx context.Context, i Invitation, most int) (token string, err error) {
	token = rand.Text()
	i.ID = idOf(token)
	return token, t.store.add(ctx, i, t.env.Clock.Now(), most)
}

// idOf is what a token is found by.
func idOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// maxToken bounds what is looked up, in bytes.
const maxToken = 128

// Look returns an invitation that is open, without using it. Errors: ErrUnknown.
func (t *Tokens) Look(ctx context.Context, token string) (Invitation, error) {
	if token == "" || len(token) > maxToken {
		return Invitation{}, ErrUnknown
	}
	i, err := t.store.look(ctx, idOf(token))
	if err == nil && !t.env.Clock.Now().Before(i.Expires) {
		return Invitation{}, ErrUnknown
	}
	return i, err
}

// Reserved reports whether an open invitation other than id is for the account
// (XEP-0445 §5).
func (t *Tokens) Reserved(ctx context.Context, account jid.JID, id string) (bool, error) {
	return t.store.reserved(ctx, account, id, t.env.Clock.Now())
}

// Claim uses an invitation up, whether or not its time is over: that was looked at
// before (XEP-0445 §4). Errors: ErrUnknown, when somebody else was first.
func (t *Tokens) Claim(ctx context.Context, id string) error {
	ok, err := t.store.setUsed(ctx, id, 0, t.env.Clock.Now().UnixMicro())
	if err == nil && !ok {
		return ErrUnknown
	}
	return err
}

// Release undoes Claim: no account came of it.
func (t *Tokens) Release(ctx context.Context, id string) error { return t.store.release(ctx, id) }

// Joined makes the inviter and an account that was made by the invitation contacts of
// each other (XEP-0401 §5.5).
func (t *Tokens) Joined(ctx context.Context, i Invitation, account jid.JID) error {
	switch {
	case i.Inviter.IsZero():
		return nil
	case t.env.Front():
		_, err := t.env.Halves.CallCore(ctx, callBefriend, []byte(i.Inviter.String()+" "+account.String()))
		return err
	}
	return t.befriend(ctx, i.Inviter, account)
}

type store struct{ db storage.DB }

const (
	sqlOpen  = `SELECT count(*) FROM invitation WHERE inviter = $1 AND used_at = 0 AND expires_at > $2`
	sqlAdd   = `INSERT INTO invitation (id, inviter, account, opens, created_at, expires_at, used_at) VALUES ($1, $2, $3, $4, $5, $6, 0)`
	sqlSweep = `DELETE FROM invitation WHERE expires_at < $1`
	sqlLook  = `SELECT id, inviter, account, opens, expires_at FROM invitation WHERE id = $1 AND used_at = 0`
	sqlOf    = `SELECT id, inviter, account, opens, expires_at FROM invitation WHERE inviter = $1 AND used_at = 0 AND expires_at > $2 ORDER BY created_at, id LIMIT 100`
	sqlHeld  = `SELECT count(*) FROM invitation WHERE account = $1 AND id <> $2 AND used_at = 0 AND expires_at > $3`
	sqlUse   = `UPDATE invitation SET used_at = $3 WHERE id = $1 AND used_at = $2`
	sqlFree  = `UPDATE invitation SET used_at = 0 WHERE id = $1`
	sqlDrop  = `DELETE FROM invitation WHERE id = $1 AND inviter = $2 AND used_at = 0`
)

// sweepAfter is how long a row stays after its time.
const sweepAfter = 24 * time.Hour

func (s store) add(ctx context.Context, i Invitation, now time.Time, most int) error {
	opens := int64(0)
	if i.Opens {
		opens = 1
	}
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlSweep, now.Add(-sweepAfter).UnixMicro()); err != nil {
			return fmt.Errorf("sweep invitations: %w", err)
		}
		var n int64
		if err := tx.QueryRow(ctx, sqlOpen, i.Inviter.String(), now.UnixMicro()).Scan(&n); err != nil {
			return fmt.Errorf("count invitations: %w", err)
		}
		if most >= 0 && n >= int64(most) {
			return ErrMany
		}
		if _, err := tx.Exec(ctx, sqlAdd, i.ID, i.Inviter.String(), i.Account.String(), opens, now.UnixMicro(), i.Expires.UnixMicro()); err != nil {
			return fmt.Errorf("invitation: %w", err)
		}
		return nil
	})
}

func (s store) look(ctx context.Context, id string) (Invitation, error) {
	i, err := scan(s.db.QueryRow(ctx, sqlLook, id))
	if errors.Is(err, storage.ErrNoRows) {
		return Invitation{}, ErrUnknown
	}
	if err != nil {
		return Invitation{}, fmt.Errorf("invitation: %w", err)
	}
	return i, nil
}

// of are an inviter's open ones.
func (s store) of(ctx context.Context, inviter jid.JID, now time.Time) ([]Invitation, error) {
	list, err := storage.All(ctx, s.db, scan, sqlOf, inviter.String(), now.UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("invitations: %w", err)
	}
	return list, nil
}

func scan(r storage.Row) (i Invitation, err error) {
	var inviter, account string
	var opens, expires int64
	if err := r.Scan(&i.ID, &inviter, &account, &opens, &expires); err != nil {
		return i, err
	}
	i.Opens, i.Expires = opens != 0, time.UnixMicro(expires).UTC()
	if inviter != "" {
		if i.Inviter, err = jid.Parse(inviter); err != nil {
			return i, err
		}
	}
	i.Account, err = jid.Parse(account)
	return i, err
}

func (s store) reserved(ctx context.Context, account jid.JID, id string, now time.Time) (bool, error) {
	var n int64
	if err := s.db.QueryRow(ctx, sqlHeld, account.String(), id, now.UnixMicro()).Scan(&n); err != nil {
		return false, fmt.Errorf("invitations: %w", err)
	}
	return n > 0, nil
}

func (s store) setUsed(ctx context.Context, id string, was, is int64) (bool, error) {
	n, err := s.db.Exec(ctx, sqlUse, id, was, is)
	if err != nil {
		return false, fmt.Errorf("invitation: %w", err)
	}
	return n > 0, nil
}

func (s store) release(ctx context.Context, id string) error {
	if _, err := s.db.Exec(ctx, sqlFree, id); err != nil {
		return fmt.Errorf("invitation: %w", err)
	}
	return nil
}

// revoke reports whether there was such an open invitation of the inviter's.
func (s store) revoke(ctx context.Context, id string, inviter jid.JID) (bool, error) {
	n, err := s.db.Exec(ctx, sqlDrop, id, inviter.String())
	if err != nil {
		return false, fmt.Errorf("revoke invitation: %w", err)
	}
	return n > 0, nil
}

func (s store) forget(ctx context.Context, account jid.JID) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM invitation WHERE inviter = $1`, account.String()); err != nil {
		return fmt.Errorf("forget invitations: %w", err)
	}
	return nil
}
