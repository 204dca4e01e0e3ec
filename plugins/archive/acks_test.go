package archive

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"parley/storage"
	"parley/storage/storagetest"
)

// While the database takes nothing it is asked now and then, not again and
// again: it may be the disk that is full, and each try is a line in the log.
func TestReliability31AcksSpareTheDatabase(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		o, err := f.owners.get(context.Background(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		for range 2 * ackBatch {
			ids = append(ids, f.ids.Next())
		}
		f.acks.add(o, ids...)
		<-f.acks.wake
		down, cancel := context.WithCancel(context.Background())
		cancel()
		f.acks.flush(down)
		f.acks.add(o, f.ids.Next())
		select {
		case <-f.acks.wake:
			t.Error("it tries again at once")
		default:
		}
		f.acks.flush(context.Background())
		f.acks.add(o, ids...)
		select {
		case <-f.acks.wake:
		default:
			t.Error("it goes on sparing a database that works again")
		}
	})
}

// crowded is a database that answers when several have come together, as it is
// when everybody's messages stand before each of them. It takes nothing.
type crowded struct {
	storage.DB
	together int
	mu       sync.Mutex
	waiting  []chan struct{}
}

func (c *crowded) Commit(context.Context, *storage.WriteSet) error {
	turn := make(chan struct{})
	c.mu.Lock()
	if c.waiting = append(c.waiting, turn); len(c.waiting) == c.together {
		for _, w := range c.waiting {
			close(w)
		}
		c.waiting = nil
	}
	c.mu.Unlock()
	<-turn
	return storage.ErrUnavailable
}

// D2: when the sets of marks wait behind messages one after the other, more is
// delivered than marked; what is forgotten then comes again at the next login.
func TestMarksKeepUpWithMessages(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		var w storage.WriteSet
		for range ackWriters * ackBatch {
			ids = append(ids, f.ids.Next())
			w.Add(&insertPending, o.id, ids[len(ids)-1], nil, 0)
		}
		if err := db.Commit(t.Context(), &w); err != nil {
			t.Fatal(err)
		}
		o.pending.Store(int64(len(ids)))
		f.env.DB = &crowded{DB: db, together: ackWriters}
		synctest.Test(t, func(t *testing.T) { // fails when nothing goes on any more
			f.acks.add(o, ids...)
			f.acks.flush(t.Context())
		})
		f.env.DB = db
		f.acks.flush(t.Context()) // what was not taken has been kept
		var left int
		if err := db.QueryRow(t.Context(), `SELECT COUNT(*) FROM archive_pending`).Scan(&left); err != nil || left != 0 || o.pending.Load() != 0 {
			t.Errorf("%d rows stay pending, %d are counted: %v", left, o.pending.Load(), err)
		}
	})
}

// TestRule58WhatIsPassedOverStaysTaken: a replay that leaves out rows which
// another device has taken leaves none behind that a crash would make pending
// again: they would come to the device after what is newer (D3).
func TestRule58WhatIsPassedOverStaysTaken(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, *defaults())
		o, ids := f.fill(t, juliet, 4)
		for _, id := range ids {
			f.wait(t, o, id)
		}
		f.acks.add(o, ids[:2]...)
		taken := f.acks.of(o)
		rows, err := f.pendingAfter(ctx, o, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		f.acks.add(o, ids[2]) // while it reads
		if err := f.acks.settle(ctx, o, taken, rows); err != nil {
			t.Fatal(err)
		}
		if len(taken) != 3 {
			t.Errorf("it passes over %d rows, want 3", len(taken))
		}
		// The process dies here: what it had in mind is gone.
		left, err := f.pendingAfter(ctx, o, 0, 10)
		if err != nil || len(left) != 1 || left[0].id != ids[3] {
			t.Errorf("%d rows are pending after a crash, want the one nobody has taken: %v", len(left), err)
		}
		down, cancel := context.WithCancel(ctx)
		cancel()
		f.acks.add(o, ids[3])
		if err := f.acks.settle(down, o, map[int64]struct{}{}, left); err == nil {
			t.Error("rows are passed over that the database still has")
		}
	})
}
