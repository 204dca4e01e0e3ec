package stream

import (
	"strings"
	"testing"
)

// Who is sent away is told so. A session that can go on elsewhere stays, any other
// one ends: that nobody may resume, or that other nodes could not go on with.
func TestSentAway(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	enable(t, c, p)
	plain, q := h.bound(t, "b")
	stuck, r := h.bound(t, "c")
	enable(t, stuck, r)
	for _, x := range []struct {
		c     *Conn
		p     *pipe
		moves bool
	}{{c, p, true}, {plain, q, true}, {stuck, r, false}} {
		if !x.c.session.sendAway(t.Context(), x.moves) {
			t.Error("not sent away")
		}
		if got := x.p.read(); !strings.Contains(got, "<system-shutdown ") || !strings.HasSuffix(got, "</stream:stream>") {
			t.Errorf("told %s", got)
		}
		x.c.detach(t.Context())
	}
	if n := h.sessions.len(); n != 1 {
		t.Fatalf("%d sessions are left", n)
	}
	if _, there := h.sessions.find(c.session.ref.Conn); !there || c.session.conn != nil || c.session.away.IsZero() {
		t.Error("it is not the one that may be resumed")
	}
}
