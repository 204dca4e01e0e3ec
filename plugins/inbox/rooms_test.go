package inbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/inbox"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
)

// Rooms and members on different nodes.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}

// enter makes a room of romeo's and lets him in.
func enter(ctx context.Context, t *testing.T, c *plugintest.Client, room, config string) {
	t.Helper()
	send(t, c, "<presence to='"+room+"/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	until(ctx, t, c, func(el *stanza.Element) bool { return el.Name.Local == "message" })
	send(t, c, "<iq type='set' to='"+room+"' id='open'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"+config+"</x></query></iq>")
	until(ctx, t, c, withID("open"))
}

func join(ctx context.Context, t *testing.T, owner *plugintest.Client, room, who, nick string) {
	t.Helper()
	send(t, owner, "<iq type='set' to='"+room+"' id='join'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='"+who+"' nick='"+nick+"'/></query></iq>")
	until(ctx, t, owner, withID("join"))
}

// say returns the stanza-id of what the room says then.
func say(ctx context.Context, t *testing.T, c *plugintest.Client, room, id, inner string) string {
	t.Helper()
	send(t, c, "<message to='"+room+"' type='groupchat' id='"+id+"'>"+inner+"</message>")
	return until(ctx, t, c, withID(id)).Child(stanza.NSStanzaID, "stanza-id").Get("id")
}

// Markers of rooms name the room's own ids, and so does what devices tell each other
// (XEP-0333 §4.3, XEP-0490 §4.2).
func TestMarksOfRooms(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }})
		const room = "garden@conference.localhost"
		romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b")
		enter(ctx, t, romeo, room, "")
		join(ctx, t, romeo, room, "juliet@localhost", "Jule")
		var ids []string
		for i := range 4 {
			ids = append(ids, say(ctx, t, romeo, room, "m"+string(rune('0'+i)), "<body>Jule!</body>"))
		}
		check := func(want int) {
			t.Helper()
			if got := unread(ctx, t, juliet)[room]; got != want {
				t.Errorf("%d unread, want %d", got, want)
			}
		}
		check(4)
		b, me, at := contract(t, h), jid.MustParse("juliet@localhost"), jid.MustParse(room)
		if err := errors.Join(b.Read(ctx, me, at, ids[1]), b.Read(ctx, me, at, ids[0]), b.Read(ctx, me, at, "nothing")); err != nil {
			t.Fatal(err)
		}
		check(2)
		send(t, juliet, "<presence to='"+room+"/Jule'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		until(ctx, t, juliet, func(el *stanza.Element) bool { return el.Child(stanza.NSClient, "subject") != nil })
		say(ctx, t, juliet, room, "d1", "<displayed xmlns='urn:xmpp:chat-markers:0' id='"+ids[2]+"'/>")
		check(1)
		var mentions int
		if err := h.DB().QueryRow(ctx, `SELECT COUNT(*) FROM inbox_mention`).Scan(&mentions); err != nil || mentions != 1 {
			t.Errorf("%d mentions are kept, %v", mentions, err)
		}
	})
}

// Members who are away are told of, by what they have set; those who are in the room
// are not.
func TestWaitingInRooms(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		listener := &told{}
		h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), listener.plugin()), Storage: func() storage.Config { return c }})
		const open, closed = "open@conference.localhost", "closed@conference.localhost"
		romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b")
		if err := h.Account(ctx, "nurse", plugintest.Password); err != nil {
			t.Fatal(err)
		}
		enter(ctx, t, romeo, open, "<field var='muc#roomconfig_publicroom'><value>1</value></field>")
		enter(ctx, t, romeo, closed, "<field var='muc#roomconfig_membersonly'><value>1</value></field>")
		for _, room := range []string{open, closed} {
			join(ctx, t, romeo, room, "juliet@localhost", "Jule")
			join(ctx, t, romeo, room, "nurse@localhost", "Angelica")
			join(ctx, t, romeo, room, "somebody@elsewhere.example", "")
		}
		send(t, juliet, "<presence/><presence to='"+open+"/Jule'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		until(ctx, t, juliet, func(el *stanza.Element) bool { return el.Child(stanza.NSClient, "subject") != nil })
		heard := func(room, id, inner string) map[string]inbox.Wait {
			t.Helper()
			listener.take()
			say(ctx, t, romeo, room, id, inner)
			sync(ctx, t, romeo)
			all := map[string]inbox.Wait{}
			for _, w := range listener.take() {
				if w.Conversation.String() != room || !strings.HasPrefix(w.From.String(), room+"/") {
					t.Errorf("%+v", w)
				}
				all[w.Account.Local()] = w
			}
			return all
		}
		got := heard(open, "m1", "<body>hello</body>")
		if n, ok := got["nurse"]; len(got) != 1 || !ok || n.Mentioned || !n.Muted("", "") { // public: on-mention (XEP-0492 §3)
			t.Errorf("open: %+v", got)
		}
		got = heard(open, "m2", "<body>Angelica, she is here</body>")
		if n := got["nurse"]; len(got) != 1 || !n.Mentioned || n.Muted("", "") {
			t.Errorf("open, named: %+v", got)
		}
		got = heard(closed, "m3", "<body>hello</body>") // juliet is online, but not in it
		if n, j := got["nurse"], got["juliet"]; len(got) != 2 || n.Muted("", "") || j.Muted("", "") {
			t.Errorf("closed: %+v", got)
		}
		if err := contract(t, h).SetNotify(ctx, jid.MustParse("nurse@localhost"), jid.MustParse(closed), inbox.Notify{{When: inbox.Never}}); err != nil {
			t.Fatal(err)
		}
		got = heard(closed, "m4", "<body>Angelica!</body>")
		if n, j := got["nurse"], got["juliet"]; len(got) != 2 || !n.Muted("", "") || j.Muted("", "") {
			t.Errorf("never: %+v", got)
		}
		if got = heard(closed, "m5", "<reactions xmlns='urn:xmpp:reactions:0' id='m4'><reaction>🌹</reaction></reactions>"); len(got) != 0 {
			t.Errorf("a reaction: %+v", got)
		}
	})
}
