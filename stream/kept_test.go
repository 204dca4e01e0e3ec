package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/router/channel"
	"parley/router/sessions"
)

// archivist keeps sessions and writes down what it hears.
type archivist struct {
	Resumptions // nil: what a test does not expect panics
	busy        chan struct{}
	mu          sync.Mutex
	lines       []string
}

func (a *archivist) hears(format string, args ...any) {
	a.mu.Lock()
	a.lines = append(a.lines, fmt.Sprintf(format, args...))
	a.mu.Unlock()
}

func (a *archivist) heard() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.lines)
}

func (a *archivist) Begin(l Lasting) { a.hears("begin at %d", l.Base) }

func (a *archivist) Keeps(sessions.Ref) bool { return true }

// Away waits as long as busy is open, as a front does whose core is slow.
func (a *archivist) Away(_ sessions.Ref, since time.Time) {
	if a.busy != nil {
		<-a.busy
	}
	a.hears("away %v", !since.IsZero())
}

func (a *archivist) Heard(_ sessions.Ref, seq uint64) { a.hears("heard %d", seq) }

func (a *archivist) Sync(context.Context, sessions.Ref, uint64) error { return nil }

func (h *house) keptBy(a *archivist) { h.table.Store(newTable([]*Registrar{{resumptions: a}})) }

// Who has to wait until it can tell how a session fares holds nobody else up:
// not who delivers to the session, and not who looks at it.
func TestFault5ASlowKeeperHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		a := &archivist{busy: make(chan struct{})}
		h.keptBy(a)
		c, p := h.bound(t, "a")
		id := enable(t, c, p)
		p.stuck = true
		done := false
		go func() {
			for i := range h.cfg.Resumption.Unacked + 1 {
				h.message(c.session, fmt.Sprint(i))
			}
			c.session.check(context.Background(), h.clock.Now())
			c.session.buffered()
			done = true
		}()
		synctest.Wait()
		if !done {
			t.Error("deliveries wait")
		}
		close(a.busy)
		h.errands.wait()
		c.detach(context.Background())
		resume(t, h, id, 0)
		if got := a.heard(); !slices.Equal(got, []string{"begin at 0", "away true", "away false"}) {
			t.Errorf("%q", got)
		}
	})
}

// withRefusal is a session that has sent two messages, the first of which was refused
// with an error that its client has not acknowledged.
func withRefusal(t *testing.T, h *house, a *archivist) (c *Conn, p *pipe, id string) {
	t.Helper()
	h.keptBy(a)
	c, p = h.bound(t, "a")
	id = enable(t, c, p)
	h.hold = true
	mustSay(t, c, "<message/>")
	mustSay(t, c, "<message/>")
	h.refuse(c.session, 1)
	h.done(c.session, 2)
	return c, p, id
}

func (h *house) refuse(s *Session, seq uint64) {
	h.send1(s, channel.Envelope{Session: s.ref, Seq: seq, Raw: []byte("<message type='error'/>")})
}

// done is what the house says when a batch is over, and the row of the session is
// written.
func (h *house) done(s *Session, seq uint64) {
	_ = h.deliver(context.Background(), []*channel.Envelope{{Kind: channel.Handled, Session: s.ref, Seq: seq, Stored: true}})
}

// Nobody counts a message that was refused, or what came behind it, before its
// sender has the error: it is asked at once whether it has (D1).
func TestRule58RefusalsAreCountedWhenTheyAreKnown(t *testing.T) {
	h := newHouse(t, nil)
	a := &archivist{}
	c, p, _ := withRefusal(t, h, a)
	want(t, p.read(), "<message type='error'/>"+smR)
	mustSay(t, c, smR)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='0'/>")
	mustSay(t, c, "<message/>")
	h.refuse(c.session, 3)
	h.done(c.session, 3)
	want(t, p.read(), "<message type='error'/>")
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='1'/>")
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='1'/>"+smR) // which ones are open between the first and the last is not known
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='2'/>")
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='3'/>")
	if got := a.heard(); !slices.Equal(got, []string{"begin at 0", "heard 1", "heard 3"}) {
		t.Errorf("%q", got)
	}
}

