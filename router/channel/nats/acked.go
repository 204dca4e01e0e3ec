package nats

import (
	"cmp"
	"slices"
	"time"
)

// What the near end does with acknowledgements, and without them.

// acknowledged takes what the far end says. The answer to a question tells what was
// lost of the frames before it. What was sent behind a lost one is of no use, so
// going back makes all older questions pointless.
func (s *sender) acknowledged(f *frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || f.handled > f.received || f.received > s.reached {
		return
	}
	switch {
	case f.handled > s.acked:
		s.refusals(f)
		s.acked = f.handled
		s.sent = max(s.sent, s.acked)
		s.patience(time.Now())
		s.change.Signal()
	case f.question == 0: // nobody has asked: it has a new connection
		if now := time.Now(); now.Add(askFirst).Before(s.askAt) {
			s.patience(now)
		}
	}
	if f.question < s.fresh || f.question > s.question || f.received >= f.seq || f.seq > s.reached {
		return
	}
	s.fresh = s.question + 1
	s.sent = max(f.received, s.acked)
	s.patience(time.Now())
	s.publish()
}

// tick is the clock's: it asks, and gives up on a peer that does not move.
func (s *sender) tick(now time.Time) {
	s.mu.Lock()
	if s.acked < s.last && !now.Before(s.askAt) && s.err == nil {
		s.due = true
		s.askAt, s.askAfter = now.Add(s.askAfter), min(2*s.askAfter, askMost)
		s.publish()
	}
	stalled := !s.stalled && s.err == nil && s.freed < s.last && now.Sub(s.since) >= s.b.o.Stall
	if stalled {
		s.stalled = true
		s.stalls++
		s.refuse(ErrStalled)
	}
	s.mu.Unlock()
	if stalled {
		s.b.log.Warn("nats: peer acknowledges nothing", "peer", s.to.Node, "port", s.port, "after", s.b.o.Stall)
	}
}

// reconnected asks at once: what was published before may be lost.
func (s *sender) reconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked < s.last && s.err == nil {
		s.due = true
		s.patience(time.Now())
		s.publish()
	}
}

// end ends the pipe; complete tells everybody whose payload is not acknowledged.
func (s *sender) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.refuse(err)
		s.change.Signal()
	}
}

// refusals notes which of the payloads that f is the first to acknowledge the
// handler has refused; with mu.
func (s *sender) refusals(f *frame) {
	for _, n := range f.refused {
		if n > s.acked && n <= f.handled {
			s.ring[n%uint64(len(s.ring))].refused = true
		}
	}
}

// answer is what a payload's done is called with.
type answer struct {
	done func(error)
	err  error
}

// complete calls done for what is acknowledged, and in the end for the rest. It is
// a goroutine of its own so that a slow done holds up nobody else's pipe.
func (s *sender) complete() {
	var tell []answer
	for over := false; !over; {
		var again bool
		tell, again, over = s.free(tell[:0])
		if again {
			s.b.log.Info("nats: peer acknowledges again", "peer", s.to.Node, "port", s.port)
		}
		for _, a := range tell {
			_ = s.b.guard("done", s.to, s.port, func() error { a.done(a.err); return nil })
		}
		clear(tell)
	}
}

// free waits for acknowledgements or the end, frees the places and returns whom to
// tell, whether the pipe had stalled, and whether it is over. The places are free
// before they are told, all of them at once: so there are never more than two windows
// of payloads.
func (s *sender) free(buf []answer) (tell []answer, again, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.freed == s.acked && s.err == nil {
		s.change.Wait()
	}
	for tell = buf; s.freed < s.acked; {
		tell = s.leave(tell, nil)
	}
	for s.err != nil && s.freed < s.last {
		tell = s.leave(tell, s.err)
	}
	if s.err != nil {
		s.ring = make([]place, 1) // whoever still holds the pipe gets err
		return tell, false, true
	}
	s.since = time.Now()
	again, s.stalled = s.stalled, false
	s.admit(s.since)
	return tell, again, false
}

// leave frees the first place and adds whom to tell what; with mu.
func (s *sender) leave(tell []answer, err error) []answer {
	s.freed++
	p := &s.ring[s.freed%uint64(len(s.ring))]
	if p.refused {
		err = ErrRefused
	}
	if p.done != nil {
		tell = append(tell, answer{p.done, err})
	}
	s.bytes -= len(p.frame)
	*p = place{}
	return tell
}

// Lane is the state of the near end of a pipe.
type Lane struct {
	Port     string
	InFlight uint64        // payloads that the peer has not acknowledged: the part of the window that is in use
	Bytes    int           // of their frames
	Window   Window        // what it takes
	Oldest   time.Duration // age of the oldest of them; 0: there is none
	Retries  uint64        // payloads that were sent once more
	Stalls   uint64        // times that the peer stopped acknowledging
	Stalled  bool          // it does so now: nothing more is taken
}

func (s *sender) lane(now time.Time) Lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Lane{Port: s.port, InFlight: s.last - s.freed, Bytes: s.bytes, Window: s.b.o.Window, Retries: s.retries, Stalls: s.stalls, Stalled: s.stalled}
	if s.err == nil && s.acked < s.last {
		l.Oldest = now.Sub(s.ring[(s.acked+1)%uint64(len(s.ring))].at)
	}
	return l
}

// Lanes are the near ends of the pipes to a node, by port.
func (b *Bus) Lanes(node string) (lanes []Lane) {
	now := time.Now()
	for _, s := range b.senders(nil) {
		if s.to.Node == node {
			lanes = append(lanes, s.lane(now))
		}
	}
	slices.SortFunc(lanes, func(x, y Lane) int { return cmp.Compare(x.Port, y.Port) })
	return lanes
}
