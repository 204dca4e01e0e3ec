package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// Session is a bound stream. It outlives its Conn when stream management lets
// it. Lock order: takeover, telling, Session.mu, then the transport's.
type Session struct {
	srv       *Server
	ref       sessions.Ref
	received  atomic.Uint64 // stanzas read; the Seq of the last one
	durable   atomic.Uint64 // stanzas that are done, their rows stored
	stored    atomic.Uint64 // those that a restart does not forget to have been done
	lastHeard atomic.Int64  // unix nanoseconds, for the idle check
	touched   atomic.Uint64 // the batch of deliveries that flushes it
	bindDone  chan string   // the answer to Bind
	gathering atomic.Uint32 // whether a batch of its own is on the road

	takeover sync.Mutex // held by the one stream that resumes the session
	telling  sync.Mutex // keeps what the house is told about hibernation, and what is noted, in order

	mu        sync.Mutex
	conn      *Conn       // nil: hibernated or ended
	left      *Conn       // the one it had before it hibernated, as long as that may still read; nil: it does not
	ended     bool        // has left the house
	orphaned  bool        // ended, and goes on when its client resumes
	broken    bool        // is about to end; takes nothing more
	opening   bool        // the answer that gives the client its session is not out yet
	resending bool        // what was not acknowledged goes out first when it opens
	early     []delivery  // what came while opening
	unasked   unasked     // of early
	sm        *management // nil: no stream management
	csi       csi
	unwritten []int64             // without stream management: rows the socket has not taken yet
	room      chan struct{}       // closed when the outbox has drained or the connection has changed; nil: nobody waits
	caughtUp  chan struct{}       // closed when everything received is durable; nil: nobody waits
	leaving   bool                // a drain sees to it
	away      time.Time           // since when it hibernates
	pinged    time.Time           // when a silent client without stream management was asked; zero: it was not
	notes     []func(Resumptions) // what waits for passNotes
	toAttr    string              // see own: made when it is needed, for most never
	spliced   channel.Splice      // what it was made for
	chains    chains
}

// newSession registers a session under its number. Deliveries wait until open.
func (s *Server) newSession(c *Conn, ref sessions.Ref) *Session {
	sess := &Session{srv: s, ref: ref, conn: c, opening: true, bindDone: make(chan string, 1)}
	sess.heard()
	s.sessions.add(ref.Conn, sess)
	return sess
}

func (s *Session) heard() {
	if s != nil {
		s.lastHeard.Store(s.srv.env.Clock.Now().UnixNano())
	}
}

