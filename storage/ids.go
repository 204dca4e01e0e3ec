package storage

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// NodeSlots is how many nodes can give ids at the same time.
const NodeSlots = 32

// IDs makes 63-bit ids in the order of time that never go back, whatever the
// clock does: microseconds since 1970, at most one id per microsecond; when
// more are taken or the clock stands still, the next number. Of several nodes
// each has every NodeSlots-th microsecond, so that no two give the same; one
// that takes more than 31,250 a second for long runs ahead of its clock.
type IDs struct {
	now  func() time.Time
	step int64
	slot int64
	mu   sync.Mutex
	last int64
}

// NewIDs continues after the highest id that is known to be taken. node is this
// one's number, below NodeSlots; negative: there is only one.
func NewIDs(now func() time.Time, node int, highest int64) *IDs {
	g := &IDs{now: now, step: 1}
	if node >= 0 {
		g.step, g.slot = NodeSlots, int64(node)%NodeSlots
	}
	g.last = g.from(highest)
	return g
}

// from is this node's first id from t on.
func (g *IDs) from(t int64) int64 {
	return t + (g.slot-t%g.step+g.step)%g.step
}

// Next returns an id greater than every one before it.
func (g *IDs) Next() int64 {
	t := g.from(g.now().UnixMicro())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last+g.step, t)
	return g.last
}

// Pass lets every id from now on be greater than one that another node has given.
func (g *IDs) Pass(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, g.from(id))
}

// FirstID is the least id that Next can have made at t: ids compare with times.
func FirstID(t time.Time) int64 { return max(t.UnixMicro(), 0) }

// Mask turns ids into strings from which nobody infers order or volume, and
// back: a keyed permutation (AES on the id and a constant).
type Mask struct{ block cipher.Block }

// NewMask takes a key of 16, 24 or 32 bytes.
func NewMask(key []byte) (*Mask, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	return &Mask{block: b}, nil
}

var maskText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Encode returns the id's wire form, 26 characters.
func (m *Mask) Encode(id int64) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[8:], uint64(id))
	m.block.Encrypt(b[:], b[:])
	return maskText.EncodeToString(b[:])
}

// Decode reads a wire form; false for everything that Encode has not made.
func (m *Mask) Decode(text string) (int64, bool) {
	var b [aes.BlockSize + 1]byte
	if len(text) != maskText.EncodedLen(aes.BlockSize) {
		return 0, false
	}
	n, err := maskText.Decode(b[:], []byte(text))
	if err != nil || n != aes.BlockSize {
		return 0, false
	}
	m.block.Decrypt(b[:aes.BlockSize], b[:aes.BlockSize])
	id := int64(binary.BigEndian.Uint64(b[8:16]))
	if binary.BigEndian.Uint64(b[:8]) != 0 || id < 0 || m.Encode(id) != text { // stray bits of base32
		return 0, false
	}
	return id, true
}