// A client that resumes, and has not the error, begins anew and learns that nothing
// is counted; one that has it goes on. So it is when the session ends otherwise, and
// when it should go on in another process.
func TestRule58NobodyResumesBehindARefusal(t *testing.T) {
	const failed = "<failed xmlns='urn:xmpp:sm:3' h='0'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
	t.Run("not known", func(t *testing.T) {
		h := newHouse(t, nil)
		c, _, id := withRefusal(t, h, &archivist{})
		cut(c.tr.(*pipe), serve(c))
		_, p := resume(t, h, id, 0)
		want(t, p.read(), failed)
		if n := len(h.sent(channel.Unbind)); n != 1 {
			t.Errorf("ended %d times", n)
		}
		_, p = resume(t, h, id, 0)
		want(t, p.read(), failed)
	})
	t.Run("known", func(t *testing.T) {
		h := newHouse(t, nil)
		c, _, id := withRefusal(t, h, &archivist{})
		cut(c.tr.(*pipe), serve(c))
		_, p := resume(t, h, id, 1)
		want(t, p.read(), "<resumed xmlns='urn:xmpp:sm:3' previd='"+id+"' h='2'/>")
	})
	t.Run("ended", func(t *testing.T) {
		h := newHouse(t, nil)
		c, _, id := withRefusal(t, h, &archivist{})
		c.session.end(context.Background())
		_, p := resume(t, h, id, 0)
		want(t, p.read(), failed)
	})
	t.Run("paused", func(t *testing.T) {
		h := newHouse(t, nil)
		a := &archivist{}
		c, _, _ := withRefusal(t, h, a)
		if c.session.pause(a) {
			t.Error("it goes on, and nobody can tell its client")
		}
	})
}

// Not every error is about what the session itself has sent, or in this life.
func TestRule58WhatIsARefusal(t *testing.T) {
	me, other := sessions.Ref{Node: "n", Conn: 1}, sessions.Ref{Node: "n", Conn: 2}
	for _, c := range []struct {
		name string
		e    channel.Envelope
		base uint64
		is   bool
	}{
		{"its own", channel.Envelope{Session: me, Seq: 3, To: []sessions.Ref{me}}, 2, true},
		{"of before it counted", channel.Envelope{Session: me, Seq: 2, To: []sessions.Ref{me}}, 2, false},
		{"of the session that had its address", channel.Envelope{Session: other, Seq: 3, To: []sessions.Ref{me}}, 0, false},
		{"somebody's", channel.Envelope{To: []sessions.Ref{me}}, 0, false},
	} {
		s := &Session{sm: &management{base: c.base}}
		s.sm.push(deliveryOf(&c.e, 1))
		if s.owes() != c.is {
			t.Errorf("%s: %v", c.name, s.owes())
		}
		s = &Session{sm: &management{base: c.base}, early: []delivery{deliveryOf(&c.e, 1)}}
		if s.owes() != c.is {
			t.Errorf("%s, early: %v", c.name, s.owes())
		}
	}
}

func TestRule58RefusalsInTheirOrder(t *testing.T) {
	var r Refusals
	if r.Open() || r.Below(7) != 7 {
		t.Error("none, and it counts")
	}
	for _, seq := range []uint64{3, 5, 9} {
		r.Add(seq)
	}
	for _, c := range []struct{ heard, of2, of9 uint64 }{{1, 2, 2}, {3, 2, 3}, {5, 2, 5}, {9, 2, 9}} {
		r.Heard(c.heard)
		if r.Below(2) != c.of2 || r.Below(9) != c.of9 {
			t.Errorf("heard of %d: %d of 2, %d of 9", c.heard, r.Below(2), r.Below(9))
		}
	}
	if r.Open() {
		t.Error("all are known")
	}
}
