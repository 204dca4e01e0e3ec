package roster

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/cache"
)

// Router is the part of *processor.Registrar that pushes need.
type Router interface {
	Route(ctx context.Context, batch ...*channel.Envelope)
}

// Rosters is the contract: the rosters of all accounts, one value per Host.
// It is safe for concurrent use.
//
// Changes of one account happen one after the other, and so do the pushes, which
// go out in the order of modification (RFC 6121 §2.6.3). The locks are innermost:
// what is called with one held only routes stanzas.
type Rosters struct {
	env     plugins.Env
	store   store
	cache   *cache.Cache[jid.JID, *Snapshot]
	limits  atomic.Pointer[Limits]
	seed    maphash.Seed
	locks   turns // of changes
	telling turns // of what is told of them; taken with the other one held
	watch   atomic.Pointer[Watch]
	shared  atomic.Pointer[shares]
	untold  atomic.Bool // clients may not know what is shared now
}

const (
	// cachedBytes bounds the cache: what all rosters in it hold.
	cachedBytes = 512 << 20
	// cachedFor is how long what another node has changed may go unnoticed, when
	// its notice is lost.
	cachedFor = 10 * time.Minute
	topic     = "roster"
)

// staleTries is how often a change is tried when other nodes change the same
// roster.
const staleTries = 5

func newRosters(env plugins.Env) (*Rosters, error) {
	r := &Rosters{env: env, store: store{env.DB, maxTombstones}, seed: maphash.MakeSeed()}
	o := plugins.CachedAccounts[*Snapshot](env, topic, cachedFor)
	o.Size, o.Weigh = cachedBytes, func(_ jid.JID, s *Snapshot) uint32 { return s.weight() }
	var err error
	if r.cache, err = cache.New(o); err != nil {
		return nil, err
	}
	r.limits.Store(&defaults().Limits)
	return r, nil
}

// Contacts returns the account's roster as it is now. owner is bare; an
// account that never had a contact, or does not exist, has an empty one.
func (r *Rosters) Contacts(ctx context.Context, owner jid.JID) (*Snapshot, error) {
	if s, ok := r.cache.Get(owner); ok && s.gen == r.generation() {
		return s, nil
	}
	defer r.lock(owner)()
	return r.current(ctx, owner)
}

// Subscription returns the state between the account and the contact, both
// bare, as the account sees it.
func (r *Rosters) Subscription(ctx context.Context, owner, contact jid.JID) (State, error) {
	s, err := r.Contacts(ctx, owner)
	if err != nil {
		return None, err
	}
	return s.State(contact), nil
}

// turns are locks by account, of which several share one.
type turns [256]sync.Mutex

func (r *Rosters) take(t *turns, owner jid.JID) (leave func()) {
	mu := &t[maphash.String(r.seed, owner.String())%uint64(len(t))]
	mu.Lock()
	return mu.Unlock
}

// lock keeps others from changing the account's roster until the result is
// called.
func (r *Rosters) lock(owner jid.JID) (unlock func()) { return r.take(&r.locks, owner) }

// current reads through the cache; the account's lock is held, so that nothing
// older than the last change can get into it.
func (r *Rosters) current(ctx context.Context, owner jid.JID) (*Snapshot, error) {
	since := r.cache.Begin(owner)
	s, err := r.cache.Load(ctx, owner, r.store.load)
	if err != nil || s.gen == r.generation() {
		return s, err
	}
	s = r.shares(s)
	r.cache.Replace(owner, s, since)
	return s, nil
}

// Watch says who besides its owner hears of changes of a roster: item is a
// roster push's <item/>. It is called with the account's turn held and must not
// wait.
type Watch func(owner jid.JID, item *stanza.Element) []*channel.Envelope

// Watch sets who hears of changes; nil: nobody does any more.
func (r *Rosters) Watch(w Watch) {
	if w == nil {
		r.watch.Store(nil)
		return
	}
	r.watch.Store(&w)
}

// update makes one change and tells interested sessions about it, when all nodes
// know: who answers at once may be on another one. decide gets the roster as it is
// and says what changes; before runs between the change and the push. When others
// were faster, decide is asked again.
func (r *Rosters) update(ctx context.Context, to Router, owner jid.JID, decide func(*Snapshot) (change, error), before func()) error {
	ch, now, changed, leave, err := r.change(ctx, owner, decide)
	defer leave()
	if changed { // with the roster not locked: another node's answer may be waited for
		r.env.Forget(ctx, topic, owner.String())
	}
	if err != nil {
		return err
	}
	before()
	if ch.visible() {
		r.push(ctx, to, owner, now.seen(ch.item), r.told(now.at(ch.item.ver)), false)
	}
	return nil
}

