package nats

import (
	"testing"
	"time"
)

// lone is a near end without a network.
func lone(t *testing.T) *sender {
	b := newBus(Options{Stall: time.Second, Window: Window{Frames: 10, Bytes: 1000}, Self: north})
	t.Cleanup(b.cancel)
	b.biggest.Store(1000)
	return newSender(b, south, "p")
}

// publishes returns the frames that the publisher would get now.
func publishes(t *testing.T, s *sender) (all []frame) {
	t.Helper()
	written, _ := s.take(make([][]byte, 0, 20))
	for _, b := range written {
		f, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

func accept(t *testing.T, s *sender, n int) {
	t.Helper()
	for range n {
		if err := s.send(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A pipe is not stalled because nothing was sent for long.
func TestIdlePipeIsNotStalled(t *testing.T) {
	s := lone(t)
	accept(t, s, 1)
	publishes(t, s)
	s.acknowledged(&frame{handled: 1, received: 1})
	s.free(nil)
	s.since = s.since.Add(-time.Hour)
	s.tick(time.Now())
	accept(t, s, 1)
	s.tick(time.Now().Add(time.Second / 2))
	if s.stalled {
		t.Error("stalled")
	}
	s.tick(time.Now().Add(time.Second))
	if !s.stalled {
		t.Error("not stalled")
	}
}

// MUST 5: the questions become rarer, and progress or a new connection brings them
// back.
func TestWhenTheNearEndAsks(t *testing.T) {
	s := lone(t)
	accept(t, s, 2)
	publishes(t, s)
	now := s.askAt
	for _, d := range []time.Duration{0, 400, 800, 1600, 2000, 2000} {
		now = now.Add(d * time.Millisecond)
		s.tick(now.Add(-1))
		if f := publishes(t, s); len(f) > 0 {
			t.Fatalf("too early for %v: %v", d, f)
		}
		s.tick(now)
		if f := publishes(t, s); len(f) != 1 || f[0].kind != kindAsk || f[0].seq != 2 {
			t.Fatalf("after %v: %v", d, f)
		}
	}
	s.reconnected()
	if f := publishes(t, s); len(f) != 1 || f[0].kind != kindAsk {
		t.Errorf("a new connection: %v", f)
	}
	for range 3 {
		s.tick(s.askAt)
		publishes(t, s)
	}
	s.acknowledged(&frame{question: s.question, seq: 2, received: 2})
	if wait := time.Until(s.askAt); wait < time.Second {
		t.Errorf("it is slow, but the next question is due in %v", wait)
	}
	s.acknowledged(&frame{received: 2})
	if wait := time.Until(s.askAt); wait > askFirst || s.askAfter != 2*askFirst {
		t.Errorf("it speaks up by itself, but the next question is due in %v", wait)
	}
	s.acknowledged(&frame{handled: 1, received: 2})
	if wait := time.Until(s.askAt); wait > askFirst || s.askAfter != 2*askFirst {
		t.Errorf("after progress the next question is due in %v", wait)
	}
	s.acknowledged(&frame{handled: 2, received: 2})
	s.tick(now.Add(time.Hour))
	s.reconnected()
	if f := publishes(t, s); len(f) > 0 {
		t.Errorf("nothing is in flight, but: %v", f)
	}
}

// MUST 5: what was sent behind a question may still be on its way when the answer
// comes, an answer to any question but the last may come late, and after going back
// all that were asked before are of no use.
func TestAnswersTellWhatIsLost(t *testing.T) {
	s := lone(t)
	ask := func() frame {
		t.Helper()
		s.due = true
		f := publishes(t, s)
		return f[len(f)-1]
	}
	answer := func(q frame, received uint64, want ...uint64) {
		t.Helper()
		s.acknowledged(&frame{received: received, question: q.question, seq: q.seq})
		got := publishes(t, s)
		for i, f := range got {
			if i >= len(want) || f.kind != kindData || f.seq != want[i] {
				t.Fatalf("number %d comes again, want %v", f.seq, want)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d frames, want %v", len(got), want)
		}
	}
	accept(t, s, 2)
	first := ask()
	accept(t, s, 2)
	publishes(t, s)
	answer(first, 2)
	second := ask()
	third := ask()
	answer(second, 3, 4)
	answer(third, 3)
	answer(frame{question: 99, seq: 4}, 3)
	answer(frame{}, 3)
	answer(ask(), 3, 4)
	if s.retries != 2 {
		t.Errorf("%d retries", s.retries)
	}
}
