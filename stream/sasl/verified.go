package sasl

import (
	"bytes"
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// Verified remembers which passwords matched, so that a client that reconnects with PLAIN does not cost PBKDF2 each
// time. It holds a hash of (account, password), keyed with a random key of this process, and the StoredKey that
// matched. An entry counts only as long as the account still has that StoredKey, so a changed password drops it.
// Bounded: the least recently used entry goes. Safe for concurrent use.
type Verified struct {
	key   []byte
	limit int

	mu      sync.Mutex // leaf
	entries map[verifiedTag]*list.Element
	recent  list.List // of verifiedEntry, the latest in front
}

type verifiedTag [32]byte

type verifiedEntry struct {
	tag    verifiedTag
	stored []byte
}

// NewVerified makes an empty cache of at most limit entries; with 0 it remembers nothing.
func NewVerified(limit int) *Verified {
	v := &Verified{key: make([]byte, 32), limit: limit, entries: map[verifiedTag]*list.Element{}}
	rand.Read(v.key) // never fails (crypto/rand)
	return v
}

// tag is computed for every attempt, known user or not. Lengths keep the parts apart.
func (v *Verified) tag(k kdf, domain, username, password string) verifiedTag {
	var b []byte
	for _, s := range [...]string{domain, username, password} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return verifiedTag(k.hmac(SHA256, v.key, b))
}

func (v *Verified) match(tag verifiedTag, stored []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.entries[tag]
	if !ok {
		return false
	}
	if !bytes.Equal(e.Value.(verifiedEntry).stored, stored) {
		v.drop(e)
		return false
	}
	v.recent.MoveToFront(e)
	return true
}

func (v *Verified) add(tag verifiedTag, stored []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.limit <= 0 {
		return
	}
	if e, ok := v.entries[tag]; ok {
		v.drop(e)
	}
	for len(v.entries) >= v.limit {
		v.drop(v.recent.Back())
	}
	v.entries[tag] = v.recent.PushFront(verifiedEntry{tag, bytes.Clone(stored)})
}

func (v *Verified) drop(e *list.Element) {
	delete(v.entries, e.Value.(verifiedEntry).tag)
	v.recent.Remove(e)
}

// Len is for metrics.
func (v *Verified) Len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.entries)
}
