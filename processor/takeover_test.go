package processor

import (
	"context"
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
