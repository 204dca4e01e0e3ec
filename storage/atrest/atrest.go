// Package atrest encrypts what people write before it reaches the database or
// the disk (design: "Encryption at rest").
//
// Spec: AES-256-GCM (NIST SP 800-38D) as XAES-256-GCM (c2sp.org/XAES-256-GCM):
// its nonces of 192 random bits suffice for 2⁸⁰ rows of one key, where the 96
// bits of plain GCM end at 2³², which a large house writes within weeks.
//
//	Ring     the keys of a file; the first one encrypts (ring.go, edit.go)
//	Vault    seals and opens with the ring in force; goes into plugins.Env
//	Table    a feature's declaration of what it seals
//	book.go  which keys rows may need, kept in the database
//	Rotation lets keys come and go, and rewrites rows of other keys (rotation.go)
//	stream.go  the same for files, in chunks
//
// Each row says in a column which key it was written with, 0 for none. It is
// bound to its place: the additional data is the table and the row's primary
// key, so that rows which were swapped or copied do not open. Full-text search
// of a house whose Vault is On must neither be built nor advertised.
package atrest

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// Errors that a caller can act on; what is returned wraps them.
var (
	// ErrNoKey: the key that a row was written with is not in the ring.
	ErrNoKey = errors.New("encryption key is missing")
	// ErrDamaged: changed, moved to another place, or of another key.
	ErrDamaged = errors.New("encrypted content is damaged")
	// ErrNeeded: a key is in use.
	ErrNeeded = errors.New("encryption key is needed")
)

// Table says what of a feature's table is sealed. Features declare theirs once,
// as values that never change.
type Table struct {
	Name    string
	Row     []string // columns of the primary key, bigint all
	Content string   // blob/bytea; NULL has no content
	KeyID   string   // bigint NOT NULL DEFAULT 0
}

// maxBinding is what the additional data of most rows fits into.
const maxBinding = 96

// bind appends what a row is: its table and primary key.
func (t *Table) bind(to []byte, row []int64) []byte {
	to = append(append(to, t.Name...), 0)
	for _, v := range row {
		to = binary.BigEndian.AppendUint64(to, uint64(v)) //nolint:gosec // the bits
	}
	return to
}

// Vault seals and opens. A nil Vault has no keys. It is safe for concurrent use.
type Vault struct{ state atomic.Pointer[state] }

// state is a ring and what it is used for.
type state struct {
	ring *Ring
	on   bool
}

// current is the key that encrypts; nil: none does.
func (s *state) current() *key {
	if s == nil || !s.on {
		return nil
	}
	return s.ring.keys[0]
}

func (s *state) id() int64 {
	if k := s.current(); k != nil {
		return k.id
	}
	return 0
}

func (s *state) find(id int64) *key {
	if s == nil {
		return nil
	}
	return s.ring.find(id)
}

// Use puts a ring in force: for opening, and when on for sealing, too. A nil
// ring has no keys.
func (v *Vault) Use(r *Ring, on bool) {
	if r == nil {
		v.state.Store(nil)
		return
	}
	v.state.Store(&state{r, on})
}

func (v *Vault) load() *state {
	if v == nil {
		return nil
	}
	return v.state.Load()
}

// On reports whether content is sealed.
func (v *Vault) On() bool { return v.load().current() != nil }

// Current is the id of the key that seals; 0: nothing is sealed.
func (v *Vault) Current() int64 { return v.load().id() }

// String names the keys: "off", "key 2 encrypts; keys [2 1]".
func (v *Vault) String() string {
	s := v.load()
	switch {
	case s == nil:
		return "off"
	case !s.on:
		return "off; " + s.ring.String()
	}
	return fmt.Sprintf("key %d encrypts; %s", s.id(), s.ring)
}

// Seal returns what to store as the content of a row, and as its key id. What
// is given is not changed; while the Vault is off it is returned as it is.
func (v *Vault) Seal(t *Table, content []byte, row ...int64) (stored []byte, id int64) {
	k := v.load().current()
	if k == nil || content == nil {
		return content, 0
	}
	return k.sealRow(t, content, row), k.id
}

func (k *key) sealRow(t *Table, content []byte, row []int64) []byte {
	var ad [maxBinding]byte
	out := make([]byte, nonceSize, nonceSize+len(content)+tagSize)
	_, _ = rand.Read(out) // never fails (crypto/rand)
	return k.rows.aead(out).Seal(out, out[nonceSize-gcmNonce:nonceSize], content, t.bind(ad[:0], row))
}

// Open is the way back. Errors wrap ErrNoKey or ErrDamaged; they get a copy of
// row, which itself stays off the heap.
func (v *Vault) Open(t *Table, id int64, stored []byte, row ...int64) ([]byte, error) {
	if id == 0 || stored == nil {
		return stored, nil
	}
	k := v.load().find(id)
	if k == nil {
		return nil, fmt.Errorf("%s %v: %w: key %d", t.Name, slices.Clone(row), ErrNoKey, id)
	}
	return k.openRow(t, stored, row)
}

func (k *key) openRow(t *Table, stored []byte, row []int64) ([]byte, error) {
	if len(stored) < nonceSize+tagSize {
		return nil, fmt.Errorf("%s %v: %w: too short", t.Name, slices.Clone(row), ErrDamaged)
	}
	var ad [maxBinding]byte
	out, err := k.rows.aead(stored).Open(make([]byte, 0, len(stored)-nonceSize-tagSize), stored[nonceSize-gcmNonce:nonceSize], stored[nonceSize:], t.bind(ad[:0], row))
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w: key %d does not open it", t.Name, slices.Clone(row), ErrDamaged, k.id)
	}
	return out, nil
}
