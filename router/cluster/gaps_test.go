package cluster

import (
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// tellsMissed returns what a node is told to look for. Of everything it hears only
// when the result's second is closed.
func (m *member) tellsMissed() (heard chan string, hold chan struct{}) {
	heard, hold = make(chan string, 100), make(chan struct{})
	m.On(TopicMissed, func(key string) {
		if key == "" {
			<-hold
		}
		heard <- key
	})
	return heard, hold
}

func (m *member) write(t *testing.T, to sessions.Ref) {
	t.Helper()
	e := message(t, "romeo@localhost/orchard", to.JID.Bare().String())
	e.To = []sessions.Ref{to}
	if err := m.Streamers(m.streamer).Send(t.Context(), []*channel.Envelope{e}); err != nil {
		t.Fatal(err)
	}
}

func hears(t *testing.T, heard <-chan string, want string) {
	t.Helper()
	select {
	case key := <-heard:
		if key != want {
			t.Fatalf("told to look for %q, want %q", key, want)
		}
	case <-time.After(soon):
		t.Fatalf("not told to look for %q", want)
	}
}

// closed waits for the end of all gaps.
func (m *member) closed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(soon); m.gaps.n.Load() != 0; {
		if time.Now().After(end) {
			t.Fatal("a gap stays open")
		}
		if err := m.Settled(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRule58WhatComesOverAGapIsLookedFor: from what a node did not get until it
// knows that, each message says that something older may be missing, and its
// recipients look before they get it.
func TestRule58WhatComesOverAGapIsLookedFor(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	juliet := b.bind(1, "juliet@localhost/balcony")
	heard, hold := b.tellsMissed()
	a.lags("b")
	for range 2 {
		a.write(t, juliet)
		if got := b.router.next(t); !got.Behind {
			t.Error("it does not say that something may be missing")
		}
		hears(t, heard, "juliet@localhost") // as sending to router comes after
	}
	close(hold)
	hears(t, heard, "")
	a.closed(t)
	a.write(t, juliet)
	if got := b.router.next(t); got.Behind || len(heard) > 0 {
		t.Error("the gap does not end")
	}
}

// TestRule58WhoHasNotSeenASession: what comes from a node that knows of a session
// late makes that session look, each time until it is known that the node knows.
func TestRule58WhoHasNotSeenASession(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	seen, goOn := make(chan struct{}), make(chan struct{})
	a.registry.Adopted(func(*sessions.Entry) {
		close(seen)
		<-goOn // the handler does not return: b does not know that a knows
	})
	heard, hold := b.tellsMissed()
	close(hold)
	juliet := b.bind(1, "juliet@localhost/balcony")
	<-seen
	a.write(t, juliet)
	if got := b.router.next(t); got.Behind {
		t.Error("a knows of no gap")
	}
	hears(t, heard, "juliet@localhost")
	close(goOn)
	hears(t, heard, "juliet@localhost") // its last word before it knew
	hears(t, heard, "juliet@localhost") // everybody's
	b.closed(t)
	a.write(t, juliet)
	if b.router.next(t); len(heard) > 0 {
		t.Error("the gap does not end")
	}
}

// TestRule58ADeathIsAGap: who has seen a node die says so to those that may not
// have, before its clients go on here.
func TestRule58ADeathIsAGap(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	juliet := b.bind(1, "juliet@localhost/balcony")
	told, hold := make(chan struct{}), make(chan struct{})
	b.On(topicDead, func(string) {
		close(told)
		<-hold
	})
	heard, open := a.tellsMissed()
	close(open)
	c.stop()
	hears(t, heard, "") // what c has told nobody may be for somebody here
	select {
	case <-told:
	case <-time.After(soon):
		t.Fatal("a does not tell b")
	}
	a.write(t, juliet)
	if got := b.router.next(t); !got.Behind {
		t.Error("b may not know of what c has stored")
	}
	close(hold)
	a.closed(t)
}

// TestRule58WhatIsStoredStaysWithTheCore: a front has nowhere to look.
func TestRule58WhatIsStoredStaysWithTheCore(t *testing.T) {
	a := newWorld(t).enter("a")
	kept := message(t, "romeo@localhost/orchard", "juliet@localhost")
	passes := message(t, "romeo@localhost/orchard", "juliet@localhost")
	passes.Pending = 0
	batch := []*channel.Envelope{kept, passes}
	if goes, stays := a.over(destination{"f", portStreamer}, batch); len(goes) != 2 || len(stays) != 0 {
		t.Errorf("without a gap %d go and %d stay", len(goes), len(stays))
	}
	a.gaps.open("f")
	goes, stays := a.over(destination{"f", portStreamer}, batch)
	if len(goes) != 1 || goes[0] != passes || len(stays) != 1 || stays[0] != kept || passes.Behind {
		t.Errorf("over a gap %d go and %d stay", len(goes), len(stays))
	}
}

// Whoever has not seen a death looks for what the dead node has told nobody.
func TestADeathThatIsHeardOf(t *testing.T) {
	a := newWorld(t).enter("a")
	heard, open := a.tellsMissed()
	close(open)
	a.mu.Lock()
	a.ended["c"] = 7
	a.mu.Unlock()
	for _, key := range []string{"7 c", "6 c", "none", ""} {
		a.heardDead(key)
	}
	if len(heard) > 0 {
		t.Error("looks for what it knows, or for nothing")
	}
	a.heardDead("8 c")
	hears(t, heard, "")
}

// A gap that opens once more while the first one is being closed stays.
func TestGapsThatOpenAgainStayOpen(t *testing.T) {
	var g gaps
	g.open("a")
	first := g.to("a")
	g.open("a")
	if g.close("a", first); g.to("a") == 0 {
		t.Error("closed with what was missed later")
	}
	if g.left("a"); g.to("a") != 0 || g.n.Load() != 0 {
		t.Error("stays open for a node that has left")
	}
	account := jid.MustParse("juliet@localhost")
	var late peerSet
	late.add("a")
	seen := g.unseen(account, &late)
	if !g.from("a", account) || g.from("b", account) || g.from("a", jid.MustParse("romeo@localhost")) {
		t.Error("who is late, and with whom")
	}
	if seen(); g.from("a", account) || g.n.Load() != 0 {
		t.Error("late for ever")
	}
}
