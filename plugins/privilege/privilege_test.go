package privilege_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/plugins/all"
	"parley/plugins/plugintest"
)

const section = `
servers:
  streamer:
    components:
      component:
        address: 127.0.0.1:0
        components:
          mute.localhost: {secret: s3cret}
          say.localhost: {secret: s3cret, privileges: {message: outgoing}}
          get.localhost: {secret: s3cret, privileges: {roster: get, no_push: true}}
          ask.localhost: {secret: s3cret, privileges: {iq: {"jabber:iq:private": both, "urn:xmpp:ping": get}}}
          who.localhost: {secret: s3cret, privileges: {roster: get, no_push: true, presence: roster}}
          all.localhost: {secret: s3cret, privileges: {roster: both, message: outgoing, presence: managed_entity, iq: {"jabber:iq:private": get, "jabber:iq:roster": none}}}
`

func TestScripts(t *testing.T) {
	plugintest.ComponentScripts(t, all.Plugins(), section, "testdata/component/*.txtar")
}

// It has a house of its own: who is there when a component connects is what the others look at.
func TestContactsOfAccounts(t *testing.T) {
	plugintest.ComponentScripts(t, all.Plugins(), section, "testdata/contacts/*.txtar")
}

// TestReliability14WhoIsThereIsMoreThanFits: a component that may see presence connects
// to a house with more sessions than may wait for it.
func TestReliability14WhoIsThereIsMoreThanFits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const people, devices = 5, 5
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section + "    resumption: {unacked: 10}\n"})
	for i := range people {
		user := "person" + strconv.Itoa(i)
		if err := h.Account(ctx, user, plugintest.Password); err != nil {
			t.Fatal(err)
		}
		for j := range devices {
			c, err := h.Node(0).Dial(ctx, user, strconv.Itoa(j))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			if err := c.Send("<presence/><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
				t.Fatal(err)
			}
			for el, err := c.Next(ctx); el == nil || el.Get("id") != "p"; el, err = c.Next(ctx) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	conn, err := plugintest.DialComponent(ctx, h.Door("component"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	seen, buf := "", make([]byte, 4096)
	until := func(what string, n int) {
		t.Helper()
		for strings.Count(seen, what) < n {
			k, err := conn.Read(buf)
			seen += string(buf[:k])
			if err != nil {
				t.Fatalf("%d of %d: %v\n%s", strings.Count(seen, what), n, err, seen)
			}
		}
	}
	say := func(text string) {
		t.Helper()
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='all.localhost'>")
	until("<stream:stream", 1)
	say("<handshake>s3cret</handshake>")
	until("<presence ", people*devices)
}
