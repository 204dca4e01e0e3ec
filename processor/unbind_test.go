package processor

import (
	"context"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// mourner notes who has ended.
type mourner struct {
	idle
	seen *[]sessions.Entry
}

func (m mourner) Register(r *Registrar) {
	On(r, Unbound, Normal, func(_ context.Context, e *sessions.Entry) (Verdict, error) {
		*m.seen = append(*m.seen, *e)
		return Continue, nil
	})
}

// unbound is what is told when the envelopes arrive.
func unbound(t *testing.T, s *Server, batch ...*channel.Envelope) (seen []sessions.Entry) {
	t.Helper()
	detach, err := s.Attach("mourner", mourner{seen: &seen})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range batch {
		s.unbind(t.Context(), newRun(s, s.table.Load(), 1), e)
	}
	if err := detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	return seen
}

// Two nodes have given one address at the same moment: on the node of the
// session that has to go, what belongs to its end is done once. Contacts who see
// its successor are not told that it has gone.
func TestOustedSessionsAreToldOfOnce(t *testing.T) {
	for _, available := range []bool{false, true} {
		s := newBare()
		s.env.Sessions.Mirror("n", func(jid.JID) {})
		at := sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("romeo@b/x")}
		s.env.Sessions.Bind(at, sessions.State{Kind: sessions.Client, Available: true})
		s.env.Sessions.Adopt("m", at.JID.Bare(), []*sessions.Entry{{
			Ref:   sessions.Ref{Node: "m", Conn: 1, JID: at.JID},
			State: sessions.State{Kind: sessions.Client, Available: available, BoundAt: time.Now()},
		}})
		end := &channel.Envelope{Kind: channel.Unbind, Session: at}
		seen := unbound(t, s, end, end)
		if len(seen) != 1 || seen[0].Ref != at || seen[0].Available == available {
			t.Errorf("successor available %v: told of %+v", available, seen)
		}
	}
}

// A session of a node that is gone ends with its last state, also when this
// node does not know it any more; not when its address has been taken.
func TestSessionsOfADeadNodeEndByTheirLastState(t *testing.T) {
	s := newBare()
	at := sessions.Ref{Node: "m", Conn: 1, JID: jid.MustParse("romeo@b/x")}
	end := &channel.Envelope{Kind: channel.Unbind, Session: at, State: &sessions.State{Kind: sessions.Client, Available: true}}
	if seen := unbound(t, s, end); len(seen) != 1 || !seen[0].Available || seen[0].Ref != at {
		t.Errorf("told of %+v", seen)
	}
	s.env.Sessions.Bind(sessions.Ref{Node: "n", Conn: 1, JID: at.JID}, sessions.State{Kind: sessions.Client})
	if seen := unbound(t, s, end); len(seen) != 0 {
		t.Errorf("told of %+v", seen)
	}
}
