package s2s_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest/federation"
	"parley/stream"
	"parley/stream/s2s"
)

// called is where houses find a domain: a peer takes the stream, both ways, with one
// certificate for the domain and others.
type called struct {
	t           *testing.T
	domain      string
	open        net.Listener
	certificate tls.Certificate
}

func beCalled(t *testing.T, w *federation.World, domain string, more ...string) *called {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	w.Announce(domain, l.Addr().String())
	return &called{t, domain, l, issue(t, w.CA, federation.Leaf{Names: append(more, domain)})}
}

// take answers a call until stanzas come.
func (c *called) take() *peer {
	c.t.Helper()
	conn, err := c.open.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	p := &peer{t: c.t, conn: conn, rd: stanza.NewReader(stanza.Stream, stanza.Limits{}), buf: make([]byte, 16<<10)}
	header := func(features string) {
		p.rd.Reset(stanza.Stream)
		for { // theirs
			if tok, err := p.token(); err != nil {
				c.t.Fatal(err)
			} else if tok.Kind == stanza.Open {
				break
			}
		}
		p.say("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' version='1.0' id='x' from='%s' to='one.test'><stream:features>%s</stream:features>", c.domain, features)
	}
	said := func(name string) {
		if el := p.next(); el.Name.Local != name {
			c.t.Fatalf("%s, not %s", el.Bytes(""), name)
		}
	}
	header("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>")
	said("starttls")
	p.say("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	secure := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.certificate}})
	if err := secure.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	p.conn = secure
	header("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms><bidi xmlns='urn:xmpp:features:bidi'/>")
	said("bidi")
	said("auth")
	p.say("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	header("<sm xmlns='urn:xmpp:sm:3'/>")
	said("enable")
	p.say("<enabled xmlns='urn:xmpp:sm:3'/>")
	return p
}

// deny changes whom a house talks to, while it does.
func (h *house) deny(domains string) {
	h.t.Helper()
	if _, err := h.Host().Control().Reconfigure(h.t.Context(), "test", stream.Name, s2s.Name, map[string]string{"deny": domains}); err != nil {
		h.t.Fatal(err)
	}
}

// A stream of ours on which a further domain has proven itself ends when that one is
// denied; what the others have not acknowledged goes out on the next one.
func TestDeniedBesideOthers(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: bothWays})
	two := beCalled(t, w, "two.test", "evil.test")
	romeo := one.online("romeo")
	romeo.Say("<message to='a@two.test' id='kept'/>")
	p := two.take()
	if el := p.stanza(); el.Get("id") != "kept" {
		t.Fatalf("%s", el.Bytes(""))
	}
	p.say("<db:result from='evil.test' to='one.test'>key</db:result>")
	for el := p.next(); el.Name.Local != "result"; el = p.next() {
		if el.Name.Space != stanza.NSSM {
			t.Fatalf("%s", el.Bytes(""))
		}
	}
	one.desk("", "who talks on it", func(all []s2s.Stream, _ error) bool {
		got := map[string]bool{}
		for _, s := range all {
			got[string(s.Direction)+" "+s.Theirs] = s.State == s2s.Open && s.BothWays && s.TLS && s.Proof == s2s.Certificate && !s.Since.IsZero()
		}
		return len(all) == 3 && got["out two.test"] && got["in two.test"] && got["in evil.test"]
	})
	one.deny("[evil.test]")
	if got := p.ends(); got != "a farewell" {
		t.Error(got)
	}
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if el := two.take().stanza(); el.Get("id") != "kept" {
		t.Errorf("%s", el.Bytes(""))
	}
}

// What the other side has not acknowledged when it is denied is refused: nobody knows
// whether it has arrived, and it does not go out again.
func TestDeniedUnacknowledged(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: bothWays})
	two := beCalled(t, w, "two.test")
	romeo := one.online("romeo")
	romeo.Say("<message to='a@two.test' id='lost'><body>hello</body></message>")
	p := two.take()
	if el := p.stanza(); el.Get("id") != "lost" {
		t.Fatalf("%s", el.Bytes(""))
	}
	one.deny("[two.test]")
	if got := p.ends(); got != "a farewell" {
		t.Error(got)
	}
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if got := condition(romeo.Hears("an error", withID("lost"))); got != "not-allowed" {
		t.Error(got)
	}
}
