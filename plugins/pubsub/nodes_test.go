package pubsub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// capsVer is the hash of client/pc//Nodes with the feature urn:example:tune+notify.
const capsVer = "zNCKcDJpmxXleGVGvUJmmQcaeZE="

// A node that begins after a client's capabilities were verified knows what the
// client wants to hear of when it publishes (rule 66).
func TestInterestAfterRestart(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }})
	juliet := person(ctx, t, h, 0, "juliet", "listens")
	send(t, juliet, "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:example:nodes' ver='%s'/></presence>", capsVer)
	q := await(ctx, t, juliet, func(el *stanza.Element) bool { return el.Get("type") == "get" })
	send(t, juliet, "<iq type='result' to='localhost' id='%s'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:example:nodes#%s'><identity category='client' type='pc' name='Nodes'/><feature var='urn:example:tune+notify'/></query></iq>", q.Get("id"), capsVer)
	publish := func(id string) {
		t.Helper()
		other := person(ctx, t, h, 1, "juliet", "publishes"+id)
		defer other.Close()
		send(t, other, "<iq type='set' id='%s'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:example:tune'><item id='%s'><a xmlns='urn:example:tune'/></item></publish></pubsub></iq>", id, id)
		await(ctx, t, other, func(el *stanza.Element) bool { return el.Get("id") == id })
		await(ctx, t, juliet, func(el *stanza.Element) bool {
			return el.Name.Local == "message" && strings.Contains(string(el.Bytes("")), id)
		})
	}
	publish("one")
	if err := h.Node(1).Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Node(1).Start(ctx); err != nil {
		t.Fatal(err)
	}
	publish("two")
}

func person(ctx context.Context, t *testing.T, h *plugintest.House, node int, user, resource string) *plugintest.Client {
	t.Helper()
	if err := h.Account(ctx, user, plugintest.Password); err != nil && !strings.Contains(err.Error(), "exists") {
		t.Fatal(err)
	}
	c, err := h.Node(node).Dial(ctx, user, resource)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c *plugintest.Client, format string, args ...any) {
	t.Helper()
	if err := c.Send(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

func await(ctx context.Context, t *testing.T, c *plugintest.Client, is func(*stanza.Element) bool) *stanza.Element {
	t.Helper()
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if is(el) {
			return el
		}
	}
}
