package s2s_test

import (
	"strconv"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/plugintest/federation"
)

const (
	nsBidiFeature = "urn:xmpp:features:bidi"
	bothWays      = "servers: {streamer: {components: {s2s: {bidi: true}}}}"
)

// noStream fails if the house has called the other.
func noStream(h *house, to string) {
	h.t.Helper()
	if h.log.has("stream to another server", "to="+to) {
		h.t.Errorf("%s has made a stream to %s", h.Domain(), to)
	}
}

// bothWays is a peer that proves by certificate to be the domain, on a stream that
// goes both ways.
func (h *house) bothWays(w *federation.World, domain string, more ...string) *peer {
	h.t.Helper()
	p := h.dial()
	f := p.secure(domain, "one.test", issue(h.t, w.CA, federation.Leaf{Names: append(more, domain)}))
	if f.Child(nsBidiFeature, "bidi") == nil {
		h.t.Fatalf("not offered: %s", f.Bytes(""))
	}
	p.say("<bidi xmlns='urn:xmpp:bidi'/><auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
	if el := p.next(); el.Name.Local != "success" {
		h.t.Fatalf("%s", el.Bytes(""))
	}
	if f := p.open(domain, "one.test"); f.Child(nsBidiFeature, "bidi") != nil {
		h.t.Errorf("offered after the proof: %s", f.Bytes(""))
	}
	return p
}

// stanza is the next message, presence or iq.
func (p *peer) stanza() *stanza.Element {
	p.t.Helper()
	for {
		if el := p.next(); el.Name.Space == stanza.NSServer {
			return el
		}
	}
}

// settled waits until the house has done what the peer has said.
func (p *peer) settled() {
	p.t.Helper()
	p.say("<iq type='get' id='settled' from='%s' to='one.test'><ping xmlns='urn:xmpp:ping'/></iq>", "a@two.test")
	for {
		if el := p.stanza(); el.Get("id") == "settled" {
			return
		}
	}
}

// One stream is enough for two servers, whichever has begun it: the answer comes on
// it to a server that could not be found (XEP-0288 §2.2, SASL EXTERNAL).
func TestBidiByCertificate(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{Config: bothWays}), start(t, w, "two.test", federation.Options{Config: bothWays, Hidden: true})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	for range 3 {
		juliet.Say("<message type='chat' to='romeo@one.test'><body>from two</body></message>")
		romeo.Hears("a message", body("from two"))
		romeo.Say("<message type='chat' to='juliet@two.test'><body>from one</body></message>")
		juliet.Hears("an answer", body("from one"))
	}
	romeo.Say("<iq type='get' id='q' to='two.test'><ping xmlns='urn:xmpp:ping'/></iq>")
	if a := romeo.Hears("an answer", withID("q")); a.Get("type") != "result" {
		t.Errorf("%s", a.Bytes(""))
	}
	if !two.log.has("stream to another server", "to=one.test", "by=certificate", "acknowledged=true", "both_ways=true") {
		t.Error("not both ways")
	}
	noStream(one, "two.test")
}

// The same with dialback (XEP-0288 §2.2): the pair that it has proven, the other way.
func TestBidiByDialback(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{Config: bothWays}), start(t, w, "two.test", federation.Options{Config: bothWays, Foreign: true})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	juliet.Say("<message type='chat' to='romeo@one.test'><body>from two</body></message>")
	romeo.Hears("a message", body("from two"))
	romeo.Say("<message type='chat' to='juliet@two.test'><body>from one</body></message>")
	juliet.Hears("an answer", body("from one"))
	if !one.log.has("stream of another server", "from=two.test", "by=dialback") || !two.log.has("stream to another server", "by=dialback", "both_ways=true") {
		t.Error("not both ways by dialback")
	}
	noStream(one, "two.test")
}

// Switched off on either side there is a stream for each direction.
func TestBidiOff(t *testing.T) {
	for name, c := range map[string]struct{ one, two string }{"offered": {"", bothWays}, "asked for": {bothWays, ""}} {
		t.Run(name, func(t *testing.T) {
			w := federation.New(t)
			one, two := start(t, w, "one.test", federation.Options{Config: c.one}), start(t, w, "two.test", federation.Options{Config: c.two})
			romeo, juliet := one.online("romeo"), two.online("juliet")
			juliet.Say("<message type='chat' to='romeo@one.test'><body>from two</body></message>")
			romeo.Hears("a message", body("from two"))
			romeo.Say("<message type='chat' to='juliet@two.test'><body>from one</body></message>")
			juliet.Hears("an answer", body("from one"))
			if !one.log.has("stream to another server", "to=two.test", "both_ways=false") || !two.log.has("stream to another server", "to=one.test", "both_ways=false") {
				t.Error("one stream for both")
			}
		})
	}
}

