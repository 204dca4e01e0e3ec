package all_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"parley/parser/stanza"
	frame "parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// mover is a client on one of two nodes.
type mover struct {
	*plugintest.Client
	t   *testing.T
	ctx context.Context
	id  string // of the session; "": without stream management
	in  int    // stanzas since stream management was enabled
}

const moverPassword = "correct horse battery staple"

// twoNodes have short patience.
func twoNodes(t *testing.T) (context.Context, *plugintest.House) {
	t.Helper()
	pg := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx, plugintest.Start(t, plugintest.Options{
		Plugins: all.Plugins(), Nodes: 2, Storage: func() storage.Config { return pg },
		Config: "servers: {streamer: {timeouts: {drain: 1s, close: 1s}}}",
	})
}

func login(ctx context.Context, t *testing.T, h *plugintest.House, node int, user, resource string, managed bool) *mover {
	t.Helper()
	_ = h.Account(ctx, user, moverPassword) // there already: a second device
	c, err := plugintest.Dial(ctx, h.DoorOf(node, "c2s"), h.Domain(), user, moverPassword, resource)
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	m := &mover{Client: c, t: t, ctx: ctx}
	if managed {
		m.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		m.id = m.next("enabled").Get("id")
		m.in = 0
	}
	m.say("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
	m.next("iq")
	m.say("<presence/>")
	m.see("", c.JID.String())
	return m
}

func (m *mover) say(text string) {
	m.t.Helper()
	if err := m.Send(text); err != nil {
		m.t.Fatal(err)
	}
}

// next returns the next element of that name.
func (m *mover) next(name string) *stanza.Element {
	m.t.Helper()
	for {
		el, err := m.Next(m.ctx)
		if err != nil {
			m.t.Fatalf("%s waits for %s: %v", m.JID, name, err)
		}
		if el.Name.Space == stanza.NSClient {
			m.in++
		}
		if el.Name.Local == name {
			return el
		}
	}
}

// see waits for somebody's presence.
func (m *mover) see(typ, from string) {
	m.t.Helper()
	for {
		if p := m.next("presence"); p.Get("type") == typ && (p.Get("from") == from || from == "") {
			return
		}
	}
}

// quiet fails when presence of one of those types is before the answer to a request.
func (m *mover) quiet(types ...string) {
	m.t.Helper()
	m.say("<iq type='get' id='quiet'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		el, err := m.Next(m.ctx)
		switch {
		case err != nil:
			m.t.Fatal(err)
		case el.Name.Local == "iq" && el.Get("id") == "quiet":
			return
		case el.Name.Local == "presence" && slices.Contains(types, el.Get("type")):
			m.t.Errorf("%s sees %s", m.JID, el.Bytes(""))
		}
	}
}

// unseen fails when there is any presence before the answer to a request.
func (m *mover) unseen() {
	m.t.Helper()
	m.quiet("", "unavailable")
}

// ready is what the first node says of itself.
func ready(t *testing.T, h *plugintest.House) int {
	t.Helper()
	res, err := http.Get("http://" + h.DoorOf(0, "http") + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// resume tries to, on another node, and returns the answer.
func (m *mover) resume(h *plugintest.House, node int, user string) (*mover, *stanza.Element) {
	m.t.Helper()
	c, err := plugintest.Connect(m.ctx, h.DoorOf(node, "c2s"), h.Domain(), user, moverPassword)
	if err != nil {
		m.t.Fatal(err)
	}
	again := &mover{Client: c, t: m.t, ctx: m.ctx, id: m.id, in: m.in}
	again.say(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", m.id, m.in))
	el, err := c.Next(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return again, el
}

// befriend lets a see b's presence.
func befriend(a, b *mover) {
	a.t.Helper()
	a.say("<presence type='subscribe' to='" + b.JID.Bare().String() + "'/>")
	b.see("subscribe", a.JID.Bare().String())
	b.say("<presence type='subscribed' to='" + a.JID.Bare().String() + "'/>")
	a.see("", b.JID.String())
}

// nodeOf is a node as another one sees it.
func nodeOf(h *plugintest.House, at int, node string) (frame.NodeStatus, bool) {
	for _, n := range h.HostOf(at).Control().Cluster().Nodes {
		if n.Node == node {
			return n, true
		}
	}
	return frame.NodeStatus{}, false
}

// until waits for something that nobody tells.
func until(ctx context.Context, t *testing.T, what string, f func() bool) {
	t.Helper()
	for !f() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s does not come true", what)
		}
	}
}

// TestReliabilityDrainMoves: a client that is told to go resumes on the other node
// at once; what was sent to it meanwhile comes, and its contacts see nothing of it.
// Clients without stream management are told. Nobody gets in.
func TestReliabilityDrainMoves(t *testing.T) {
	ctx, h := twoNodes(t)
	romeo := login(ctx, t, h, 0, "romeo", "orchard", true)
	juliet := login(ctx, t, h, 1, "juliet", "balcony", false)
	befriend(juliet, romeo)
	nurse := login(ctx, t, h, 0, "nurse", "chamber", false)
	// The other node is asked to see to it.
	if err := h.HostOf(1).Control().Drain(ctx, "node1", 1000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*mover{romeo, nurse} {
		if e := c.next("error"); e.First() == nil || e.First().Name.Local != "system-shutdown" {
			t.Errorf("%s is told %s", c.JID, e.Bytes(""))
		}
	}
	nurse.Close()
	until(ctx, t, "romeo without a connection", func() bool { n, _ := nodeOf(h, 1, "node1"); return n.Draining && n.Away == 1 })
	juliet.say("<message to='romeo@localhost' type='chat' id='m1'><body>where art thou</body></message>")
	juliet.unseen()
	again, el := romeo.resume(h, 1, "romeo")
	if el.Name.Local != "resumed" {
		t.Fatalf("romeo: %s", el.Bytes(""))
	}
	if m := again.next("message"); m.Get("id") != "m1" {
		t.Errorf("romeo got %s", m.Bytes(""))
	}
	juliet.unseen()
	until(ctx, t, "an empty node", func() bool { n, _ := nodeOf(h, 1, "node1"); return n.Sessions == 0 })
	if at := h.DoorOf(0, "c2s"); at != "" {
		t.Errorf("the door %s is open", at)
	}
	if code := ready(t, h); code != http.StatusServiceUnavailable {
		t.Errorf("readyz of a node that drains: %d", code)
	}
	if err := h.HostOf(0).Control().Drain(ctx, "node2", 1); !errors.Is(err, frame.ErrAlone) {
		t.Errorf("the last node is drained: %v", err)
	}
	if err := h.HostOf(1).Control().Undrain(ctx, "node1"); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "a node that takes clients", func() bool { n, _ := nodeOf(h, 1, "node1"); return !n.Draining })
	login(ctx, t, h, 0, "paris", "church", false).Close()
	if code := ready(t, h); code != http.StatusOK {
		t.Errorf("readyz after undrain: %d", code)
	}
}

// TestReliabilityDrainPauses: a session whose client does not come back waits in the
// database. Its contacts do not notice, what is sent to it waits, its client resumes
// it on the other node, and who has come meanwhile sees it then.
func TestReliabilityDrainPauses(t *testing.T) {
	ctx, h := twoNodes(t)
	romeo := login(ctx, t, h, 0, "romeo", "orchard", true)
	juliet := login(ctx, t, h, 1, "juliet", "balcony", false)
	befriend(juliet, romeo)
	if err := h.HostOf(0).Control().Drain(ctx, "node1", 1000); err != nil {
		t.Fatal(err)
	}
	romeo.next("error")
	romeo.Close()
	until(ctx, t, "an empty node", func() bool { n, _ := nodeOf(h, 1, "node1"); return n.Draining && n.Sessions == 0 })
	juliet.say("<message to='romeo@localhost' type='chat' id='m1'><body>where art thou</body></message>")
	juliet.unseen()
	phone := login(ctx, t, h, 1, "juliet", "phone", false)
	again, el := romeo.resume(h, 1, "romeo")
	if el.Name.Local != "resumed" {
		t.Fatalf("romeo: %s", el.Bytes(""))
	}
	if m := again.next("message"); m.Get("id") != "m1" {
		t.Errorf("romeo got %s", m.Bytes(""))
	}
	phone.see("", romeo.JID.String())
	juliet.quiet("unavailable")
}

// TestReliabilityTheLastNodeServes: a node that drains takes clients when there is
// no other one that does, and sends them away when there is one again.
func TestReliabilityTheLastNodeServes(t *testing.T) {
	ctx, h := twoNodes(t)
	if err := h.HostOf(0).Control().Drain(ctx, "node1", 1000); err != nil {
		t.Fatal(err)
	}
	open := func() bool { return h.DoorOf(0, "c2s") != "" }
	until(ctx, t, "a closed door", func() bool { return !open() })
	if err := h.EndNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "an open door", open)
	romeo := login(ctx, t, h, 0, "romeo", "orchard", true)
	if err := h.BeginNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	romeo.next("error")
	if _, el := romeo.resume(h, 1, "romeo"); el.Name.Local != "resumed" {
		t.Errorf("romeo: %s", el.Bytes(""))
	}
	if n, _ := nodeOf(h, 1, "node1"); !n.Draining || open() {
		t.Error("the node does not drain any more")
	}
}

// TestReliabilityDrainEndsWhatCannotMove: the sessions of an account with several
// devices end when their clients do not come back, contacts are told, and clients
// learn how much had arrived (XEP-0198 §5).
func TestReliabilityDrainEndsWhatCannotMove(t *testing.T) {
	ctx, h := twoNodes(t)
	phone := login(ctx, t, h, 0, "romeo", "phone", true)
	juliet := login(ctx, t, h, 1, "juliet", "balcony", false)
	befriend(juliet, phone)
	desk := login(ctx, t, h, 0, "romeo", "desk", true)
	phone.say("<message to='juliet@localhost' type='chat'><body>hello</body></message><r xmlns='urn:xmpp:sm:3'/>")
	phone.next("a") // it has read everything
	phone.Close()
	desk.Close()
	if err := h.HostOf(0).Control().Drain(ctx, "node1", 1000); err != nil {
		t.Fatal(err)
	}
	gone := map[string]bool{}
	for len(gone) < 2 {
		if p := juliet.next("presence"); p.Get("type") == "unavailable" {
			gone[p.Get("from")] = true
		}
	}
	until(ctx, t, "an empty node", func() bool { n, _ := nodeOf(h, 1, "node1"); return n.Sessions == 0 })
	_, el := phone.resume(h, 1, "romeo")
	if el.Name.Local != "failed" || el.Get("h") != "4" { // a request, two presences, the message
		t.Errorf("phone: %s", el.Bytes(""))
	}
}

// A node that is alone says so, and drains nowhere.
func TestDrainAlone(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins()})
	control := h.Host().Control()
	c := control.Cluster()
	if !c.Alone || !c.Held || c.Node != "test" || len(c.Nodes) != 1 || c.Nodes[0].Node != "test" || len(c.Nodes[0].Servers) == 0 || c.Nodes[0].Since.IsZero() {
		t.Errorf("%+v", c)
	}
	if err := control.Drain(t.Context(), "test", 1); !errors.Is(err, frame.ErrAlone) {
		t.Errorf("drain: %v", err)
	}
	if err := control.Drain(t.Context(), "nobody", 1); !errors.Is(err, frame.ErrNode) {
		t.Errorf("drain of nobody: %v", err)
	}
	if err := control.Undrain(t.Context(), "nobody"); !errors.Is(err, frame.ErrNode) {
		t.Errorf("undrain of nobody: %v", err)
	}
}

// What is on the way to another node is in the view of the cluster.
func TestClusterShowsLanes(t *testing.T) {
	ctx, h := twoNodes(t)
	romeo := login(ctx, t, h, 0, "romeo", "orchard", false)
	login(ctx, t, h, 1, "juliet", "balcony", false)
	romeo.say("<message to='juliet@localhost' type='chat'><body>hello</body></message>")
	until(ctx, t, "lanes", func() bool {
		n, _ := nodeOf(h, 0, "node2")
		self, _ := nodeOf(h, 0, "node1")
		ports := map[string]frame.Lane{}
		for _, l := range n.Lanes {
			ports[l.Port] = l
		}
		return len(self.Lanes) == 0 && ports["router"].Window > 0 && ports["sessions"].Window > 0 && n.Sessions == 1 && self.Sessions == 1
	})
	before, _ := nodeOf(h, 0, "node2")
	if err := errors.Join(h.EndNode(ctx, 1), h.BeginNode(ctx, 1)); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "a new life of node2, with new lanes", func() bool {
		n, there := nodeOf(h, 0, "node2")
		return there && n.Incarnation > before.Incarnation && n.Number == before.Number && len(n.Lanes) > 0 && n.Sessions == 0
	})
}