// bind asks the house for the address and waits for the answer: "" or why not.
func (s *Session) bind(ctx context.Context, st sessions.State) (string, error) {
	if err := s.srv.send(ctx, &channel.Envelope{Kind: channel.Bind, Session: s.ref, State: &st}); err != nil {
		return "", err
	}
	select {
	case reason := <-s.bindDone: // on a local road it has come already
		return reason, nil
	default:
	}
	t := time.NewTimer(s.srv.cfg.Timeouts.Login)
	defer t.Stop()
	select {
	case reason := <-s.bindDone:
		return reason, nil
	case <-t.C:
		return string(stanza.RemoteServerTimeout), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// handled notes how far the house has come; true: something was queued.
func (s *Session) handled(e *channel.Envelope) bool {
	if e.Seq == 0 {
		select {
		case s.bindDone <- e.Reason:
		default:
		}
		return false
	}
	news := raise(&s.durable, e.Seq)
	if e.Stored {
		news = raise(&s.stored, e.Seq) || news
	}
	if !news {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable.Load() >= s.received.Load() {
		s.wakeSettled()
	}
	return s.ackOwed()
}

// wakeSettled wakes who waits for what was received to be durable; s.mu is held.
func (s *Session) wakeSettled() {
	if s.caughtUp != nil {
		close(s.caughtUp)
		s.caughtUp = nil
	}
}

// raise reports whether n is more than what was counted.
func raise(count *atomic.Uint64, n uint64) bool {
	for {
		old := count.Load()
		if n <= old {
			return false
		}
		if count.CompareAndSwap(old, n) {
			return true
		}
	}
}

// safe is how many stanzas the client may be told are done, because no restart
// takes that back (promise D1; design: h never goes back). s.mu is held.
func (s *Session) safe() uint64 {
	if k := s.srv.table.Load().resumptions; k != nil && s.sm.key != (Key{}) && k.Keeps(s.ref) {
		return s.sm.refused.Below(s.stored.Load())
	}
	return s.sm.refused.Below(s.durable.Load())
}

// open lets deliveries out: the client has been told that it has a session.
func (s *Session) open() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opening {
		return
	}
	s.opening = false
	if s.resending && s.conn != nil {
		s.resend()
	}
	s.resending = false
	s.takeEarly()
	s.request()
}

// takeEarly puts what came while opening in its place; s.mu is held.
func (s *Session) takeEarly() {
	early := s.early
	s.early, s.unasked = nil, unasked{}
	for _, d := range early {
		s.put(d)
	}
}

// unasked is what the client has not asked for itself.
type unasked struct{ stanzas, bytes int }

// wait keeps what comes before the client knows that it has its session. Beyond
// the bounds of what may wait for an acknowledgement it fares like one that does
// not read. What it asked for does not count: that is a page of what it missed.
// s.mu is held.
func (s *Session) wait(d delivery) {
	s.early = append(s.early, d)
	if d.solicited {
		return
	}
	s.unasked.stanzas++
	s.unasked.bytes += d.bytes()
	switch {
	case s.unasked.stanzas == 1 || s.unasked.stanzas <= s.srv.cfg.Resumption.Unacked && s.unasked.bytes <= s.outbox():
	case s.sm.resumable():
		s.detachSlow()
	default:
		s.cutOff()
	}
}

// take appends one delivery; true: a flush is due.
func (s *Session) take(d delivery, splice channel.Splice) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.to = s.own(splice)
	switch {
	case s.ended || s.broken:
		s.srv.bounce(s.ref, d)
		return false
	case d.link != nil && (!s.follow(d.link) || len(d.raw) == 0):
		return false
	case s.opening:
		s.wait(d)
		return false
	case s.csi.holds(d):
		return false
	}
	s.release()
	return s.put(d)
}

// put queues behind everything else; s.mu is held.
func (s *Session) put(d delivery) bool {
	if s.broken {
		s.srv.bounce(s.ref, d)
		return false
	}
	if s.sm != nil {
		return s.putManaged(d)
	}
	if s.conn == nil || s.conn.closing.Load() {
		s.srv.bounce(s.ref, d)
		return false
	}
	// An empty outbox takes any one stanza (house: back-pressure).
	if waiting := s.conn.tr.Pending(); !d.solicited && waiting > 0 && waiting+d.bytes() > s.outbox() {
		s.srv.bounce(s.ref, d)
		s.cutOff()
		return false
	}
	if d.row != 0 {
		s.unwritten = append(s.unwritten, d.row)
	}
	s.conn.sendStanza(d.raw, d.to)
	return true
}

func (s *Session) outbox() int { return int(s.srv.cfg.Outbox) }

// cutOff closes a slow client that cannot come back (reliability row 5);
// stored messages stay pending. s.mu is held.
func (s *Session) cutOff() {
	s.broken = true
	s.srv.metrics.overflows.Inc()
	c := s.conn
	if c == nil {
		s.srv.later(func(ctx context.Context) { s.end(ctx) })
		return
	}
	c.log.Info("client does not read: closed", "jid", s.ref.JID.String())
	s.srv.later(func(context.Context) {
		c.abort(&stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "you do not read what you are sent"})
		c.tr.Close(0)
	})
}

// drained is what the transport calls when the peer has taken everything.
func (s *Session) drained() {
	s.mu.Lock()
	s.makeRoom()
	s.mu.Unlock()
	s.flush()
}

// flush gives the socket what is queued, and frees rows it has taken.
func (s *Session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return
	}
	s.request()
	if s.conn.tr.Flush() == 0 {
		s.written()
	}
}

// The states of gathering.
const (
	apart    uint32 = iota // what comes is flushed by who brings it
	together               // the reader flushes after its batch
	owed                   // and there is something
)

// gather lets the session's own presence, which comes back to it, wait for what
// else is answered in the batch, at the latest until its reader calls the
// result: one write for both.
func (s *Session) gather() (flush func()) {
	if !s.gathering.CompareAndSwap(apart, together) {
		return func() {} // two connections of a session that is being taken over
	}
	return func() {
		if s.gathering.Swap(apart) == owed {
			s.flush()
		}
	}
}

