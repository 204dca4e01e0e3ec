package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"parley/router/cluster"
	"parley/storage"
)

// Of all who want a key at the same time one becomes its owner.
func TestRuleOneOwnerAmongRacingTakers(t *testing.T) {
	each(t, func(w *world) {
		nodes := []*node{w.join("a"), w.join("b"), w.join("c")}
		for i := range 20 {
			key := fmt.Sprint("room", i)
			var wait sync.WaitGroup
			holds := make([]*Hold, 4*len(nodes))
			for j := range holds {
				wait.Go(func() {
					h, err := nodes[j%len(nodes)].Acquire(w.Context(), key)
					if err != nil && !errors.Is(err, ErrElsewhere) {
						w.Error(err)
					}
					holds[j] = h
				})
			}
			wait.Wait()
			var first *Hold
			for _, h := range holds {
				switch {
				case h == nil:
				case first == nil:
					first = h
				case h != first:
					w.Fatalf("%s has two holds: %s and %s", key, first.service.store.self.node, h.service.store.self.node)
				}
			}
			if first == nil {
				w.Fatalf("%s has no owner", key)
			}
			for _, n := range nodes {
				if at, err := n.Owner(w.Context(), key); at != first.service.store.self.node || err != nil {
					w.Errorf("%s: owner of %s is %q, %v", n.store.self.node, key, at, err)
				}
			}
		}
	})
}

// A life that lasts keeps what it owns; when its lease has run out, or it has
// left, the next one takes it with a larger epoch, and waits for nothing.
func TestRuleLeaseRunsOut(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		first := w.acquire(a, "room")
		_, err := b.Acquire(w.Context(), "room")
		wantError(t, err, ErrElsewhere)
		w.crash(a)
		second := w.acquire(b, "room")
		if second.Epoch <= first.Epoch {
			t.Errorf("epoch %d after %d", second.Epoch, first.Epoch)
		}
		again := w.join("a")
		_, err = again.Acquire(w.Context(), "room") // a later life of the node is somebody else
		wantError(t, err, ErrElsewhere)
		if err := b.members.Leave(w.Context()); err != nil {
			t.Fatal(err)
		}
		if third := w.acquire(again, "room"); third.Epoch <= second.Epoch {
			t.Errorf("epoch %d after %d", third.Epoch, second.Epoch)
		}
	})
}

// What an owner of before writes is refused as a whole, in a set and in a
// transaction, and costs nobody else anything.
func TestRuleStaleOwnerWritesNothing(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		stale := w.acquire(a, "room")
		if err := w.write(stale, "owner"); err != nil || w.notes("owner") != 1 {
			t.Fatal("the owner cannot write:", err)
		}
		w.crash(a)
		if err := w.write(stale, "nobody else"); err != nil {
			t.Error("nobody else owns it, and it cannot write:", err)
		}
		h := w.acquire(b, "room")
		var wait sync.WaitGroup
		for i := range 20 {
			wait.Go(func() {
				if err := w.write(stale, "stale"); !errors.Is(err, storage.ErrStale) {
					w.Errorf("a stale write: %v", err)
				}
			})
			wait.Go(func() {
				if err := w.write(h, "fresh"); err != nil {
					w.Errorf("write %d: %v", i, err)
				}
			})
		}
		wait.Wait()
		if s, f := w.notes("stale"), w.notes("fresh"); s != 0 || f != 20 {
			t.Errorf("%d rows of the stale owner, %d of the other", s, f)
		}
		check := func(h *Hold) error {
			return w.db.Tx(w.Context(), func(tx storage.Tx) error {
				if err := h.Check(w.Context(), tx); err != nil {
					return err
				}
				_, err := tx.Exec(w.Context(), insert.SQL, "checked")
				return err
			})
		}
		wantError(t, check(stale), storage.ErrStale)
		if err := check(h); err != nil || w.notes("checked") != 1 {
			t.Errorf("%d rows of a transaction: %v", w.notes("checked"), err)
		}
		// The same life, after it has given the key away and taken it again.
		if err := h.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		next := w.acquire(b, "room")
		wantError(t, w.write(h, "stale"), storage.ErrStale)
		if err := w.write(next, "next"); err != nil || next.Epoch <= h.Epoch {
			t.Errorf("epoch %d after %d: %v", next.Epoch, h.Epoch, err)
		}
	})
}

// Takers and writers who get in each other's way: no row is written under an epoch
// by anybody but its owner, whatever the order.
func TestRuleWritesRaceTakers(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		for i := range 20 {
			key := fmt.Sprint("room", i)
			h := w.acquire(a, key)
			var wait sync.WaitGroup
			var err error
			wait.Go(func() { err = w.write(h, key) })
			wait.Go(func() { // as if the lease had run out
				w.exec(`UPDATE cluster_owner SET node = '' WHERE id = $1`, idOf(key))
				w.acquire(b, key)
			})
			wait.Wait()
			want := 1
			if errors.Is(err, storage.ErrStale) {
				want = 0
			} else if err != nil {
				t.Fatal(err)
			}
			if n := w.notes(key); n != want {
				t.Errorf("%d rows, and the write said %v", n, err)
			}
			wantError(t, w.write(h, key), storage.ErrStale)
		}
	})
}

