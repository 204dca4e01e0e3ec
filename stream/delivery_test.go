package stream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// crowd are sessions on which something is spread.
type crowd struct {
	*house
	conns []*Conn
	pipes []*pipe
}

func (h *house) crowd(t *testing.T, resources ...string) *crowd {
	t.Helper()
	c := &crowd{house: h}
	for _, r := range resources {
		conn, p := h.bound(t, r)
		c.conns, c.pipes = append(c.conns, conn), append(c.pipes, p)
	}
	return c
}

func (c *crowd) refs() (out []sessions.Ref) {
	for _, conn := range c.conns {
		out = append(out, conn.session.ref)
	}
	return out
}

// spread delivers one stanza to all of them.
func (c *crowd) spread(t *testing.T, raw string, splice channel.Splice, more ...sessions.Ref) {
	t.Helper()
	st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.deliver(t.Context(), []*channel.Envelope{channel.Spread(sessions.Ref{}, st, splice, append(more, c.refs()...))})
}

// Each recipient finds its own address, and the bytes of all are the same ones.
func TestSpreadPutsAddressesIn(t *testing.T) {
	for _, tc := range []struct {
		splice   channel.Splice
		raw      string
		one, two string // what the sessions get
	}{
		{channel.Full, "<message from='room@x/n' id='1'><body>a</body></message>", "<message to='romeo@localhost/a' from='room@x/n' id='1'><body>a</body></message>", "<message to='romeo@localhost/it&apos;s' from='room@x/n' id='1'><body>a</body></message>"},
		{channel.Bare, "<presence to='somebody@else'/>", "<presence to='romeo@localhost'/>", "<presence to='romeo@localhost'/>"},
		{channel.Full, "<presence/>", "<presence to='romeo@localhost/a'/>", "<presence to='romeo@localhost/it&apos;s'/>"},
		{channel.Nobody, "<presence type='unavailable'/>", "<presence type='unavailable'/>", "<presence type='unavailable'/>"},
	} {
		c := newHouse(t, nil).crowd(t, "a", "it's")
		for range 2 { // the second time from what was remembered
			c.spread(t, tc.raw, tc.splice)
			want(t, c.pipes[0].read(), tc.one)
			want(t, c.pipes[1].read(), tc.two)
		}
	}
}

// A transport that copies what it queues gets the pieces.
func TestSpreadOverTCP(t *testing.T) {
	tr := &tcp{}
	tr.QueueSpliced([]byte("<message id='1'/>"), len("<message"), " to='a@b/c'")
	tr.QueueSpliced([]byte("<presence/>"), len("<presence"), " to='a@b/c'")
	want(t, string(*tr.out), "<message to='a@b/c' id='1'/><presence to='a@b/c'/>")
}

// What is not acknowledged is counted with the address, comes again with it, and
// goes back with it when the session ends (XEP-0198 §5).
func TestRule58SpreadIsSentAgain(t *testing.T) {
	const raw = "<message from='room@x/n' id='1'/>"
	h := newHouse(t, nil)
	c := h.crowd(t, "a", "b")
	id := enable(t, c.conns[0], c.pipes[0])
	over := serve(c.conns[0])
	c.spread(t, raw, channel.Full)
	const mine = "<message to='romeo@localhost/a' from='room@x/n' id='1'/>"
	want(t, c.pipes[0].read(), mine)
	want(t, c.pipes[1].read(), strings.Replace(mine, "/a'", "/b'", 1))
	if n, _, _ := c.conns[0].session.buffered(); n != int64(len(mine)) {
		t.Errorf("%d bytes are held, want %d", n, len(mine))
	}
	cut(c.pipes[0], over)
	c.spread(t, raw, channel.Full)
	c2, p2 := resume(t, h, id, 0)
	want(t, p2.read(), "<resumed xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/>"+mine+mine)
	mustSay(t, c2, "<a xmlns='urn:xmpp:sm:3' h='1'/>")
	if n := c2.session.sm.size; n != len(mine) {
		t.Errorf("%d bytes are not acknowledged, want %d", n, len(mine))
	}
	c2.session.end(t.Context())
	back := h.sent(channel.Undelivered)
	if len(back) != 1 || string(back[0].Raw) != mine || back[0].Session != c2.session.ref {
		t.Fatalf("back came %v", back)
	}
}

