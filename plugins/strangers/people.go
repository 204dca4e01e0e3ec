package strangers

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/cache"
)

const (
	// maxCached bounds the cached people: one unit for each and for everybody whom they
	// know.
	maxCached = 500_000
	// cachedFor is how long what another node has changed may go unnoticed, when its
	// notice is lost.
	cachedFor = time.Minute
	topic     = "strangers"
)

// people is what accounts want, and whom they know. It is the plugin's contract, for
// itself alone.
type people struct {
	env   plugins.Env
	cache *cache.Cache[jid.JID, *person]
	seed  maphash.Seed
	locks [64]sync.Mutex // who changes what is known of an account, or loads it, is alone
}

// person is an account: immutable.
type person struct {
	wishes wishes
	known  map[jid.JID]struct{} // bare
}

func (p *person) knows(other jid.JID) bool {
	_, ok := p.known[other]
	return ok
}

// wishes are what an account wants of strangers.
type wishes struct{ messages, subscriptions, invitations Policy }

// policy is what the account wants, or the server.
func (w *wishes) policy(of what, server Policy) Policy {
	own := w.messages
	switch of {
	case subscriptions:
		own = w.subscriptions
	case invitations:
		own = w.invitations
	}
	if own == Default {
		return server
	}
	return own
}

func newPeople(env plugins.Env) (*people, error) {
	o := plugins.CachedAccounts[*person](env, topic, cachedFor)
	o.Size, o.Weigh = maxCached, func(_ jid.JID, p *person) uint32 { return uint32(1 + len(p.known)) } //nolint:gosec // bounded by max_known
	c, err := cache.New(o)
	if err != nil {
		return nil, err
	}
	return &people{env: env, cache: c, seed: maphash.MakeSeed()}, nil
}

const (
	sqlWishes = `SELECT messages, subscriptions, invitations FROM stranger_wish WHERE owner = $1`
	sqlWish   = `INSERT INTO stranger_wish (owner, messages, subscriptions, invitations) VALUES ($1, $2, $3, $4)
		ON CONFLICT (owner) DO UPDATE SET messages = excluded.messages, subscriptions = excluded.subscriptions, invitations = excluded.invitations`
	sqlKnown   = `SELECT contact FROM stranger_known WHERE owner = $1`
	sqlKnowing = `SELECT owner FROM stranger_known WHERE contact = $1`
	sqlMeet    = `INSERT INTO stranger_known (owner, contact, at) VALUES ($1, $2, $3) ON CONFLICT (owner, contact) DO UPDATE SET at = excluded.at`
	sqlOldest  = `DELETE FROM stranger_known WHERE owner = $1 AND contact IN
		(SELECT contact FROM stranger_known WHERE owner = $1 ORDER BY at DESC, contact LIMIT 1000000 OFFSET $2)`
	sqlPart = `DELETE FROM stranger_known WHERE owner = $1 AND contact = $2`
)

// of returns what is known of an account.
func (p *people) of(ctx context.Context, owner jid.JID) (*person, error) {
	if one, ok := p.cache.Get(owner); ok {
		return one, nil
	}
	defer p.lock(owner)()
	return p.cache.Load(ctx, owner, p.load)
}

func (p *people) lock(owner jid.JID) (unlock func()) {
	m := &p.locks[maphash.String(p.seed, owner.String())%uint64(len(p.locks))]
	m.Lock()
	return m.Unlock
}

func (p *people) load(ctx context.Context, owner jid.JID) (*person, error) {
	one := &person{}
	w := &one.wishes
	err := p.env.DB.QueryRow(ctx, sqlWishes, owner.String()).Scan((*string)(&w.messages), (*string)(&w.subscriptions), (*string)(&w.invitations))
	if err != nil && !errors.Is(err, storage.ErrNoRows) {
		return nil, fmt.Errorf("strangers of %s: %w", owner, err)
	}
	list, err := storage.All(ctx, p.env.DB, scanJID, sqlKnown, owner.String())
	if err != nil {
		return nil, fmt.Errorf("strangers of %s: %w", owner, err)
	}
	one.known = make(map[jid.JID]struct{}, len(list))
	for _, j := range list {
		one.known[j] = struct{}{}
	}
	return one, nil
}

func scanJID(r storage.Row) (j jid.JID, err error) {
	var s string
	if err := r.Scan(&s); err != nil {
		return j, err
	}
	return jid.Parse(s)
}

// meet notes that the account has turned to somebody, before that one can answer; beyond
// most those of longest ago go.
func (p *people) meet(ctx context.Context, owner, contact jid.JID, most int) error {
	now := p.env.Clock.Now().UnixMicro()
	return p.change(ctx, owner, func(one *person) *person {
		if len(one.known) >= most { // the database says who goes
			return nil
		}
		next := &person{one.wishes, maps.Clone(one.known)}
		next.known[contact] = struct{}{}
		return next
	}, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlMeet, owner.String(), contact.String(), now); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sqlOldest, owner.String(), most)
		return err
	})
}

// wish sets what an account wants.
func (p *people) wish(ctx context.Context, owner jid.JID, w wishes) error {
	return p.change(ctx, owner, func(one *person) *person { return &person{w, one.known} }, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, sqlWish, owner.String(), string(w.messages), string(w.subscriptions), string(w.invitations))
		return err
	})
}

// change writes, and lets all nodes know: what is written, or, when nobody can tell, that
// they know nothing.
func (p *people) change(ctx context.Context, owner jid.JID, after func(*person) *person, write func(storage.Tx) error) error {
	defer p.env.Forget(ctx, topic, owner.String()) // it may be committed whatever comes back
	defer p.lock(owner)()
	before, err := p.cache.Load(ctx, owner, p.load)
	if err != nil {
		return err
	}
	p.cache.Drop(owner)
	since := p.cache.Begin(owner)
	if err := p.env.DB.Tx(ctx, write); err != nil {
		return fmt.Errorf("strangers of %s: %w", owner, err)
	}
	if next := after(before); next != nil {
		p.cache.Put(owner, next, since)
	}
	return nil
}

// forgetOne makes somebody a stranger again.
func (p *people) forgetOne(ctx context.Context, owner, contact jid.JID) error {
	one, err := p.of(ctx, owner)
	if err != nil || !one.knows(contact) {
		return err
	}
	return p.change(ctx, owner, func(*person) *person { return nil }, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, sqlPart, owner.String(), contact.String())
		return err
	})
}

// forget removes what is kept of an account. Who has turned to it does not know whoever
// has the address next.
func (p *people) forget(ctx context.Context, account jid.JID) error {
	owners, err := storage.All(ctx, p.env.DB, scanJID, sqlKnowing, account.String())
	if err != nil {
		return fmt.Errorf("strangers of %s: %w", account, err)
	}
	for _, owner := range owners {
		if err := p.forgetOne(ctx, owner, account); err != nil {
			return err
		}
	}
	return p.change(ctx, account, func(*person) *person { return nil }, func(tx storage.Tx) error {
		for _, sql := range []string{`DELETE FROM stranger_wish WHERE owner = $1`, `DELETE FROM stranger_known WHERE owner = $1`} {
			if _, err := tx.Exec(ctx, sql, account.String()); err != nil {
				return err
			}
		}
		return nil
	})
}
