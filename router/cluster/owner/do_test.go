package owner

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"parley/storage"
)

// Work is done where the key is owned, by whoever is asked first when it is
// nobody's: the node that is meant to have it.
func TestRuleWorkGoesToTheOwner(t *testing.T) {
	each(t, func(w *world) {
		a, b, c := w.join("a"), w.join("b"), w.join("c")
		w.meet(a, b, c)
		key := w.keyOf(b)
		for _, n := range []*node{a, b, c} {
			if by, err := n.do(w.Context(), key, "text"); by != "b" || err != nil {
				t.Errorf("%s: done by %q, %v", n.store.self.node, by, err)
			}
		}
		if n := w.notes("text"); n != 3 {
			t.Errorf("done %d times", n)
		}
		// What a remembers is wrong.
		if err := b.held(key).Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.acquire(c, key)
		if by, err := a.do(w.Context(), key, "again"); by != "c" || err != nil || w.notes("again") != 1 {
			t.Errorf("done by %q %d times, %v", by, w.notes("again"), err)
		}
	})
}

// A node that begins does no work of others before its stages run: they would stand in
// each other's way. What nobody owns is done by who asks, and what it owns waits.
func TestRuleBeginnersDoNothingForOthers(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		w.meet(a, b)
		b.begun.Store(false)
		if by, err := a.do(w.Context(), w.keyOf(b), "free"); by != "a" || err != nil {
			t.Errorf("done by %q, %v", by, err)
		}
		w.acquire(b, "taken")
		ctx, cancel := context.WithTimeout(w.Context(), 100*time.Millisecond)
		defer cancel()
		if by, err := a.do(ctx, "taken", "taken"); !errors.Is(err, ErrNobody) {
			t.Errorf("done by %q, %v", by, err)
		}
		b.Open()
		if by, err := a.do(w.Context(), "taken", "taken"); by != "b" || err != nil || w.notes("taken") != 1 {
			t.Errorf("done by %q %d times, %v", by, w.notes("taken"), err)
		}
	})
}

// A node that does not know yet that another one has its key writes nothing, and
// its work is done by that one.
func TestRuleWorkOfAStaleOwnerMoves(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		w.meet(a, b)
		stale := w.acquire(a, "room")
		w.exec(`UPDATE cluster_owner SET node = '' WHERE key = 'room'`)
		w.acquire(b, "room")
		if by, err := a.do(w.Context(), "room", "text"); by != "b" || err != nil || w.notes("text") != 1 {
			t.Errorf("done by %q %d times, %v", by, w.notes("text"), err)
		}
		w.lost(stale)
	})
}

// Nobody owns the key, and who is meant to cannot be reached: this node does it.
// Somebody who cannot be reached owns it: it is not done, and after a while the
// asker hears so; or that nobody knows, when it was on its way.
func TestRuleUnreachableNodes(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a", func(o *Options) { o.Wait = 300 * time.Millisecond }), w.join("b")
		w.meet(a, b)
		free, taken := w.keyOf(b), "taken"
		w.acquire(b, taken)
		w.net.set(func() { b.pipes.gone = true })
		if by, err := a.do(w.Context(), free, "free"); by != "a" || err != nil {
			t.Errorf("done by %q, %v", by, err)
		}
		_, err := a.do(w.Context(), taken, "taken")
		wantError(t, err, ErrNobody)
		w.net.set(func() { b.pipes.gone, b.pipes.deaf = false, true })
		_, err = a.do(w.Context(), taken, "taken")
		wantError(t, err, ErrUnknown)
		if n := w.notes("taken"); n != 0 {
			t.Errorf("done %d times", n)
		}
	})
}

// unanswered asks, as a, for work on "room", which b owns and does not hear of; what
// comes of it is sent.
func (w *world) unanswered(a, b *node) <-chan error {
	w.Helper()
	w.acquire(b, "room")
	w.net.set(func() { b.pipes.deaf = true })
	came := make(chan error, 1)
	go func() {
		_, err := a.do(w.Context(), "room", "lost")
		came <- err
	}()
	w.until("it is asked", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.calls) == 1
	})
	return came
}

