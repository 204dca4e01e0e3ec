package presence_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestSubscriptionsAnsweredAtOnce: whoever answers a request before a person could
// is on another node, which knows of the request all the same (RFC 6121 §3.1.5).
func TestSubscriptionsAnsweredAtOnce(t *testing.T) {
	const people = 30
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }})
	for i := range people {
		romeo, juliet := fmt.Sprintf("romeo%d", i), fmt.Sprintf("juliet%d", i)
		asks, answers := interested(ctx, t, h, 0, romeo), interested(ctx, t, h, 1, juliet)
		send(t, asks, "<presence to='%s@localhost' type='subscribe'/>", juliet)
		await(ctx, t, answers, func(el *stanza.Element) bool { return el.Get("type") == "subscribe" })
		send(t, answers, "<presence to='%s@localhost' type='subscribed'/>", romeo)
		await(ctx, t, asks, func(el *stanza.Element) bool { return el.Get("type") == "subscribed" })
		asks.Close()
		answers.Close()
	}
}

// interested is somebody who is there and has the roster.
func interested(ctx context.Context, t *testing.T, h *plugintest.House, node int, user string) *plugintest.Client {
	t.Helper()
	if err := h.Account(ctx, user, plugintest.Password); err != nil {
		t.Fatal(err)
	}
	c, err := h.Node(node).Dial(ctx, user, "a")
	if err != nil {
		t.Fatal(err)
	}
	send(t, c, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")
	await(ctx, t, c, func(el *stanza.Element) bool { return el.Name.Local == "presence" })
	return c
}

func send(t *testing.T, c *plugintest.Client, format string, args ...any) {
	t.Helper()
	if err := c.Send(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

func await(ctx context.Context, t *testing.T, c *plugintest.Client, is func(*stanza.Element) bool) {
	t.Helper()
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if is(el) {
			return
		}
	}
}
