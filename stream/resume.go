package stream

import (
	"context"
	"crypto/sha256"
	"strconv"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// takeoverWait is how long a stream that resumes waits for the one before it
// to stop reading, and for what that one read to be done.
const takeoverWait = 10 * time.Second

// pastSessions is how many ended sessions are remembered, so that a client
// that comes too late learns how much of what it sent had arrived (XEP-0198 §5).
const pastSessions = 4096

// Key stands for the id that a client resumes its session by: nobody who sees
// it can.
type Key [sha256.Size]byte

func keyOf(id string) Key { return sha256.Sum256([]byte(id)) }

// resumeTable knows the sessions that may be resumed.
type resumeTable struct {
	mu   sync.Mutex
	live map[Key]*Session
	past map[Key]pastSession
	ring []Key // of past, the oldest at next
	next int
	busy map[Key]chan struct{} // what is looked for on other nodes; closed when that is over
}

type pastSession struct {
	account jid.JID
	h       uint32
}

func (t *resumeTable) add(k Key, s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		t.live = map[Key]*Session{}
	}
	t.live[k] = s
}

// find returns the account's session, or how far it had come before it ended.
// Other accounts' ids are as unknown as made-up ones (reliability row 27).
func (t *resumeTable) find(id string, account jid.JID) (s *Session, h uint32, known bool) {
	k := keyOf(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.live[k]; s != nil && s.ref.JID.Bare() == account {
		return s, 0, true
	}
	p, ok := t.past[k]
	if !ok || p.account != account {
		return nil, 0, false
	}
	return nil, p.h, true
}

// of returns the session that may be resumed by the key; nil: there is none here.
func (t *resumeTable) of(k Key) *Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[k]
}

// alone lets one at a time look for a key on other nodes; who waited in vain for
// its turn gets false.
func (t *resumeTable) alone(ctx context.Context, k Key, within time.Duration) (done func(), ok bool) {
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		t.mu.Lock()
		other := t.busy[k]
		if other == nil {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = map[Key]chan struct{}{}
			}
			t.busy[k] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.busy, k)
				close(mine)
			}, true
		}
		t.mu.Unlock()
		if !waitFor(ctx, limit, other) {
			return nil, false
		}
	}
}

// knows reports whether the key is that of a session that is, or was, here.
func (t *resumeTable) knows(k Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, past := t.past[k]
	return past || t.live[k] != nil
}

// forget takes an ended session out and remembers how far it had come.
func (t *resumeTable) forget(s *Session) {
	s.mu.Lock()
	if s.sm == nil || s.sm.key == (Key{}) {
		s.mu.Unlock()
		return
	}
	key, h := s.sm.key, s.final()
	s.mu.Unlock()
	t.remember(key, pastSession{account: s.ref.JID.Bare(), h: h})
}

func (t *resumeTable) remove(k Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, k)
}

// remember is remove for a session that has ended for good.
func (t *resumeTable) remember(k Key, p pastSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, k)
	if t.past == nil {
		t.past = map[Key]pastSession{}
	}
	t.past[k] = p
	if len(t.ring) < pastSessions {
		t.ring = append(t.ring, k)
		return
	}
	delete(t.past, t.ring[t.next])
	t.ring[t.next] = k
	t.next = (t.next + 1) % pastSessions
}

func (t *resumeTable) all() []*Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Session, 0, len(t.live))
	for _, s := range t.live {
		list = append(list, s)
	}
	return list
}

// smResume is XEP-0198 §5 on a stream that has logged in but is not bound.
func smResume(ctx context.Context, c *Conn, el *stanza.Element) error {
	if c.phase != Authenticated {
		c.Send(smFailed(stanza.UnexpectedRequest))
		return nil
	}
	answer, err := c.resume(ctx, el)
	if err != nil {
		return err
	}
	c.Send(answer)
	return nil
}

