package clients

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/stream"
)

const (
	// writeEvery is how often logins are written down.
	writeEvery = time.Second
	// maxWaiting bounds the logins that wait for that; more are not noted.
	maxWaiting = 10_000
	// most bounds the clients of an account that are remembered: those seen last.
	most = 100
)

// log is who has logged in. It is the plugin's contract, for itself alone.
type log struct {
	env plugins.Env

	waiting plugins.Waiting[key, stream.Login]
	full    atomic.Bool // it was said that there are too many
}

// key is a client of an account.
type key struct {
	owner jid.JID // bare
	agent string
}

// client is one that has named itself.
type client struct {
	agent, software, device   string
	firstSeen, lastSeen, with time.Time // with the password; zero: never
}

func newLog(env plugins.Env) *log {
	return &log{env: env, waiting: plugins.Waiting[key, stream.Login]{Most: maxWaiting}}
}

var put = storage.Stmt{
	Name: "clients.put",
	SQL: `INSERT INTO client (owner, agent, software, device, first_seen, last_seen, password_at) VALUES ($1, $2, $3, $4, $5, $5, $6)
		ON CONFLICT (owner, agent) DO UPDATE SET software = excluded.software, device = excluded.device,
			last_seen = CASE WHEN client.last_seen > excluded.last_seen THEN client.last_seen ELSE excluded.last_seen END,
			password_at = CASE WHEN client.password_at > excluded.password_at THEN client.password_at ELSE excluded.password_at END`,
	Idempotent: true,
}

// trim keeps those that were seen last.
var trim = storage.Stmt{
	Name:       "clients.trim",
	SQL:        `DELETE FROM client WHERE owner = $1 AND agent IN (SELECT agent FROM client WHERE owner = $1 ORDER BY last_seen DESC, agent LIMIT 1000000 OFFSET $2)`,
	Idempotent: true,
}

const (
	sqlClients = `SELECT agent, software, device, first_seen, last_seen, password_at FROM client WHERE owner = $1 ORDER BY last_seen DESC, agent LIMIT $2`
	sqlForget  = `DELETE FROM client WHERE owner = $1 AND agent = $2`
	sqlRemove  = `DELETE FROM client WHERE owner = $1`
	sqlSweep   = `DELETE FROM client WHERE last_seen < $1`
)

// note takes down a login. It does not wait.
func (l *log) note(in stream.Login) {
	if in.Agent == "" {
		return
	}
	taken := l.waiting.Put(key{in.Account, in.Agent}, func(before stream.Login, _ bool) stream.Login {
		in.Password = in.Password || before.Password
		return in
	})
	if !taken && !l.full.Swap(true) {
		l.env.Log.Warn("too many logins at once: some clients are shown later")
	}
}

// tend writes what was noted, until ctx is done.
func (l *log) tend(ctx context.Context) {
	for plugins.Pause(ctx, l.env.Clock, writeEvery) {
		if err := l.write(ctx); err != nil && ctx.Err() == nil {
			l.env.Log.Warn("clients that have logged in are written down later", "err", err)
		}
	}
}

// write writes what waits. What cannot be written goes on waiting.
func (l *log) write(ctx context.Context) error {
	return l.waiting.Write(func(going map[key]stream.Login) error {
		var w storage.WriteSet
		keys := slices.SortedFunc(maps.Keys(going), func(a, b key) int { // as other nodes do, that none waits for another
			return cmp.Or(cmp.Compare(a.owner.String(), b.owner.String()), cmp.Compare(a.agent, b.agent))
		})
		for i, k := range keys {
			in := going[k]
			at, password := in.At.UnixMicro(), int64(0)
			if in.Password {
				password = at
			}
			w.Add(&put, k.owner.String(), k.agent, in.Software, in.Device, at, password)
			if i+1 == len(keys) || keys[i+1].owner != k.owner {
				w.Add(&trim, k.owner.String(), most)
			}
		}
		if err := l.env.DB.Commit(ctx, &w); err != nil {
			return fmt.Errorf("clients: %w", err)
		}
		l.full.Store(false)
		return nil
	})
}

// of reads the clients of an account, bare; who was seen last is first.
func (l *log) of(ctx context.Context, owner jid.JID) ([]client, error) {
	if err := l.write(ctx); err != nil { // what this node knows
		return nil, err
	}
	all, err := storage.All(ctx, l.env.DB, func(row storage.Row) (c client, err error) {
		var first, last, with int64
		err = row.Scan(&c.agent, &c.software, &c.device, &first, &last, &with)
		c.firstSeen, c.lastSeen = time.UnixMicro(first), time.UnixMicro(last)
		if with != 0 {
			c.with = time.UnixMicro(with)
		}
		return c, err
	}, sqlClients, owner.String(), most)
	if err != nil {
		return nil, fmt.Errorf("clients of %s: %w", owner, err)
	}
	return all, nil
}

// forget forgets one client, also what is just being written.
func (l *log) forget(ctx context.Context, owner jid.JID, agent string) error {
	one := key{owner, agent}
	return l.waiting.Forget(func(k key) bool { return k == one }, func() error {
		if _, err := l.env.DB.Exec(ctx, sqlForget, owner.String(), agent); err != nil {
			return fmt.Errorf("clients of %s: %w", owner, err)
		}
		return nil
	})
}

// forgetAll forgets an account's, also what is just being written.
func (l *log) forgetAll(ctx context.Context, owner jid.JID) error {
	return l.waiting.Forget(func(k key) bool { return k.owner == owner }, func() error {
		if _, err := l.env.DB.Exec(ctx, sqlRemove, owner.String()); err != nil {
			return fmt.Errorf("clients of %s: %w", owner, err)
		}
		return nil
	})
}

// forgetBefore forgets who has not been seen since.
func (l *log) forgetBefore(ctx context.Context, then time.Time) error {
	if _, err := l.env.DB.Exec(ctx, sqlSweep, then.UnixMicro()); err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	return nil
}
