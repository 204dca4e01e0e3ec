package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// A Postgres that is frozen costs whoever waits for it one budget, not several
// behind each other; what came meanwhile is not there, what is sent again is
// there once, and everything goes on when the database does.
func TestReliability31FrozenPostgres(t *testing.T) {
	c := storagetest.Postgres(t)
	c.StatementTimeout = time.Second
	budget := c.StatementTimeout + time.Second // as answerMargin
	p := storagetest.Behind(t, &c)
	db := storagetest.Open(t, c)
	migrated(t, db)
	ctx := context.Background()
	commit := func(id int) error {
		var w storage.WriteSet
		w.Add(insert, id, "x")
		return db.Commit(ctx, &w)
	}
	if err := commit(0); err != nil {
		t.Fatal(err)
	}
	p.Freeze()
	began := time.Now()
	const waiting = 2000 // more than the queue holds, and than a batch
	var all sync.WaitGroup
	for id := 1; id <= waiting; id++ {
		all.Go(func() {
			if err := commit(id); !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("commit %d: %v", id, err)
			}
		})
	}
	for name, f := range map[string]func() error{
		"read": func() error { return db.QueryRow(ctx, `SELECT 1`).Scan(new(int)) },
		"exec": func() error { _, err := db.Exec(ctx, `SELECT 1`); return err },
		"ping": func() error { return db.Ping(ctx) },
		"tx": func() error {
			return db.Tx(ctx, func(tx storage.Tx) error { _, err := tx.Exec(ctx, `SELECT 1`); return err })
		},
	} {
		all.Go(func() {
			if err := f(); !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 3*budget {
		t.Errorf("the last heard of it after %v, the budget is %v", took, budget)
	}
	p.Thaw()
	for id := 1; id <= waiting; id += 100 {
		for again := 0; ; again++ { // what was under way may have been committed since
			err := commit(id)
			if err == nil || errors.Is(err, storage.ErrConflict) {
				break
			}
			if again == 3 {
				t.Fatalf("does not recover: %v", err)
			}
		}
	}
	if n := count(t, db, "id > 0 AND id % 100 = 1"); n != waiting/100 {
		t.Errorf("%d rows of %d", n, waiting/100)
	}
}