// gathers reports whether the session's reader will flush what e has brought.
func (s *Session) gathers(e *channel.Envelope) bool {
	if e.Class != channel.Presence || e.Session != s.ref {
		return false
	}
	return s.gathering.CompareAndSwap(together, owed) || s.gathering.Load() == owed
}

// written frees the rows of what the socket has taken; s.mu is held.
func (s *Session) written() {
	if len(s.unwritten) > 0 {
		s.srv.acks.add(s.ref, s.unwritten...)
		s.unwritten = nil
	}
}

// closeWith ends the session with a stream error; it is not resumable after.
func (s *Session) closeWith(se *stanza.StreamError) {
	s.mu.Lock()
	c := s.conn
	s.broken = s.broken || c == nil
	s.mu.Unlock()
	if c == nil {
		s.srv.later(s.end)
		return
	}
	c.abort(se)
}

// evict ends the session at once with a stream error.
func (s *Session) evict(ctx context.Context, se *stanza.StreamError) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		c.abort(se)
	}
	s.end(ctx)
}

// retire ends the session for one that takes its address elsewhere: when
// everything that its client has sent is done, so that nothing of it comes behind
// what the client sends there, or sends again.
func (s *Session) retire(ctx context.Context, se *stanza.StreamError) {
	s.mu.Lock()
	c := s.conn
	if c == nil {
		c = s.left
	}
	s.mu.Unlock()
	if c != nil {
		c.abort(se)
		c.tr.Close(0)
		limit := time.NewTimer(takeoverWait)
		defer limit.Stop()
		_ = waitFor(ctx, limit, c.left) && waitFor(ctx, limit, s.settled())
	}
	s.end(ctx)
}

// survives reports whether the session can outlive its connection.
func (s *Session) survives() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sm.resumable() && !s.broken
}

// lost tells the session that its connection is gone.
func (s *Session) lost(ctx context.Context, c *Conn) {
	s.mu.Lock()
	if s.left == c {
		s.left = nil
	}
	if s.conn != c || s.ended {
		s.mu.Unlock()
		return
	}
	// What was closed by </stream:stream> or an error is over (XEP-0198 §7), but
	// for the error that says that the server stops.
	if s.sm.resumable() && !s.broken && (!c.closing.Load() || c.pausing.Load()) {
		s.hibernate()
		s.left = nil
		s.mu.Unlock()
		s.tellHibernated(ctx)
		return
	}
	s.mu.Unlock()
	s.end(ctx)
}

// end takes the session out of the house, once: first it is unbound, so that
// nothing is routed to it any more, then what it did not take is handed back.
func (s *Session) end(ctx context.Context) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	if c := s.conn; c != nil && c.tr.Flush() == 0 { // its writer has not come to say so
		s.written()
	}
	s.conn = nil
	s.makeRoom()
	back := s.leftovers()
	s.mu.Unlock()
	s.passNotes()
	s.srv.sessions.remove(s.ref.Conn)
	s.srv.resumes.forget(s)
	batch := s.detached()
	batch = append(batch, &channel.Envelope{Kind: channel.Unbind, Session: s.ref, Seq: s.received.Load()})
	batch = append(batch, back...)
	if err := s.srv.send(ctx, batch...); err != nil {
		s.srv.unsent("session not unbound", err, "jid", s.ref.JID.String())
	}
}

// detached tells which rows the client has taken: on detach at the latest (design:
// Pending).
func (s *Session) detached() []*channel.Envelope {
	rows := s.srv.acks.takeOf(s.ref)
	if len(rows) == 0 {
		return nil
	}
	return []*channel.Envelope{{Kind: channel.Acked, Session: s.ref, Rows: rows}}
}

// leftovers are what the client was never known to have; s.mu is held.
func (s *Session) leftovers() (back []*channel.Envelope) {
	if s.sm != nil {
		for _, d := range s.sm.queue {
			back = appendLeftover(back, s.ref, d)
		}
		s.sm.queue = nil
	}
	for _, d := range s.early {
		back = appendLeftover(back, s.ref, d)
		if s.sm != nil {
			s.sm.refuses(d)
		}
	}
	s.early, s.unasked, s.csi = nil, unasked{}, csi{}
	return back
}