// An owner that says nothing: nobody knows what became of the work. When its life
// is over that is said at once, and the next work is done by the next owner.
func TestRuleSilentOwner(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a", func(o *Options) { o.Wait = soon }), w.join("b")
		w.meet(a, b)
		came := w.unanswered(a, b)
		w.crash(b)
		wantError(t, <-came, ErrUnknown)
		if by, err := a.do(w.Context(), "room", "next"); by != "a" || err != nil {
			t.Errorf("done by %q, %v", by, err)
		}
	})
}

// A node that has lost its place ends, and does not wait for what others were asked.
func TestRuleFencedNodeWaitsForNobody(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a", func(o *Options) { o.Wait = time.Hour }), w.join("b")
		w.meet(a, b)
		came := w.unanswered(a, b)
		close(a.fenced)
		wantError(t, <-came, ErrUnknown)
		_, err := a.do(w.Context(), "room", "next")
		wantError(t, err, storage.ErrUnavailable)
	})
}

// A handler that fails or panics, and one that is not there, cost the asker an
// error and nobody anything else.
func TestRuleFailingHandlers(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.join("a"), w.join("b")
		w.meet(a, b)
		key := w.keyOf(b)
		b.Handle("fails", func(context.Context, *Hold, []byte) ([]byte, error) { return nil, errors.New("no") })
		b.Handle("panics", func(context.Context, *Hold, []byte) ([]byte, error) { panic("no") })
		b.Handle("away", func(context.Context, *Hold, []byte) ([]byte, error) { return nil, storage.ErrUnavailable })
		for topic, want := range map[string]error{"fails": ErrFailed, "panics": ErrFailed, "nobody's": ErrFailed, "away": storage.ErrUnavailable} {
			_, err := a.Do(w.Context(), Work{Key: key, Topic: topic, Payload: func() []byte { return nil }})
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", topic, err)
			}
		}
		if done, ok := b.held(key).Use(); !ok {
			t.Error("the hold is lost")
		} else {
			done()
		}
	})
}

// A node that is alone owns everything, and the database hears nothing of it.
func TestRuleAlone(t *testing.T) {
	s, err := New(Options{Clock: wall{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var held *Hold
	for range 2 {
		_, err = s.Do(t.Context(), Work{Key: "room", Here: func(_ context.Context, h *Hold) error {
			if held != nil && held != h {
				t.Error("another hold")
			}
			held = h
			h.Guard(func(*storage.Stmt, ...any) { t.Error("a guard") })
			return h.Check(t.Context(), nil)
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if node, err := s.Owner(t.Context(), "room"); node != "" || err != nil || s.Preferred("room") != "" {
		t.Errorf("%q, %v", node, err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-held.Lost():
	default:
		t.Error("released, and not lost")
	}
	if h, err := s.Acquire(t.Context(), "room"); err != nil || h == held {
		t.Errorf("%v, %v", h, err)
	}
}

func BenchmarkAlone(b *testing.B) {
	s, err := New(Options{Clock: wall{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	w := Work{Key: "room", Here: func(context.Context, *Hold) error { return nil }}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Do(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzWire(f *testing.F) {
	f.Add(question{id: 7, take: true, topic: "note", key: "room", payload: []byte("text")}.encode())
	f.Add(answer{id: 7, what: moved, payload: []byte("text")}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeQuestion(b); err == nil {
			again, err := decodeQuestion(q.encode())
			if err != nil || again.id != q.id || again.take != q.take || again.topic != q.topic || again.key != q.key || string(again.payload) != string(q.payload) {
				t.Errorf("%+v became %+v, %v", q, again, err)
			}
		}
		if a, err := decodeAnswer(b); err == nil {
			again, err := decodeAnswer(a.encode())
			if err != nil || again.id != a.id || again.what != a.what || string(again.payload) != string(a.payload) {
				t.Errorf("%+v became %+v, %v", a, again, err)
			}
		}
	})
}
