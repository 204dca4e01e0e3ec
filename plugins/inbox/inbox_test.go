package inbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/inbox"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// limit ends a test that hangs.
const limit = 2 * time.Minute

// stepped is a clock that somebody sets.
type stepped struct {
	plugins.SystemClock
	off atomic.Int64
}

func (s *stepped) Now() time.Time { return s.SystemClock.Now().Add(time.Duration(s.off.Load())) }

func login(ctx context.Context, t *testing.T, h *plugintest.House, user, resource string) *plugintest.Client {
	t.Helper()
	c, err := h.Login(ctx, user, resource)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func send(t *testing.T, c *plugintest.Client, xml string) {
	t.Helper()
	if err := c.Send(xml); err != nil {
		t.Fatal(err)
	}
}

// until returns the first element that f accepts.
func until(ctx context.Context, t *testing.T, c *plugintest.Client, f func(*stanza.Element) bool) *stanza.Element {
	t.Helper()
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if f(el) {
			return el
		}
	}
}

func withID(id string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool { return el.Get("id") == id }
}

// sync returns when the house has dealt with everything c sent.
func sync(ctx context.Context, t *testing.T, c *plugintest.Client) {
	t.Helper()
	send(t, c, "<iq type='get' id='sync'><ping xmlns='urn:xmpp:ping'/></iq>")
	until(ctx, t, c, withID("sync"))
}

// unread is what the inbox says of each conversation.
func unread(ctx context.Context, t *testing.T, c *plugintest.Client) map[string]int {
	t.Helper()
	send(t, c, "<iq type='get' id='inbox'><inbox xmlns='urn:xmpp:inbox:1' messages='false'/></iq>")
	all := map[string]int{}
	fin := until(ctx, t, c, func(el *stanza.Element) bool {
		if e := el.Child(inbox.NS, "entry"); e != nil {
			n, err := strconv.Atoi(e.Get("unread"))
			if err != nil {
				t.Fatal(err)
			}
			all[e.Get("jid")] = n
		}
		return el.Get("id") == "inbox"
	})
	if fin.Get("type") != "result" {
		t.Fatalf("%s", fin.Bytes(""))
	}
	return all
}

func contract(t *testing.T, h *plugintest.House) *inbox.Inbox {
	t.Helper()
	c, ok := h.Host().Contract(inbox.Name)
	if !ok {
		t.Fatal("no contract")
	}
	return c.(*inbox.Inbox)
}

// Whatever happens in whatever order, and however often it was counted in between,
// the inbox says what a client would that has seen everything.
func TestCountsAgreeWithTheArchive(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		clock := &stepped{}
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Clock: clock, Storage: func() storage.Config { return c }})
		romeo, juliet, phone := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b"), login(ctx, t, h, "juliet", "c")
		send(t, juliet, "<presence/>")
		var said, ids []string // what she was sent, and its stanza-ids
		read := 0
		mark := func(n int) { read = max(read, n) }
		r := rand.New(rand.NewPCG(4, 30))
		for i := range 400 {
			id := "m" + strconv.Itoa(i)
			switch what := r.IntN(20); {
			case what < 9:
				send(t, romeo, "<message to='juliet@localhost' type='chat' id='"+id+"'><body>b</body></message>")
				el := until(ctx, t, juliet, withID(id))
				said, ids = append(said, id), append(ids, el.Child(stanza.NSStanzaID, "stanza-id").Get("id"))
			case what < 10:
				send(t, romeo, "<message to='juliet@localhost' type='chat' id='"+id+"'><received xmlns='urn:xmpp:receipts' id='x'/></message>")
				until(ctx, t, juliet, withID(id))
			case what < 11:
				send(t, juliet, "<message to='romeo@localhost' type='chat' id='"+id+"'><body>b</body></message>")
				sync(ctx, t, juliet) // before romeo says more
				mark(len(said))
			case what < 14 && len(said) > 0:
				n := max(len(said)-1-r.IntN(6), 0)
				hint := []string{"", "<no-store xmlns='urn:xmpp:hints'/>"}[r.IntN(2)]
				send(t, juliet, "<message to='romeo@localhost' type='chat' id='"+id+"'><displayed xmlns='urn:xmpp:chat-markers:0' id='"+said[n]+"'/>"+hint+"</message>")
				mark(n + 1)
			case what < 16 && len(said) > 0:
				n := max(len(said)-1-r.IntN(6), 0)
				sync(ctx, t, juliet)
				if err := contract(t, h).Read(ctx, jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost"), ids[n]); err != nil {
					t.Fatal(err)
				}
				mark(n + 1)
			case what < 18:
				clock.off.Add(int64(45 * time.Second))
			default:
				sync(ctx, t, juliet)
				got := unread(ctx, t, phone)
				if want := len(said) - read; len(said) > 0 && got["romeo@localhost"] != want {
					t.Fatalf("after %d: %v unread, want %d", i, got, want)
				}
			}
		}
		sync(ctx, t, juliet)
		kept := unread(ctx, t, phone)
		var upto int64
		if err := h.DB().QueryRow(ctx, `SELECT upto FROM inbox_account`).Scan(&upto); err != nil {
			t.Errorf("nothing was kept: %v", err)
		}
		for _, sql := range []string{`DELETE FROM inbox_account`, `DELETE FROM inbox_chat`} {
			if _, err := h.DB().Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		if fresh := unread(ctx, t, phone); fresh["romeo@localhost"] != kept["romeo@localhost"] {
			t.Errorf("%v when counted at once, %v when counted in parts", fresh, kept)
		}
	})
}