// Reliability row 22: a stream takes what is for the pairs that were proven on it, and
// nothing before the proof, for another domain, or where it was asked for too late.
func TestReliability22BidiUnproven(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: bothWays})
	romeo := one.online("romeo")
	refused := func(what string) {
		t.Helper()
		if got := romeo.Refuses("a@two.test"); got != "remote-server-not-found" {
			t.Errorf("%s: %s", what, got)
		}
	}
	early := one.dial() // says who it is, and proves nothing
	early.secure("two.test", "one.test")
	early.say("<bidi xmlns='urn:xmpp:bidi'/><db:verify from='two.test' to='one.test' id='x'>0</db:verify>")
	if el := early.next(); el.Name.Local != "verify" {
		t.Fatalf("%s", el.Bytes(""))
	}
	refused("before the proof")
	clear := one.dial() // asks for it in the clear
	clear.open("two.test", "one.test")
	clear.say("<bidi xmlns='urn:xmpp:bidi'/><db:verify from='two.test' to='one.test' id='x'>0</db:verify>")
	if el := clear.next(); el.Name.Local != "verify" {
		t.Fatalf("%s", el.Bytes(""))
	}
	evil := one.bothWays(w, "evil.test") // is somebody else
	evil.say("<db:result from='two.test' to='one.test'>0</db:result>")
	if el := evil.next(); el.Get("type") != "error" {
		t.Fatalf("%s", el.Bytes(""))
	}
	evil.say("<db:result from='one.test' to='two.test' type='valid'/><db:result from='two.test' to='one.test' type='valid'/>") // unsolicited (XEP-0220 §4)
	refused("for another domain")
	late := one.proven(w, "two.test")
	late.say("<bidi xmlns='urn:xmpp:bidi'/><db:verify from='two.test' to='one.test' id='x'>0</db:verify>")
	if el := late.next(); el.Name.Local != "verify" {
		t.Fatalf("%s", el.Bytes(""))
	}
	refused("after the proof")
	for name, p := range map[string]*peer{"early": early, "clear": clear, "evil": evil, "late": late} {
		p.say("<db:verify from='two.test' to='one.test' id='last'>0</db:verify>")
		if el := p.next(); el.Get("id") != "last" {
			t.Errorf("%s gets %s", name, el.Bytes(""))
		}
	}
}

// What waits for a server that is not found goes out when that server calls, on each
// pair that its stream has proven.
func TestBidiWaiting(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: bothWays})
	w.Announce("two.test", "127.0.0.1:1") // and nobody is there
	romeo := one.online("romeo")
	romeo.Say("<message to='a@two.test' id='first'/><message to='a@conference.two.test' id='second'/>")
	await(t, "the first try", func() bool {
		return one.log.has("another server is not reached", "to=two.test") && one.log.has("another server is not reached", "to=conference.two.test")
	})
	p := one.bothWays(w, "two.test", "conference.two.test")
	if el := p.stanza(); el.Get("id") != "first" || el.Get("from") != romeo.JID.String() {
		t.Errorf("%s", el.Bytes(""))
	}
	p.say("<db:result from='conference.two.test' to='one.test'>key</db:result>")
	if el := p.next(); el.Name.Local != "result" || el.Get("type") != "valid" {
		t.Fatalf("%s", el.Bytes(""))
	}
	if el := p.stanza(); el.Get("id") != "second" || el.Get("to") != "a@conference.two.test" {
		t.Errorf("%s", el.Bytes(""))
	}
}

// Both directions of a stream are counted (XEP-0198 §4): what was not acknowledged
// goes out again on the next one, in order, and what was does not.
func TestBidiManagement(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: bothWays})
	romeo := one.online("romeo")
	p := one.bothWays(w, "two.test")
	p.say("<enable xmlns='urn:xmpp:sm:3'/>")
	if el := p.next(); el.Name.Local != "enabled" {
		t.Fatalf("%s", el.Bytes(""))
	}
	p.say("<message from='a@two.test' to='romeo@one.test'><body>in</body></message>")
	romeo.Hears("a message", body("in"))
	for _, id := range []string{"1", "2", "3"} {
		romeo.Say("<message to='a@two.test' id='%s'/>", id)
		if el := p.stanza(); el.Get("id") != id {
			t.Fatalf("%s, not %s", el.Bytes(""), id)
		}
	}
	p.say("<r xmlns='urn:xmpp:sm:3'/>")
	for el := p.next(); el.Name.Local != "a" || el.Get("h") != "1"; el = p.next() {
		if el.Name.Space != stanza.NSSM {
			t.Fatalf("%s", el.Bytes(""))
		}
	}
	p.say("<a xmlns='urn:xmpp:sm:3' h='1'/>")
	p.settled()
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	p = one.bothWays(w, "two.test")
	for _, id := range []string{"2", "3"} {
		if el := p.stanza(); el.Get("id") != id {
			t.Errorf("%s, not %s", el.Bytes(""), id)
		}
	}
	q := one.bothWays(w, "two.test") // a count that cannot be
	q.say("<enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='7'/>")
	if got := q.ends(); got != "undefined-condition" {
		t.Error(got)
	}
}

// What goes between several domains of two servers, both ways and more than is
// acknowledged at a time, arrives in order, each on a stream on which its pair was proven
// (RFC 6120 §10.1).
func TestBidiSeveralPairs(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "domains: [one.test, other.test]\n" + bothWays})
	w.Announce("other.test", one.Door("s2s"))
	two := start(t, w, "two.test", federation.Options{Config: bothWays})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	const rounds = 40
	for i := range rounds {
		text := strconv.Itoa(i)
		romeo.Say("<message type='chat' to='juliet@two.test'><body>%s</body></message>", text)
		juliet.Hears("what he says", body(text))
		juliet.Say("<message type='chat' to='romeo@one.test'><body>%s</body></message>", text)
		romeo.Hears("what she says", body(text))
		for _, at := range []string{"other.test", "conference.one.test", "pubsub.one.test"} {
			id := at + text
			juliet.Say("<iq type='get' id='%s' to='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>", id, at)
			if el := juliet.Hears("an answer of "+at, withID(id)); el.Get("type") != "result" || el.Get("from") != at {
				t.Fatalf("%s", el.Bytes(""))
			}
		}
	}
	for _, h := range []*house{one, two} {
		if h.log.has("another server speaks for a domain that it has not proven") || h.log.has("another server ends") {
			t.Errorf("%s has ended streams", h.Domain())
		}
	}
}
