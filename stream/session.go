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
// it. Lock order: Session.mu before the transport's.
type Session struct {
	srv      *Server
	ref      sessions.Ref
	received atomic.Uint64 // stanzas read; the Seq of the last one
	durable  atomic.Uint64 // stanzas that are done and stored: the h of XEP-0198

	mu        sync.Mutex
	conn      *Conn        // nil: hibernated or ended
	ended     bool         // has left the house, or is about to
	sm        *management  // nil: no stream management
	csi       csi          //
	unwritten []int64      // without stream management: rows the socket has not taken yet
	bindDone  chan string  // the answer to Bind; nil once it is there
	lastHeard atomic.Int64 // unix seconds, for the idle check
}

// newSession registers a session under its number.
func (s *Server) newSession(c *Conn, ref sessions.Ref) *Session {
	sess := &Session{srv: s, ref: ref, conn: c, bindDone: make(chan string, 1)}
	s.sessions.Store(ref.Conn, sess)
	return sess
}

func (s *Session) heard() {
	if s != nil {
		s.lastHeard.Store(s.srv.env.Clock.Now().Unix())
	}
}

// bind asks the house for the address and waits for the answer: "" or why not.
func (s *Session) bind(ctx context.Context, st sessions.State) (string, error) {
	if err := s.srv.send(ctx, &channel.Envelope{Kind: channel.Bind, Session: s.ref, State: &st}); err != nil {
		return "", err
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
	for {
		old := s.durable.Load()
		if e.Seq <= old {
			return false
		}
		if s.durable.CompareAndSwap(old, e.Seq) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sm.ackOwed(s)
}

// take appends one delivery; true: a flush is due.
func (s *Session) take(e *channel.Envelope, rendered []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if s.csi.holds(e, rendered) {
		return false
	}
	s.csi.release(s)
	return s.put(e, rendered)
}

// put queues behind everything else; s.mu is held.
func (s *Session) put(e *channel.Envelope, rendered []byte) bool {
	if s.overflows(len(rendered)) {
		s.overflow()
		return false
	}
	if s.sm != nil {
		s.sm.sent(e, rendered)
	} else if e.Pending != 0 {
		s.unwritten = append(s.unwritten, e.Pending)
	}
	if s.conn == nil {
		return false
	}
	s.conn.sendStanza(rendered)
	return true
}

// overflows tells whether n more bytes are too many for a client that does not
// read. An empty outbox takes any one stanza (house: back-pressure).
func (s *Session) overflows(n int) bool {
	waiting := s.sm.bytes()
	if s.conn != nil {
		waiting = max(waiting, s.conn.tr.Pending())
	}
	return waiting > 0 && waiting+n > int(s.srv.cfg.Outbox)
}

// overflow detaches a slow client, or closes it when it cannot come back
// (reliability row 5). Stored messages stay pending.
func (s *Session) overflow() {
	s.srv.metrics.overflows.Inc()
	c := s.conn
	if c == nil { // hibernated and full: the rest waits in the archive
		return
	}
	go c.cut(s.sm != nil)
}

// cut ends the connection of a client that does not read.
func (c *Conn) cut(resumable bool) {
	c.log.Info("client does not read: cut off", "jid", c.account.String(), "resumable", resumable)
	if resumable {
		c.tr.Close(0)
		return
	}
	c.abort(&stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "you do not read what you are sent"})
	c.tr.Close(0)
}

// flush gives the socket what is queued, and frees rows it has taken.
func (s *Session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return
	}
	s.sm.request(s)
	if s.conn.tr.Flush() == 0 {
		s.written()
	}
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
	s.mu.Unlock()
	if c == nil {
		go s.end(context.Background())
		return
	}
	c.abort(se)
}

// lost tells the session that its connection is gone.
func (s *Session) lost(ctx context.Context, c *Conn) {
	s.mu.Lock()
	if s.conn != c || s.ended {
		s.mu.Unlock()
		return
	}
	if s.sm.resumable() && !c.closing.Load() {
		s.hibernate()
		s.mu.Unlock()
		s.tellHibernated(ctx, true)
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
	s.conn = nil
	back := s.sm.leftovers(s)
	s.mu.Unlock()
	s.srv.sessions.Delete(s.ref.Conn)
	s.srv.forget(s)
	batch := append([]*channel.Envelope{{Kind: channel.Unbind, Session: s.ref, Seq: s.received.Load()}}, back...)
	if err := s.srv.send(ctx, batch...); err != nil {
		s.srv.log.Error("session not unbound", "jid", s.ref.JID.String(), "err", err)
	}
}
