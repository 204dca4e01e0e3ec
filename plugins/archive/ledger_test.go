package archive_test

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

// limit ends a test that hangs.
const limit = 2 * time.Minute

// TestReplayUnderTraffic is D2 and D3: what waited and what is sent while it is
// being replayed arrives once, in the order it was sent, however many pages
// the replay has.
func TestReplayUnderTraffic(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }})
		romeo := login(ctx, t, h, "romeo", "a")
		const before, during = 350, 350
		send := func(from, to int) {
			var b strings.Builder
			for i := from; i < to; i++ {
				fmt.Fprintf(&b, "<message to='juliet@localhost' type='chat' id='m%d'><body>%s</body></message>", i, strings.Repeat("x", 1500))
				if b.Len() > 20_000 || i == to-1 {
					if err := romeo.Send(b.String()); err != nil {
						t.Error(err)
					}
					b.Reset()
				}
			}
		}
		juliet := login(ctx, t, h, "juliet", "b")
		send(0, before)
		sync(ctx, t, romeo)
		go send(before, before+during)
		if err := juliet.Send("<presence/>"); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for next := 0; next < before+during; {
			el, err := juliet.Next(ctx)
			if err != nil {
				t.Fatalf("after %d messages: %v", next, err)
			}
			if el.Name.Local != "message" {
				continue
			}
			if want := fmt.Sprintf("m%d", next); el.Get("id") != want {
				t.Fatalf("got %s, want %s", el.Get("id"), want)
			}
			next++
			sid := el.Child(stanza.NSStanzaID, "stanza-id").Get("id")
			if seen[sid] {
				t.Fatalf("stanza-id %s twice", sid)
			}
			seen[sid] = true
			if next <= before && el.Child(stanza.NSDelay, "delay") == nil {
				t.Fatalf("m%d waited and has no stamp", next-1)
			}
		}
		settled(ctx, t, h.DB())
	})
}

// settled waits until nothing is pending: acknowledgements are written lazily.
func settled(ctx context.Context, t *testing.T, db storage.DB) {
	t.Helper()
	for {
		var n int
		if err := db.QueryRow(ctx, `SELECT COUNT(*) FROM archive_pending`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// TestRestartWhileWaiting is D1 over a restart in the middle of a replay: what
// the client has not taken comes again, under the same ids.
func TestRestartWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	romeo := login(ctx, t, h, "romeo", "a")
	juliet := login(ctx, t, h, "juliet", "b")
	const n = 300
	for i := range n {
		if err := romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'><body>b</body></message>", i)); err != nil {
			t.Fatal(err)
		}
	}
	sync(ctx, t, romeo)
	if err := juliet.Send("<enable xmlns='urn:xmpp:sm:3'/><presence/>"); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for len(ids) < 50 {
		note(ctx, t, juliet, ids)
	}
	juliet.Close()
	if err := h.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	juliet = login(ctx, t, h, "juliet", "b")
	if err := juliet.Send("<presence/>"); err != nil {
		t.Fatal(err)
	}
	again := map[string]string{}
	for len(again) < n {
		note(ctx, t, juliet, again)
	}
	for id, sid := range ids {
		if again[id] != sid {
			t.Errorf("%s: stanza-id was %s, is %s", id, sid, again[id])
		}
	}
}

func note(ctx context.Context, t *testing.T, c *plugintest.Client, ids map[string]string) {
	t.Helper()
	el, err := c.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if el.Name.Local == "message" {
		ids[el.Get("id")] = el.Child(stanza.NSStanzaID, "stanza-id").Get("id")
	}
}

func login(ctx context.Context, t *testing.T, h *plugintest.House, user, resource string) *plugintest.Client {
	t.Helper()
	c, err := h.Login(ctx, user, resource)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// sync returns when the house has dealt with everything c sent.
func sync(ctx context.Context, t *testing.T, c *plugintest.Client) {
	t.Helper()
	if err := c.Send("<iq type='get' id='sync'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
		t.Fatal(err)
	}
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if el.Get("id") == "sync" {
			return
		}
	}
}

// TestSentAgainBehindOthers is D2 for a sender who comes back late: what it sends
// again is found in the archives, though others have written a lot into them since.
func TestSentAgainBehindOthers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	const late = "<message to='juliet@localhost' type='chat' id='late'><body>b</body><origin-id xmlns='urn:xmpp:sid:0' id='late'/></message>"
	romeo, nurse := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "nurse", "b")
	login(ctx, t, h, "juliet", "c")
	say := func(c *plugintest.Client, what string) {
		if err := c.Send(what); err != nil {
			t.Fatal(err)
		}
	}
	say(romeo, late)
	sync(ctx, t, romeo)
	const n = 600
	for i := range n {
		say(nurse, fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'><body>b</body></message>", i))
	}
	sync(ctx, t, nurse)
	if err := h.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	romeo = login(ctx, t, h, "romeo", "a")
	say(romeo, late)
	sync(ctx, t, romeo)
	var rows int
	if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM archive`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 2*(n+1) { // each message is in both archives
		t.Errorf("%d rows", rows)
	}
}
