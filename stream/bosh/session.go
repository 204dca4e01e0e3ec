package bosh

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/stream"
)

// maxHold is how many requests we hold of a client that would have more held;
// two answers and one more are remembered for it at most.
const maxHold = 2

// A client makes so many requests a second, and so many at once; beyond that
// they are slow.
const (
	requestRate  = 20
	requestBurst = 100
)

// answerSize is what one response holds at most, in bytes, unless one element
// is larger.
const answerSize = 256 << 10

// session is a BOSH session and the stream's Transport (transport.go).
//
// Requests are taken in the order of their rid, each when the stream has read
// what came before: so no more of a client's words than its window wait here.
// Then they are held, at most hold of them, for what there is to tell; answers go
// out in the same order. The last ones are remembered for who lost them.
type session struct {
	l      *listener
	sid    string
	addr   net.Addr
	origin netip.Prefix
	tls    *tls.ConnectionState // nil: the client came without
	pace   *rate.Limiter

	wait       time.Duration
	hold       int
	requests   int
	acks       bool
	creation   *request
	inactivity time.Duration

	mu       sync.Mutex
	next     uint64               // the rid that is taken next
	coming   int                  // requests whose bodies are being read
	early    map[uint64]*exchange // came before their turn, within the window
	held     []*exchange          // taken, not answered, by rid
	answered []*answer            // the last ones, oldest first
	idle     func() bool          // ends the clock of inactivity; nil: a request is there
	sat      uint64               // how often that has begun
	rest     time.Duration        // after it: inactivity, or the pause
	polled   time.Time            // when an empty request was last taken
	barren   bool                 // and its answer was empty
	over     condition            // why it ended, when it was for that
	ended    bool                 // nothing is taken any more

	in    [][]byte // messages for the stream's reader
	beat  bool     // an empty request has come
	wake  chan struct{}
	due   time.Time // the reader's deadline
	empty bool      // the reader's: what Fill returned was a beat
	deaf  bool      // there is no reader any more

	out      [][]byte // elements for the client
	size     int      // of them
	sending  int      // bytes of answers that were not written yet
	header   []byte   // attributes of a stream that has just opened
	inside   bool     // who has logged in
	closed   bool     // our end of the stream is closed
	reason   condition
	told     bool // and the client knows
	drained  func()
	gone     chan struct{} // closed when told or ended
	goneOnce sync.Once
}

// exchange is a request whose answer is due.
type exchange struct {
	q     *request
	reply chan *answer // takes one; nil: another connection has it
	timer func() bool  // ends its wait; nil: it has not begun
	lost  bool         // its connection is
}

// answer is a response that may be asked for again.
type answer struct {
	rid  uint64
	body []byte
	size int // of its elements, until it was written
	last bool
}

func newSession(l *listener, q *request, addr net.Addr, secure bool) *session {
	s := &session{
		l: l, sid: rand.Text(), addr: addr, origin: stream.OriginOf(addr), pace: rate.NewLimiter(requestRate, requestBurst),
		wait: min(time.Duration(q.wait)*time.Second, l.cfg.Wait), hold: min(q.hold, maxHold), acks: q.acks, creation: q,
		inactivity: l.cfg.Inactivity, next: q.rid, early: map[uint64]*exchange{}, wake: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	if s.wait <= 0 || s.hold <= 0 { // XEP-0124 §12
		s.wait, s.hold = 0, 0
		s.inactivity += l.cfg.Polling
	}
	s.requests, s.rest = s.hold+1, s.inactivity
	if secure {
		s.tls = &tls.ConnectionState{HandshakeComplete: true} // not necessarily with us: no channel binding
	}
	return s
}

// arrive lets a request's body come when it is its turn: of those that are not
// wanted none is read, and only as many at a time as may be there. leave follows.
func (s *session) arrive(ctx context.Context, q *request) (wanted bool, err error) {
	if err := s.pace.Wait(ctx); err != nil {
		return false, fmt.Errorf("BOSH request: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming > s.requests { // one more than the window: for who pauses, or leaves
		return false, errCrowd
	}
	s.coming++
	return !s.ended && !s.told && q.rid >= s.next && q.rid < s.next+s.window(q), nil
}

func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming--
}

var errCrowd = errors.New("more requests at a time than the session may make")

// serve takes one request and writes its answer.
func (s *session) serve(ctx context.Context, q *request, write func([]byte) error) {
	x := &exchange{q: q, reply: make(chan *answer, 1)}
	a := s.take(x)
	if a == nil {
		select {
		case a = <-x.reply:
		case <-ctx.Done():
			s.lose(x)
			return
		}
	}
	if a == nil { // the client asks for it by another connection
		_ = write(terminated(otherRequest))
		return
	}
	s.wrote(a, write(a.body))
}

// take puts a request in its place; the answer is one that is there at once.
func (s *session) take(x *exchange) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	rid := x.q.rid
	switch {
	case s.ended:
		return &answer{body: terminated(s.verdict())}
	case s.told:
		return &answer{body: terminated(itemNotFound)}
	case rid < s.next:
		return s.again(x)
	case rid >= s.next+s.window(x.q): // XEP-0124 §14.2
		s.l.refused.WithLabelValues(string(itemNotFound)).Inc()
		s.stop(itemNotFound)
		return &answer{body: terminated(itemNotFound)}
	}
	if old := s.early[rid]; old != nil {
		old.reply <- nil
	}
	s.early[rid] = x
	s.awake()
	s.advance()
	return nil
}

