package federation

import (
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0115
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// Patience ends a wait for what does not come.
const Patience = 45 * time.Second

// Person is a client with a voice, who says what it can do when it is asked.
type Person struct {
	*plugintest.Client
	t testing.TB
}

// NewPerson gives a client its voice; it is closed with the test.
func NewPerson(t testing.TB, c *plugintest.Client) *Person {
	t.Cleanup(c.Close)
	return &Person{c, t}
}

// features is what a Person can do: it wants to know nicknames (XEP-0163 §4.2).
var features = []string{"http://jabber.org/protocol/caps", stanza.NSDiscoInfo, NSNick + "+notify"}

// NSNick is XEP-0172.
const NSNick = "http://jabber.org/protocol/nick"

// Caps announces that (XEP-0115 §4).
func Caps() string {
	sum := sha1.Sum([]byte("client/pc//test<" + strings.Join(features, "<") + "<")) //nolint:gosec // XEP-0115
	return "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:test' ver='" + base64.StdEncoding.EncodeToString(sum[:]) + "'/>"
}

// Online sends initial presence, and waits until it counts (RFC 6121 §4.2.2).
func (p *Person) Online() *Person {
	p.t.Helper()
	p.Say("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence>%s</presence>", Caps())
	p.Hears("the roster", WithID("roster"))
	p.Hears("its own presence", Presence("", p.JID.String()))
	return p
}

// Say sends.
func (p *Person) Say(format string, args ...any) {
	p.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if err := p.Send(format); err != nil {
		p.t.Fatalf("%s: %v", p.JID, err)
	}
}

// Hears waits for what f accepts, and skips the rest.
func (p *Person) Hears(what string, f func(*stanza.Element) bool) *stanza.Element {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var before []string
	for {
		el, err := p.Next(ctx)
		if err != nil {
			p.t.Fatalf("%s waits for %s: %v; it has had\n%s", p.JID, what, err, strings.Join(before, "\n"))
		}
		p.answer(el)
		if f(el) {
			return el
		}
		before = append(before, string(el.Bytes("")))
	}
}

// answer says what it can do.
func (p *Person) answer(el *stanza.Element) {
	q := el.Child(stanza.NSDiscoInfo, "query")
	if el.Name.Local != "iq" || el.Get("type") != "get" || q == nil {
		return
	}
	info := stanza.El(stanza.NSDiscoInfo, "query").WithOpt("node", q.Get("node")).
		Add(stanza.El(stanza.NSDiscoInfo, "identity").With("category", "client").With("type", "pc").With("name", "test"))
	for _, f := range features {
		info.Add(stanza.El(stanza.NSDiscoInfo, "feature").With("var", f))
	}
	p.Say("%s", stanza.El(stanza.NSClient, "iq").With("type", "result").With("id", el.Get("id")).With("to", el.Get("from")).Add(info).Bytes(stanza.NSClient))
}

// Refuses sends a message to an address and returns the error's condition.
func (p *Person) Refuses(to string) string {
	p.t.Helper()
	p.Say("<message type='chat' id='refused' to='%s'><body>anybody there?</body></message>", to)
	return Condition(p.Hears("an error", WithID("refused")))
}

// WithID accepts what has the id.
func WithID(id string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool { return el.Get("id") == id }
}

// Body accepts a message with the text.
func Body(text string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool {
		b := el.Child(stanza.NSClient, "body")
		return el.Name.Local == "message" && b != nil && b.Text() == text
	}
}

// Presence accepts presence of a type from an address.
func Presence(typ, from string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool {
		return el.Name.Local == "presence" && el.Get("type") == typ && el.Get("from") == from
	}
}

// Nick accepts the news of somebody's nickname.
func Nick(from, name string) func(*stanza.Element) bool {
	return func(el *stanza.Element) bool {
		e := el.Child("http://jabber.org/protocol/pubsub#event", "event")
		return el.Get("from") == from && e != nil && strings.Contains(string(e.Bytes("")), ">"+name+"<")
	}
}

// Condition is what an error says.
func Condition(el *stanza.Element) string {
	if e := stanza.ParseError(el.Child(stanza.NSClient, "error")); e != nil {
		return string(e.Condition)
	}
	return ""
}

// Befriend lets two see each other's presence.
func Befriend(a, b *Person) {
	a.t.Helper()
	ask := func(x, y *Person) {
		x.Say("<presence type='subscribe' to='%s'/>", y.JID.Bare())
		y.Hears("a request", Presence("subscribe", x.JID.Bare().String()))
		y.Say("<presence type='subscribed' to='%s'/>", x.JID.Bare())
		x.Hears("an approval", Presence("subscribed", y.JID.Bare().String()))
		x.Hears("presence", Presence("", y.JID.String()))
	}
	ask(a, b)
	ask(b, a)
}

// Enter lets somebody into a room under a nickname, and unlocks it when it is new.
func (p *Person) Enter(room, nick string) {
	p.t.Helper()
	p.Say("<presence to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>", room, nick)
	self := p.Hears("itself in the room", Presence("", room+"/"+nick))
	if strings.Contains(string(self.Bytes("")), "code='201'") || strings.Contains(string(self.Bytes("")), `code="201"`) {
		p.Say("<iq type='set' id='unlock' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>", room)
		p.Hears("an open room", WithID("unlock"))
	}
}

// Publish sets the nickname.
func (p *Person) Publish(name string) {
	p.t.Helper()
	p.Say("<iq type='set' id='publish'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='%s'><item id='current'><nick xmlns='%s'>%s</nick></item></publish></pubsub></iq>", NSNick, NSNick, name)
	if el := p.Hears("the receipt", WithID("publish")); el.Get("type") != "result" {
		p.t.Fatalf("not published: %s", el.Bytes(""))
	}
}
