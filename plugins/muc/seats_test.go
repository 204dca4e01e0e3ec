package muc_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestReliability32SeatsOutliveTheirNode: the node of an occupant dies, and its client
// resumes the session on another one. Nobody has seen it leave, it has not to enter
// again, and it is told what was said meanwhile.
func TestReliability32SeatsOutliveTheirNode(t *testing.T) {
	seatOfDeadNode(t, "1m", func(ctx context.Context, ann, again *person, room string) {
		again.await(ctx, t, "what was said meanwhile", says("meanwhile"))
		if el := again.ask(ctx, t, "self", "<iq type='get' id='self' to='%s/bob'><ping xmlns='urn:xmpp:ping'/></iq>", room); el.Get("type") != "result" {
			t.Errorf("bob has lost its seat: %s", el.Bytes(""))
		}
		again.say(t, "<message to='%s' type='groupchat' id='m2'><body>back</body></message>", room)
		ann.await(ctx, t, "bob", says("back"))
		ann.say(t, "<message to='%s' type='groupchat' id='m3'><body>welcome</body></message>", room)
		again.await(ctx, t, "ann", says("welcome"))
		for _, el := range ann.all() {
			if left(room)(el) {
				t.Error("bob was seen to leave")
			}
		}
		again.say(t, "</stream:stream>") // now it has left
		ann.await(ctx, t, "bob's end", left(room))
	})
}

// TestReliability32WhoComesTooLateIsTold: bob's seat is given up before his client
// resumes the session. It is told that it is not in the room any more.
func TestReliability32WhoComesTooLateIsTold(t *testing.T) {
	seatOfDeadNode(t, "1s", func(ctx context.Context, _, again *person, room string) {
		again.await(ctx, t, "its own end", func(el *stanza.Element) bool {
			return el.Name.Local == "presence" && el.Get("from") == room && el.Get("type") == "unavailable"
		})
		again.enter(ctx, t, room)
	})
}

// says recognises a message of the room.
func says(text string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool {
		b := el.Child(stanza.NSClient, "body")
		return el.Get("type") == "groupchat" && b != nil && b.Text() == text
	}
}

// left recognises bob's end.
func left(room string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool { return el.Get("from") == room+"/bob" && el.Get("type") == "unavailable" }
}

// seatOfDeadNode lets the node of bob, who is in a room with ann, die, and his client
// come back; with a short grace when the others have seen him leave.
func seatOfDeadNode(t *testing.T, grace string, back func(ctx context.Context, ann, again *person, room string)) {
	t.Helper()
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{
		Plugins: house(), Nodes: 2, Mortal: true, Storage: func() storage.Config { return c },
		Config: "servers: {processor: {components: {muc: {grace: " + grace + ", defaults: {persistent: true}}}}}",
	})
	room := ownedBy(ctx, t, h, 0)
	ann := opens(ctx, t, h, 0, "ann", room)
	_ = h.Account(ctx, "bob", plugintest.Password)
	conn, err := h.Node(1).Dial(ctx, "bob", "a")
	if err != nil {
		t.Fatal(err)
	}
	bob := &person{Client: conn, nick: "bob", more: make(chan struct{}, 1)}
	t.Cleanup(conn.Close)
	go bob.read(ctx)
	bob.say(t, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	id := bob.await(ctx, t, "a session that may be resumed", func(el *stanza.Element) bool { return el.Name.Local == "enabled" }).Get("id")
	bob.enter(ctx, t, room)
	bob.say(t, "<message to='ann@localhost' type='chat'><body>hello</body></message><r xmlns='urn:xmpp:sm:3'/>")
	bob.await(ctx, t, "an acknowledgement", func(el *stanza.Element) bool { return el.Name.Local == "a" })
	h.KillNode(1)
	ann.say(t, "<message to='%s' type='groupchat' id='m1'><body>meanwhile</body></message>", room)

	if grace == "1s" {
		ann.await(ctx, t, "bob's end", left(room))
	}
	conn, err = plugintest.Connect(ctx, h.DoorOf(0, "c2s"), h.Domain(), "bob", plugintest.Password)
	if err != nil {
		t.Fatal(err)
	}
	again := &person{Client: conn, nick: "bob", more: make(chan struct{}, 1)}
	t.Cleanup(conn.Close)
	go again.read(ctx)
	again.say(t, "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='0'/>", id)
	if el := again.await(ctx, t, "an answer", func(el *stanza.Element) bool { return el.Name.Local == "resumed" || el.Name.Local == "failed" }); el.Name.Local != "resumed" {
		t.Fatalf("%s", el.Bytes(""))
	}
	back(ctx, ann, again, room)
}

