package accounts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
	"parley/storage"
)

// state is where an account is in its life.
type state uint8

const (
	absent state = iota
	live
	disabled
	leaving // deleted, and not yet forgotten by everybody
)

const (
	// stateEntries bounds the cache. Names that do not exist are kept, too:
	// asking for them must not cost more than asking for others.
	stateEntries = 1 << 16
	// stateTTL is how long a change that another node made may go unnoticed.
	stateTTL = time.Minute
	// loginEntries bounds the cache of keys.
	loginEntries = 1 << 14
)

// looked is what a look-up found.
type looked[V any] struct {
	value V
	at    int64 // unix microseconds, of the look-up
}

// lookups is a bounded cache of what the tables say of accounts.
type lookups[K comparable, V any] struct {
	clock plugins.Clock
	ttl   time.Duration // 0: nothing is kept
	cache *otter.Cache[K, looked[V]]

	mu      sync.Mutex // leaf; guards filling the cache against changes
	changes uint64
}

func newLookups[K comparable, V any](clock plugins.Clock, size int, ttl time.Duration) (*lookups[K, V], error) {
	c, err := otter.New(&otter.Options[K, looked[V]]{MaximumSize: size})
	if err != nil {
		return nil, fmt.Errorf("account cache: %w", err)
	}
	return &lookups[K, V]{clock: clock, ttl: ttl, cache: c}, nil
}

// get returns what is cached, or what load says.
func (l *lookups[K, V]) get(ctx context.Context, key K, load func(context.Context, K) (V, error)) (V, error) {
	if l.ttl <= 0 {
		return load(ctx, key)
	}
	now := l.clock.Now().UnixMicro()
	if e, ok := l.cache.GetIfPresent(key); ok && now-e.at < l.ttl.Microseconds() && now >= e.at {
		return e.value, nil
	}
	l.mu.Lock()
	seen := l.changes
	l.mu.Unlock()
	v, err := load(ctx, key)
	if err != nil {
		return v, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes == seen { // else what was read may be older than a change
		l.cache.Set(key, looked[V]{v, now})
	}
	return v, nil
}

// changed is called after each committed change.
func (l *lookups[K, V]) changed(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
	l.cache.Invalidate(key)
}

// changed drops what is cached of an account whose rows may have changed.
func (a *Accounts) changed(j jid.JID) {
	a.states.changed(j)
	a.logins.changed(j.String())
}

func (a *Accounts) state(ctx context.Context, j jid.JID) (state, error) {
	if a.check(j) != nil {
		return absent, nil
	}
	return a.states.get(ctx, j, a.store.state)
}

// Exists reports whether the bare JID is an account here. A disabled account
// exists: it receives, and contacts cannot tell (rule 35). Cheap enough for
// every stanza.
func (a *Accounts) Exists(ctx context.Context, bare jid.JID) (bool, error) {
	st, err := a.state(ctx, bare)
	return st == live || st == disabled, err
}

// state reads an account's row.
func (s store) state(ctx context.Context, j jid.JID) (state, error) {
	var disabledAt, removedAt int64
	err := s.db.QueryRow(ctx, sqlState, j.String()).Scan(&disabledAt, &removedAt)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return absent, nil
	case err != nil:
		return absent, fmt.Errorf("look up account: %w", err)
	case removedAt != 0:
		return leaving, nil
	case disabledAt != 0:
		return disabled, nil
	}
	return live, nil
}

// refs is a set of sessions; asking costs next to nothing while it is empty.
type refs struct {
	n  atomic.Int64
	mu sync.Mutex // leaf
	m  map[sessions.Ref]struct{}
}

func (r *refs) add(ref sessions.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[sessions.Ref]struct{}{}
	}
	r.m[ref] = struct{}{}
	r.n.Store(int64(len(r.m)))
}

func (r *refs) remove(ref sessions.Ref) {
	if r.n.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, ref)
	r.n.Store(int64(len(r.m)))
}

func (r *refs) has(ref sessions.Ref) bool {
	if r.n.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.m[ref]
	return ok
}
