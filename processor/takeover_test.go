package processor

import (
	"context"
	"sync"
	"testing"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// TestRule16TheNewestWaitsForTheEnd: a session takes an address (RFC 6120 §7.7.2.2) when
// the end of the one before it has been told, however long that takes; and not when its
// own client has gone meanwhile.
func TestRule16TheNewestWaitsForTheEnd(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		s := newBare()
		at := jid.MustParse("romeo@b/x")
		old, fresh := sessions.Ref{Node: "n", Conn: 1, JID: at}, sessions.Ref{Node: "n", Conn: 2, JID: at}
		telling, tell, told := make(chan struct{}), make(chan struct{}), false
		if _, err := s.Attach("slow", onEnd(func() {
			close(telling)
			<-tell
			told = true
		})); err != nil {
			t.Fatal(err)
		}
		do := func(k channel.Kind, ref sessions.Ref) {
			s.control(t.Context(), newRun(s, s.table.Load(), 1), &channel.Envelope{Kind: k, Session: ref, State: &sessions.State{Kind: sessions.Client}})
		}
		has := func() sessions.Ref {
			e, _ := s.env.Sessions.Find(at)
			if e == nil {
				return sessions.Ref{}
			}
			return e.Ref
		}
		do(channel.Bind, old)
		do(channel.Bind, fresh)
		if got := has(); got != old {
			t.Fatalf("%v has the address before the other one's end", got)
		}
		if leaves {
			do(channel.Unbind, fresh)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); do(channel.Unbind, old) }()
		<-telling
		if got := has(); got == fresh {
			t.Error("the address is taken while the other one's end is being told")
		}
		close(tell)
		<-ended
		s.takeovers.tasks.Wait()
		want := fresh
		if leaves {
			want = sessions.Ref{}
		}
		if got := has(); got != want || !told {
			t.Errorf("its client leaves %v: %v has the address, the end told %v", leaves, got, told)
		}
	}
}

// TestRule16OfSeveralTheNewestGetsTheAddress: two sessions wait for one address, and the
// front of a third one goes. The newest that is left gets it; the others end.
func TestRule16OfSeveralTheNewestGetsTheAddress(t *testing.T) {
	s := newBare()
	at := jid.MustParse("romeo@b/x")
	ref := func(slot int, n uint64) sessions.Ref {
		return sessions.Ref{Node: "n", Conn: sessions.Conn(slot, n), JID: at}
	}
	do := func(k channel.Kind, ref sessions.Ref) {
		s.control(t.Context(), newRun(s, s.table.Load(), 1), &channel.Envelope{Kind: k, Session: ref, State: &sessions.State{Kind: sessions.Client}})
	}
	bound := make(chan sessions.Ref, 10)
	if _, err := s.Attach("bound", onBound(func(e *sessions.Entry) { bound <- e.Ref })); err != nil {
		t.Fatal(err)
	}
	do(channel.Bind, ref(1, 1))
	<-bound
	for n := uint64(2); n <= 4; n++ {
		do(channel.Bind, ref(1, n))
	}
	do(channel.Unbind, ref(1, 1))
	if got := <-bound; got != ref(1, 4) {
		t.Errorf("%v has the address", got)
	}
	do(channel.Bind, ref(2, 5))
	s.control(t.Context(), newRun(s, s.table.Load(), 1), &channel.Envelope{Kind: channel.Unbind, Session: sessions.Ref{Node: "n", Conn: sessions.Conn(2, 0)}, Reason: channel.FrontLost})
	do(channel.Unbind, ref(1, 4))
	s.takeovers.tasks.Wait()
	if e, ok := s.env.Sessions.Find(at); ok {
		t.Errorf("%v has the address, and its front has gone", e.Ref)
	}
	if n := len(s.takeovers.waiting) + len(s.takeovers.newest); n != 0 {
		t.Errorf("%d are kept", n)
	}
}

// TestRule16WhoComesWhileAnEndIsToldIsTheNewest: a session has ended, that is still being
// told, and one waits for it; another one comes and finds the address free. It is the newest
// all the same.
func TestRule16WhoComesWhileAnEndIsToldIsTheNewest(t *testing.T) {
	s := newBare()
	at := jid.MustParse("romeo@b/x")
	ref := func(n uint64) sessions.Ref { return sessions.Ref{Node: "n", Conn: n, JID: at} }
	telling, tell := make(chan struct{}), make(chan struct{})
	var once sync.Once
	if _, err := s.Attach("slow", onEnd(func() { once.Do(func() { close(telling); <-tell }) })); err != nil {
		t.Fatal(err)
	}
	do := func(k channel.Kind, n uint64) {
		s.control(t.Context(), newRun(s, s.table.Load(), 1), &channel.Envelope{Kind: k, Session: ref(n), State: &sessions.State{Kind: sessions.Client}})
	}
	do(channel.Bind, 1)
	do(channel.Bind, 2)
	ended := make(chan struct{})
	go func() { defer close(ended); do(channel.Unbind, 1) }()
	<-telling
	do(channel.Bind, 3)
	close(tell)
	<-ended
	s.takeovers.tasks.Wait()
	if e, ok := s.env.Sessions.Find(at); !ok || e.Ref != ref(3) {
		t.Errorf("%+v has the address", e)
	}
}

// onBound is a component that does something when a session begins.
type onBound func(*sessions.Entry)

func (onBound) Start(context.Context) error { return nil }
func (onBound) Stop(context.Context) error  { return nil }
func (f onBound) Register(r *Registrar) {
	On(r, Bound, Normal, func(_ context.Context, e *sessions.Entry) (Verdict, error) {
		f(e)
		return Continue, nil
	})
}

// onEnd is a component that does something when a session ends.
type onEnd func()

func (onEnd) Start(context.Context) error { return nil }
func (onEnd) Stop(context.Context) error  { return nil }
func (f onEnd) Register(r *Registrar) {
	On(r, Unbound, Normal, func(context.Context, *sessions.Entry) (Verdict, error) {
		f()
		return Continue, nil
	})
}