// window is how many rids are taken: one more for who pauses or leaves (§11).
func (s *session) window(q *request) uint64 {
	if q.pause > 0 || q.terminate {
		return uint64(s.requests) + 1
	}
	return uint64(s.requests)
}

// again is for a request that has come before (XEP-0124 §14.3): the client did
// not get its answer, or its connection was lost while it was held. s.mu is held.
func (s *session) again(x *exchange) *answer {
	rid := x.q.rid
	if i := slices.IndexFunc(s.held, func(h *exchange) bool { return h.q.rid == rid }); i >= 0 {
		old := s.held[i]
		if !old.lost {
			old.reply <- nil
		}
		old.timer()
		x.q = old.q // what came first counts
		s.held[i] = x
		s.limit(x)
		s.awake()
		s.flush()
		return nil
	}
	if i := slices.IndexFunc(s.answered, func(a *answer) bool { return a.rid == rid }); i >= 0 {
		s.l.replays.Inc()
		return s.answered[i]
	}
	s.l.refused.WithLabelValues(string(itemNotFound)).Inc()
	s.stop(itemNotFound)
	return &answer{body: terminated(itemNotFound)}
}

// advance takes what is next, as long as the reader has nothing left to do;
// s.mu is held.
func (s *session) advance() {
	for len(s.in) == 0 && !s.ended {
		x := s.early[s.next]
		if x == nil {
			break
		}
		delete(s.early, s.next)
		s.next++
		s.process(x)
	}
	s.repose()
}

// process is s.mu held.
func (s *session) process(x *exchange) {
	q := x.q
	s.rest = s.inactivity
	switch {
	case s.tooOften(q):
		s.l.refused.WithLabelValues(string(policyViolation)).Inc()
		s.held = append(s.held, x)
		s.limit(x)
		s.stop(policyViolation)
		return
	case s.deaf:
	case q == s.creation, q.restart:
		s.in = append(s.in, q.opening())
	case q.terminate:
		s.in = append(append(s.in, q.frames...), closing())
	case len(q.frames) == 0:
		s.beat = true
	default:
		s.in = append(s.in, q.frames...)
	}
	s.nudge()
	s.held = append(s.held, x)
	s.limit(x)
	if q.pause > 0 {
		s.pause(time.Duration(q.pause) * time.Second)
		return
	}
	s.flush()
	for len(s.held) > s.keeps(q) {
		s.answer()
	}
}

// keeps is how many requests are held after this one; the first and the last one
// in any case, because they bring an answer soon.
func (s *session) keeps(q *request) int {
	if q == s.creation || q.terminate {
		return max(s.hold, 1)
	}
	return s.hold
}

// limit bounds how long a request waits; s.mu is held.
func (s *session) limit(x *exchange) {
	d := s.wait
	if x.q == s.creation || x.q.terminate {
		d = max(d, time.Second)
	}
	x.timer = s.l.clock.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for slices.Contains(s.held, x) { // those before it are as old, but for one that came again
			s.answer()
		}
		s.repose()
	})
}

// tooOften is XEP-0124 §11 and §12; s.mu is held.
func (s *session) tooOften(q *request) bool {
	if len(q.frames) > 0 || q == s.creation || q.restart || q.terminate || q.pause > 0 {
		s.polled = time.Time{}
		return false
	}
	now := s.l.clock.Now()
	soon := now.Sub(s.polled) < s.l.cfg.Polling
	s.polled = now
	return soon && s.hold == 0 && s.barren
}

// pause answers everything and lets the client be away for longer (XEP-0124
// §10); s.mu is held.
func (s *session) pause(d time.Duration) {
	if d > s.l.cfg.MaxPause {
		s.l.refused.WithLabelValues(string(policyViolation)).Inc()
		s.stop(policyViolation)
		return
	}
	s.rest = d
	for len(s.held) > 0 {
		s.bare()
	}
}

// lose notes that a request's connection is gone: its answer waits until the
// client asks for it again.
func (s *session) lose(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.lost = true
	if s.early[x.q.rid] == x {
		delete(s.early, x.q.rid)
	}
	s.repose()
}

// awake stops the clock of inactivity; s.mu is held.
func (s *session) awake() {
	if s.idle != nil {
		s.idle()
		s.idle = nil
	}
}

// repose starts it when no request is there; s.mu is held.
func (s *session) repose() {
	if s.ended || s.told || s.idle != nil || len(s.early) > 0 && s.early[s.next] != nil {
		return
	}
	if slices.ContainsFunc(s.held, func(x *exchange) bool { return !x.lost }) {
		return
	}
	s.sat++
	this := s.sat
	s.idle = s.l.clock.AfterFunc(s.rest, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.idle != nil && s.sat == this {
			s.stop(itemNotFound) // XEP-0124 §10
		}
	})
}

// fail ends the session with a condition.
func (s *session) fail(c condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(c)
}

// stop ends the session now: the stream above finds its connection lost, and
// may be resumed. s.mu is held.
func (s *session) stop(c condition) {
	if s.ended {
		return
	}
	s.over, s.ended = c, true
	s.awake()
	for _, x := range s.early {
		s.held = append(s.held, x)
	}
	s.early = nil
	for _, x := range s.held {
		if x.timer != nil {
			x.timer()
		}
		if !x.lost {
			x.reply <- &answer{body: terminated(s.verdict())}
		}
	}
	s.held = nil
	s.unremember()
	s.l.sessions.remove(s)
	s.nudge()
	s.goneOnce.Do(func() { close(s.gone) })
}

func (s *session) verdict() condition {
	if s.over == "" {
		return itemNotFound
	}
	return s.over
}