// A message costs the inbox no row, whoever has one: not before it is asked for, and
// not after.
func TestMessagesWriteNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b")
	rows := func() (all int) {
		t.Helper()
		for _, table := range strings.Fields("inbox_account inbox_chat inbox_mark inbox_room inbox_mention inbox_notify") {
			var n int
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
				t.Fatal(err)
			}
			all += n
		}
		return all
	}
	for range 2 {
		before := rows()
		for range 20 {
			send(t, romeo, "<message to='juliet@localhost' type='chat'><body>b</body></message>")
		}
		sync(ctx, t, romeo)
		if after := rows(); after != before {
			t.Errorf("%d rows became %d", before, after)
		}
		unread(ctx, t, juliet)
	}
}

// What is not in the archive, or with somebody else, marks nothing as read
// (XEP-0490 §5.1).
func TestReadIgnoresWhatIsNotThere(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }})
		romeo, nurse, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "nurse", "b"), login(ctx, t, h, "juliet", "c")
		send(t, juliet, "<presence/>")
		send(t, romeo, "<message to='juliet@localhost' type='chat' id='m1'><body>b</body></message>")
		until(ctx, t, juliet, withID("m1"))
		send(t, nurse, "<message to='juliet@localhost' type='chat' id='m2'><body>b</body></message>")
		hers := until(ctx, t, juliet, withID("m2")).Child(stanza.NSStanzaID, "stanza-id").Get("id")
		me, him := jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
		for _, id := range []string{"", "x", "' OR 1=1", hers} {
			if err := contract(t, h).Read(ctx, me, him, id); err != nil {
				t.Error(err)
			}
		}
		if got := unread(ctx, t, juliet); got["romeo@localhost"] != 1 || got["nurse@localhost"] != 1 {
			t.Errorf("got %v", got)
		}
		var marks int
		if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM inbox_mark`).Scan(&marks); err != nil || marks != 0 {
			t.Errorf("%d marks, %v", marks, err)
		}
	})
}

// An inbox has the conversations that were in use last, and no more; those whose
// messages have left the archive are not listed.
func TestInboxIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	clock := &stepped{}
	h := plugintest.Start(t, plugintest.Options{
		Plugins: house(), Clock: clock,
		Config: "servers: {processor: {components: {inbox: {max_conversations: 3}, archive: {max_age: 1h, expiry_interval: 1s}}}}",
	})
	juliet := login(ctx, t, h, "juliet", "c")
	send(t, juliet, "<presence/>")
	for i := range 5 {
		them := login(ctx, t, h, fmt.Sprintf("somebody%d", i), "a")
		send(t, them, fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'><body>b</body></message>", i))
		until(ctx, t, juliet, withID(fmt.Sprintf("m%d", i)))
		clock.off.Add(int64(time.Minute))
	}
	for range 2 {
		if got := unread(ctx, t, juliet); len(got) != 3 || got["somebody4@localhost"] != 1 || got["somebody0@localhost"] != 0 {
			t.Errorf("got %v", got)
		}
	}
	var kept int
	if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM inbox_chat`).Scan(&kept); err != nil || kept > 3 {
		t.Errorf("%d are kept, %v", kept, err)
	}
	clock.off.Add(int64(2 * time.Hour))
	for { // the archive lets them go
		var rows int
		if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM archive`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows == 0 {
			break
		}
	}
	if got := unread(ctx, t, juliet); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// Nothing of an account is left when it is removed.
func TestRemovedAccount(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		clock := &stepped{}
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Clock: clock, Storage: func() storage.Config { return c }})
		romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "c")
		send(t, juliet, "<presence/>")
		send(t, romeo, "<message to='juliet@localhost' type='chat' id='m1'><body>b</body></message>")
		id := until(ctx, t, juliet, withID("m1")).Child(stanza.NSStanzaID, "stanza-id").Get("id")
		clock.off.Add(int64(time.Minute))
		unread(ctx, t, juliet)
		b, me, him := contract(t, h), jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
		if err := b.Read(ctx, me, him, id); err != nil {
			t.Fatal(err)
		}
		if err := b.SetNotify(ctx, me, him, inbox.Notify{{When: inbox.Never}}); err != nil {
			t.Fatal(err)
		}
		juliet.Close()
		accounts, _ := h.Host().Contract("accounts")
		if err := accounts.(interface {
			Delete(context.Context, jid.JID) error
		}).Delete(ctx, me); err != nil {
			t.Fatal(err)
		}
		for n := 1; n > 0; { // the account goes when its sessions have ended
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM inbox_account`).Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
		for _, table := range strings.Fields("inbox_chat inbox_mark inbox_notify") {
			var n int
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM `+table+` WHERE owner = $1`, me.String()).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s: %d rows, %v", table, n, err)
			}
		}
		for { // and then what is remembered of it
			n, err := b.NotifyOf(ctx, me, him)
			if err != nil {
				t.Fatal(err)
			}
			if n == nil {
				break
			}
		}
	})
}
