package sessions

import (
	"testing"
	"time"

	"parley/parser/jid"
)

func ref(conn uint64, at string) Ref { return Ref{Node: "n", Conn: conn, JID: jid.MustParse(at)} }

func TestBindReplacesTheSameFullJID(t *testing.T) {
	r := NewRegistry()
	if old := r.Bind(ref(1, "a@b/c"), State{}); old != nil {
		t.Fatalf("replaced %v", old)
	}
	if old := r.Bind(ref(2, "a@b/c"), State{}); old == nil || old.Conn != 1 {
		t.Fatalf("replaced %v, want stream 1", old)
	}
	if n := len(r.Account(jid.MustParse("a@b"))); n != 1 {
		t.Errorf("%d sessions with one address", n)
	}
	if _, ok := r.Unbind(ref(1, "a@b/c")); ok {
		t.Error("the replaced stream took its successor away")
	}
}

func TestEntriesAreSnapshots(t *testing.T) {
	r := NewRegistry()
	at := ref(1, "a@b/c")
	r.Bind(at, State{})
	before, _ := r.Find(at.JID)
	r.Change(at, func(s *State) { s.Priority = 5 })
	after, _ := r.Find(at.JID)
	if before.Priority != 0 || after.Priority != 5 {
		t.Errorf("before %d, after %d", before.Priority, after.Priority)
	}
	r.Unbind(at)
	if _, ok := r.Change(at, func(*State) {}); ok {
		t.Error("changed a session that is gone")
	}
	if r.Len() != 0 {
		t.Error("an account without sessions is kept")
	}
}

// A live message that comes while older ones are replayed waits in the
// archive, and the replay looks there once more.
func TestReplayAndLiveMessagesDoNotOvertake(t *testing.T) {
	r := NewRegistry()
	at := ref(1, "a@b/c")
	r.Bind(at, State{Replaying: true})
	if !r.Holds(at, 7) {
		t.Fatal("a live message overtakes the replay")
	}
	if r.GoLive(at, nil) {
		t.Fatal("the message that was held back is forgotten")
	}
	if !r.GoLive(at, nil) {
		t.Fatal("the replay does not end")
	}
	if r.Holds(at, 7) {
		t.Error("a live session does not get its messages")
	}
}

// What may have been missed makes a replay that is at work look once more; of
// a session that is live that is told.
func TestReplaysLookOnceMore(t *testing.T) {
	r := NewRegistry()
	at := ref(1, "a@b/c")
	r.Bind(at, State{Replaying: true})
	if !r.Miss(at) || r.GoLive(at, nil) {
		t.Error("the replay does not look again")
	}
	if !r.GoLive(at, nil) || r.Miss(at) {
		t.Error("a session that is live looks")
	}
	if r.Holds(at, 7) {
		t.Error("a session that is live does not get its messages")
	}
}

// A message that the replay has brought does not come again live.
func TestReplayedMessagesDoNotComeTwice(t *testing.T) {
	r := NewRegistry()
	at := ref(1, "a@b/c")
	r.Bind(at, State{Replaying: true})
	r.GoLive(at, map[int64]struct{}{7: {}})
	e, _ := r.Find(at.JID)
	if !e.Had(7) || !r.Holds(at, 7) {
		t.Error("row 7 comes twice")
	}
	if e.Had(8) || r.Holds(at, 8) {
		t.Error("row 8 does not come")
	}
	r.Settle(at)
	if e, _ := r.Find(at.JID); e.Had(7) {
		t.Error("kept for ever")
	}
}

func TestReceives(t *testing.T) {
	for _, c := range []struct {
		st   State
		want bool
	}{
		{State{}, false},
		{State{Available: true}, true},
		{State{Available: true, Priority: -1}, false},
		{State{Priority: 5}, false},
	} {
		e := Entry{State: c.st}
		if e.Receives() != c.want {
			t.Errorf("%+v: %v", c.st, !c.want)
		}
	}
}

// A session whose address a newer one has elsewhere ends here once, with its
// last state.
func TestOustedSessionsEndOnce(t *testing.T) {
	r := NewRegistry()
	r.Mirror("n", func(jid.JID) {})
	at := ref(1, "a@b/c")
	r.Bind(at, State{Available: true})
	rival := &Entry{Ref: Ref{Node: "m", Conn: 1, JID: at.JID}, State: State{BoundAt: time.Now()}}
	if out := r.Adopt("m", at.JID.Bare(), []*Entry{rival}); len(out) != 1 || out[0].Ref != at {
		t.Fatalf("ousted %v", out)
	}
	if e, ok := r.Unbind(at); !ok || !e.Available {
		t.Fatalf("ended as %v, %v", e, ok)
	}
	if _, ok := r.Unbind(at); ok {
		t.Error("ended twice")
	}
	if e, ok := r.Find(at.JID); !ok || e.Ref != rival.Ref {
		t.Error("it took its successor away")
	}
}

// at is a session of another node that began so many seconds after others.
func at(node string, conn uint64, seconds int64) *Entry {
	return &Entry{Ref: Ref{Node: node, Conn: conn, JID: jid.MustParse("a@b/c")}, State: State{BoundAt: time.Unix(seconds, 0)}}
}

// Of two sessions of other nodes with one address the newer one counts, and when
// it ends the other one does, which its node does not show again.
func TestOlderSessionComesForthWhenItsAddressIsFree(t *testing.T) {
	account := jid.MustParse("a@b")
	is := func(r *Registry, want *Entry) {
		t.Helper()
		got, ok := r.Find(jid.MustParse("a@b/c"))
		if ok != (want != nil) || ok && got.Ref != want.Ref {
			t.Errorf("found %v, want %v", got, want)
		}
	}
	older, newer, newest := at("m", 1, 1), at("o", 2, 2), at("n", 3, 3)
	for _, first := range []*Entry{older, newer} {
		r := NewRegistry()
		r.Mirror("n", func(jid.JID) {})
		told := 0
		r.Adopted(func(*Entry) { told++ })
		second := older
		if first == older {
			second = newer
		}
		r.Adopt(first.Node, account, []*Entry{first})
		r.Adopt(second.Node, account, []*Entry{second})
		is(r, newer)
		r.Bind(newest.Ref, newest.State)
		is(r, newest)
		if n := len(r.On("m")) + len(r.On("o")); n != 2 {
			t.Errorf("%d sessions of other nodes", n)
		}
		told = 0
		r.Unbind(newest.Ref)
		is(r, newer)
		r.Adopt("o", account, nil)
		is(r, older)
		if told != 2 {
			t.Errorf("told of %d sessions that count again", told)
		}
		r.Adopt("o", account, []*Entry{newer})
		r.Unbind(older.Ref) // its node is gone
		r.Adopt("o", account, nil)
		is(r, nil)
		if r.Len() != 0 || len(r.On("m")) != 0 {
			t.Error("something is kept")
		}
	}
}

// This node's own session that has to go is ended, and does not come back.
func TestOwnSessionThatIsOustedStaysAway(t *testing.T) {
	r := NewRegistry()
	r.Mirror("n", func(jid.JID) {})
	own, other := at("n", 1, 1), at("m", 2, 2)
	r.Bind(own.Ref, own.State)
	if ousted := r.Adopt("m", own.JID.Bare(), []*Entry{other}); len(ousted) != 1 || ousted[0].Ref != own.Ref {
		t.Errorf("ousted %v", ousted)
	}
	r.Adopt("m", own.JID.Bare(), nil)
	if r.Len() != 0 {
		t.Error("it is back")
	}
}
