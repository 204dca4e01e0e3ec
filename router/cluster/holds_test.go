package cluster

import (
	"testing"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// What is told about a session keeps its order over hand-overs that take their
// time; other sessions do not wait.
func TestHoldsKeepTheirOrder(t *testing.T) {
	var h holds
	a := sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("a@localhost/x")}
	b := sessions.Ref{Node: "n", Conn: 2, JID: jid.MustParse("b@localhost/x")}
	done := func(ref sessions.Ref, seq uint64) *channel.Envelope {
		return &channel.Envelope{Kind: channel.Handled, Session: ref, Seq: seq}
	}
	var got []uint64
	to := func(batch []*channel.Envelope) {
		for _, e := range batch {
			got = append(got, e.Seq)
		}
	}
	deliver := &channel.Envelope{Kind: channel.Deliver, To: []sessions.Ref{b}}
	now, first := h.begin([]*channel.Envelope{deliver, done(a, 5)})
	if len(now) != 1 || now[0] != deliver {
		t.Errorf("%d go at once", len(now))
	}
	if left := h.behind([]*channel.Envelope{done(a, 6), done(b, 1)}); len(left) != 1 || left[0].Session != b {
		t.Errorf("%d do not wait", len(left))
	}
	_, second := h.begin([]*channel.Envelope{done(a, 7)})
	first(to)
	if len(got) != 0 {
		t.Errorf("%v is told while something is on its way", got)
	}
	second(to)
	if len(got) != 3 || got[0] != 5 || got[1] != 6 || got[2] != 7 {
		t.Errorf("told %v", got)
	}
	if left := h.behind([]*channel.Envelope{done(a, 8)}); len(left) != 1 || h.n.Load() != 0 {
		t.Error("something is held for ever")
	}
}
