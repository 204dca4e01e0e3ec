package resumption_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

const (
	limit    = time.Minute
	password = "correct horse battery staple"
)

// clock runs ahead by what is added.
type clock struct {
	plugins.SystemClock
	ahead atomic.Int64
}

func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

type client struct {
	*plugintest.Client
	t   *testing.T
	ctx context.Context
	in  int // stanzas since management was enabled
}

// say sends and returns the first answer of that name.
func (c *client) say(text, name string) *stanza.Element {
	c.t.Helper()
	if err := c.Send(text); err != nil {
		c.t.Fatal(err)
	}
	return c.await(name)
}

func (c *client) await(name string) *stanza.Element {
	c.t.Helper()
	for {
		el, err := c.Next(c.ctx)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", name, err)
		}
		if el.Name.Space == stanza.NSClient {
			c.in++
		}
		if el.Name.Local == name {
			return el
		}
	}
}

// enable binds a session that may be resumed, and returns its id.
func enable(ctx context.Context, t *testing.T, h *plugintest.House, user, resource string) (*client, string) {
	t.Helper()
	conn, err := h.Login(ctx, user, resource)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Client: conn, t: t, ctx: ctx}
	id := c.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "enabled").Get("id")
	c.in = 0
	return c, id
}

// resume tries to, and returns the answer.
func resume(ctx context.Context, t *testing.T, h *plugintest.House, user, id string, in int) (*client, *stanza.Element) {
	t.Helper()
	conn, err := plugintest.Connect(ctx, h.Door("c2s"), h.Domain(), user, password)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Client: conn, t: t, ctx: ctx, in: in}
	if err := c.Send(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", id, in)); err != nil {
		t.Fatal(err)
	}
	el, err := c.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c, el
}

func each(t *testing.T, f func(ctx context.Context, t *testing.T, h *plugintest.House, now *clock)) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		now := &clock{}
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Clock: now, Storage: func() storage.Config { return c }})
		if err := h.Account(ctx, "ann", password); err != nil {
			t.Fatal(err)
		}
		f(ctx, t, h, now)
	})
}

// TestRule58ExpiredWhileTheServerWasDown: who comes too late learns how much
// had arrived (XEP-0198 §5); the window of a session that had a connection to
// the end begins with the start.
func TestRule58ExpiredWhileTheServerWasDown(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, now *clock) {
		gone, goneID := enable(ctx, t, h, "romeo", "gone")
		there, thereID := enable(ctx, t, h, "ann", "there")
		gone.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
		gone.Close()
		for n := 0; n == 0 && ctx.Err() == nil; { // until the server has seen that
			_ = h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM resumption WHERE away > 0`).Scan(&n)
		}
		if err := h.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		now.ahead.Store(int64(time.Hour))
		if err := h.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if _, el := resume(ctx, t, h, "romeo", goneID, 0); el.Name.Local != "failed" || el.Get("h") != "1" {
			t.Errorf("expired: %s", el.Bytes(""))
		}
		if _, el := resume(ctx, t, h, "ann", thereID, there.in); el.Name.Local != "resumed" {
			t.Errorf("had a connection: %s", el.Bytes(""))
		}
	})
}

// TestTheIdIsNotInTheTable: what the database holds resumes nothing.
func TestTheIdIsNotInTheTable(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, _ *clock) {
		c, id := enable(ctx, t, h, "romeo", "a")
		c.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
		var key, state []byte
		if err := h.DB().QueryRow(ctx, `SELECT key, state FROM resumption`).Scan(&key, &state); err != nil {
			t.Fatal(err)
		}
		if len(key) != 32 || string(key) == id || len(state) == 0 {
			t.Errorf("key %x, state %q", key, state)
		}
	})
}

// TestRemovedAccountsResumeNothing: nor does who gets the address next.
func TestRemovedAccountsResumeNothing(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, _ *clock) {
		c, id := enable(ctx, t, h, "romeo", "a")
		c.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
		accounts, _ := h.Host().Contract("accounts")
		if err := accounts.(interface {
			Delete(context.Context, jid.JID) error
		}).Delete(ctx, jid.MustParse("romeo@localhost")); err != nil {
			t.Fatal(err)
		}
		for rows := 1; rows > 0 && ctx.Err() == nil; {
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM resumption`).Scan(&rows); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Account(ctx, "romeo", password); err == nil {
			if _, el := resume(ctx, t, h, "romeo", id, 0); el.Name.Local != "failed" {
				t.Errorf("%s", el.Bytes(""))
			}
		}
	})
}

// TestADamagedRowEndsAlone: others go on.
func TestADamagedRowEndsAlone(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, _ *clock) {
		const message = "<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>"
		romeo, bad := enable(ctx, t, h, "romeo", "a")
		romeo.say(message, "a")
		juliet, good := enable(ctx, t, h, "juliet", "a")
		juliet.say(message, "a")
		if n, err := h.DB().Exec(ctx, `UPDATE resumption SET state = $1 WHERE account = 'romeo@localhost'`, []byte{9}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if err := h.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if _, el := resume(ctx, t, h, "romeo", bad, romeo.in); el.Name.Local != "failed" {
			t.Errorf("%s", el.Bytes(""))
		}
		if _, el := resume(ctx, t, h, "juliet", good, juliet.in); el.Name.Local != "resumed" || el.Get("h") != "1" {
			t.Errorf("%s", el.Bytes(""))
		}
	})
}

// TestHNeverGoesBack: what an earlier process or a slower writer still has to
// say counts for nothing.
func TestHNeverGoesBack(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, _ *clock) {
		c, id := enable(ctx, t, h, "romeo", "a")
		if a := c.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a"); a.Get("h") != "1" {
			t.Fatalf("%s", a.Bytes(""))
		}
		// An IQ is acknowledged when it is written down, and not before.
		c.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "iq")
		for a := c.say("<r xmlns='urn:xmpp:sm:3'/>", "a"); a.Get("h") != "2"; a = c.await("a") {
			if a.Get("h") != "1" {
				t.Fatalf("%s", a.Bytes(""))
			}
		}
		if err := h.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		_, el := resume(ctx, t, h, "romeo", id, c.in)
		if el.Name.Local != "resumed" || el.Get("h") != "2" {
			t.Errorf("%s", el.Bytes(""))
		}
	})
}

// TestReplacedSessionsLeaveNothing: who logs in anew instead of resuming ends
// the session of before the start for good (RFC 6120 §7.7.2.2).
func TestReplacedSessionsLeaveNothing(t *testing.T) {
	each(t, func(ctx context.Context, t *testing.T, h *plugintest.House, _ *clock) {
		c, id := enable(ctx, t, h, "romeo", "a")
		c.say("<message to='ann@localhost' type='chat'><body>one</body></message><r xmlns='urn:xmpp:sm:3'/>", "a")
		if err := h.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Login(ctx, "romeo", "a"); err != nil {
			t.Fatal(err)
		}
		if err := h.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if _, el := resume(ctx, t, h, "romeo", id, c.in); el.Name.Local != "failed" {
			t.Errorf("%s", el.Bytes(""))
		}
	})
}
