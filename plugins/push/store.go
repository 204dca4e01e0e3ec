package push

import (
	"context"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

// store keeps what accounts have enabled, and what is still to be told: so the
// node that has counted a message may end before a push service has heard of it.
type store struct{ env plugins.Env }

// target is a push service that an account has enabled.
type target struct {
	owner, service jid.JID
	node           string
	options        []byte // <x/>; nil: none
	waiting, calls int    // of which it is told now
	failed         int    // tries in a row before this one
}

const (
	sqlEnable = `INSERT INTO push_target (owner, service, node, options, enabled_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (owner, service, node) DO UPDATE SET options = excluded.options, enabled_at = excluded.enabled_at, failed = 0`
	sqlSurplus = `DELETE FROM push_target WHERE owner = $1 AND (service, node) IN
		(SELECT service, node FROM push_target WHERE owner = $1 ORDER BY enabled_at DESC, service, node LIMIT 1000 OFFSET $2)`
	sqlDisable     = `DELETE FROM push_target WHERE owner = $1 AND service = $2`
	sqlDisableNode = `DELETE FROM push_target WHERE owner = $1 AND service = $2 AND node = $3`
	sqlForget      = `DELETE FROM push_target WHERE owner = $1`
	sqlAny         = `SELECT count(*) FROM push_target WHERE owner = $1`
	// Calls do not wait for the pause after the last notice.
	sqlCount = `UPDATE push_target SET waiting = waiting + $2, calls = calls + $3, due_at = CASE
		WHEN $3 > 0 THEN $4 WHEN due_at > 0 THEN due_at WHEN told_at + $5 > $4 THEN told_at + $5 ELSE $4 END WHERE owner = $1`
	sqlClaim = `UPDATE push_target SET claimed_until = $3 WHERE owner = $1 AND due_at > 0 AND due_at <= $2 AND claimed_until <= $2
		RETURNING service, node, options, waiting, calls, failed`
	sqlTold = `UPDATE push_target SET waiting = waiting - $4, calls = calls - $5, failed = 0, told_at = CAST($6 AS bigint), claimed_until = 0, due_at = CASE
		WHEN calls > $5 THEN CAST($6 AS bigint) WHEN waiting > $4 THEN CAST($7 AS bigint) ELSE 0 END WHERE owner = $1 AND service = $2 AND node = $3`
	sqlLater    = `UPDATE push_target SET failed = failed + 1, claimed_until = 0, due_at = $4 WHERE owner = $1 AND service = $2 AND node = $3`
	sqlPostpone = `UPDATE push_target SET failed = 0, claimed_until = 0, due_at = $4 WHERE owner = $1 AND service = $2 AND node = $3`
	sqlAwake    = `UPDATE push_target SET waiting = 0, calls = 0, due_at = 0 WHERE owner = $1 AND due_at > 0`
	sqlDueFor   = `SELECT DISTINCT owner FROM push_target WHERE due_at > 0 AND due_at <= $1 AND claimed_until <= $1 LIMIT 500`
)

func (s store) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := s.env.DB.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("push services: %w", err)
	}
	return nil
}

// enable keeps a target, and of the account's the limit newest.
func (s store) enable(ctx context.Context, t target, limit int) error {
	owner := t.owner.String()
	err := s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlEnable, owner, t.service.String(), t.node, t.options, s.at(0)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlSurplus, owner, limit)
		return err
	})
	if err != nil {
		return fmt.Errorf("push services: %w", err)
	}
	return nil
}

func (s store) disable(ctx context.Context, owner, service jid.JID) error {
	return s.exec(ctx, sqlDisable, owner.String(), service.String())
}

func (s store) disableNode(ctx context.Context, t target) error {
	return s.exec(ctx, sqlDisableNode, t.owner.String(), t.service.String(), t.node)
}

func (s store) forget(ctx context.Context, owner jid.JID) error {
	return s.exec(ctx, sqlForget, owner.String())
}

// any reports whether the account has enabled anything.
func (s store) any(ctx context.Context, owner jid.JID) (bool, error) {
	var n int
	if err := s.env.DB.QueryRow(ctx, sqlAny, owner.String()).Scan(&n); err != nil {
		return false, fmt.Errorf("push services: %w", err)
	}
	return n > 0, nil
}

// count adds to what the account's targets are to be told, not before pause has
// passed since the last time.
func (s store) count(ctx context.Context, e event, pause time.Duration) error {
	return s.exec(ctx, sqlCount, e.account.String(), e.messages, e.calls, s.at(0), pause.Microseconds())
}

// claim takes what is due of an account for a while, so that one node tells it.
func (s store) claim(ctx context.Context, owner jid.JID, within time.Duration) ([]target, error) {
	var all []target
	err := s.env.DB.Tx(ctx, func(tx storage.Tx) (err error) {
		all, err = storage.All(ctx, tx, func(r storage.Row) (target, error) {
			t := target{owner: owner}
			var service string
			if err := r.Scan(&service, &t.node, &t.options, &t.waiting, &t.calls, &t.failed); err != nil {
				return t, err
			}
			t.service, err = jid.Parse(service)
			return t, err
		}, sqlClaim, owner.String(), s.at(0), s.at(within))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("push services: %w", err)
	}
	return all, nil
}

// told notes that a target knows of what it was told.
func (s store) told(ctx context.Context, t target, pause time.Duration) error {
	return s.exec(ctx, sqlTold, t.owner.String(), t.service.String(), t.node, t.waiting, t.calls, s.at(0), s.at(pause))
}

// later lets a target be told again after a while.
func (s store) later(ctx context.Context, t target, pause time.Duration) error {
	return s.exec(ctx, sqlLater, t.owner.String(), t.service.String(), t.node, s.at(pause))
}

// postpone lets a target be told when it wants to be: it has not failed.
func (s store) postpone(ctx context.Context, t target, pause time.Duration) error {
	return s.exec(ctx, sqlPostpone, t.owner.String(), t.service.String(), t.node, s.at(pause))
}

// awake takes back what was to be told: a device has got it.
func (s store) awake(ctx context.Context, owner jid.JID) error {
	return s.exec(ctx, sqlAwake, owner.String())
}

// due are accounts with something to be told, 500 at most.
func (s store) due(ctx context.Context) ([]jid.JID, error) {
	all, err := storage.All(ctx, s.env.DB, func(r storage.Row) (jid.JID, error) {
		var owner string
		if err := r.Scan(&owner); err != nil {
			return jid.JID{}, err
		}
		return jid.Parse(owner)
	}, sqlDueFor, s.at(0))
	if err != nil {
		return nil, fmt.Errorf("push services: %w", err)
	}
	return all, nil
}

// at is the time that much later, in unix microseconds.
func (s store) at(later time.Duration) int64 { return s.env.Clock.Now().Add(later).UnixMicro() }
