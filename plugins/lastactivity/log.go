package lastactivity

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

const (
	// writeEvery is how often it is written who has left: a crash forgets no
	// more, and a commit for each logout would cost more than the login did.
	writeEvery = 30 * time.Second
	// maxWaiting bounds who waits for that.
	maxWaiting = 4096
)

// Log is when accounts were last seen. It is the plugin's contract.
type Log struct {
	env     plugins.Env
	started time.Time

	lazy    atomic.Bool // somebody calls write now and then
	waiting plugins.Waiting[jid.JID, Activity]
}

// Activity is what is known of an account that is offline.
type Activity struct {
	At     time.Time // when its last session became unavailable; zero: never
	Status string    // what it said then
}

func newLog(env plugins.Env) *Log {
	return &Log{env: env, started: env.Clock.Now(), waiting: plugins.Waiting[jid.JID, Activity]{Most: maxWaiting}}
}

// put keeps the later of two goodbyes.
var put = storage.Stmt{
	Name: "lastactivity.put",
	SQL: `INSERT INTO last_activity (owner, at, status) VALUES ($1, $2, $3)
		ON CONFLICT (owner) DO UPDATE SET at = excluded.at, status = excluded.status WHERE last_activity.at < excluded.at`,
	Idempotent: true,
}

const (
	sqlGet    = `SELECT at, status FROM last_activity WHERE owner = $1`
	sqlForget = `DELETE FROM last_activity WHERE owner = $1`
)

// collect says whether somebody calls write now and then.
func (l *Log) collect(lazy bool) { l.lazy.Store(lazy) }

// note takes down that an account has left; the later of two goodbyes counts.
// It reports whether write is due.
func (l *Log) note(owner jid.JID, a Activity) (due bool) {
	taken := l.waiting.Put(owner, func(before Activity, there bool) Activity {
		if there && !before.At.Before(a.At) {
			return before
		}
		return a
	})
	return !taken || !l.lazy.Load() || l.env.Notices != nil || l.waiting.Len() >= maxWaiting // others may be asked on another node
}

// write writes what waits: one row for an account, however often it came and
// went. What cannot be written goes on waiting.
func (l *Log) write(ctx context.Context) error {
	return l.waiting.Write(func(going map[jid.JID]Activity) error {
		var w storage.WriteSet
		for owner, a := range going {
			w.Add(&put, owner.String(), a.At.UnixMicro(), a.Status)
		}
		if err := l.env.DB.Commit(ctx, &w); err != nil {
			return fmt.Errorf("last activity: %w", err)
		}
		return nil
	})
}

// Last returns when the account, bare, was last available. It does not look
// at who is online now.
func (l *Log) Last(ctx context.Context, owner jid.JID) (a Activity, err error) {
	if a, ok := l.waiting.Get(owner); ok {
		return a, nil
	}
	var at int64
	err = l.env.DB.QueryRow(ctx, sqlGet, owner.String()).Scan(&at, &a.Status)
	if errors.Is(err, storage.ErrNoRows) {
		return Activity{}, nil
	}
	if err != nil {
		return Activity{}, fmt.Errorf("last activity: %w", err)
	}
	a.At = time.UnixMicro(at)
	return a, nil
}

// forget drops what is known of an account, also what is just being written.
func (l *Log) forget(ctx context.Context, owner jid.JID) error {
	return l.waiting.Forget(func(k jid.JID) bool { return k == owner }, func() error {
		if _, err := l.env.DB.Exec(ctx, sqlForget, owner.String()); err != nil {
			return fmt.Errorf("forget last activity: %w", err)
		}
		return nil
	})
}