// One of them who does not read, or has just gone, is in nobody's way (reliability
// row 5).
func TestFault5SpreadPastASlowClient(t *testing.T) {
	h := newHouse(t, nil)
	c := h.crowd(t, "a", "slow", "b")
	c.pipes[1].stuck = true
	gone := sessions.Ref{Node: "n", Conn: 99, JID: jid.MustParse("juliet@localhost/gone")}
	body := strings.Repeat("x", 1000)
	const n = 8
	for i := range n {
		c.spread(t, fmt.Sprintf("<message from='room@x/n' id='%d'><body>%s</body></message>", i, body), channel.Full, gone)
	}
	for _, at := range []int{0, 2} {
		if got := c.pipes[at].read(); strings.Count(got, "<message ") != n {
			t.Errorf("%s got %s", c.conns[at].session.ref.JID, got)
		}
	}
	back := map[jid.JID]int{}
	for _, e := range h.sent(channel.Undelivered) {
		back[e.Session.JID]++
		if to := " to='" + e.Session.JID.String() + "'"; !strings.Contains(string(e.Raw), to) {
			t.Errorf("%s has not%s", e.Raw, to)
		}
	}
	if slow := back[c.conns[1].session.ref.JID]; back[gone.JID] != n || slow == 0 || slow == n {
		t.Errorf("back came %v", back)
	}
	if !c.pipes[1].closed {
		t.Error("who does not read is still connected")
	}
}

// fragile panics when something is queued.
type fragile struct{ *pipe }

func (fragile) Queue([]byte) { panic("broken") }

// One of them whose transport panics costs the others nothing (reliability row 38).
func TestFault38SpreadPastAPanic(t *testing.T) {
	c := newHouse(t, nil).crowd(t, "a", "broken", "b", "worse")
	for _, i := range []int{1, 3} {
		c.conns[i].tr = fragile{c.pipes[i]}
	}
	c.spread(t, "<message from='room@x/n'/>", channel.Full)
	want(t, c.pipes[0].read(), "<message to='romeo@localhost/a' from='room@x/n'/>")
	want(t, c.pipes[2].read(), "<message to='romeo@localhost/b' from='room@x/n'/>")
	if got := c.sent(channel.Poisoned); len(got) > 0 {
		t.Errorf("%v is blamed", got)
	}
}

// What a batch brings a session several times is flushed once.
func TestBatchFlushesOnce(t *testing.T) {
	c := newHouse(t, nil).crowd(t, "a", "b")
	due := touched{batch: c.batches.Add(1)}
	for range 3 {
		for _, conn := range c.conns {
			due.add(conn.session)
		}
	}
	if len(due.list) != 2 {
		t.Errorf("%d flushes", len(due.list))
	}
	due.flush()
	due.add(c.conns[0].session) // after a flush it is owed again
	other := touched{batch: c.batches.Add(1)}
	other.add(c.conns[0].session)
	due.add(c.conns[0].session) // and when another batch has come between
	if len(due.list) != 2 || len(other.list) != 1 {
		t.Errorf("%d and %d flushes", len(due.list), len(other.list))
	}
	wide := []*channel.Envelope{{Kind: channel.Deliver, To: c.refs()[:1]}, {Kind: channel.Deliver, To: c.refs()}, {Kind: channel.Handled}}
	if at := lastWide(wide); at != 1 {
		t.Errorf("number %d is the last for many", at)
	}
	if at := lastWide(wide[:1]); at != -1 {
		t.Errorf("number %d is for many", at)
	}
	last := touched{batch: c.batches.Add(1), last: true}
	last.add(c.conns[0].session)
	for _, conn := range c.conns {
		last.came(conn.session)
	}
	if len(last.list) != 1 {
		t.Errorf("%d flushes of what was not flushed at once", len(last.list))
	}
}

// What somebody has asked for of a crowd, as who is in a room, may be more than may
// wait for an acknowledgement; but nobody waits for who does not read it.
func TestSpreadThatWasAskedFor(t *testing.T) {
	const raw = "<presence from='room@x/n'/>"
	h := newHouse(t, nil)
	c := h.crowd(t, "a")
	enable(t, c.conns[0], c.pipes[0])
	asked := func() {
		st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		e := channel.Spread(sessions.Ref{}, st, channel.Full, c.refs())
		e.Solicited = true
		_ = c.deliver(t.Context(), []*channel.Envelope{e})
	}
	n := 3 * h.cfg.Resumption.Unacked
	for range n {
		asked()
	}
	if got := strings.Count(c.pipes[0].read(), "<presence "); got != n || c.pipes[0].closed {
		t.Fatalf("%d of %d came, closed %t", got, n, c.pipes[0].closed)
	}
	st, err := stanza.Parse([]byte("<message from='room@x/n' type='groupchat'><body>hi</body></message>"), stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.deliver(t.Context(), []*channel.Envelope{channel.Spread(sessions.Ref{}, st, channel.Full, c.refs())})
	if got := c.pipes[0].read(); !strings.Contains(got, "hi") || c.pipes[0].closed {
		t.Fatalf("what follows: %q, closed %t", got, c.pipes[0].closed)
	}
	c.pipes[0].stuck = true
	for range 2 * int(h.cfg.Outbox) / len(raw) { // each would wait for a minute; the first ones have room, and count as asked for
		asked()
	}
	select {
	case <-c.pipes[0].in: // it is closed
	case <-time.After(10 * time.Second):
		t.Error("who does not read is still connected")
	}
}
