package stream

// How clients go to other nodes while this one goes on (docs/cluster.md, "Rolling
// restart").
//
//	doors      are closed. Whoever tries to connect is refused by the system, and
//	           tries the next address at once (RFC 6120 §3.2.1), as load balancers
//	           do; a WebSocket is refused with 503. Words (see-other-host) would
//	           cost a connection, and few clients heed them
//	not bound  system-shutdown
//	bound      system-shutdown, so many a second. A session that may be resumed
//	           stays, without a connection: its contacts see it, messages wait in
//	           it. Its client resumes it on another node, which asks for it
//	           (Registrar.Surrender). Any other one ends
//	left       whose client does not come back within timeouts.drain, or had gone
//	           before: the session is paused, and another node goes on with it as
//	           after a restart (Resumptions.Offer). One that cannot go on elsewhere
//	           ends here

import (
	"context"
	"math"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
)

const (
	drainTick = 100 * time.Millisecond
	// stopPace is the least of a Server that is about to be stopped.
	stopPace = 200
	// leavers is how many sessions are on their way out at a time: each waits for
	// what its client has sent.
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
	defer d.tasks.Wait()
	if d.last {
		d.pace = max(stopPace, 2*float64(s.sessions.len())/s.cfg.Timeouts.Drain.Seconds())
	}
	for budget := 0.0; ; {
		budget = math.Min(budget+d.pace*drainTick.Seconds(), max(d.pace, 1))
		s.dismissUnbound()
		for budget >= 1 && d.next(ctx) {
			budget--
		}
		switch {
		case s.sessions.len() == 0 && s.conns.len() == 0:
			return nil
		case d.last && s.env.Clock.Now().Sub(d.began) >= s.cfg.Timeouts.Drain:
			d.rest(ctx)
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

func shutdown() *stanza.StreamError {
	return &stanza.StreamError{Condition: stanza.StreamSystemShutdown}
}

// next lets one session leave; false: there is nothing to be done for now.
func (d *drain) next(ctx context.Context) bool {
	if len(d.queue) == 0 {
		now := d.s.env.Clock.Now()
		d.s.sessions.each(func(sess *Session) {
			if d.due(sess, now) {
				d.queue = append(d.queue, sess)
			}
		})
	}
	for len(d.queue) > 0 {
		sess := d.queue[0]
		d.queue = d.queue[1:]
		switch {
		case sess.sendAway(ctx):
			return true
		case d.due(sess, d.s.env.Clock.Now()):
			d.bequeath(ctx, sess)
			return true
		}
	}
	return false
}

// due reports whether there is something to be done about a session.
func (d *drain) due(sess *Session, now time.Time) bool {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	switch {
	case sess.ended || sess.broken || sess.leaving:
		return false
	case sess.conn != nil:
		return !sess.conn.closing.Load()
	case sess.away.Before(d.began):
		return true
	}
	return !d.last && now.Sub(sess.away) >= d.s.cfg.Timeouts.Drain
}

// rest lets every session that has no connection leave.
func (d *drain) rest(ctx context.Context) {
	d.s.sessions.each(func(sess *Session) {
		sess.mu.Lock()
		stays := sess.ended || sess.broken || sess.leaving || sess.conn != nil
		sess.mu.Unlock()
		if !stays {
			d.bequeath(ctx, sess)
		}
	})
}

// bequeath waits until there is room for one more on its way out.
func (d *drain) bequeath(ctx context.Context, sess *Session) {
	select {
	case d.room <- struct{}{}:
	case <-ctx.Done():
		return
	}
	d.tasks.Go(func() {
		sess.bequeath(ctx)
		<-d.room
	})
}

// sendAway tells the client to go elsewhere; false: it has been told, or has
// gone. A session that it may resume stays.
func (s *Session) sendAway(ctx context.Context) bool {
	s.mu.Lock()
	c := s.conn
	if c == nil || s.ended || c.closing.Load() {
		s.mu.Unlock()
		return false
	}
	stays := s.sm.resumable() && !s.broken
	if stays {
		s.hibernate()
	}
	s.mu.Unlock()
	c.log.Info("sent to another node", "jid", s.ref.JID.String(), "resumable", stays)
	s.srv.metrics.drained.WithLabelValues("told").Inc()
	c.abort(shutdown())
	if stays {
		s.tellHibernated(ctx)
	}
	return true
}

// bequeath leaves a session without a connection to another node, or ends it
// when it cannot go on there. When what its client has sent cannot be finished
// now it stays.
func (s *Session) bequeath(ctx context.Context) {
	s.mu.Lock()
	if s.leaving {
		s.mu.Unlock()
		return
	}
	s.leaving = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.leaving = false
		s.mu.Unlock()
	}()
	k := s.srv.table.Load().resumptions
	if k == nil || !k.Moves(s.ref) {
		s.retire(ctx, shutdown())
		s.srv.metrics.drained.WithLabelValues("ended").Inc()
		return
	}
	s.takeover.Lock()
	defer s.takeover.Unlock()
	if !s.surrender(ctx) || !s.pause(k) {
		return
	}
	if err := k.Offer(ctx, s.sm.key, s.ref.JID.Bare()); err != nil {
		s.srv.log.Warn("no node is told to go on with a session; it waits for its client in the database", "jid", s.ref.JID.String(), "err", err)
	}
	s.srv.metrics.drained.WithLabelValues("handed over").Inc()
}