// change is the first half of update, and now what the roster has become; changed:
// perhaps, whatever comes back. Until leave is called, nobody tells of a later one.
func (r *Rosters) change(ctx context.Context, owner jid.JID, decide func(*Snapshot) (change, error)) (ch change, now *Snapshot, changed bool, leave func(), err error) {
	defer r.lock(owner)()
	defer func() { leave = r.take(&r.telling, owner) }()
	for try := 0; ; try++ {
		s, err := r.current(ctx, owner)
		if err != nil {
			return ch, nil, changed, nil, err
		}
		if ch, err = decide(s); err != nil || ch.empty() {
			return ch, nil, changed, nil, err
		}
		since := r.cache.Begin(owner)
		changed = true
		err = r.store.save(ctx, s, ch, r.env.Clock.Now())
		if err == nil {
			now = s.with(ch)
			r.cache.Put(owner, now, since)
			return ch, now, changed, nil, nil
		}
		r.cache.Drop(owner) // nobody knows what the database holds now
		if !errors.Is(err, storage.ErrStale) || try >= staleTries {
			return ch, nil, changed, nil, err
		}
	}
}

// next is the version after s. Versions follow the clock, so that those of a
// roster that was deleted, or restored from a backup, do not come again.
func (r *Rosters) next(s *Snapshot) int64 { return max(s.ver+1, r.env.Clock.Now().UnixMicro()) }

// push tells the account's interested sessions about an item (RFC 6121 §2.1.6, §2.2).
// One of many waits for room, for a client that is slow, as what one asks for does.
func (r *Rosters) push(ctx context.Context, to Router, owner jid.JID, it Item, ver string, many bool) {
	var out []*channel.Envelope
	for _, s := range r.env.Sessions.Account(owner) {
		if s.Kind == sessions.Client && s.Interested {
			e := pushTo(s, it, ver)
			e.Solicited = many
			out = append(out, e)
		}
	}
	if w := r.watch.Load(); w != nil {
		out = append(out, (*w)(owner, it.Element())...)
	}
	to.Route(ctx, out...)
}

// pushTo makes a push. It comes from the account itself (RFC 6121 §2.1.6).
func pushTo(s *sessions.Entry, it Item, ver string) *channel.Envelope {
	query := stanza.El(stanza.NSRoster, "query").With("ver", ver).Add(it.Element())
	return For(s, stanza.Make(stanza.IQ, stanza.TypeSet, s.JID.Bare(), s.JID, rand.Text()[:12], query))
}

// For is a stanza on its way to exactly this session. Everything that was made
// by For and concerns one session stays in its order, however the stages of
// the house are joined.
func For(s *sessions.Entry, st *stanza.Stanza) *channel.Envelope {
	return &channel.Envelope{Kind: channel.Deliver, Session: s.Ref, Raw: st.Raw, Stanza: st, To: []sessions.Ref{s.Ref}}
}

// Set adds a contact or gives it another name and other groups; its
// subscription stays (RFC 6121 §2.3, §2.4). A *stanza.Error says what is wrong
// with the item. What is said of a shared contact adds to what is shared.
func (r *Rosters) Set(ctx context.Context, to Router, owner jid.JID, want Item) error {
	return r.update(ctx, to, owner, func(s *Snapshot) (change, error) {
		shared := s.grant(want.JID)
		it, here := s.own(want.JID)
		want := want.without(shared, it)
		if err := r.limits.Load().check(owner, want); err != nil {
			return change{}, err
		}
		if !here && shared.shown() && want.bare() { // it says what is so
			return change{}, nil
		}
		if !r.limits.Load().room(s, it, want, here) {
			return change{}, errFull
		}
		it.Name, it.Groups, it.ver = want.Name, want.Groups, r.next(s)
		return change{item: it}, nil
	}, nothing)
}

// Remove takes a contact out of the roster and fires Removed, so that the
// subscriptions end as well (RFC 6121 §2.5). An unknown contact is an
// item-not-found error (§2.5.3), a shared one stays.
func (r *Rosters) Remove(ctx context.Context, reg *processor.Registrar, owner, contact jid.JID) error {
	was, err := r.remove(ctx, reg, owner, contact)
	if err != nil {
		return err
	}
	_, err = processor.Fire(ctx, reg, Removed, &Removal{Owner: owner, Contact: contact, Was: was})
	return err
}

func (r *Rosters) remove(ctx context.Context, to Router, owner, contact jid.JID) (was State, err error) {
	err = r.update(ctx, to, owner, func(s *Snapshot) (change, error) {
		shared := s.grant(contact)
		it, here := s.own(contact)
		switch {
		case shared.shown():
			return change{}, errShared
		case !here:
			return change{}, stanza.NewError(stanza.ItemNotFound, "")
		}
		was = it.State &^ shared.State
		return change{item: Item{JID: contact, removed: true, ver: r.next(s)}}, nil
	}, nothing)
	return was, err
}

func nothing() {}

// Requests returns the subscription requests that wait for the account's
// answer, oldest first: complete stanzas with bare addresses.
func (r *Rosters) Requests(ctx context.Context, owner jid.JID) ([][]byte, error) {
	s, err := r.Contacts(ctx, owner)
	if err != nil || len(s.waiting) == 0 {
		return nil, err
	}
	all, err := r.store.requests(ctx, owner)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, q := range all {
		if !s.State(q.from).From() { // an administrator has answered it
			out = append(out, q.raw)
		}
	}
	return out, nil
}

// forget deletes the account's roster.
func (r *Rosters) forget(ctx context.Context, owner jid.JID) error {
	defer r.env.Forget(ctx, topic, owner.String())
	defer r.lock(owner)()
	err := r.store.forget(ctx, owner)
	r.cache.Drop(owner)
	return err
}
