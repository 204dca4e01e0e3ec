package stream

import (
	"context"
	"errors"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// Resumptions keeps what it takes to resume sessions after the process has
// ended, in order or not (design: D1 to D4); a feature brings it.
//
//	enabled            Begin: from now on Handled tells what a restart does not
//	                   forget (Stored), and no h goes beyond that
//	lost, resumed      Away, Sync
//	the server stops   Pause, then Unbind with system-shutdown; a node that drains
//	                   does it to those whose clients do not come (drain.go)
//	the server starts  Restore: what was left goes on without a connection, and
//	                   waits for its client as any session does that lost its own
//	ended              the Unbind says it
type Resumptions interface {
	// Begin starts with a session. It may decline: see Keeps.
	Begin(Lasting)
	// Keeps reports whether the session is one that Begin has accepted.
	Keeps(sessions.Ref) bool
	// Away notes since when the session has no connection; zero: it has one.
	Away(sessions.Ref, time.Time)
	// Heard notes that the client has the errors of all messages up to seq that
	// were refused. As long as it has not they are not counted (Refusals).
	Heard(ref sessions.Ref, seq uint64)
	// Sync returns when it is written down that everything up to seq is done,
	// which the house has said and the client has heard of.
	Sync(ctx context.Context, ref sessions.Ref, seq uint64) error
	// Pause notes what the next process has to know. The Unbind follows.
	Pause(sessions.Ref, *Outbound)
	// Moves reports whether another node could go on with the session.
	Moves(context.Context, sessions.Ref) bool
	// Restore returns what earlier processes have left. Adopt follows for
	// each of them.
	Restore(context.Context) ([]Lasting, error)
	// Take makes a session of another node this one's: that node, if it is
	// there, ends it first (Registrar.Surrender). nil: the account has none of
	// that key. Adopt follows.
	Take(ctx context.Context, k Key, account jid.JID) (*Lasting, error)
	// Adopt goes on with a session under a new number.
	Adopt(Key, sessions.Ref)
	// End drops a session that the house does not know. Others end by Unbind.
	End(sessions.Ref)
}

// Lasting is a session that outlives processes.
type Lasting struct {
	Ref    sessions.Ref
	Key    Key
	Base   uint64         // the house's count when stream management was enabled
	Window time.Duration  // how long it may be resumed
	Away   time.Time      // since when it has no connection; zero: it had one to the end
	H      uint64         // Restore: the client's stanzas that are done
	Over   bool           // Restore: it cannot go on, only H is of use
	State  sessions.State // Restore: as it was
	Sent   *Outbound      // Restore: nil: the process had no time to say
}

// Outbound is what a client had been sent and not acknowledged.
type Outbound struct {
	Acked uint64  // how many it had acknowledged
	Rows  []int64 // the archive row of each that followed; 0: none
	Heard []Heard // how far it had come in chains (channel.Link)
}

// Heard is how far a client has come in a chain when it has the first Nth of those that
// followed.
type Heard struct {
	Chain string
	Nth   int
	At    int64
}

// revive goes on with the sessions that the process before this one has left.
// The doors are still closed.
func (s *Server) revive(ctx context.Context) {
	k := s.table.Load().resumptions
	if k == nil {
		return
	}
	list, err := k.Restore(ctx)
	if err != nil {
		s.log.Error("sessions of before the start cannot be resumed", "err", err)
		return
	}
	now, n := s.env.Clock.Now(), 0
	for _, r := range list {
		if s.reviveOrEnd(ctx, k, r, now) {
			n++
		}
	}
	if len(list) > 0 {
		s.log.Info("sessions of before the start wait for their clients", "sessions", n, "expired", len(list)-n)
	}
}

// reviveOrEnd goes on with a session, if it can go on.
func (s *Server) reviveOrEnd(ctx context.Context, k Resumptions, r Lasting, now time.Time) bool {
	if !r.Over && (r.Away.IsZero() || now.Sub(r.Away) < r.Window) {
		return s.reviveOne(ctx, k, r, now)
	}
	gone := s.nextRef(r.Ref.JID)
	k.Adopt(r.Key, gone)
	k.End(gone)
	s.resumes.remember(r.Key, pastSession{account: r.Ref.JID.Bare(), h: uint32(r.H)})
	return false
}

// fetch brings a session that another node has, or had, to this one. Of several
// connections that want it at once one does, and the others find what came of it.
// The error, for the stream, says that nobody could be asked.
func (s *Server) fetch(ctx context.Context, key Key, account jid.JID) error {
	k := s.table.Load().resumptions
	if k == nil {
		return nil
	}
	done, ok := s.resumes.alone(ctx, key, s.cfg.Timeouts.Login)
	if !ok {
		return nil
	}
	defer done()
	if s.resumes.knows(key) {
		return nil
	}
	asked := s.env.Clock.Now()
	l, err := k.Take(ctx, key, account)
	switch {
	case errors.Is(err, channel.ErrLost):
		s.log.Info("a session cannot be had before there is a core", "account", account.String(), "err", err)
		return shutdown()
	case err != nil:
		s.log.Warn("a session of another node cannot be had", "account", account.String(), "err", err)
	case l != nil:
		// Newer than what others still know of it, and no later than it became nobody's.
		if l.State.BoundAt = l.State.BoundAt.Add(time.Microsecond); l.State.BoundAt.Before(asked) {
			l.State.BoundAt = asked
		}
		s.reviveOrEnd(ctx, k, *l, s.env.Clock.Now())
	}
	return nil
}

// surrender gives a session to another node; it goes on there as after a
// restart. False: it is not here, or cannot go on elsewhere.
func (s *Server) surrender(ctx context.Context, key Key, account jid.JID) bool {
	sess := s.resumes.of(key)
	k := s.table.Load().resumptions
	if sess == nil || k == nil || sess.ref.JID.Bare() != account {
		return false
	}
	sess.takeover.Lock()
	defer sess.takeover.Unlock()
	if !sess.surrender(ctx) {
		return false
	}
	if sess.pause(k) {
		return true
	}
	sess.tellHibernated(ctx)
	return false
}

func (s *Server) reviveOne(ctx context.Context, k Resumptions, r Lasting, now time.Time) bool {
	sess := &Session{srv: s, ref: s.nextRef(r.Ref.JID), bindDone: make(chan string, 1), away: now}
	if !r.Away.IsZero() {
		sess.away = r.Away
	}
	sess.chains.unsure = sess.away.Add(-s.unheard())
	sess.received.Store(r.H)
	sess.durable.Store(r.H)
	sess.stored.Store(r.H)
	sess.sm = &management{key: r.Key, window: r.Window, before: r.Sent}
	if r.Sent == nil {
		sess.sm.before = &Outbound{Acked: unknown}
	}
	sess.heard()
	s.sessions.add(sess.ref.Conn, sess)
	s.resumes.add(r.Key, sess)
	k.Adopt(r.Key, sess.ref)
	st := r.State
	st.Kind, st.Hibernated, st.Paused, st.Replaying = sessions.Client, true, true, false
	reason, err := sess.bind(ctx, st)
	if err == nil && reason == "" {
		return true
	}
	s.log.Info("session of before the start is over", "jid", sess.ref.JID.String(), "reason", reason, "err", err)
	k.End(sess.ref)
	sess.end(context.WithoutCancel(ctx))
	return false
}

// unknown is how many stanzas a client has acknowledged when nobody knows.
const unknown = ^uint64(0)

// regain makes the client's count our own, once after a restart, and returns
// the rows that it turns out to have (XEP-0198 §5). What else was under way is
// lost, but for messages: those that nobody has taken are still pending, and
// the house brings them again. s.mu is held.
func (s *Session) regain(h uint32) (rows []int64, err error) {
	m := s.sm
	b := m.before
	if b == nil {
		return nil, nil
	}
	at := uint64(h)
	if b.Acked != unknown {
		then := management{acked: b.Acked, sent: b.Acked + uint64(len(b.Rows))}
		if at = then.position(h); at > then.sent {
			return nil, then.tooHigh(h)
		}
		at = max(at, b.Acked)
		for _, row := range b.Rows[:at-b.Acked] {
			if row != 0 {
				rows = append(rows, row)
			}
		}
	}
	m.before = nil
	s.chains.regain(b, at)
	m.acked, m.sent = at, at+uint64(len(m.queue))
	return rows, nil
}

// had tells the house at once which rows the client has: it must not bring
// them again.
func (s *Session) had(ctx context.Context, rows []int64) {
	if len(rows) == 0 {
		return
	}
	if err := s.srv.send(ctx, &channel.Envelope{Kind: channel.Acked, Session: s.ref, Rows: rows}); err != nil {
		s.srv.log.Warn("acknowledgements not passed on; the messages come again", "jid", s.ref.JID.String(), "err", err)
	}
}

// settle lets everything that is done be written down, so that <resumed/> may
// tell it and nothing is done twice.
func (s *Session) settle(ctx context.Context) bool {
	done := s.durable.Load()
	t := s.srv.acquire()
	defer t.Leave()
	k := t.resumptions
	if k == nil || s.stored.Load() >= done {
		return true
	}
	if err := k.Sync(ctx, s.ref, done); err != nil {
		s.srv.log.Warn("session not resumed: how far it has come cannot be written down", "jid", s.ref.JID.String(), "err", err)
		return false
	}
	raise(&s.stored, done)
	return true
}

// pauseAll leaves the sessions that may be resumed to the next process, and
// ends what else has no connection.
func (s *Server) pauseAll() {
	k := s.table.Load().resumptions
	for _, sess := range s.resumes.all() {
		if k == nil || !sess.pause(k) {
			sess.end(context.Background())
		}
	}
}

// pause is end for a session that goes on later.
func (s *Session) pause(k Resumptions) bool {
	s.mu.Lock()
	if s.ended || s.broken || !s.sm.resumable() || !k.Keeps(s.ref) || s.owes() {
		s.mu.Unlock()
		return false
	}
	s.ended, s.conn = true, nil
	s.makeRoom()
	out := s.outbound()
	back := s.leftovers()
	s.mu.Unlock()
	s.passNotes()
	s.srv.sessions.remove(s.ref.Conn)
	s.srv.resumes.remove(s.sm.key)
	k.Pause(s.ref, out)
	batch := s.detached() // what the client has taken need not come again elsewhere
	batch = append(batch, &channel.Envelope{Kind: channel.Unbind, Session: s.ref, Seq: s.received.Load(), Reason: string(stanza.StreamSystemShutdown)})
	for _, e := range back {
		if e.Pending == 0 { // what is pending waits for this very session
			batch = append(batch, e)
		}
	}
	if err := s.srv.send(context.Background(), batch...); err != nil {
		s.srv.unsent("session not paused", err, "jid", s.ref.JID.String())
	}
	return true
}

// owes reports whether the client may not have been told yet that a message was
// refused. <resumed/> would count that as handled, and only this process can tell
// (D1): its client begins anew, and sends again what it does not know to have been
// stored. s.mu is held.
func (s *Session) owes() bool {
	return s.sm.refused.Open() || slices.ContainsFunc(s.early, func(d delivery) bool { return d.refused > s.sm.base })
}

// outbound is what the client has not acknowledged, nil: nobody knows; s.mu is held.
func (s *Session) outbound() *Outbound {
	m := s.sm
	switch b := m.before; {
	case b != nil && b.Acked == unknown:
		return nil
	case b != nil: // not resumed yet: what it was sent it was sent then
		return b
	}
	out := &Outbound{Acked: m.acked, Rows: make([]int64, len(m.queue))}
	for i, d := range m.queue {
		out.Rows[i] = d.row
	}
	out.Heard = s.chains.heard(m.queue, s.early)
	return out
}
