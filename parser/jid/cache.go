package jid

import (
	"hash/maphash"
	"sync"
)

const (
	cacheShards = 16
	// cacheLongest is the longest string, raw or prepared, worth keeping. Longer ones are legal and rare, and a peer could
	// fill memory with them.
	cacheLongest = 256
	// cacheMean is what an entry may weigh on average, in bytes of strings.
	cacheMean = 96
)

// Cache remembers what Parse made of the strings seen lately, so that one address is one string in memory and costs
// a look-up only. It is bounded in entries and in bytes whatever peers send, and keeps no failures. Safe for concurrent use.
type Cache struct {
	seed   maphash.Seed
	half   int // entries in one generation of one shard
	shards [cacheShards]cacheShard
}

// A cacheShard has two generations: when the young one is full the old one goes. What is used moves to the young one.
type cacheShard struct {
	mu         sync.RWMutex
	young, old map[string]JID
	bytes      int      // strings held by young
	_          [64]byte // shards are locked by different cores
}

// NewCache returns a cache of at most the given number of entries (at least 32) and about a hundred bytes of strings for
// each of them.
func NewCache(entries int) *Cache {
	c := &Cache{seed: maphash.MakeSeed(), half: max(entries/cacheShards/2, 1)}
	for i := range c.shards {
		c.shards[i].young = make(map[string]JID)
	}
	return c
}

// Parse is the package's Parse. raw is not kept. Errors wrap ErrMalformed.
func (c *Cache) Parse(raw []byte) (JID, error) {
	if len(raw) > cacheLongest {
		return Parse(string(raw))
	}
	// The seed is random: which strings share a shard cannot be foreseen.
	s := &c.shards[maphash.Bytes(c.seed, raw)%cacheShards]
	s.mu.RLock()
	j, ok := s.young[string(raw)]
	s.mu.RUnlock()
	if ok {
		return j, nil
	}
	return s.miss(string(raw), c.half)
}

func (s *cacheShard) miss(raw string, half int) (JID, error) {
	s.mu.RLock()
	j, ok := s.old[raw]
	s.mu.RUnlock()
	if !ok {
		var err error
		if j, err = Parse(raw); err != nil {
			return JID{}, err
		}
	}
	weight := len(raw) + len(j.s)
	if weight > 2*cacheLongest {
		return j, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.young[raw]; ok { // somebody was faster: one string for one address
		return first, nil
	}
	if len(s.young) >= half || len(s.young) > 0 && s.bytes+weight > half*cacheMean {
		s.old, s.young, s.bytes = s.young, make(map[string]JID), 0
	}
	s.young[raw] = j
	s.bytes += weight
	return j, nil
}

// Len returns the number of entries, for metrics.
func (c *Cache) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}
