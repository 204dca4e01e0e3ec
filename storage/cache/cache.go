// Package cache keeps in memory what the database says.
//
// A Cache is bounded. It reads through, and what was read while something
// changed is used once and not kept, so nothing older than the last change stays
// in it. A change is told to the caches of all other nodes before it is said to
// be done (design: security state waits for every live node); a notice that gets
// lost costs at most TTL.
//
//	Load     look here, else in the database
//	Changed  after a commit: forget it here and everywhere
//	Begin, Put   for who knows what a change has made of a value
package cache

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

// Peers tell what other nodes have changed.
type Peers interface {
	// On lets f be called with every key that another node tells of.
	On(topic string, f func(key string))
}

// Options make a Cache.
type Options[K comparable, V any] struct {
	Size  int                    // entries, or with Weigh their weight
	Weigh func(K, V) uint32      // nil: each entry weighs 1
	TTL   time.Duration          // 0: until it changes
	Now   func() time.Time       // of the house's clock, with TTL
	Topic string                 // names the cache among those of a node, with Peers
	Peers Peers                  // nil: this node is alone
	Parse func(string) (K, bool) // a key, as it is told
}

// Cache is safe for concurrent use. Values must not be changed.
type Cache[K comparable, V any] struct {
	opt   Options[K, V]
	cache *otter.Cache[K, entry[V]]

	seed    maphash.Seed
	stripes [stripes]stripe
}

// stripes is how many keys are apart: what is forgotten of one keeps what is
// read of few others from being kept.
const stripes = 256

// stripe keeps filling apart from forgetting.
type stripe struct {
	mu      sync.Mutex // leaf
	changes uint64
}

func (c *Cache[K, V]) stripe(key K) *stripe {
	return &c.stripes[maphash.Comparable(c.seed, key)%stripes]
}

type entry[V any] struct {
	value V
	at    int64 // unix microseconds
}

// New returns an empty cache.
func New[K comparable, V any](o Options[K, V]) (*Cache[K, V], error) {
	c := &Cache[K, V]{opt: o, seed: maphash.MakeSeed()}
	inner := &otter.Options[K, entry[V]]{MaximumSize: o.Size}
	if o.Weigh != nil {
		inner = &otter.Options[K, entry[V]]{MaximumWeight: uint64(o.Size), Weigher: func(k K, e entry[V]) uint32 { return o.Weigh(k, e.value) }}
	}
	var err error
	if c.cache, err = otter.New(inner); err != nil {
		return nil, fmt.Errorf("cache %s: %w", o.Topic, err)
	}
	if o.Peers != nil {
		o.Peers.On(o.Topic, func(key string) {
			if k, ok := o.Parse(key); ok {
				c.Drop(k)
			}
		})
	}
	return c, nil
}

// Get returns what is here.
func (c *Cache[K, V]) Get(key K) (v V, ok bool) {
	e, ok := c.cache.GetIfPresent(key)
	if !ok || c.opt.TTL > 0 && c.old(e) {
		return v, false
	}
	return e.value, true
}

func (c *Cache[K, V]) old(e entry[V]) bool {
	now := c.opt.Now().UnixMicro()
	return now < e.at || now-e.at >= c.opt.TTL.Microseconds()
}

// Load returns what is here, or what load says.
func (c *Cache[K, V]) Load(ctx context.Context, key K, load func(context.Context, K) (V, error)) (V, error) {
	if v, ok := c.Get(key); ok {
		return v, nil
	}
	since := c.Begin(key)
	v, err := load(ctx, key)
	if err == nil {
		c.Put(key, v, since)
	}
	return v, err
}

// Moment is when something began that ends with a Put.
type Moment struct{ changes uint64 }

// Begin is called before the database is read or written.
func (c *Cache[K, V]) Begin(key K) Moment {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return Moment{s.changes}
}

// Put keeps a value, unless something has been forgotten since: then it may be
// older than what that was forgotten for, and nothing is kept.
func (c *Cache[K, V]) Put(key K, v V, since Moment) {
	e := entry[V]{value: v}
	if c.opt.TTL > 0 {
		e.at = c.opt.Now().UnixMicro()
	}
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == since.changes {
		c.cache.Set(key, e)
		return
	}
	c.cache.Invalidate(key)
}

// Replace is Put for what was made of the value that is here: it is as old as that one.
func (c *Cache[K, V]) Replace(key K, v V, since Moment) {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, here := c.cache.GetIfPresent(key); here && s.changes == since.changes {
		c.cache.Set(key, entry[V]{v, was.at})
	}
}

// Drop forgets the key here.
func (c *Cache[K, V]) Drop(key K) {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	c.cache.Invalidate(key)
}
