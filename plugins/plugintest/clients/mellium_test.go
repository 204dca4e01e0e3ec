package clients_test

import (
	"context"
	"encoding/xml"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/history"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/roster"
	"mellium.im/xmpp/stanza"
)

// peer is a client by mellium.im/xmpp: of other people's making, so that it
// does not share our mistakes. The other clients talk to it.
type peer struct {
	*xmpp.Session
	recalled chan recalled
	messages chan said
	pushes   chan roster.Item
	presence chan stanza.Presence
}

// said is a message.
type said struct {
	stanza.Message
	Body string `xml:"body"`
}

// recalled is a message out of the archive (XEP-0313 §4.2).
type recalled struct {
	stanza.Message
	Result struct {
		ID        string `xml:"id,attr"`
		Forwarded struct {
			Message said `xml:"jabber:client message"`
		} `xml:"urn:xmpp:forward:0 forwarded"`
	} `xml:"urn:xmpp:mam:2 result"`
}

// backlog is how much a peer may receive before its test looks.
const backlog = 100

// newPeer logs in over STARTTLS by the first of the mechanisms that the server
// has, with a resource of the server's making, and is available.
func (s *server) newPeer(t *testing.T, address string, mechanisms ...sasl.Mechanism) *peer {
	t.Helper()
	if len(mechanisms) == 0 {
		mechanisms = []sasl.Mechanism{sasl.ScramSha256Plus}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Door("c2s"))
	if err != nil {
		t.Fatal(err)
	}
	session, err := xmpp.NewClientSession(ctx, jid.MustParse(address), conn,
		xmpp.StartTLS(s.trust(t)), xmpp.SASL("", password, mechanisms...), xmpp.BindResource())
	if err != nil {
		_ = conn.Close()
		t.Fatalf("%s: %v", address, err)
	}
	p := &peer{
		Session: session, recalled: make(chan recalled, backlog), messages: make(chan said, backlog), pushes: make(chan roster.Item, backlog), presence: make(chan stanza.Presence, backlog),
	}
	m := mux.New(stanza.NSClient,
		mux.MessageFunc(stanza.NormalMessage, xml.Name{Space: history.NS, Local: "result"}, p.recall),
		ping.Handle(),
		roster.Handle(roster.Handler{Push: func(_ string, item roster.Item) error { p.pushes <- item; return nil }}),
		mux.MessageFunc(stanza.ChatMessage, xml.Name{Local: "body"}, p.hear),
		mux.MessageFunc(stanza.GroupChatMessage, xml.Name{Local: "body"}, p.hear),
		mux.PresenceFunc(stanza.AvailablePresence, xml.Name{}, p.see),
		mux.PresenceFunc(stanza.ErrorPresence, xml.Name{}, p.see),
		mux.PresenceFunc(stanza.SubscribePresence, xml.Name{}, p.see),
		mux.PresenceFunc(stanza.SubscribedPresence, xml.Name{}, p.see),
	)
	served := make(chan error, 1)
	go func() { served <- session.Serve(m) }()
	t.Cleanup(func() {
		_ = session.Close()
		_ = conn.SetReadDeadline(time.Now().Add(patience)) // the server answers the end of the stream
		if err := <-served; err != nil {
			t.Errorf("%s: the session ended with %v", address, err)
		}
		_ = conn.Close()
	})
	p.contacts(t) // now it is told of changes (RFC 6121 §2.2)
	if err := session.Send(ctx, stanza.Presence{}.Wrap(nil)); err != nil {
		t.Fatal(err)
	}
	p.sees(t, stanza.AvailablePresence, session.LocalAddr().String())
	return p
}

func (p *peer) hear(_ stanza.Message, r xmlstream.TokenReadEncoder) error {
	var m said
	if err := xml.NewTokenDecoder(r).Decode(&m); err != nil {
		return err
	}
	p.messages <- m
	return nil
}

func (p *peer) recall(_ stanza.Message, r xmlstream.TokenReadEncoder) error {
	var m recalled
	if err := xml.NewTokenDecoder(r).Decode(&m); err != nil {
		return err
	}
	p.recalled <- m
	return nil
}

func (p *peer) see(pres stanza.Presence, _ xmlstream.TokenReadEncoder) error {
	p.presence <- pres
	return nil
}

// say sends a chat message.
func (p *peer) say(t *testing.T, to, body string) {
	t.Helper()
	p.write(t, to, stanza.ChatMessage, body)
}

// write sends a message of a type.
func (p *peer) write(t *testing.T, to string, kind stanza.MessageType, body string) {
	t.Helper()
	m := stanza.Message{To: jid.MustParse(to), Type: kind}
	payload := xmlstream.Wrap(xmlstream.Token(xml.CharData(body)), xml.StartElement{Name: xml.Name{Local: "body"}})
	if err := p.Send(t.Context(), m.Wrap(payload)); err != nil {
		t.Fatal(err)
	}
}

// enter enters a room (XEP-0045 §7.2) and waits to see itself in it.
func (p *peer) enter(t *testing.T, room, nick string) {
	t.Helper()
	at := jid.MustParse(room + "/" + nick)
	x := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc", Local: "x"}})
	if err := p.Send(t.Context(), stanza.Presence{To: at}.Wrap(x)); err != nil {
		t.Fatal(err)
	}
	p.sees(t, stanza.AvailablePresence, at.String())
}

// open lets others into a room that was made by entering it (XEP-0045 §10.1.2).
func (p *peer) open(t *testing.T, room string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	form := xml.StartElement{Name: xml.Name{Space: "jabber:x:data", Local: "x"}, Attr: []xml.Attr{{Name: xml.Name{Local: "type"}, Value: "submit"}}}
	query := xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc#owner", Local: "query"}}
	answer, err := p.SendIQElement(ctx, xmlstream.Wrap(xmlstream.Wrap(nil, form), query), stanza.IQ{Type: stanza.SetIQ, To: jid.MustParse(room)})
	if err == nil {
		err = answer.Close()
	}
	if err != nil {
		t.Fatalf("%s is not opened: %v", room, err)
	}
}