// A key that is given away is another node's at once; not before who uses it is
// done, and its hold is lost then.
func TestRuleReleaseHandsOver(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		h := w.acquire(a, "room")
		done, ok := h.Use()
		if !ok {
			t.Fatal("the owner cannot use its hold")
		}
		released := make(chan error, 1)
		go func() { released <- h.Release(w.Context()) }()
		w.until("nobody else begins to use it", func() bool {
			more, ok := h.Use()
			if ok {
				more()
			}
			return !ok
		})
		_, err := b.Acquire(w.Context(), "room")
		wantError(t, err, ErrElsewhere)
		select {
		case <-h.Lost():
			t.Error("lost while it is used")
		default:
		}
		done()
		if err := <-released; err != nil {
			t.Fatal(err)
		}
		w.lost(h)
		w.acquire(b, "room")
		for name, want := range map[string]float64{"parley_owner_keys": 0, "parley_owner_acquisitions_total": 1, "parley_owner_losses_total": 1} {
			if n := a.metric(t, name); n != want {
				t.Errorf("%s is %v", name, n)
			}
		}
		if n := b.metric(t, "parley_owner_refusals_total"); n != 1 {
			t.Errorf("%v refusals", n)
		}
	})
}

// With the node's lease every hold is lost, and none is to be had.
func TestRuleFencedNodeOwnsNothing(t *testing.T) {
	each(t, func(w *world) {
		a := w.join("a")
		one, two := w.acquire(a, "one"), w.acquire(a, "two")
		close(a.fenced)
		w.lost(one)
		w.lost(two)
		if _, ok := one.Use(); ok {
			t.Error("a lost hold can be used")
		}
		_, err := a.Acquire(w.Context(), "three")
		wantError(t, err, cluster.ErrFenced)
		_, err = a.do(w.Context(), "three", "text")
		wantError(t, err, storage.ErrUnavailable)
	})
}

func TestRuleKeysAreBounded(t *testing.T) {
	each(t, func(w *world) {
		a := w.join("a", func(o *Options) { o.Keys = 2 })
		h := w.acquire(a, "one")
		w.acquire(a, "two")
		_, err := a.Acquire(w.Context(), "three")
		wantError(t, err, ErrFull)
		if err := h.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.acquire(a, "three")
	})
}

// Rows that nobody has owned for a day go; a key that comes back has a larger
// epoch all the same.
func TestRowsOfNobodyGo(t *testing.T) {
	each(t, func(w *world) {
		a := w.join("a")
		h := w.acquire(a, "old")
		kept, lasts := w.acquire(a, "kept"), w.acquire(a, "lasts")
		for _, x := range []*Hold{h, kept} {
			if err := x.Release(w.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.exec(`UPDATE cluster_owner SET since = since - $1 WHERE key <> 'kept'`, (keep + time.Hour).Microseconds())
		if err := a.store.clean(w.Context()); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := w.db.QueryRow(w.Context(), `SELECT COUNT(*) FROM cluster_owner`).Scan(&n); err != nil || n != 2 {
			t.Errorf("%d rows are left: %v", n, err)
		}
		if err := w.write(lasts, "x"); err != nil {
			t.Error(err)
		}
		if next := w.acquire(a, "old"); next.Epoch <= h.Epoch {
			t.Errorf("epoch %d after %d", next.Epoch, h.Epoch)
		}
	})
}

// Work that does not end keeps its own key and no other.
func TestDrainWaitsForNobody(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		w.meet(a, b)
		busy := w.acquire(a, "busy")
		for i := range 3 * drainAtOnce {
			w.acquire(a, fmt.Sprint("room", i))
		}
		done, _ := busy.Use()
		ctx, cancel := context.WithCancel(w.Context())
		drained := make(chan error, 1)
		go func() { drained <- a.Drain(ctx) }()
		for i := range 3 * drainAtOnce {
			w.until("the key is given away", func() bool {
				_, err := b.Acquire(w.Context(), fmt.Sprint("room", i))
				return err == nil
			})
		}
		cancel()
		wantError(t, <-drained, context.Canceled)
		if err := w.write(busy, "x"); err != nil {
			t.Error(err)
		}
		done()
		w.until("it is given away when it is idle", func() bool {
			a.shed(w.Context())
			_, err := b.Acquire(w.Context(), "busy")
			return err == nil
		})
	})
}

// A node that drains gives everything away and takes nothing that others can; one
// that is meant to have an idle key gets it.
func TestKeysMove(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a", func(o *Options) { o.Idle = time.Nanosecond }), w.join("b")
		w.meet(a, b)
		mine, others := w.keyOf(a), w.keyOf(b)
		stays, goes := w.acquire(a, mine), w.acquire(a, others)
		done, _ := goes.Use()
		a.shed(w.Context())
		if _, err := b.Acquire(w.Context(), others); !errors.Is(err, ErrElsewhere) {
			t.Errorf("a key in use has moved: %v", err)
		}
		done()
		w.until("the key has moved", func() bool {
			a.shed(w.Context())
			_, err := b.Acquire(w.Context(), others)
			return err == nil
		})
		if _, ok := stays.Use(); !ok {
			t.Fatal("a key that is meant for the node has moved")
		} else {
			stays.done()
		}
		if err := a.Drain(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.lost(stays)
		for _, n := range []*node{a, b} {
			if by, err := n.do(w.Context(), mine, "x"); by != "b" || err != nil {
				t.Errorf("done by %q, %v", by, err)
			}
		}
	})
}
