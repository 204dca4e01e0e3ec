package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// crowd binds sessions of that many accounts.
func (m *member) crowd(people int) {
	for i := range people {
		m.bind(uint64(i+1), fmt.Sprintf("u%d@localhost/x", i))
	}
}

// ends takes that many ends of sessions from the processor, which has told of
// each once.
func (m *member) ends(n int) {
	m.w.Helper()
	seen := map[sessions.Ref]bool{}
	for range n {
		e := m.processor.next(m.w.T)
		if e.Kind != channel.Unbind || e.State == nil || seen[e.Session] {
			m.w.Errorf("%s: %s of %s", m.opt.Name, e.Kind, e.Session.JID)
		}
		seen[e.Session] = true
		m.registry.Unbind(e.Session)
	}
}

// quiet returns when there is nothing left to do about nodes that are gone.
func (m *member) quiet() {
	m.w.Helper()
	for deadline := time.Now().Add(soon); len(m.graves.snapshot()) > 0; {
		if time.Now().After(deadline) {
			m.w.Fatalf("%s is not done", m.opt.Name)
		}
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(soon / 1000):
		}
	}
}

// share is how many of the node's sessions it is whose turn to end.
func (m *member) share(of *member, people int) (mine int) {
	for i := range people {
		if o, _ := newView([]Member{m.members.Self(), of.members.Self()}).owner(fmt.Sprintf("u%d@localhost", i), "processor"); o.Node == m.opt.Name {
			mine++
		}
	}
	return mine
}

// Whose turn it is to tell of a dead node's sessions dies as well, before it has
// told: the next one does (reliability row 32).
func TestReliability32TheTellerDiesToo(t *testing.T) {
	const people = 50
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	c.crowd(people)
	b.processor.shut = make(chan struct{})
	mine := a.share(b, people)
	if mine == 0 || mine == people {
		t.Fatalf("a has a share of %d", mine)
	}
	c.stop()
	a.ends(mine)
	b.stop()
	a.ends(people - mine)
	a.quiet()
	if n := len(a.registry.On("c")); n != 0 {
		t.Errorf("%d ghosts", n)
	}
}

// What it has told before it dies is not told again.
func TestReliability32TheTellerHasTold(t *testing.T) {
	const people = 600 // several batches
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	c.crowd(people)
	mine := a.share(b, people)
	c.stop()
	a.ends(mine)
	b.ends(people - mine)
	a.quiet()
	b.quiet()
	b.stop()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := a.Buried(ctx, "b", 0, jid.MustParse("u0@localhost")); err != nil {
		t.Fatal(err)
	}
	a.quiet()
	if n := len(a.processor.got); n != 0 {
		t.Errorf("%d sessions have ended twice", n)
	}
	if n := len(a.registry.On("c")); n != 0 {
		t.Errorf("%d ghosts", n)
	}
}

// Whose turn it is knows nothing of a session, or says nothing: after a while
// the others tell of it.
func TestReliability32TheTellerIsSilent(t *testing.T) {
	const people = 20
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	c.crowd(people)
	b.processor.shut = make(chan struct{})
	mine := a.share(b, people)
	c.stop()
	a.ends(mine)
	a.graves.mu.Lock()
	for _, g := range a.graves.all {
		g.since = g.since.Add(-2 * graveWait)
	}
	a.graves.mu.Unlock()
	a.ends(people - mine)
	a.quiet()
}

// However long it takes to end sessions, who comes and goes is noticed; a later
// life of their node waits until it is done.
func TestEndingSessionsHoldsUpNobodyElse(t *testing.T) {
	w := newWorld(t)
	a, c := w.enter("a"), w.enter("c")
	c.crowd(3)
	a.processor.shut = make(chan struct{})
	c.stop()
	again := w.starting("c")
	again.begin()
	d := w.enter("d") // which has met all that are let in
	if !d.Alive("c") {
		t.Fatal("d came before c")
	}
	a.mu.Lock()
	_, in := a.lives["c"]
	a.mu.Unlock()
	if in {
		t.Error("the next life is let in while the sessions of the one before it are being ended")
	}
	close(a.processor.shut)
	a.ends(3)
	again.meet()
	kept := again.bind(9, "u1@localhost/x")
	if !a.sees(t, kept) {
		t.Error("the next life's session is not seen")
	}
}

// The features note a death before anybody is told of it, with the life that is
// over, and again when they could not.
func TestDeathsAreNotedFirst(t *testing.T) {
	w := newWorld(t)
	a := w.starting("a")
	noted := make(chan uint64, graveTries)
	failing := true
	a.OnDeath(func(_ context.Context, node string, life uint64) error {
		if node != "b" || len(a.processor.got) > 0 {
			t.Errorf("%s: %d told", node, len(a.processor.got))
		}
		noted <- life
		defer func() { failing = false }()
		if failing {
			return errors.New("not now")
		}
		return nil
	})
	a.begin()
	b := w.enter("b")
	life := b.Life()
	b.crowd(1)
	b.stop()
	a.ends(1)
	a.quiet()
	if first, second := <-noted, <-noted; first != life || second != life || len(noted) > 0 {
		t.Errorf("noted %d, %d and %d more", first, second, len(noted))
	}
}

// A node that is starting is told what to forget, and shown who is there: nobody
// waits until it has begun.
func TestAStartingNodeHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	a := w.enter("a")
	b := w.starting("b")
	b.meet()
	heard := make(chan string, 1)
	b.On("topic", func(key string) { heard <- key })
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for len(a.others()) == 0 && ctx.Err() == nil { // until a counts on it
		a.mu.Lock()
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(soon / 1000):
		}
	}
	if err := a.Tell(ctx, "topic", "x"); err != nil || <-heard != "x" {
		t.Error(err)
	}
	romeo := sessions.Ref{Node: "a", Conn: 1, JID: jid.MustParse("romeo@localhost/orchard")}
	a.registry.Bind(romeo, sessions.State{Kind: sessions.Client, BoundAt: time.Now()})
	select {
	case <-a.showTo(a.others(), romeo.JID.Bare(), &peerSet{}):
	case <-ctx.Done():
		t.Fatal("it does not look")
	}
	if !b.sees(t, romeo) {
		t.Error("it has not seen who is there")
	}
}
