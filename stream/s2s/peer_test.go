package s2s_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest/federation"
)

// peer is another server by hand.
type peer struct {
	t    *testing.T
	conn net.Conn
	rd   *stanza.Reader
	buf  []byte
	id   string // of the stream, by the house
}

// dial connects to a house's door.
func (h *house) dial() *peer {
	h.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(h.t.Context(), "tcp", h.Door("s2s"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	return &peer{t: h.t, conn: conn, rd: stanza.NewReader(stanza.Stream, stanza.Limits{}), buf: make([]byte, 16<<10)}
}

func (p *peer) say(format string, args ...any) {
	p.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if _, err := p.conn.Write([]byte(format)); err != nil {
		p.t.Fatal(err)
	}
}

// token is what comes next: a header, an element, or the end.
func (p *peer) token() (stanza.Token, error) {
	for {
		t, err := p.rd.Next()
		if err == nil || !errors.Is(err, stanza.ErrMore) {
			return t, err
		}
		n, err := p.conn.Read(p.buf)
		if err != nil {
			return t, err
		}
		p.rd.Feed(p.buf[:n])
	}
}

// next is the next element.
func (p *peer) next() *stanza.Element {
	p.t.Helper()
	for {
		t, err := p.token()
		switch {
		case err != nil:
			p.t.Fatal(err)
		case t.Kind == stanza.Open:
			p.id = t.Open.Get("id")
		case t.Kind == stanza.Close:
			p.t.Fatal("the stream has ended")
		default:
			el, err := stanza.ParseElement(t.Raw, stanza.NSServer)
			if err != nil {
				p.t.Fatal(err)
			}
			return el
		}
	}
}

// open begins a stream and returns the features.
func (p *peer) open(from, to string) *stanza.Element {
	p.t.Helper()
	p.rd.Reset(stanza.Stream)
	p.say("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' version='1.0' from='%s' to='%s'>", from, to)
	return p.next()
}

// secure starts TLS as the domain, with a certificate or without.
func (p *peer) secure(from, to string, certificates ...tls.Certificate) *stanza.Element {
	p.t.Helper()
	if f := p.open(from, to); f.Child(stanza.NSTLS, "starttls") == nil {
		p.t.Fatalf("no TLS: %s", f.Bytes(""))
	}
	p.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	if el := p.next(); el.Name.Local != "proceed" {
		p.t.Fatalf("%s", el.Bytes(""))
	}
	c := tls.Client(p.conn, &tls.Config{ServerName: to, InsecureSkipVerify: true, Certificates: certificates}) //nolint:gosec // a test's
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn = c
	return p.open(from, to)
}

// ends is the condition of the stream error that comes.
func (p *peer) ends() string {
	p.t.Helper()
	for {
		t, err := p.token()
		switch {
		case err != nil:
			return "nothing: " + err.Error()
		case t.Kind == stanza.Close:
			return "a farewell"
		case t.Kind == stanza.Item && t.Name.Local == "error" && t.Name.Space == stanza.NSStream:
			el, err := stanza.ParseElement(t.Raw, "")
			if err != nil {
				return err.Error()
			}
			return el.First().Name.Local
		}
	}
}

// issue makes a certificate.
func issue(t *testing.T, a *federation.Authority, l federation.Leaf) tls.Certificate {
	t.Helper()
	f, err := a.Issue(t.TempDir(), l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// offers reports whether the features have EXTERNAL.
func offers(features *stanza.Element) bool { return features.Child(stanza.NSSASL, "mechanisms") != nil }

// proven is a peer that has proven to be the domain, to one.test.
func (h *house) proven(w *federation.World, domain string) *peer {
	h.t.Helper()
	p := h.dial()
	if f := p.secure(domain, "one.test", issue(h.t, w.CA, federation.Leaf{Names: []string{domain}})); !offers(f) {
		h.t.Fatalf("no EXTERNAL: %s", f.Bytes(""))
	}
	p.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
	if el := p.next(); el.Name.Local != "success" {
		h.t.Fatalf("%s", el.Bytes(""))
	}
	p.open(domain, "one.test")
	return p
}

// Who a server says to be (rule 27): nothing that it has not proven for that very
// pair of domains gets in.
func TestReliability22UnprovenFrom(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	romeo := one.online("romeo")
	const message = "<message from='%s' to='%s'><body>spoofed</body></message>"
	for name, c := range map[string]struct {
		from, to string
		want     string
	}{
		"another domain":     {"a@two.test", "romeo@one.test", "invalid-from"},
		"ours":               {"juliet@one.test", "romeo@one.test", "invalid-from"},
		"below it":           {"a@sub.evil.test", "romeo@one.test", "invalid-from"},
		"our service":        {"a@evil.test", "garden@conference.one.test", "invalid-from"}, // that pair was not proven
		"elsewhere":          {"a@evil.test", "a@two.test", "host-unknown"},
		"in another's name":  {"evil.test@two.test/evil.test", "romeo@one.test", "invalid-from"},
		"in another's place": {"a@two.test/@evil.test", "romeo@one.test", "invalid-from"},
	} {
		p := one.proven(w, "evil.test")
		p.say(message, c.from, c.to)
		if got := p.ends(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for _, text := range []string{"<message to='romeo@one.test'><body>spoofed</body></message>", "<message from='a@evil.test'><body>spoofed</body></message>"} {
		p := one.proven(w, "evil.test")
		p.say(text)
		if got := p.ends(); got != "improper-addressing" {
			t.Errorf("%s: %s", text, got)
		}
	}
	p := one.proven(w, "evil.test")
	p.say("<message from='a@evil.test' to='romeo@one.test'><body>honest</body></message>")
	first := romeo.Hears("a message", func(el *stanza.Element) bool { return el.Name.Local == "message" })
	if !body("honest")(first) {
		t.Errorf("%s", first.Bytes(""))
	}
}

// Before a server has proven anything it says nothing.
func TestReliability22NothingBeforeProof(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	const message = "<message from='a@evil.test' to='romeo@one.test'><body>early</body></message>"
	p := one.dial()
	p.open("evil.test", "one.test")
	p.say(message)
	if got := p.ends(); got != "not-authorized" {
		t.Errorf("in the clear: %s", got)
	}
	p = one.dial()
	p.secure("evil.test", "one.test")
	p.say(message)
	if got := p.ends(); got != "not-authorized" {
		t.Errorf("over TLS: %s", got)
	}
	p = one.dial()
	p.say("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='evil.test' to='two.test'>")
	if got := p.ends(); got != "host-unknown" {
		t.Errorf("for another domain: %s", got)
	}
	p = one.dial()
	p.say("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='one.test' to='one.test'>")
	if got := p.ends(); got != "invalid-from" {
		t.Errorf("as ourselves: %s", got)
	}
	p = one.dial() // dialback in the clear, where TLS is required
	p.open("evil.test", "one.test")
	p.say("<db:result from='evil.test' to='one.test'>key</db:result>")
	if el := p.next(); el.Get("type") != "error" || el.Child(stanza.NSServer, "error") == nil {
		t.Errorf("%s", el.Bytes(""))
	}
	p = one.dial() // what comes in the clear behind <starttls/> is nothing (RFC 6120 §5.4.3.3)
	p.open("evil.test", "one.test")
	p.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + message)
	if el := p.next(); el.Name.Local != "proceed" {
		t.Fatalf("%s", el.Bytes(""))
	}
	c := tls.Client(p.conn, &tls.Config{ServerName: "one.test", InsecureSkipVerify: true}) //nolint:gosec // a test's
	if err := c.Handshake(); err == nil {
		p.conn = c
		p.open("evil.test", "one.test")
	}
	if one.log.has("spoofed") {
		t.Error("it was heard")
	}
}

// Certificates: the name, the authority and the time have to be right (RFC 6120
// §13.7.2).
func TestReliability22Certificates(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	unknown, err := federation.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]tls.Certificate{
		"another's":       issue(t, w.CA, federation.Leaf{Names: []string{"two.test"}}),
		"ours":            issue(t, w.CA, federation.Leaf{Names: []string{"one.test"}}),
		"expired":         issue(t, w.CA, federation.Leaf{Names: []string{"evil.test"}, Expired: true}),
		"of nobody knows": issue(t, unknown, federation.Leaf{Names: []string{"evil.test"}}),
	} {
		p := one.dial()
		if f := p.secure("evil.test", "one.test", c); offers(f) {
			t.Errorf("%s: EXTERNAL is offered", name)
		}
		p.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
		if el := p.next(); el.Name.Local != "failure" || el.Child(stanza.NSSASL, "not-authorized") == nil {
			t.Errorf("%s: %s", name, el.Bytes(""))
		}
	}
	p := one.dial() // a certificate of one, the name of another
	p.secure("evil.test", "one.test", issue(t, w.CA, federation.Leaf{Names: []string{"evil.test"}}))
	p.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>dHdvLnRlc3Q=</auth>") // two.test
	if el := p.next(); el.Child(stanza.NSSASL, "invalid-authzid") == nil {
		t.Errorf("%s", el.Bytes(""))
	}
}

// A key that the domain's own server does not know is none, and nobody is our own
// domain (XEP-0220 §2.1).
func TestReliability22Dialback(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	start(t, w, "two.test", federation.Options{})
	ask := func(from string) *stanza.Element {
		p := one.dial()
		p.secure(from, "one.test")
		p.say("<db:result from='%s' to='one.test'>0123456789abcdef</db:result>", from)
		return p.next()
	}
	if el := ask("two.test"); el.Name.Local != "result" || el.Get("type") != "invalid" || el.Get("to") != "two.test" || el.Get("from") != "one.test" {
		t.Errorf("a forged key: %s", el.Bytes(""))
	}
	if el := ask("nowhere.test"); el.Get("type") != "error" || stanza.ParseError(el.Child(stanza.NSServer, "error")) == nil {
		t.Errorf("nobody to ask: %s", el.Bytes(""))
	}
	p := one.dial()
	p.secure("two.test", "one.test")
	for from, to := range map[string]string{"one.test": "one.test", "conference.one.test": "one.test", "two.test": "three.test"} {
		p = one.dial()
		p.secure("two.test", "one.test")
		p.say("<db:result from='%s' to='%s'>0123456789abcdef</db:result>", from, to)
		if el := p.next(); el.Get("type") != "error" {
			t.Errorf("%s to %s: %s", from, to, el.Bytes(""))
		}
	}
	// What is asked of us about keys that we have not made.
	p = one.dial()
	p.secure("two.test", "one.test")
	p.say("<db:verify from='two.test' to='one.test' id='x'>0123456789abcdef</db:verify>")
	if el := p.next(); el.Name.Local != "verify" || el.Get("type") != "invalid" || el.Get("id") != "x" {
		t.Errorf("%s", el.Bytes(""))
	}
}

// Another pair on the same stream has to be proven as well, and then counts; a
// certificate for both domains proves it without asking back.
func TestReliability22Piggybacking(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	romeo := one.online("romeo")
	p := one.dial()
	p.secure("two.test", "one.test", issue(t, w.CA, federation.Leaf{Names: []string{"two.test", "*.two.test"}}))
	p.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
	if el := p.next(); el.Name.Local != "success" {
		t.Fatalf("%s", el.Bytes(""))
	}
	p.open("two.test", "one.test")
	p.say("<db:result from='chat.two.test' to='one.test'>key</db:result>")
	if el := p.next(); el.Get("type") != "valid" || el.Get("to") != "chat.two.test" {
		t.Fatalf("%s", el.Bytes(""))
	}
	p.say("<message from='a@chat.two.test' to='romeo@one.test'><body>second</body></message>")
	romeo.Hears("a message", body("second"))
	p.say("<db:result from='evil.test' to='one.test'>key</db:result>")
	if el := p.next(); el.Get("type") != "error" { // its server is nowhere
		t.Fatalf("%s", el.Bytes(""))
	}
	p.say("<message from='a@evil.test' to='romeo@one.test'><body>third</body></message>")
	if got := p.ends(); got != "invalid-from" {
		t.Error(got)
	}
}

// The stanzas of a stream are counted when they are done (XEP-0198 §4), and nobody
// else can have them resumed.
func TestStreamManagement(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	romeo := one.online("romeo")
	p := one.proven(w, "two.test")
	p.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	if el := p.next(); el.Name.Local != "enabled" || el.Has("id") {
		t.Fatalf("%s", el.Bytes(""))
	}
	p.say("<message from='a@two.test' to='romeo@one.test'><body>1</body></message><message from='a@two.test' to='romeo@one.test'><body>2</body></message><r xmlns='urn:xmpp:sm:3'/>")
	romeo.Hears("a message", body("2"))
	for h := ""; h != "2"; {
		el := p.next()
		if el.Name.Local != "a" {
			t.Fatalf("%s", el.Bytes(""))
		}
		h = el.Get("h")
	}
}

// silentServer takes connections and says nothing.
func silentServer(t *testing.T, w *federation.World, domain string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	w.Announce(domain, l.Addr().String())
}

// A server that does not answer costs its own senders only.
func TestSilentServer(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {timeouts: {login: 2s}, components: {s2s: {connect: 1s, queue: {patience: 2s}}}}}"})
	two := start(t, w, "two.test", federation.Options{})
	silentServer(t, w, "silent.test")
	romeo, juliet := one.online("romeo"), two.online("juliet")
	romeo.Say("<message id='lost' to='a@silent.test'><body>hello?</body></message><message to='juliet@two.test'><body>hello!</body></message>")
	juliet.Hears("a message", body("hello!"))
	if got := condition(romeo.Hears("an error", withID("lost"))); got != "remote-server-timeout" {
		t.Error(got)
	}
}
