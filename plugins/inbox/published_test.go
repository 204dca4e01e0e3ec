package inbox_test

import (
	"context"
	"testing"

	"parley/parser/jid"
	"parley/plugins/inbox"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// Notification settings stand in bookmarks and go with them: one by one, all at
// once, and with the node (XEP-0492 §2, XEP-0402 §3.1).
func TestSettingsGoWithTheirBookmarks(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }})
		juliet := login(ctx, t, h, "juliet", "a")
		b, me := contract(t, h), jid.MustParse("juliet@localhost")
		rooms := []jid.JID{jid.MustParse("garden@conference.localhost"), jid.MustParse("crypt@conference.localhost")}
		ask := func(ns, payload string) {
			t.Helper()
			send(t, juliet, "<iq type='set' id='q'><pubsub xmlns='http://jabber.org/protocol/pubsub"+ns+"'>"+payload+"</pubsub></iq>")
			if el := until(ctx, t, juliet, withID("q")); el.Get("type") != "result" {
				t.Fatalf("%s", el.Bytes(""))
			}
		}
		muted := func() (n int) {
			t.Helper()
			for _, room := range rooms {
				set, err := b.NotifyOf(ctx, me, room)
				if err != nil {
					t.Fatal(err)
				}
				if set.For("", "", inbox.Always) == inbox.Never {
					n++
				}
			}
			return n
		}
		for name, end := range map[string]struct {
			ns, payload string
			left        int
		}{
			"one is retracted": {"", "<retract node='urn:xmpp:bookmarks:1'><item id='" + rooms[0].String() + "'/></retract>", 1},
			"all are purged":   {"#owner", "<purge node='urn:xmpp:bookmarks:1'/>", 0},
			"the node is gone": {"#owner", "<delete node='urn:xmpp:bookmarks:1'/>", 0},
		} {
			for _, room := range rooms {
				ask("", "<publish node='urn:xmpp:bookmarks:1'><item id='"+room.String()+"'><conference xmlns='urn:xmpp:bookmarks:1'><extensions><notify xmlns='urn:xmpp:notification-settings:1'><never/></notify></extensions></conference></item></publish>")
			}
			if got := muted(); got != len(rooms) {
				t.Fatalf("%s: %d rooms are muted at the beginning", name, got)
			}
			ask(end.ns, end.payload)
			if got := muted(); got != end.left {
				t.Errorf("%s: %d rooms are muted, want %d", name, got, end.left)
			}
		}
	})
}
