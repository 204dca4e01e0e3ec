package atrest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// brisk is a clock whose rests are over at once, and on which nobody wakes up
// by himself.
type brisk struct{ quick }

func (b *brisk) AfterFunc(d time.Duration, f func()) func() bool {
	if d < settle {
		return b.quick.AfterFunc(d, f)
	}
	return func() bool { return true }
}

// late puts a letter there with the key that this server seals with.
func (o *office) late(t *testing.T, owner, id int) {
	t.Helper()
	body, key := o.Vault.Seal(&letters, []byte(text(owner, id)), int64(owner), int64(id))
	if _, err := o.db.Exec(t.Context(), `INSERT INTO letters (owner, id, body, key_id) VALUES ($1, $2, $3, $4)`, owner, id, body, key); err != nil {
		t.Fatal(err)
	}
}

// twoOffices are two servers on one database, both with key 1, and rows of it.
func twoOffices(t *testing.T, db storage.DB) (a, b *office) {
	t.Helper()
	a, b = newOffice(t, db), newOffice(t, db)
	for _, o := range []*office{a, b} {
		o.Rotation.clock = &brisk{}
		o.adopt(t, true, 1)
		o.started = true
	}
	a.fill(t)
	a.work(t)
	return a, b
}

func (o *office) work(t *testing.T) {
	t.Helper()
	if err := o.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A server that reads the keys file when the rows of the others have followed
// has written rows of the old key meanwhile: they follow, and until then the key
// is needed.
func TestRotationOfALateServer(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		a, b := twoOffices(t, db)
		a.adopt(t, true, 2, 1)
		a.work(t)
		b.late(t, 0, letterRows)
		if err := b.Adopt(t.Context(), ring(t, 2), true); err == nil || !strings.Contains(err.Error(), "1 rows of letters need it") {
			t.Errorf("without the key of its rows: %v", err)
		}
		b.adopt(t, true, 2, 1)
		if got := a.booked(t); got != "[1 2]" {
			t.Errorf("booked are %s", got)
		}
		if err := a.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) || !strings.Contains(err.Error(), "1 rows of letters") {
			t.Errorf("key 1: %v", err)
		}
		if s, err := a.Status(t.Context()); err != nil || s.Job.State != Waiting {
			t.Errorf("%+v, %v", s, err)
		}
		b.work(t)
		if got, want := a.keys(t), fmt.Sprintf("map[2:%d]", letterRows+1); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := a.Retirable(t.Context(), 1); err != nil {
			t.Errorf("key 1: %v", err)
		}
	})
}

// A server that was switched on late has written plain rows.
func TestEncryptionOfALateServer(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	a, b := newOffice(t, db), newOffice(t, db)
	for _, o := range []*office{a, b} {
		if err := o.Adopt(t.Context(), nil, true); err != nil {
			t.Fatal(err)
		}
		o.started = true
	}
	a.adopt(t, true, 1)
	a.work(t)
	b.fill(t)
	b.adopt(t, true, 1)
	b.work(t)
	if got := b.keys(t); got != all(1) {
		t.Error(got)
	}
}

// A key that a server still writes, which has not read the keys file at all,
// cannot be retired, whatever the book says; its rows follow.
func TestRetireOverADeafServer(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		a, b := twoOffices(t, db)
		a.adopt(t, true, 2, 1)
		a.work(t)
		if err := a.Retirable(t.Context(), 1); err != nil {
			t.Errorf("no row needs it: %v", err)
		}
		b.late(t, 2, letterRows)
		if err := a.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) || !strings.Contains(err.Error(), "Reload every server") {
			t.Errorf("key 1: %v", err)
		}
		if got := a.booked(t); got != "[1 2]" || len(a.wake) != 1 {
			t.Errorf("booked are %s, %d waken", got, len(a.wake))
		}
		a.work(t)
		if got, want := a.keys(t), fmt.Sprintf("map[2:%d]", letterRows+1); got != want || a.booked(t) != "[2]" {
			t.Errorf("%s, want %s; booked are %s", got, want, a.booked(t))
		}
	})
}

// behindDB has others write after each commit.
type behindDB struct {
	storage.DB
	after func(commit int)
	n     int
}

func (d *behindDB) Commit(ctx context.Context, w *storage.WriteSet) error {
	err := d.DB.Commit(ctx, w)
	d.n++
	d.after(d.n)
	return err
}

// Rows that come behind a pass are found before it says that all have followed.
func TestRotationLooksBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		a, b := twoOffices(t, db)
		a.adopt(t, true, 2, 1)
		a.Rotation.db = &behindDB{DB: db, after: func(commit int) {
			if commit == 2 {
				b.late(t, 0, 1) // one that is not there: owner 0 has 0, 3, 6, …
			}
		}}
		a.work(t)
		if got, want := a.keys(t), fmt.Sprintf("map[2:%d]", letterRows+1); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// A change that another server makes in the middle of a pass is not written over
// by its progress, nor by its end.
func TestRotationOfTwoServers(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		for _, at := range []int{1, letterRows/stepRows + 1} { // the first commit, and the last
			if _, err := db.Exec(t.Context(), `DELETE FROM parley_meta WHERE key >= 'atrest.' AND key < 'atrest/'`); err != nil {
				t.Fatal(err)
			}
			_, _ = db.Exec(t.Context(), `DROP TABLE IF EXISTS letters`)
			a, b := twoOffices(t, db)
			a.adopt(t, true, 2, 1)
			a.Rotation.db = &behindDB{DB: db, after: func(commit int) {
				if commit == at {
					b.late(t, 1, 0) // what was sealed before
					b.adopt(t, true, 2, 1)
				}
			}}
			if err := a.pass(t.Context()); !errors.Is(err, errOvertaken) {
				t.Errorf("commit %d: the pass goes on: %v", at, err)
			}
			if got := a.booked(t); got != "[1 2]" {
				t.Errorf("commit %d: booked are %s", at, got)
			}
			b.work(t)
			if got, want := a.keys(t), fmt.Sprintf("map[2:%d]", letterRows+1); got != want || a.booked(t) != "[2]" {
				t.Errorf("commit %d: %s, want %s; booked are %s", at, got, want, a.booked(t))
			}
		}
	})
}

// What did not open before a stop in the middle is not forgotten by the pass
// that goes on.
func TestDamagedRowOverAStop(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	o := newOffice(t, db)
	o.adopt(t, true, 1)
	o.fill(t)
	if _, err := db.Exec(t.Context(), `UPDATE letters SET body = (SELECT body FROM letters WHERE owner = 2 AND id = 2) WHERE owner = 0 AND id = 3`); err != nil {
		t.Fatal(err)
	}
	o.adopt(t, true, 2, 1)
	o.Rotation.db = &cutDB{db, 1}
	if err := o.pass(t.Context()); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	again := newOffice(t, db)
	again.adopt(t, true, 2, 1)
	again.work(t)
	if j := again.now(); j.State != Stuck || j.Damaged != 1 {
		t.Errorf("%+v", j)
	}
	if got := again.booked(t); got != "[1 2]" {
		t.Errorf("booked are %s", got)
	}
	if err := again.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) {
		t.Errorf("key 1: %v", err)
	}
}
