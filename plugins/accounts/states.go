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
)

type stateEntry struct {
	state state
	at    int64 // unix microseconds, of the look-up
}

// states is the bounded cache of what the table says.
type states struct {
	clock plugins.Clock
	cache *otter.Cache[jid.JID, stateEntry]

	mu      sync.Mutex // leaf; guards filling the cache against changes
	changes uint64
}

func newStates(clock plugins.Clock) (*states, error) {
	c, err := otter.New(&otter.Options[jid.JID, stateEntry]{MaximumSize: stateEntries})
	if err != nil {
		return nil, fmt.Errorf("account cache: %w", err)
	}
	return &states{clock: clock, cache: c}, nil
}

// get returns the cached state, or what load says.
func (s *states) get(ctx context.Context, j jid.JID, load func(context.Context, jid.JID) (state, error)) (state, error) {
	now := s.clock.Now().UnixMicro()
	if e, ok := s.cache.GetIfPresent(j); ok && now-e.at < stateTTL.Microseconds() && now >= e.at {
		return e.state, nil
	}
	s.mu.Lock()
	seen := s.changes
	s.mu.Unlock()
	st, err := load(ctx, j)
	if err != nil {
		return absent, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == seen { // else what was read may be older than a change
		s.cache.Set(j, stateEntry{st, now})
	}
	return st, nil
}

// changed is called after each committed change.
func (s *states) changed(j jid.JID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.cache.Invalidate(j)
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
