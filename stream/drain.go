package stream

// How clients go to other nodes while this one goes on (docs/cluster.md, "Rolling
// restart").
//
//	doors      are closed. Whoever tries to connect is refused by the system, and
//	           tries the next address at once (RFC 6120 §3.2.1), as load balancers
//	           do; a WebSocket is refused with 503. Words (see-other-host) would
//	           cost a connection, and few clients heed them
//	not bound  system-shutdown
//	bound      system-shutdown, so many a second. A session that can go on
//	           elsewhere stays, without a connection: its contacts see it, messages
//	           wait in it. Its client resumes it on another node, which asks for it
//	           (Registrar.Surrender). Any other one ends
//	left       whose client has not come back within timeouts.drain, or had gone
//	           before: its session is paused, as when the Server stops. It waits
//	           in the database for its client, whichever node that comes to
//
// A Server that is about to be stopped only tells everybody. The stop pauses who is
// left (pauseAll).

import (
	"context"
	"math"
	"sync"
	"time"

	"parley/plugins"
)

const (
	drainTick = 100 * time.Millisecond
	// stopPace is the least, in sessions a second, of a Server that is about to be
	// stopped.
	stopPace = 200
	// leavers is how many sessions are on their way out at a time: each may wait
	// for what its client has sent.
	leavers = 64
)

var _ plugins.Drainer = (*Server)(nil)

// drain is one call of Drain.
type drain struct {
	s     *Server
	began time.Time
	last  bool // the Server is about to be stopped
	pace  float64
	queue []*Session
	room  chan struct{} // leavers
	tasks sync.WaitGroup
}

// Drain implements plugins.Drainer.
func (s *Server) Drain(ctx context.Context, pace float64) error {
	s.draining.Store(true)
	sv := s.serving.Load()
	if sv == nil {
		return nil
	}
	s.closeDoors(sv, func(d door) bool { return d.streams })
	d := &drain{s: s, began: s.env.Clock.Now(), pace: pace, last: pace <= 0, room: make(chan struct{}, leavers)}
	if d.last {
		limited, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Drain)
		defer cancel()
		ctx, d.pace = limited, max(stopPace, 2*float64(s.sessions.len())/s.cfg.Timeouts.Drain.Seconds())
	}
	defer d.tasks.Wait()
	for budget := 0.0; ; {
		budget = math.Min(budget+d.pace*drainTick.Seconds(), max(d.pace, 1))
		s.dismissUnbound()
		all := false
		for ; budget >= 1 && !all; budget-- {
			all = !d.next(ctx)
		}
		if d.last && all || s.sessions.len() == 0 && s.conns.len() == 0 {
			return nil
		}
		if err := s.sleep(ctx, drainTick); err != nil {
			return err
		}
	}
}

// Reopen implements plugins.Drainer.
func (s *Server) Reopen(context.Context) error {
	if !s.draining.Swap(false) {
		return nil
	}
	sv := s.serving.Load()
	if sv == nil {
		return nil
	}
	return s.openDoors(sv.ctx, sv, func(d door) bool { return d.streams })
}

// sleep is by the injected clock.
func (s *Server) sleep(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	stop := s.env.Clock.AfterFunc(d, func() { close(over) })
	defer stop()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dismissUnbound ends the streams that have no session.
func (s *Server) dismissUnbound() {
	for _, c := range s.conns.all() {
		if !c.hasSession.Load() && !c.closing.Load() {
			c.abort(shutdown())
		}
	}
}

// next lets one session leave; false: there is none for now.
func (d *drain) next(ctx context.Context) bool {
	if len(d.queue) == 0 {
		d.s.sessions.each(func(sess *Session) { d.queue = append(d.queue, sess) })
	}
	for len(d.queue) > 0 {
		sess := d.queue[0]
		d.queue = d.queue[1:]
		if !d.chosen(sess) {
			continue
		}
		select {
		case d.room <- struct{}{}:
		case <-ctx.Done():
			sess.stay()
			return false
		}
		d.tasks.Go(func() {
			sess.leave(ctx)
			<-d.room
		})
		return true
	}
	return false
}

// chosen reports whether there is something to be done about a session, which is
// leaving then.
func (d *drain) chosen(sess *Session) bool {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	switch {
	case sess.ended || sess.broken || sess.leaving:
		return false
	case sess.conn != nil && sess.conn.closing.Load():
		return false
	case sess.conn != nil:
	case d.last: // the stop pauses it
		return false
	case !sess.away.Before(d.began) && d.s.env.Clock.Now().Sub(sess.away) < d.s.cfg.Timeouts.Drain:
		return false // its client may come
	}
	sess.leaving = true
	return true
}

// stay takes back that the session is leaving.
func (s *Session) stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = false
}

// leave tells the client to go elsewhere, or when it has no connection any more
// pauses the session. One that could not go on elsewhere ends.
func (s *Session) leave(ctx context.Context) {
	defer s.stay()
	k := s.srv.table.Load().resumptions
	moves := k != nil && k.Moves(ctx, s.ref)
	if s.sendAway(ctx, moves) {
		return
	}
	s.takeover.Lock()
	defer s.takeover.Unlock()
	switch {
	case moves && !s.surrender(ctx): // it has gone meanwhile, or what its client has sent cannot be finished now
	case moves && s.pause(k):
		s.srv.metrics.drained.WithLabelValues("paused").Inc()
	default:
		s.end(context.WithoutCancel(ctx))
		s.srv.metrics.drained.WithLabelValues("ended").Inc()
	}
}

// sendAway tells the client; false: the session waits without a connection. It stays
// when it moves.
func (s *Session) sendAway(ctx context.Context, moves bool) bool {
	s.mu.Lock()
	c := s.conn
	if gone := s.ended || c != nil && c.closing.Load(); gone || c == nil {
		s.mu.Unlock()
		return gone
	}
	stays := moves && s.sm.resumable() && !s.broken
	if stays {
		s.hibernate()
	}
	s.broken = !stays
	s.mu.Unlock()
	c.log.Info("sent to another node", "jid", s.ref.JID.String(), "goes on", stays)
	s.srv.metrics.drained.WithLabelValues("told").Inc()
	c.abort(shutdown())
	if stays {
		s.tellHibernated(ctx)
	}
	return true
}