// TestRule67GhostsLeave: who cannot be reached any more is taken out, and told so if
// it can be after all (XEP-0045 §18.1.2).
func TestRule67GhostsLeave(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &watcher{}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), watcherPlugin(w))})
	const room = "garden@conference.localhost"
	ann := opens(ctx, t, h, 0, "ann", room)
	// Another server's user, who cannot be reached: what the room sends comes back.
	w.submit(ctx, fmt.Sprintf("<presence from='ghost@elsewhere.example/a' to='%s/ghost'><x xmlns='http://jabber.org/protocol/muc'/></presence>", room))
	w.submit(ctx, fmt.Sprintf("<message from='ghost@elsewhere.example/a' to='%s' type='groupchat'><body>boo</body></message>", room))
	el := ann.await(ctx, t, "its end", func(el *stanza.Element) bool {
		return el.Get("from") == room+"/ghost" && el.Get("type") == "unavailable"
	})
	codes := ""
	for c := range el.Child("http://jabber.org/protocol/muc#user", "x").Elements() {
		codes += c.Get("code")
	}
	if codes != "307333" {
		t.Errorf("statuses %s", codes)
	}
}

// TestReliability32WhoDoesNotComeBackLeaves: a house is killed with two people in a
// room. One of them comes back, the other one is not there any more after a while.
func TestReliability32WhoDoesNotComeBackLeaves(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {processor: {components: {muc: {grace: 1s, defaults: {persistent: true}}}}}"})
	const room = "garden@conference.localhost"
	opens(ctx, t, h, 0, "ann", room)
	enters(ctx, t, h, 0, "bob", room)
	if err := h.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	ann := enters(ctx, t, h, 0, "ann", room)
	bob := func(typ string) func(*stanza.Element) bool {
		return func(el *stanza.Element) bool { return el.Get("from") == room+"/bob" && el.Get("type") == typ }
	}
	if slices.ContainsFunc(ann.all(), bob("")) { // else it was gone before
		ann.await(ctx, t, "bob's end", bob("unavailable"))
	}
}

// TestRule67SeatOfAnEarlierSession: a house is killed with bob in a room; he comes back
// with a new session under the same address, and does not enter the room. He hears
// nothing of it, and the others see that he is not there.
func TestRule67SeatOfAnEarlierSession(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {processor: {components: {muc: {defaults: {persistent: true}}}}}"})
	const room = "garden@conference.localhost"
	opens(ctx, t, h, 0, "ann", room)
	enters(ctx, t, h, 0, "bob", room)
	if err := h.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := h.Node(0).Dial(ctx, "bob", "a")
	if err != nil {
		t.Fatal(err)
	}
	bob := &person{Client: conn, nick: "bob", more: make(chan struct{}, 1)}
	t.Cleanup(conn.Close)
	go bob.read(ctx)
	ann := enters(ctx, t, h, 0, "ann", room)
	ann.say(t, "<message to='%s' type='groupchat' id='m1'><body>hello</body></message>", room)
	inside := false // it may have been given up before ann came
	ann.await(ctx, t, "bob's end, or a room without him", func(el *stanza.Element) bool {
		if el.Get("from") == room+"/bob" {
			inside = el.Get("type") != "unavailable"
			return !inside
		}
		return !inside && el.Get("id") == "m1"
	})
	bob.await(ctx, t, "its own end", func(el *stanza.Element) bool {
		return el.Get("from") == room+"/bob" && el.Get("type") == "unavailable"
	})
	if bodies, _ := bob.heard(); len(bodies) > 0 {
		t.Errorf("bob has heard %q", bodies)
	}
	bob.enter(ctx, t, room)
	ann.say(t, "<message to='%s' type='groupchat' id='m2'><body>again</body></message>", room)
	bob.await(ctx, t, "what is said from now on", func(*stanza.Element) bool { b, _ := bob.heard(); return slices.Contains(b, "again") })
}

// TestReliability38LeavesAreNotForgotten: somebody leaves while the room cannot be
// written, because of what another one says. The others see it leave all the same.
func TestReliability38LeavesAreNotForgotten(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &watcher{block: make(chan struct{})}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), watcherPlugin(w))})
	const room = "garden@conference.localhost"
	ann := opens(ctx, t, h, 0, "ann", room)
	bob, cat := enters(ctx, t, h, 0, "bob", room), enters(ctx, t, h, 0, "cat", room)
	say := func(p *person, id, body string) {
		p.say(t, "<message to='%s' type='groupchat' id='%s'><body>%s</body></message>", room, id, body)
	}
	end := func(p *person, id string) {
		p.await(ctx, t, "an end of "+id, func(el *stanza.Element) bool { return el.Name.Local == "message" && el.Get("id") == id })
	}
	say(ann, "m1", "twice")
	end(ann, "m1")
	say(ann, "m2", "block") // what comes now is committed together
	<-w.block
	say(cat, "m3", "twice")
	time.Sleep(100 * time.Millisecond) // when bob is first after all, the test shows nothing
	bob.say(t, "<presence to='%s/bob' type='unavailable'/><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", room)
	bob.await(ctx, t, "an answer", func(el *stanza.Element) bool { return el.Get("id") == "p" })
	w.block <- struct{}{}
	end(cat, "m3")
	if !cat.refused("m3") {
		t.Error("the commit did not fail")
	}
	ann.await(ctx, t, "bob's end", func(el *stanza.Element) bool {
		return el.Get("from") == room+"/bob" && el.Get("type") == "unavailable"
	})
}
