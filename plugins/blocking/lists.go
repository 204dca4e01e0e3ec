package blocking

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/cache"
)

const (
	// maxCached bounds the cached lists: one unit per list and per item.
	maxCached = 500_000
	// cachedFor is how long what another node has changed may go unnoticed, when
	// its notice is lost.
	cachedFor = time.Minute
	topic     = "blocking"
)

// Lists knows who has blocked whom. It is the plugin's contract, safe for
// concurrent use.
type Lists struct {
	env   plugins.Env
	cache *cache.Cache[jid.JID, *list]
	seed  maphash.Seed
	none  list           // what nearly everybody has
	locks [64]sync.Mutex // who changes an account's list, or loads it, is alone
}

// list is one account's list: immutable.
type list struct {
	has    map[jid.JID]struct{}
	sorted []jid.JID
}

func (l *Lists) list(jids []jid.JID) *list {
	if len(jids) == 0 {
		return &l.none
	}
	return newList(jids)
}

func newList(jids []jid.JID) *list {
	l := &list{sorted: jids, has: make(map[jid.JID]struct{}, len(jids))}
	slices.SortFunc(l.sorted, func(a, b jid.JID) int { return strings.Compare(a.String(), b.String()) })
	l.sorted = slices.Compact(l.sorted)
	for _, j := range l.sorted {
		l.has[j] = struct{}{}
	}
	return l
}

// matches is XEP-0191 §6: the address itself, any resource of the account, or
// anybody at the domain.
func (l *list) matches(other jid.JID) bool {
	if len(l.has) == 0 {
		return false
	}
	for _, j := range [...]jid.JID{other, other.Bare(), other.Host()} {
		if _, ok := l.has[j]; ok {
			return true
		}
	}
	return false
}

func newLists(env plugins.Env) (*Lists, error) {
	o := plugins.CachedAccounts[*list](env, topic, cachedFor)
	o.Size, o.Weigh = maxCached, func(_ jid.JID, l *list) uint32 { return uint32(1 + len(l.sorted)) } //nolint:gosec // bounded by MaxItems
	c, err := cache.New(o)
	if err != nil {
		return nil, err
	}
	return &Lists{env: env, cache: c, seed: maphash.MakeSeed()}, nil
}

// Blocked reports whether the account owner (bare) has blocked other, a JID of
// any form. An account blocks neither itself nor the server it is on (XEP-0191
// §5, note). The error is the database's.
func (l *Lists) Blocked(ctx context.Context, owner, other jid.JID) (bool, error) {
	if other.Bare() == owner || other.Local() == "" && l.env.Local(other.Domain()) {
		return false, nil
	}
	own, err := l.of(ctx, owner)
	if err != nil {
		return false, err
	}
	return own.matches(other), nil
}

// List returns the addresses that owner has blocked, sorted. The slice must
// not be changed.
func (l *Lists) List(ctx context.Context, owner jid.JID) ([]jid.JID, error) {
	own, err := l.of(ctx, owner)
	if err != nil {
		return nil, err
	}
	return own.sorted, nil
}

const (
	sqlList   = `SELECT jid FROM block_item WHERE owner = $1`
	sqlAdd    = `INSERT INTO block_item (owner, jid, created_at) VALUES ($1, $2, $3) ON CONFLICT (owner, jid) DO NOTHING`
	sqlRemove = `DELETE FROM block_item WHERE owner = $1 AND jid = $2`
	sqlForget = `DELETE FROM block_item WHERE owner = $1`
)

func (l *Lists) of(ctx context.Context, owner jid.JID) (*list, error) {
	if own, ok := l.cache.Get(owner); ok {
		return own, nil
	}
	defer l.lock(owner)()
	return l.cache.Load(ctx, owner, l.load)
}

func (l *Lists) lock(owner jid.JID) (unlock func()) {
	m := &l.locks[maphash.String(l.seed, owner.String())%uint64(len(l.locks))]
	m.Lock()
	return m.Unlock
}

// load reads the list from the database.
func (l *Lists) load(ctx context.Context, owner jid.JID) (*list, error) {
	jids, err := storage.All(ctx, l.env.DB, func(r storage.Row) (jid.JID, error) {
		var s string
		if err := r.Scan(&s); err != nil {
			return jid.JID{}, err
		}
		return jid.Parse(s)
	}, sqlList, owner.String())
	if err != nil {
		return nil, fmt.Errorf("block list: %w", err)
	}
	return l.list(jids), nil
}

// add blocks further addresses, and returns the list before and after.
func (l *Lists) add(ctx context.Context, owner jid.JID, jids []jid.JID, most int) (before, after *list, err error) {
	defer l.env.Forget(ctx, topic, owner.String()) // it may be committed whatever comes back
	defer l.lock(owner)()
	if before, err = l.cache.Load(ctx, owner, l.load); err != nil {
		return nil, nil, err
	}
	after = newList(append(slices.Clone(before.sorted), jids...))
	if len(after.sorted) > most {
		return nil, nil, stanza.NewError(stanza.PolicyViolation, "the list is full")
	}
	now := l.env.Clock.Now().UnixMicro()
	err = l.change(ctx, owner, after, func(tx storage.Tx) error {
		for _, j := range jids {
			if _, err := tx.Exec(ctx, sqlAdd, owner.String(), j.String(), now); err != nil {
				return err
			}
		}
		return nil
	})
	return before, after, err
}

// remove takes addresses off the list, all of them when none is named.
func (l *Lists) remove(ctx context.Context, owner jid.JID, jids []jid.JID) (before, after *list, err error) {
	defer l.env.Forget(ctx, topic, owner.String()) // it may be committed whatever comes back
	defer l.lock(owner)()
	if before, err = l.cache.Load(ctx, owner, l.load); err != nil {
		return nil, nil, err
	}
	left := []jid.JID{}
	for _, j := range before.sorted {
		if len(jids) > 0 && !slices.Contains(jids, j) {
			left = append(left, j)
		}
	}
	after = newList(left)
	err = l.change(ctx, owner, after, func(tx storage.Tx) error {
		if len(jids) == 0 {
			_, err := tx.Exec(ctx, sqlForget, owner.String())
			return err
		}
		for _, j := range jids {
			if _, err := tx.Exec(ctx, sqlRemove, owner.String(), j.String()); err != nil {
				return err
			}
		}
		return nil
	})
	return before, after, err
}

// change writes, and lets the cache know: what is written, or, when nobody
// can tell, that it knows nothing.
func (l *Lists) change(ctx context.Context, owner jid.JID, after *list, f func(storage.Tx) error) error {
	l.cache.Drop(owner)
	since := l.cache.Begin(owner)
	err := l.env.DB.Tx(ctx, f)
	if err == nil {
		l.cache.Put(owner, after, since)
	}
	if err != nil {
		return fmt.Errorf("block list: %w", err)
	}
	return nil
}

// forget removes what is kept of an account.
func (l *Lists) forget(ctx context.Context, owner jid.JID) error {
	defer l.env.Forget(ctx, topic, owner.String()) // it may be committed whatever comes back
	defer l.lock(owner)()
	err := l.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlForget, owner.String()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlReportsForget, owner.String())
		return err
	})
	l.cache.Drop(owner)
	if err != nil {
		return fmt.Errorf("forget block list: %w", err)
	}
	return nil
}

func newID() string { return rand.Text()[:16] }
