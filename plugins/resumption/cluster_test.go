package resumption_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/plugins/resumption"
	"parley/storage"
	"parley/storage/storagetest"
)

// presence is the next that somebody sends, with its type.
func (c *client) presence(from string) string {
	c.t.Helper()
	for {
		if el := c.await("presence"); el.Get("from") == from {
			return el.Get("type")
		}
	}
}

// befriend lets a see b's presence, and returns when it does.
func befriend(a, b *client, at, bt string) {
	a.t.Helper()
	// The answer to the ping comes when all nodes know of the request.
	a.say("<presence to='"+bt+"' type='subscribe'/><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "iq")
	for a.await("iq").Get("type") != "result" {
	}
	for b.await("presence").Get("type") != "subscribe" {
	}
	b.say("<presence to='"+at+"' type='subscribed'/>", "iq")
	for allowed, seen := false, false; !allowed || !seen; {
		switch el := a.await("presence"); {
		case el.Get("from") == bt && el.Get("type") == "subscribed":
			allowed = true
		case el.Get("from") == bt+"/a" && el.Get("type") == "":
			seen = true
		}
	}
}

// here is somebody on a node, with a session that may be resumed.
func here(ctx context.Context, t *testing.T, h *plugintest.House, node int, user string) (c *client, id string) {
	t.Helper()
	if err := h.Account(ctx, user, password); err != nil {
		t.Fatal(err)
	}
	conn, err := plugintest.Dial(ctx, h.DoorOf(node, "c2s"), h.Domain(), user, password, "a")
	if err != nil {
		t.Fatal(err)
	}
	c = &client{Client: conn, t: t, ctx: ctx}
	id = c.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "enabled").Get("id")
	c.in = 0
	c.say("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "iq")
	c.say("<presence/>", "presence")
	return c, id
}

// TestReliability32NodesDieWithinOneLease: two of three nodes die at once. Who
// is on the third sees everybody of them go, once; and who was there, and comes
// back before anybody knows of the deaths, goes on with the session.
func TestReliability32NodesDieWithinOneLease(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Mortal: true, Storage: func() storage.Config { return c }})
	ann, _ := here(ctx, t, h, 0, "ann")
	others := map[string]*client{}
	ids := map[string]string{}
	for i, user := range []string{"romeo", "juliet", "nurse", "paris"} {
		others[user], ids[user] = here(ctx, t, h, 1+i%2, user)
		befriend(ann, others[user], "ann@localhost", user+"@localhost")
		// What is written down is what another node can go on with.
		others[user].say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
	}
	h.KillNode(2)
	h.KillNode(1)
	back, el := resume(ctx, t, h, "romeo", ids["romeo"], others["romeo"].in)
	if el.Name.Local != "resumed" {
		t.Fatalf("%s", el.Bytes(""))
	}
	gone := map[string]int{}
	returned := false
	for len(gone) < len(others) || !returned {
		el := ann.await("presence")
		switch from := el.Get("from"); el.Get("type") {
		case "unavailable":
			gone[from]++
		case "":
			returned = returned || from == "romeo@localhost/a"
		}
	}
	// What is behind everything that there was to tell.
	back.say("<message to='ann@localhost/a' type='chat'><body>last</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
	for {
		el, err := ann.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if el.Name.Local == "presence" && el.Get("type") == "unavailable" {
			gone[el.Get("from")]++
		}
		if b := el.Child(stanza.NSClient, "body"); b != nil && b.Text() == "last" {
			break
		}
	}
	for from, n := range gone {
		if n != 1 {
			t.Errorf("%s has gone %d times", from, n)
		}
	}
}

// Contacts of a session whose node has stopped in order, and never comes back,
// see it go when its client has not come for it in time.
func TestContactsSeeWhoDoesNotComeBackGo(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }})
	ann, _ := here(ctx, t, h, 0, "ann")
	romeo, _ := here(ctx, t, h, 1, "romeo")
	befriend(ann, romeo, "ann@localhost", "romeo@localhost")
	if err := h.EndNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	contract, _ := h.Host().Contract(resumption.Name)
	if err := resumption.Gone(ctx, contract, "node2", "romeo@localhost"); err != nil {
		t.Fatal(err)
	}
	sweep := func() {
		t.Helper()
		if err := resumption.Sweep(ctx, contract); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	if n, err := h.DB().Exec(ctx, `UPDATE resumption SET died = 1, away = 0 WHERE died > 0 AND account = 'romeo@localhost'`); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	sweep()
	if how := ann.presence("romeo@localhost/a"); how != "unavailable" {
		t.Errorf("seen as %q", how)
	}
}

// Who logs in when one node has started again sees who goes on with a session of
// before on another, which starts later.
func TestWhoComesBetweenStartsSeesWhoResumes(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }})
	ann, _ := here(ctx, t, h, 0, "ann")
	romeo, id := here(ctx, t, h, 1, "romeo")
	befriend(ann, romeo, "ann@localhost", "romeo@localhost")
	for i := range 2 {
		if err := h.EndNode(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.BeginNode(ctx, 0); err != nil {
		t.Fatal(err)
	}
	conn, err := plugintest.Dial(ctx, h.DoorOf(0, "c2s"), h.Domain(), "ann", password, "new")
	if err != nil {
		t.Fatal(err)
	}
	ann = &client{Client: conn, t: t, ctx: ctx}
	ann.say("<presence/>", "presence")
	if err := h.BeginNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if conn, err = plugintest.Connect(ctx, h.DoorOf(1, "c2s"), h.Domain(), "romeo", password); err != nil {
		t.Fatal(err)
	}
	back := &client{Client: conn, t: t, ctx: ctx}
	if el := back.say(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", id, romeo.in), "resumed"); el.Get("previd") != id {
		t.Fatal(el.Bytes(""))
	}
	if how := ann.presence("romeo@localhost/a"); how != "" {
		t.Errorf("seen as %q", how)
	}
}