// await returns the next value that fits.
func await[T any](t *testing.T, what string, from <-chan T, fits func(T) bool) T {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	var seen []T
	for {
		select {
		case v := <-from:
			if fits(v) {
				return v
			}
			seen = append(seen, v)
		case <-late.C:
			t.Fatalf("%s did not come; these did: %+v", what, seen)
		}
	}
}

// hears waits for a body.
func (p *peer) hears(t *testing.T, body string) said {
	t.Helper()
	return await(t, "the message "+body, p.messages, func(m said) bool { return m.Body == body })
}

func (p *peer) sees(t *testing.T, kind stanza.PresenceType, from string) {
	t.Helper()
	await(t, "presence "+string(kind)+" of "+from, p.presence, func(s stanza.Presence) bool {
		return s.Type == kind && (s.From.String() == from || s.From.Bare().String() == from)
	})
}

func (p *peer) tell(t *testing.T, kind stanza.PresenceType, to string) {
	t.Helper()
	if err := p.Send(t.Context(), stanza.Presence{Type: kind, To: jid.MustParse(to)}.Wrap(nil)); err != nil {
		t.Fatal(err)
	}
}

// Each mechanism by itself, with and without channel binding (over TLS 1.3:
// tls-exporter, RFC 9266).
func TestMelliumLogin(t *testing.T) {
	need(t, nothing)
	s := start(t, "alice")
	for _, m := range []sasl.Mechanism{sasl.ScramSha256Plus, sasl.ScramSha1Plus, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain} {
		t.Run(m.Name, func(t *testing.T) {
			p := s.newPeer(t, "alice@localhost", m)
			if p.State()&xmpp.Secure == 0 || p.LocalAddr().Resourcepart() == "" {
				t.Errorf("state %v as %v", p.State(), p.LocalAddr())
			}
			if err := ping.Send(t.Context(), p.Session, jid.MustParse(s.Domain())); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

// A wrong password ends in an error that says so.
func TestMelliumWrongPassword(t *testing.T) {
	need(t, nothing)
	s := start(t, "alice")
	conn, err := net.Dial("tcp", s.Door("c2s"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = xmpp.NewClientSession(t.Context(), jid.MustParse("alice@localhost"), conn,
		xmpp.StartTLS(s.trust(t)), xmpp.SASL("", "a guess", sasl.ScramSha256Plus), xmpp.BindResource())
	if err == nil || !strings.Contains(err.Error(), "not-authorized") {
		t.Errorf("a wrong password gave %v", err)
	}
}

func TestMelliumTalk(t *testing.T) {
	need(t, nothing)
	s := start(t, "alice", "bob")
	alice, bob := s.newPeer(t, "alice@localhost"), s.newPeer(t, "bob@localhost")
	ctx := t.Context()

	item := roster.Item{JID: jid.MustParse("bob@localhost"), Name: "Bob", Group: []string{"Friends"}}
	if err := roster.Set(ctx, alice.Session, item); err != nil {
		t.Fatalf("roster: %v", err)
	}
	await(t, "a roster push", alice.pushes, func(i roster.Item) bool { return i.Name == "Bob" })
	alice.tell(t, stanza.SubscribePresence, "bob@localhost")
	bob.sees(t, stanza.SubscribePresence, "alice@localhost")
	bob.tell(t, stanza.SubscribedPresence, "alice@localhost")
	alice.sees(t, stanza.SubscribedPresence, "bob@localhost")
	alice.sees(t, stanza.AvailablePresence, bob.LocalAddr().String())

	got := alice.contacts(t)
	if len(got) != 1 || got[0].JID.String() != "bob@localhost" || got[0].Name != "Bob" || got[0].Subscription != "to" || !slices.Equal(got[0].Group, []string{"Friends"}) {
		t.Errorf("the roster is %+v", got)
	}

	alice.say(t, "bob@localhost", "a word with you, Bob & <friends>")
	m := bob.hears(t, "a word with you, Bob & <friends>")
	if !m.From.Equal(alice.LocalAddr()) {
		t.Errorf("from %s, not %s", m.From, alice.LocalAddr())
	}
	bob.say(t, m.From.String(), "äöü 漢字 🙂")
	alice.hears(t, "äöü 漢字 🙂")

	if got := alice.remembers(t, "bob@localhost"); !slices.Equal(got, []string{"a word with you, Bob & <friends>", "äöü 漢字 🙂"}) {
		t.Errorf("the archive has %q", got)
	}
}

// contacts fetches the roster.
func (p *peer) contacts(t *testing.T) []roster.Item {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	items := roster.Fetch(ctx, p.Session)
	var got []roster.Item
	for items.Next() {
		got = append(got, items.Item())
	}
	if err := errors.Join(items.Err(), items.Close()); err != nil {
		t.Fatalf("roster: %v", err)
	}
	return got
}

// remembers asks the peer's archive what was said with somebody.
func (p *peer) remembers(t *testing.T, with string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := history.Fetch(ctx, history.Query{With: jid.MustParse(with), Limit: backlog}, jid.JID{}, p.Session)
	if err != nil {
		t.Fatalf("archive: %v", err)
	}
	var bodies []string
	for len(p.recalled) > 0 { // the answer comes after the last of them
		m := <-p.recalled
		if m.Result.ID == "" {
			t.Error("a result without an id")
		}
		bodies = append(bodies, m.Result.Forwarded.Message.Body)
	}
	return bodies
}
