package nats

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// When the near end of a pipe asks what has arrived.
const (
	askFirst = 200 * time.Millisecond
	askMost  = 2 * time.Second
)

// sender is the near end of a pipe. Payload n is at ring[n%len(ring)] from the time
// it has its place until its done was called:
//
//	freed ≤ acked ≤ sent ≤ last      its place is free again ≤ the peer has handled it ≤
//	                                 the publisher has it ≤ it has a number
//
// Going back means that sent does.
type sender struct {
	b       *Bus
	to      Peer
	port    string
	subject string
	head    []byte // what all data frames begin with

	mu      sync.Mutex
	change  sync.Cond // what complete waits for
	ring    []place
	freed   uint64
	acked   uint64
	sent    uint64
	last    uint64
	reached uint64 // the largest that sent ever was
	bytes   int    // of the frames after freed
	waiting []*waiter
	err     error // why the pipe has ended

	since    time.Time // of the last place that was freed, or of the first that was taken after none was
	stalled  bool
	question uint64        // number of the last
	fresh    uint64        // answers count from this one on
	due      bool          // there is one to be published
	askAt    time.Time     // when the next is due, unless there is progress
	askAfter time.Duration // how long after that the one after it is

	queued  bool // the publisher knows that there is work
	retries uint64
	stalls  uint64
}

type place struct {
	frame   []byte
	done    func(error)
	at      time.Time
	refused bool
}

// waiter is a Send that waits for its place; exactly one answer goes to ready.
type waiter struct {
	frame []byte
	done  func(error)
	ready chan error
}

func newSender(b *Bus, to Peer, port string) *sender {
	s := &sender{
		b: b, to: to, port: port, subject: subject(b.o.Cluster, to.Node, b.o.Self.Node, port),
		head: (&frame{kind: kindData, node: []byte(b.o.Self.Node), life: b.o.Self.Incarnation, to: to.Incarnation}).head(nil),
		ring: make([]place, b.o.Window.Frames), fresh: 1,
	}
	s.change.L = &s.mu
	return s
}

func (s *sender) send(ctx context.Context, payload []byte, done func(error)) error {
	size := len(s.head) + len(payload) + tail
	if int64(size) > s.b.biggest.Load() {
		return ErrTooLarge
	}
	f := appendBytes(append(make([]byte, 0, size), s.head...), payload) // the number follows in take
	s.mu.Lock()
	switch {
	case s.err != nil:
		defer s.mu.Unlock()
		return s.err
	case s.stalled:
		defer s.mu.Unlock()
		return ErrStalled
	case len(s.waiting) == 0 && s.fits(len(f)):
		s.put(f, done, time.Now())
		s.mu.Unlock()
		return nil
	}
	w := &waiter{f, done, make(chan error, 1)}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	select {
	case err := <-w.ready:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.admit(time.Now()) // those behind may be smaller
		w.ready <- ctx.Err()
	}
	s.mu.Unlock()
	return <-w.ready
}

func (s *sender) fits(size int) bool {
	n := s.last - s.freed
	return n == 0 || n < uint64(len(s.ring)) && s.bytes+size <= s.b.o.Window.Bytes
}

// put gives a frame its number and its place, with mu.
func (s *sender) put(f []byte, done func(error), now time.Time) {
	if s.freed == s.last {
		s.since = now
	}
	if s.acked == s.last {
		s.patience(now)
	}
	s.last++
	f = binary.AppendUvarint(f, s.last)
	s.ring[s.last%uint64(len(s.ring))] = place{frame: f, done: done, at: now}
	s.bytes += len(f)
	s.publish()
}

// admit gives places to those who wait, in their order; with mu.
func (s *sender) admit(now time.Time) {
	for len(s.waiting) > 0 && s.fits(len(s.waiting[0].frame)) {
		w := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		s.put(w.frame, w.done, now)
		w.ready <- nil
	}
}

// refuse lets down those who wait, with mu.
func (s *sender) refuse(err error) {
	for _, w := range s.waiting {
		w.ready <- err
	}
	s.waiting = nil
}

// publish makes the publisher come, with mu.
func (s *sender) publish() {
	if !s.queued {
		s.queued = true
		s.b.out.send(s)
	}
}

// patience starts the time after which we ask, with mu.
func (s *sender) patience(now time.Time) { s.askAt, s.askAfter = now.Add(askFirst), 2*askFirst }

// take appends to frames what is to be published, at most to their capacity, and
// reports whether that is all.
func (s *sender) take(frames [][]byte) (_ [][]byte, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && s.sent < s.last && len(frames) < cap(frames) {
		s.sent++
		if s.sent <= s.reached {
			s.retries++
		} else {
			s.reached = s.sent
		}
		frames = append(frames, s.ring[s.sent%uint64(len(s.ring))].frame)
	}
	if s.err == nil && (s.sent < s.last || s.due && len(frames) == cap(frames)) {
		return frames, false
	}
	if s.err == nil && s.due {
		s.due = false
		s.question++
		f := frame{kind: kindAsk, node: []byte(s.b.o.Self.Node), life: s.b.o.Self.Incarnation, to: s.to.Incarnation, question: s.question, seq: s.sent}
		frames = append(frames, f.append(nil))
	}
	s.queued = false
	return frames, true
}
