package atrest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/storage"
)

// The book says which keys rows may need, and how far they have been brought to
// the key in force. It is in parley_meta, so that a backup has it, too:
//
//	atrest.key.ID  what tells the key from others (not the key); written before
//	               the first row is, and gone when no row needs it any more
//	atrest.rows    progress
const (
	bookKey  = "atrest.key."
	bookRows = "atrest.rows"
)

// progress is how far rows have been rewritten. The zero value is that of a
// database that never held anything sealed.
type progress struct {
	Target  int64   `json:"target"`           // key id; 0: none
	Open    bool    `json:"open"`             // rows of other keys may be left
	Opened  int64   `json:"opened,omitempty"` // how often that has begun: whoever rewrites rows and reads another number stops
	Table   string  `json:"table,omitempty"`
	After   []int64 `json:"after,omitempty"`   // everything up to this row of the table is done
	Damaged int64   `json:"damaged,omitempty"` // rows so far that did not open
}

const (
	sqlBook    = `SELECT key, value FROM parley_meta WHERE key >= $1 AND key < $2`
	sqlPut     = `INSERT INTO parley_meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`
	sqlSave    = `UPDATE parley_meta SET value = $1 WHERE key = $2 AND value = $3`
	sqlForget  = `DELETE FROM parley_meta WHERE key = $1`
	countLimit = 100_000
)

// countTime bounds a count that somebody waits for.
const countTime = 8 * time.Second

type book struct {
	keys map[int64][]byte // checks
	rows progress
	text []byte // of rows
}

func readBook(ctx context.Context, q storage.Querier) (book, error) {
	b := book{keys: map[int64][]byte{}}
	rows, err := q.Query(ctx, sqlBook, "atrest.", "atrest/")
	if err != nil {
		return b, fmt.Errorf("encryption book: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var value []byte
		if err := rows.Scan(&name, &value); err != nil {
			return b, fmt.Errorf("encryption book: %w", err)
		}
		if id, ok := strings.CutPrefix(name, bookKey); ok {
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				return b, fmt.Errorf("encryption book: %w", err)
			}
			b.keys[n] = value
		} else if name == bookRows {
			b.text = value
			if err := json.Unmarshal(value, &b.rows); err != nil {
				return b, fmt.Errorf("encryption book: %w", err)
			}
		}
	}
	return b, rows.Err()
}

// KeysIn returns the ids of the keys that rows of a database may need, for
// those who copy it without opening what is sealed.
func KeysIn(ctx context.Context, q storage.Querier) ([]int64, error) {
	b, err := readBook(ctx, q)
	return sortedKeys(b.keys), err
}

func (p progress) encode() []byte {
	raw, err := json.Marshal(p)
	if err != nil { // numbers and a name
		panic(err)
	}
	return raw
}

// Lacking says which keys rows need that are not in a ring, and how many rows;
// nil: none is lacking.
func (r *Rotation) Lacking(ctx context.Context, ring *Ring) error {
	b, err := readBook(ctx, r.db)
	if err != nil {
		return err
	}
	_, err = r.missing(ctx, b, ring)
	return err
}

// missing says why the rows of a database cannot be read with a ring; nil: they
// can. A key that turns out to be needed by no row is returned as idle.
func (r *Rotation) missing(ctx context.Context, b book, ring *Ring) (idle []int64, err error) {
	for _, id := range sortedKeys(b.keys) {
		var k *key
		if ring != nil {
			k = ring.find(id)
		}
		if k != nil && bytes.Equal(k.check, b.keys[id]) {
			continue
		}
		some, count := r.need(ctx, id)
		if !some {
			idle = append(idle, id)
			continue
		}
		switch {
		case k != nil:
			return nil, fmt.Errorf("encryption keys: key %d is not the one that %s need: put that one back", id, count)
		case ring == nil:
			return nil, fmt.Errorf("encryption keys: storage.encryption.keys_file is not set, and %s need key %d: set it", count, id)
		}
		return nil, fmt.Errorf("encryption keys: %w: key %d is not in the keys file, and %s need it: put it back", ErrNoKey, id, count)
	}
	return idle, nil
}

// need reports whether rows need a key, and how many in words.
func (r *Rotation) need(ctx context.Context, id int64) (some bool, count string) {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	var parts []string
	for _, t := range r.tables {
		var n int
		err := r.db.QueryRow(ctx, t.sqlSome, id, countLimit+1).Scan(&n)
		switch {
		case err != nil: // it takes too long, most likely: nobody knows, so it may be
			r.log.Warn("rows that need an encryption key not counted", "key", id, "table", t.Name, "err", err)
			parts = append(parts, "what is in "+t.Name)
		case n > countLimit:
			parts = append(parts, fmt.Sprintf("more than %d rows of %s", countLimit, t.Name))
		case n > 0:
			parts = append(parts, fmt.Sprintf("%d rows of %s", n, t.Name))
		}
	}
	return len(parts) > 0, strings.Join(parts, " and ")
}

// enter writes a key down.
func enter(ctx context.Context, tx storage.Tx, k *key) error {
	_, err := tx.Exec(ctx, sqlPut, bookKey+strconv.FormatInt(k.id, 10), k.check)
	return err
}

// turn is what changes in the book.
type turn struct {
	target *key    // comes into force; nil: rows are written as they are
	left   *key    // rows of it may come although the book does not have it; nil: of none
	again  bool    // rows are to be looked at, also when the book says that all are of the target
	idle   []int64 // no row needs them
}

// open writes down that rows of the target will come; nothing is sealed with
// it before.
func (r *Rotation) open(ctx context.Context, b book, t turn) error {
	id := int64(0)
	if t.target != nil {
		id = t.target.id
	}
	known := t.target == nil || bytes.Equal(b.keys[id], t.target.check)
	if b.rows.Target == id && known && len(t.idle) == 0 && !t.again {
		return nil
	}
	err := r.db.Tx(ctx, func(tx storage.Tx) error {
		now, err := readBook(ctx, tx)
		if err != nil {
			return err
		}
		if t.left != nil {
			if err := enter(ctx, tx, t.left); err != nil {
				return err
			}
		}
		for _, i := range t.idle {
			if _, err := tx.Exec(ctx, sqlForget, bookKey+strconv.FormatInt(i, 10)); err != nil {
				return err
			}
		}
		if !known {
			if err := enter(ctx, tx, t.target); err != nil {
				return err
			}
		}
		if now.rows.Target == id && !t.again {
			return nil
		}
		_, err = tx.Exec(ctx, sqlPut, bookRows, progress{Target: id, Open: true, Opened: now.rows.Opened + 1}.encode())
		return err
	})
	if err != nil {
		return fmt.Errorf("encryption book: %w", err)
	}
	return nil
}

// errOvertaken: another key came into force meanwhile, or another server
// rewrites rows.
var errOvertaken = errors.New("another key is in force, or another server at work")

// close writes down that every row is of the target, if the book is as it was.
func (r *Rotation) close(ctx context.Context, was book) error {
	err := r.db.Tx(ctx, func(tx storage.Tx) error {
		b, err := readBook(ctx, tx)
		if err != nil {
			return err
		}
		if !bytes.Equal(b.text, was.text) {
			return errOvertaken
		}
		for id := range b.keys {
			if id == b.rows.Target {
				continue
			}
			if _, err := tx.Exec(ctx, sqlForget, bookKey+strconv.FormatInt(id, 10)); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, sqlPut, bookRows, progress{Target: b.rows.Target, Opened: b.rows.Opened}.encode())
		return err
	})
	if err != nil {
		return fmt.Errorf("encryption book: %w", err)
	}
	return nil
}
