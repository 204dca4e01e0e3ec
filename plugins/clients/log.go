package clients

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
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

	writing sync.Mutex // held while the table is written; before mu
	mu      sync.Mutex // leaf
	waiting map[key]stream.Login
	full    bool // it was said that there are too many
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

func newLog(env plugins.Env) *log { return &log{env: env, waiting: map[key]stream.Login{}} }

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
	k := key{in.Account, in.Agent}
	l.mu.Lock()
	defer l.mu.Unlock()
	before, known := l.waiting[k]
	if !known && len(l.waiting) >= maxWaiting { // the database does not take them
		if !l.full {
			l.env.Log.Warn("too many logins at once: some clients are shown later")
		}
		l.full = true
		return
	}
	in.Password = in.Password || before.Password
	l.waiting[k] = in
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
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	going := maps.Clone(l.waiting)
	l.mu.Unlock()
	if len(going) == 0 {
		return nil
	}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = false
	for k, in := range going {
		if l.waiting[k] == in { // else it has logged in again
			delete(l.waiting, k)
		}
	}
	return nil
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

// forget forgets one client.
func (l *log) forget(ctx context.Context, owner jid.JID, agent string) error {
	if _, err := l.env.DB.Exec(ctx, sqlForget, owner.String(), agent); err != nil {
		return fmt.Errorf("clients of %s: %w", owner, err)
	}
	return nil
}

// forgetAll forgets an account's, also what is just being written.
func (l *log) forgetAll(ctx context.Context, owner jid.JID) error {
	l.mu.Lock()
	maps.DeleteFunc(l.waiting, func(k key, _ stream.Login) bool { return k.owner == owner })
	l.mu.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, err := l.env.DB.Exec(ctx, sqlRemove, owner.String()); err != nil {
		return fmt.Errorf("clients of %s: %w", owner, err)
	}
	return nil
}

// forgetBefore forgets who has not been seen since.
func (l *log) forgetBefore(ctx context.Context, then time.Time) error {
	if _, err := l.env.DB.Exec(ctx, sqlSweep, then.UnixMicro()); err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	return nil
}
