package archive

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
)

// tick is the bits of an id below its time: ids of one microsecond.
const tick = 10

// ids gives rows their numbers: 63 bits, ordered by time, never going back
// even when the clock does (design: Ids).
type ids struct {
	clock plugins.Clock
	mu    sync.Mutex
	last  int64
}

// next returns a number above all others.
func (g *ids) next() int64 {
	id := idAt(g.clock.Now())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last+1, id)
	return g.last
}

// after keeps the numbers above one that is taken.
func (g *ids) after(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, id)
}

// now is the last number given.
func (g *ids) now() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// idAt is the lowest id of a moment.
func idAt(t time.Time) int64 { return max(t.UnixMicro(), 0) << tick }

// timeOf is the moment an id was given, to the microsecond.
func timeOf(id int64) time.Time { return time.UnixMicro(id >> tick).UTC() }

// stampLayout is XEP-0082 §3.2, as fine as ids are: a client that filters by a
// stamp it was told finds the message.
const stampLayout = "2006-01-02T15:04:05.000000Z"

// mask turns row numbers into what goes over the wire: a keyed permutation, so
// that nobody infers order or volume, and one that is bound to the owner, so
// that a made-up id is known as such without a look into the database
// (XEP-0359 §6).
type mask struct{ block cipher.Block }

var wireID = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// wire returns the id of an owner's row as peers see it: 26 letters and digits.
func (m mask) wire(owner, id int64) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:8], uint64(id))
	binary.BigEndian.PutUint64(b[8:], uint64(owner))
	m.block.Encrypt(b[:], b[:])
	return wireID.EncodeToString(b[:])
}

// row is the reverse; false for what is no id of that owner.
func (m mask) row(owner int64, s string) (int64, bool) {
	b, err := wireID.DecodeString(s)
	if err != nil || len(b) != aes.BlockSize || wireID.EncodeToString(b) != s {
		return 0, false
	}
	m.block.Decrypt(b, b)
	id := int64(binary.BigEndian.Uint64(b[:8]))
	return id, id > 0 && int64(binary.BigEndian.Uint64(b[8:])) == owner
}

// loadMask reads the key, or makes one: it lives as long as the archive does,
// for clients remember ids.
func loadMask(ctx context.Context, db storage.DB) (mask, error) {
	var key []byte
	err := db.Tx(ctx, func(tx storage.Tx) error {
		err := tx.QueryRow(ctx, `SELECT key FROM archive_secret WHERE id = $1`, 1).Scan(&key)
		if !errors.Is(err, storage.ErrNoRows) {
			return err
		}
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		_, err = tx.Exec(ctx, `INSERT INTO archive_secret (id, key) VALUES ($1, $2)`, 1, key)
		return err
	})
	if err != nil {
		return mask{}, fmt.Errorf("archive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return mask{}, fmt.Errorf("archive key: %w", err)
	}
	return mask{block}, nil
}

// stanzaID is the element that tells an account's devices where a message is
// archived (XEP-0313 §3.5, XEP-0359 §3).
func (a *Archive) stanzaID(o *owner, id int64) *stanza.Element {
	return stanza.El(stanza.NSStanzaID, "stanza-id").With("by", o.jid.String()).With("id", a.mask.wire(o.id, id))
}

// claims reports whether a child is a stanza-id in the name of by.
func claims(st *stanza.Stanza, c stanza.Child, by jid.JID) bool {
	if c.Name != (stanza.Name{Space: stanza.NSStanzaID, Local: "stanza-id"}) {
		return false
	}
	el := st.Element(c)
	if el == nil {
		return true
	}
	who, err := jid.Parse(el.Get("by"))
	return err == nil && who == by
}