// resume takes over the session that el names and returns <resumed/>; then
// the stream is Established, and deliveries wait until the answer is queued.
// It returns <failed/> when there is no such session: the stream may bind.
func (c *Conn) resume(ctx context.Context, el *stanza.Element) (*stanza.Element, error) {
	h, ok := parseH(el.Get("h"))
	previd := el.Get("previd")
	if !ok || previd == "" {
		return smFailed(stanza.BadRequest), nil
	}
	s, last, known := c.srv.resumes.find(previd, c.account)
	if s == nil && !known {
		if err := c.srv.fetch(ctx, keyOf(previd), c.account); err != nil {
			return nil, err
		}
		s, last, known = c.srv.resumes.find(previd, c.account)
	}
	if s == nil {
		return notFound(last, known), nil
	}
	s.takeover.Lock() // of several streams each takes over from the one before; the last one keeps it
	defer s.takeover.Unlock()
	rows, err := s.credit(h)
	if err != nil {
		return nil, err
	}
	s.passNotes()
	s.had(ctx, rows)
	had := s.surrender(ctx)
	s.mu.Lock()
	if !had || s.ended || s.broken || s.owes() {
		s.mu.Unlock()
		return s.over()
	}
	s.note(func(k Resumptions) { k.Away(s.ref, time.Time{}) })
	s.conn, s.opening, s.resending = c, true, true
	s.sm.owed, s.sm.asked, s.pinged, s.away = false, time.Time{}, time.Time{}, time.Time{}
	answer := stanza.El(stanza.NSSM, "resumed").With("previd", previd).
		With("h", strconv.FormatUint(uint64(s.sm.counted(s.durable.Load())), 10))
	s.mu.Unlock()
	s.heard()
	c.established(s)
	c.log.Info("resumed", "transport", c.tr.Name())
	s.tellHibernated(ctx)
	return answer, nil
}

// credit takes the h of <resume/>, whatever comes of that, and returns the rows
// that the client turns out to have (regain).
func (s *Session) credit(h uint32) (rows []int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, nil
	}
	if rows, err = s.regain(h); err == nil {
		err = s.acknowledged(h)
	}
	return rows, err
}

// over answers who wants to resume a session that cannot be had here. One that has
// lost its core can be had when there is another one: its client comes again.
func (s *Session) over() (*stanza.Element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orphaned {
		return nil, shutdown()
	}
	return notFound(s.final(), true), nil
}

func notFound(h uint32, known bool) *stanza.Element {
	el := smFailed(stanza.ItemNotFound)
	if known {
		el.With("h", strconv.FormatUint(uint64(h), 10))
	}
	return el
}

// surrender takes the session from the connection it has, if any, and
// waits until everything that came over that one, or over the one it has lost,
// is done: the h of <resumed/> is final, so nothing is handled twice. False: it
// cannot be had, and has ended where it owes its client an error.
func (s *Session) surrender(ctx context.Context) bool {
	s.mu.Lock()
	old := s.conn
	if s.ended || s.broken || !s.sm.resumable() || old != nil && old.closing.Load() {
		s.mu.Unlock()
		return false
	}
	if old != nil {
		s.hibernate()
	}
	left := s.left
	s.mu.Unlock()
	limit := time.NewTimer(takeoverWait)
	defer limit.Stop()
	if old != nil {
		old.abort(&stanza.StreamError{Condition: stanza.StreamConflict}) // XEP-0198 §5
		old.tr.Close(0)
	}
	if left != nil && left.closing.Load() { // its client has been told, and is elsewhere
		left.tr.Close(0)
	}
	if left != nil && !waitFor(ctx, limit, left.left) {
		s.tellHibernated(ctx)
		return false
	}
	if !waitFor(ctx, limit, s.settled()) || s.endIfOwing() || !s.settle(ctx) {
		s.tellHibernated(ctx)
		return false
	}
	return true
}

// endIfOwing ends a session that owes its client an error, and reports whether it does.
func (s *Session) endIfOwing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.owes() {
		return false
	}
	s.broken = true
	s.srv.later(s.end)
	return true
}

func waitFor(ctx context.Context, limit *time.Timer, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-limit.C:
	case <-ctx.Done():
	}
	return false
}

// settled is closed as soon as everything that was received is durable.
func (s *Session) settled() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable.Load() >= s.received.Load() {
		done := make(chan struct{})
		close(done)
		return done
	}
	if s.caughtUp == nil {
		s.caughtUp = make(chan struct{})
	}
	return s.caughtUp
}

// hibernate lets the session go on without a connection: deliveries queue up.
// s.mu is held, tellHibernated follows.
func (s *Session) hibernate() {
	s.conn, s.left = nil, s.conn
	s.away = s.srv.env.Clock.Now()
	if !s.left.pausing.Load() { // it is not the client that has gone
		since := s.away
		s.note(func(k Resumptions) { k.Away(s.ref, since) })
	}
	s.sm.asked = time.Time{}
	s.opening, s.resending = false, false
	s.makeRoom()
	s.csi.inactive = false // XEP-0352 §5.2: a resumed stream is active
	s.release()
	s.takeEarly()
}

// tellHibernated tells the house whether the session has a connection.
func (s *Session) tellHibernated(ctx context.Context) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.tellNotes()
	s.mu.Lock()
	is, ended := s.conn == nil, s.ended
	s.mu.Unlock()
	if ended {
		return
	}
	e := &channel.Envelope{Kind: channel.Change, Session: s.ref, State: &sessions.State{Hibernated: is}}
	if err := s.srv.send(ctx, e); err != nil {
		s.srv.unsent("hibernation not told", err, "jid", s.ref.JID.String())
	}
}
