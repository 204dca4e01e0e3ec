package stream

import (
	"strings"
	"testing"
)

// Who is sent away is told so; a session that may be resumed stays, any other one
// ends.
func TestSentAway(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	enable(t, c, p)
	plain, q := h.bound(t, "b")
	for _, x := range []struct {
		c *Conn
		p *pipe
	}{{c, p}, {plain, q}} {
		if !x.c.session.sendAway(t.Context()) || x.c.session.sendAway(t.Context()) {
			t.Error("not sent away once")
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
