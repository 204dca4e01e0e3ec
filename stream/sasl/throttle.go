package sasl

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// ThrottleConfig sets how failures are slowed down. Zero values get the default in brackets.
type ThrottleConfig struct {
	Free    int              // failures of an account from an address that cost nothing [2]
	Spray   int              // failures of an address, over all accounts, that cost nothing [20]
	Base    time.Duration    // the first delay; each further failure doubles it [1s]
	Max     time.Duration    // the longest delay [30s]
	Forget  time.Duration    // an entry this long without failures is as good as none [15m]
	Entries int              // bound of the table; the least recently used goes [65536]
	Lock    int              // failures of an account from an address after which Lockout is told [10]
	Lockout func(Lockout)    // optional: told once per series, without a lock held
	Clock   func() time.Time // required
}

// Lockout is an account that one address has failed on too often.
type Lockout struct {
	Account  string
	Addr     netip.Addr
	Failures int
}

// Throttle delays guessing by account and address, and by address alone against spraying (reliability row 8). It
// never sleeps: it says how long to hold an answer back. An account is never slowed down for addresses that did not
// fail, so nobody can lock a stranger out. IPv6 addresses count by their /64. Safe for concurrent use.
type Throttle struct {
	cfg  ThrottleConfig
	seed maphash.Seed

	mu      sync.Mutex // leaf
	entries map[uint64]*list.Element
	recent  list.List // of *throttleEntry, the latest in front
}

type throttleEntry struct {
	key      uint64
	failures int
	last     time.Time // of the last failure
	next     time.Time // when the next attempt's delay starts to run
}

// NewThrottle makes an empty table.
func NewThrottle(cfg ThrottleConfig) *Throttle {
	positive(&cfg.Free, 2)
	positive(&cfg.Spray, 20)
	positive(&cfg.Base, time.Second)
	positive(&cfg.Max, 30*time.Second)
	positive(&cfg.Forget, 15*time.Minute)
	positive(&cfg.Entries, 1<<16)
	positive(&cfg.Lock, 10)
	return &Throttle{cfg: cfg, seed: maphash.MakeSeed(), entries: map[uint64]*list.Element{}}
}

func positive[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Wait says how long to hold back the answer to this attempt. Attempts made at the same time queue up behind each
// other, so opening many connections gains nothing; more than Max means that the queue is long: refuse at once with
// temporary-auth-failure and do not try the password. Never more than twice Max.
func (t *Throttle) Wait(account string, addr netip.Addr) time.Duration {
	now := t.cfg.Clock()
	pair, alone := t.keys(account, addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.reserve(pair, t.cfg.Free, now), t.reserve(alone, t.cfg.Spray, now))
}

func (t *Throttle) reserve(key uint64, free int, now time.Time) time.Duration {
	e := t.get(key, now)
	if e == nil || e.failures <= free {
		return 0
	}
	delay := t.delay(e.failures - free)
	start := now
	if e.next.After(now) {
		start = e.next
	}
	if limit := now.Add(2*t.cfg.Max - delay); start.After(limit) {
		start = limit
	}
	e.next = start.Add(delay)
	return e.next.Sub(now)
}

// delay doubles from Base with each failure beyond the free ones, up to Max.
func (t *Throttle) delay(n int) time.Duration {
	d := t.cfg.Base
	for ; n > 1 && d < t.cfg.Max; n-- {
		d *= 2
	}
	return min(d, t.cfg.Max)
}

// Max is the longest delay: a Wait beyond it says that the queue is long.
func (t *Throttle) Max() time.Duration { return t.cfg.Max }

// Fail counts a failed attempt. Only not-authorized and its like should count, not temporary-auth-failure.
func (t *Throttle) Fail(account string, addr netip.Addr) {
	now := t.cfg.Clock()
	pair, alone := t.keys(account, addr)
	t.mu.Lock()
	t.count(alone, now)
	failures := t.count(pair, now)
	t.mu.Unlock()
	if failures == t.cfg.Lock && t.cfg.Lockout != nil {
		t.cfg.Lockout(Lockout{Account: account, Addr: addr, Failures: failures})
	}
}

func (t *Throttle) count(key uint64, now time.Time) int {
	e := t.get(key, now)
	if e == nil {
		for len(t.entries) >= t.cfg.Entries {
			t.drop(t.recent.Back())
		}
		e = &throttleEntry{key: key}
		t.entries[key] = t.recent.PushFront(e)
	}
	e.failures++
	e.last = now
	return e.failures
}

// OK forgets an account's failures from an address. The address's own stay: an attacker may have an account, too.
func (t *Throttle) OK(account string, addr netip.Addr) {
	pair, _ := t.keys(account, addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	if el, ok := t.entries[pair]; ok {
		t.drop(el)
	}
}

// Len is for metrics.
func (t *Throttle) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// get returns a live entry and marks it as used, or nil.
func (t *Throttle) get(key uint64, now time.Time) *throttleEntry {
	el, ok := t.entries[key]
	if !ok {
		return nil
	}
	e := el.Value.(*throttleEntry)
	if now.Sub(e.last) >= t.cfg.Forget {
		t.drop(el)
		return nil
	}
	t.recent.MoveToFront(el)
	return e
}

func (t *Throttle) drop(el *list.Element) {
	delete(t.entries, el.Value.(*throttleEntry).key)
	t.recent.Remove(el)
}

// keys hashes with a random seed: entries stay small whatever names are tried, and nobody can aim at a collision.
func (t *Throttle) keys(account string, addr netip.Addr) (pair, alone uint64) {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	type key struct {
		pair    bool
		account string
		addr    netip.Addr
	}
	return maphash.Comparable(t.seed, key{true, account, addr}), maphash.Comparable(t.seed, key{false, "", addr})
}
