package stream

import (
	"fmt"
	"strings"
	"testing"

	"parley/router/channel"
)

// A row that the house looks up once more while it is on its way, or was taken a
// moment ago, does not come twice, whichever of the two is first.
func TestRowsThatAreLookedUpOnceMore(t *testing.T) {
	h := newHouse(t, nil)
	h.acks.remembers = true
	c, p := h.bound(t, "a")
	enable(t, c, p)
	give := func(row int64, lookedUp bool, comes bool) {
		t.Helper()
		h.send1(c.session, channel.Envelope{Raw: []byte(fmt.Sprintf("<message id='%d'/>", row)), Pending: row, Solicited: lookedUp})
		if got := strings.Contains(p.read(), "<message"); got != comes {
			t.Errorf("row %d, looked up %v: came %v", row, lookedUp, got)
		}
	}
	give(7, false, true)
	give(7, true, false)
	give(8, true, true)
	give(8, false, false)
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='2'/>")
	p.read()
	give(7, true, false) // nobody has told the house
	h.passAcks()
	give(8, true, false) // it is not known what it has seen of that
	for range 2 {
		h.clock.add(ackMemory)
		h.acks.passed(h.clock.Now())
	}
	give(7, true, true)
}

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
