package stream

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/sessions"
)

// nsPing is the namespace of XEP-0199.
const nsPing = "urn:xmpp:ping"

// How often the sessions are looked at: a fraction of the shortest time that
// anything may take, within these bounds.
const (
	watchFraction = 8
	watchLeast    = 100 * time.Millisecond
	watchMost     = 10 * time.Second
)

// watchSessions asks silent clients whether they are there, cuts those that do
// not answer, and ends sessions that nobody resumes, until ctx is done. One
// goroutine looks at them all: a session costs no timer.
func (s *Server) watchSessions(ctx context.Context) {
	every := watchMost
	for _, d := range []time.Duration{s.cfg.Timeouts.Idle, s.cfg.Resumption.RequestGap, s.cfg.Resumption.Window} {
		if d > 0 {
			every = min(every, max(d/watchFraction, watchLeast))
		}
	}
	for plugins.Pause(ctx, s.env.Clock, every) {
		now := s.env.Clock.Now()
		s.sessions.each(func(sess *Session) { sess.check(ctx, now) })
	}
}

// check does what the time has come for.
func (s *Session) check(ctx context.Context, now time.Time) {
	s.mu.Lock()
	c := s.conn
	switch {
	case s.ended || s.broken || s.opening:
	case c == nil:
		if !s.away.IsZero() && now.Sub(s.away) >= s.sm.window {
			s.broken = true
			s.mu.Unlock()
			s.srv.log.Debug("not resumed in time", "jid", s.ref.JID.String())
			s.end(context.WithoutCancel(ctx))
			return
		}
	case c.closing.Load():
	case s.silent(now):
		resumable := s.sm.resumable()
		s.mu.Unlock()
		c.giveUp(resumable)
		return
	default:
		s.askIfDue(now)
	}
	s.mu.Unlock()
}

// silent reports whether the client owes an answer for too long. Whatever it
// sends meanwhile counts: a client whose reading is slowed down answers late.
// s.mu is held.
func (s *Session) silent(now time.Time) bool {
	heard := time.Unix(0, s.lastHeard.Load())
	asked := s.pinged
	if s.sm != nil {
		asked = s.sm.asked
	} else if !heard.Before(s.pinged) {
		s.pinged, asked = time.Time{}, time.Time{}
	}
	if asked.IsZero() {
		return false
	}
	if heard.After(asked) {
		asked = heard
	}
	return now.Sub(asked) >= s.srv.cfg.Resumption.RequestGap
}

// askIfDue asks for an acknowledgement of what has waited for one, and asks a
// silent client whether it is there. s.mu is held.
func (s *Session) askIfDue(now time.Time) {
	heard := time.Unix(0, s.lastHeard.Load())
	idle := s.srv.cfg.Timeouts.Idle > 0 && now.Sub(heard) >= s.srv.cfg.Timeouts.Idle
	switch {
	case s.sm != nil && s.sm.asked.IsZero():
		if idle || s.sm.waitsSince(now.Add(-requestAfter)) {
			s.ask()
			s.conn.tr.Flush()
		}
	case s.sm == nil && idle && s.pinged.IsZero() && s.ref.Peer() == sessions.Client:
		s.pinged = now
		from, _ := jid.New("", s.ref.JID.Domain(), "")
		ping := stanza.Make(stanza.IQ, "get", from, s.ref.JID, "idle-"+rand.Text()[:8], stanza.El(nsPing, "ping"))
		s.conn.sendStanza(ping.Raw, "")
		s.conn.tr.Flush()
	}
}

// waitsSince reports whether something unacknowledged was sent before t.
func (m *management) waitsSince(t time.Time) bool {
	return len(m.queue) > 0 && m.queue[0].stamp <= t.UnixMicro()
}

// giveUp drops the connection of a client that is not there any more.
func (c *Conn) giveUp(resumable bool) {
	c.log.Info("client does not answer", "resumable", resumable)
	if resumable {
		c.tr.Close(0)
		return
	}
	c.abort(&stanza.StreamError{Condition: stanza.StreamConnectionTimeout})
}

// errands are goroutines of the server's own that it waits for when it stops.
type errands struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n returns to 0; nil: nobody waits
}

// later runs f on a goroutine of its own: for what must not be done with a
// lock held, or inside of a delivery.
func (s *Server) later(f func(context.Context)) {
	s.errands.mu.Lock()
	s.errands.n++
	s.errands.mu.Unlock()
	go func() {
		defer s.errands.done()
		f(context.Background())
	}()
}

func (e *errands) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n--; e.n == 0 && e.none != nil {
		close(e.none)
		e.none = nil
	}
}

// wait returns when no errand runs.
func (e *errands) wait() {
	e.mu.Lock()
	if e.n == 0 {
		e.mu.Unlock()
		return
	}
	if e.none == nil {
		e.none = make(chan struct{})
	}
	none := e.none
	e.mu.Unlock()
	<-none
}
