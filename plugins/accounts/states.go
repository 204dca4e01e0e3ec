package accounts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
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

// topicStates is what nodes tell each other about accounts under.
const topicStates = "accounts"

// changed drops what is cached of an account whose rows may have changed, on
// every node; what another one does about it, see elsewhere.
func (a *Accounts) changed(ctx context.Context, j jid.JID) {
	a.logins.Drop(j.String())
	a.states.Drop(j)
	a.env.Forget(ctx, topicStates, j.String())
}

// elsewhere is changed for what another node has changed: sessions that the
// account has here end when it is no longer what it was.
func (a *Accounts) elsewhere(key string) {
	j, err := jid.Parse(key)
	if err != nil {
		return
	}
	a.logins.Drop(key)
	a.states.Drop(j)
	ctx, cancel := context.WithTimeout(context.Background(), elsewhereLimit)
	defer cancel()
	st, err := a.state(ctx, j)
	if err != nil {
		a.log.Error("account not looked up", "account", key, "err", err)
	}
	if err != nil || st == live || st == absent { // absent: a new one may be on its way
		return
	}
	var here []sessions.Ref
	for _, e := range a.env.Sessions.Of(a.env.Node, j) {
		here = append(here, e.Ref)
	}
	a.close(ctx, here...)
}

// elsewhereLimit is how long another node waits for its notice to be taken.
const elsewhereLimit = 5 * time.Second

func (a *Accounts) state(ctx context.Context, j jid.JID) (state, error) {
	if a.check(j) != nil {
		return absent, nil
	}
	return a.states.Load(ctx, j, a.store.state)
}

// now is state for who must not be told what was so a moment ago: another node
// may have made or ended the account.
func (a *Accounts) now(ctx context.Context, j jid.JID) (state, error) {
	if a.env.Notices == nil {
		return a.state(ctx, j)
	}
	if a.check(j) != nil {
		return absent, nil
	}
	since := a.states.Begin(j)
	st, err := a.store.state(ctx, j)
	if err == nil {
		a.states.Put(j, st, since)
	}
	return st, err
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
