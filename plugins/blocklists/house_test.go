package blocklists_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/blocklists"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/federation"
	"parley/storage"
	"parley/storage/storagetest"
)

// person logs in.
func person(t *testing.T, h *federation.House, user string) *federation.Person {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), federation.Patience)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	return federation.NewPerson(t, c).Online()
}

// ask sends a request and returns what comes back, without an error.
func ask(t *testing.T, p *federation.Person, id, typ, to, payload string) {
	t.Helper()
	p.Say("<iq id='%s' type='%s' to='%s'>%s</iq>", id, typ, to, payload)
	if a := p.Hears("an answer", federation.WithID(id)); a.Get("type") != "result" {
		t.Fatalf("%s", a.Bytes(""))
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// list is a node of a service with somebody who publishes there.
type list struct {
	t       *testing.T
	by      *federation.Person
	service string
}

const node = "bans"

func newList(t *testing.T, by *federation.Person, service string) *list {
	t.Helper()
	ask(t, by, "create", "set", service, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='bans'/><configure><x xmlns='jabber:x:data' type='submit'>
		<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field><field var='pubsub#access_model'><value>open</value></field>
		<field var='pubsub#persist_items'><value>1</value></field><field var='pubsub#max_items'><value>max</value></field><field var='pubsub#notify_retract'><value>1</value></field></x></configure></pubsub>`)
	return &list{t, by, service}
}

func (l *list) add(who string) {
	l.t.Helper()
	ask(l.t, l.by, "add-"+sum(who)[:8], "set", l.service, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='bans'><item id='`+sum(who)+`'>
		<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>sells herbs</text></report></item></publish></pubsub>`)
}

func (l *list) remove(who string) {
	l.t.Helper()
	ask(l.t, l.by, "remove-"+sum(who)[:8], "set", l.service, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='bans' notify='true'><item id='`+sum(who)+`'/></retract></pubsub>`)
}

// comes waits until a node knows that somebody is on a list, or is not.
func comes(t *testing.T, h *plugintest.House, at int, who string, listed bool) {
	t.Helper()
	c, ok := h.HostOf(at).Contract(blocklists.Name)
	if !ok {
		t.Fatal("no contract")
	}
	lists, late := c.(*blocklists.Lists), time.NewTimer(federation.Patience)
	defer late.Stop()
	for {
		changed := lists.Changed()
		if (lists.Match(jid.MustParse(who), true) != "") == listed {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("node %d: %s on a list: %v expected", at, who, listed)
		}
	}
}

func enter(p *federation.Person, room string) string {
	p.Say("<presence to='%s/%s' id='enter'><x xmlns='http://jabber.org/protocol/muc'/></presence>", room, p.JID.Local())
	el := p.Hears("an answer of the room", func(el *stanza.Element) bool {
		return el.Name.Local == "presence" && el.Get("from") == room+"/"+p.JID.Local()
	})
	return federation.Condition(el)
}

// A server follows another one's list: who is on it is refused at once, in rooms, too,
// whoever is taken off is not, and what is known counts after a restart without the
// list's server (XEP-0060 §6.1, §6.5, §7.1.2, §7.2.2).
func TestListOfAnotherServer(t *testing.T) {
	w := federation.New(t)
	two := w.House("two.test", federation.Options{})
	keeper := person(t, two, "keeper")
	l := newList(t, keeper, "keeper@two.test")
	l.add("mallory@two.test")
	one := w.House("one.test", federation.Options{Config: "servers: {processor: {components: {blocklists: {lists: ['xmpp:keeper@two.test?;node=" + node + "'], retry: 200ms}}}}"})
	romeo := person(t, one, "romeo")
	mallory, carol := person(t, two, "mallory"), person(t, two, "carol")
	comes(t, one.House, 0, "mallory@two.test", true)

	if got, of := mallory.Refuses("romeo@one.test"), mallory.Refuses("nobody@one.test"); got != "service-unavailable" || of != got {
		t.Errorf("a listed person hears %q, of nobody %q", got, of)
	}
	const room = "garden@conference.one.test"
	if got := enter(romeo, room); got != "" {
		t.Fatal(got)
	}
	ask(t, romeo, "open", "set", room, "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>")
	if got := enter(mallory, room); got != "forbidden" {
		t.Errorf("a listed person enters: %q", got)
	}
	if got := enter(carol, room); got != "" {
		t.Errorf("another one enters: %q", got)
	}

	// Who is known there is let in, and heard.
	ask(t, romeo, "member", "set", room, "<query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='mallory@two.test'/></query>")
	if got := enter(mallory, room); got != "" {
		t.Errorf("a member enters: %q", got)
	}
	ask(t, romeo, "contact", "set", "romeo@one.test", "<query xmlns='jabber:iq:roster'><item jid='mallory@two.test'/></query>")
	mallory.Say("<message type='chat' to='romeo@one.test'><body>me again</body></message>")
	romeo.Hears("a contact", federation.Body("me again"))

	// Changes come at once.
	carol.Say("<message type='chat' to='romeo@one.test'><body>hello</body></message>")
	romeo.Hears("a message", federation.Body("hello"))
	l.add("carol@two.test")
	comes(t, one.House, 0, "carol@two.test", true)
	if got := carol.Refuses("romeo@one.test"); got != "service-unavailable" {
		t.Errorf("newly listed: %q", got)
	}
	carol.Say("<message type='groupchat' to='%s' id='g1'><body>hello all</body></message>", room)
	if got := federation.Condition(carol.Hears("a refusal", federation.WithID("g1"))); got != "forbidden" {
		t.Errorf("newly listed, in the room: %q", got)
	}
	l.remove("carol@two.test")
	comes(t, one.House, 0, "carol@two.test", false)
	carol.Say("<message type='chat' to='romeo@one.test'><body>I am no spammer</body></message>")
	romeo.Hears("a message", federation.Body("I am no spammer"))

	// A whole domain; the house's own is on no list.
	l.add("two.test")
	comes(t, one.House, 0, "carol@two.test", true)
	l.add("one.test")
	l.add("last@two.test")
	comes(t, one.House, 0, "last@two.test", true)
	comes(t, one.House, 0, "romeo@one.test", false)

	ctx, cancel := context.WithTimeout(t.Context(), federation.Patience)
	defer cancel()
	if err := two.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := one.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	c, _ := one.Host().Contract(blocklists.Name)
	if c.(*blocklists.Lists).Match(jid.MustParse("mallory@two.test"), false) == "" {
		t.Error("nobody is listed after a restart without the list's server")
	}
}

// A list on a service of one's own, which all nodes follow; one for rooms keeps nobody
// from accounts.
func TestOwnListOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	w := federation.New(t)
	one := w.House("one.test", federation.Options{Nodes: 2, Storage: func() storage.Config { return c },
		Config: "servers: {processor: {components: {blocklists: {room_lists: ['xmpp:pubsub.one.test?;node=" + node + "'], retry: 200ms}}}}"})
	keeper := person(t, one, "keeper")
	l := newList(t, keeper, "pubsub.one.test")
	l.add("mallory@one.test")
	for i := range 2 {
		comes(t, one.House, i, "mallory@one.test", true)
	}
	mallory := person(t, one, "mallory")
	if got := enter(keeper, "garden@conference.one.test"); got != "" {
		t.Fatal(got)
	}
	ask(t, keeper, "open", "set", "garden@conference.one.test", "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>")
	if got := enter(mallory, "garden@conference.one.test"); got != "forbidden" {
		t.Errorf("a listed person enters: %q", got)
	}
	mallory.Say("<message type='chat' to='keeper@one.test'><body>let me in</body></message>")
	keeper.Hears("a message", federation.Body("let me in"))
	l.remove("mallory@one.test")
	for i := range 2 {
		comes(t, one.House, i, "mallory@one.test", false)
	}
	if got := enter(mallory, "garden@conference.one.test"); got != "" {
		t.Errorf("not listed any more: %q", got)
	}
}
