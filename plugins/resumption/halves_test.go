package resumption_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// halves is a house of two fronts and two cores, with little patience.
func halves(t *testing.T) (*plugintest.House, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Fronts: 2, Cores: 2, Mortal: true, Storage: func() storage.Config { return c },
		Config: "servers: {streamer: {timeouts: {drain: 1s}}}"})
	for _, user := range []string{"romeo", "juliet", "ann"} {
		if err := h.Account(ctx, user, password); err != nil {
			t.Fatal(err)
		}
	}
	return h, ctx
}

// at logs in at a front, with a session that may be resumed and one message sent.
func at(ctx context.Context, t *testing.T, h *plugintest.House, front int, user string) (*client, string) {
	t.Helper()
	conn, err := plugintest.Dial(ctx, h.DoorOf(front, "c2s"), h.Domain(), user, password, "a")
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Client: conn, t: t, ctx: ctx}
	id := c.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "enabled").Get("id")
	c.in = 0
	for a := c.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a"); a.Get("h") != "1"; a = c.await("a") {
	}
	return c, id
}

// again resumes at a front; while that one has no core it tries again.
func again(ctx context.Context, t *testing.T, h *plugintest.House, front int, user, id string, in int) (*client, *stanza.Element) {
	t.Helper()
	for {
		c, el := resumeAt(ctx, t, h.DoorOf(front, "c2s"), h.Domain(), user, id, in)
		if el == nil || el.Name.Local == "failed" && ctx.Err() == nil {
			continue
		}
		return c, el
	}
}

func resumeAt(ctx context.Context, t *testing.T, door, domain, user, id string, in int) (*client, *stanza.Element) {
	t.Helper()
	conn, err := plugintest.Connect(ctx, door, domain, user, password)
	if err != nil {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		return nil, nil
	}
	c := &client{Client: conn, t: t, ctx: ctx, in: in}
	if err := c.Send("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='0'/>"); err != nil {
		return nil, nil
	}
	el, err := c.Next(ctx)
	if err != nil && ctx.Err() != nil {
		t.Fatal(err)
	}
	return c, el
}

func shown(el *stanza.Element) []byte {
	if el == nil {
		return []byte("nothing")
	}
	return el.Bytes("")
}

// TestRule58ASessionGoesToAnotherFront, of the same core or of another: it is
// resumed there, and the old connection is told.
func TestRule58ASessionGoesToAnotherFront(t *testing.T) {
	h, ctx := halves(t)
	old, id := at(ctx, t, h, 0, "romeo")
	fresh, el := resumeAt(ctx, t, h.DoorOf(1, "c2s"), h.Domain(), "romeo", id, old.in)
	if el == nil || el.Name.Local != "resumed" || el.Get("h") != "1" {
		t.Fatalf("answered %s", shown(el))
	}
	if e := old.await("error"); e.Child(stanza.NSStreams, "conflict") == nil {
		t.Errorf("the old connection got %s", e.Bytes(""))
	}
	fresh.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "iq")
}

// TestReliability32AFrontIsKilled: its sessions go on at another one, and
// messages that came meanwhile are there.
func TestReliability32AFrontIsKilled(t *testing.T) {
	h, ctx := halves(t)
	romeo, id := at(ctx, t, h, 0, "romeo")
	juliet, _ := at(ctx, t, h, 1, "juliet")
	h.KillNode(0) // the other one moves up
	juliet.say("<message to='romeo@localhost/a' type='chat' id='m1'><body>where art thou?</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
	// The front still counts as alive: who comes waits, and need not come again.
	back, el := resumeAt(ctx, t, h.DoorOf(0, "c2s"), h.Domain(), "romeo", id, romeo.in)
	if el == nil || el.Name.Local != "resumed" || el.Get("h") != "1" {
		t.Fatalf("answered %s", shown(el))
	}
	if m := back.await("message"); m.Get("id") != "m1" {
		t.Errorf("%s", m.Bytes(""))
	}
}

// TestReliability32ACoreIsKilled: clients of its fronts are disconnected as by a
// server that stops, and go on when the front has another core.
func TestReliability32ACoreIsKilled(t *testing.T) {
	h, ctx := halves(t)
	romeo, id := at(ctx, t, h, 0, "romeo")
	var core int // which one it is says the row
	var name string
	if err := h.DB().QueryRow(ctx, `SELECT node FROM resumption WHERE account = 'romeo@localhost'`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(name, "node%d", &core); err != nil {
		t.Fatal(err)
	}
	h.KillNode(core - 1)
	for {
		el, err := romeo.Next(ctx)
		if errors.Is(err, net.ErrClosed) || err != nil && ctx.Err() == nil {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if el.Name.Local == "error" && el.Child(stanza.NSStreams, "system-shutdown") == nil {
			t.Errorf("told %s", el.Bytes(""))
		}
	}
	back, el := again(ctx, t, h, 0, "romeo", id, romeo.in)
	if el.Name.Local != "resumed" || el.Get("h") != "1" {
		t.Fatalf("%s", el.Bytes(""))
	}
	back.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "iq")
}

// TestReliabilityAFrontDrains: its clients are told, and go on at the other front:
// at once, or when their session has been left in the database. Those of an account
// with several devices end, which their core knows. Nodes say how many of the
// sessions are a front's.
func TestReliabilityAFrontDrains(t *testing.T) {
	h, ctx := halves(t)
	soon, idSoon := at(ctx, t, h, 0, "romeo")
	late, idLate := at(ctx, t, h, 0, "juliet")
	for _, device := range []string{"a", "b"} {
		conn, err := plugintest.Dial(ctx, h.DoorOf(0, "c2s"), h.Domain(), "ann", password, device)
		if err != nil {
			t.Fatal(err)
		}
		(&client{Client: conn, t: t, ctx: ctx}).say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "enabled")
	}
	other := h.HostOf(1).Control()
	sessionsOf := func(node string) int {
		for _, n := range other.Cluster().Nodes {
			if n.Node == node {
				return n.Sessions
			}
		}
		return -1
	}
	for sessionsOf("node1") != 4 && wait(ctx, time.Millisecond) {
	}
	if err := other.Drain(ctx, "node1", 1000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{soon, late} {
		if e := c.await("error"); e.Child(stanza.NSStreams, "system-shutdown") == nil {
			t.Errorf("told %s", e.Bytes(""))
		}
	}
	_, el := again(ctx, t, h, 1, "romeo", idSoon, soon.in)
	if el.Name.Local != "resumed" || el.Get("h") != "1" {
		t.Errorf("at once: %s", el.Bytes(""))
	}
	for sessionsOf("node1") != 0 && wait(ctx, time.Millisecond) {
	}
	_, el = again(ctx, t, h, 1, "juliet", idLate, late.in)
	if el.Name.Local != "resumed" || el.Get("h") != "1" {
		t.Errorf("later: %s", el.Bytes(""))
	}
	for waiting := 1; waiting > 0; {
		if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM resumption WHERE account = 'ann@localhost' AND span > 0`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if n := sessionsOf("node2"); n != 2 {
		t.Errorf("%d sessions at the other front", n)
	}
	if err := other.Drain(ctx, "node2", 1); !errors.Is(err, plugins.ErrAlone) {
		t.Errorf("the last front is drained: %v", err)
	}
}

// wait reports whether ctx was not done meanwhile.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
