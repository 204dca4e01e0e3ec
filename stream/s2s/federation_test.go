package s2s_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest/federation"
)

// Two servers that know each other's authority, and have a stream for each direction:
// SASL EXTERNAL both ways, and what goes out is acknowledged (XEP-0178 §3, XEP-0198).
func TestChatByCertificate(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	romeo.Say("<message type='chat' id='m1' to='juliet@two.test'><body>from one &amp; <![CDATA[<all>]]></body></message>")
	m := juliet.Hears("a message", body("from one & <all>"))
	if m.Get("from") != romeo.JID.String() || m.Get("id") != "m1" {
		t.Errorf("%s", m.Bytes(""))
	}
	juliet.Say("<message type='chat' to='%s'><body>from two</body></message>", m.Get("from"))
	romeo.Hears("an answer", body("from two"))
	if !one.log.has("stream to another server", "by=certificate", "certificate=true", "acknowledged=true") || !one.log.has("stream of another server", "from=two.test", "by=certificate", "tls=true") {
		t.Error("not by certificate")
	}
	romeo.Say("<iq type='get' id='q' to='two.test'><ping xmlns='urn:xmpp:ping'/></iq>")
	if a := romeo.Hears("an answer", withID("q")); a.Get("type") != "result" {
		t.Errorf("%s", a.Bytes(""))
	}
	if got := romeo.Refuses("nobody@two.test"); got != "service-unavailable" {
		t.Error(got)
	}
}

// A server whose authority nobody knows proves itself by dialback, over TLS
// (XEP-0220).
func TestChatByDialback(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{Foreign: true})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	juliet.Say("<message type='chat' to='romeo@one.test'><body>trust me</body></message>")
	romeo.Hears("a message", body("trust me"))
	romeo.Say("<message type='chat' to='juliet@two.test'><body>yes</body></message>")
	juliet.Hears("an answer", body("yes"))
	if !one.log.has("stream of another server", "from=two.test", "by=dialback", "tls=true") || !one.log.has("stream to another server", "by=certificate", "certificate=false") {
		t.Error("not by dialback")
	}
}

// Where a certificate is required nothing else counts, in both directions.
func TestCertificateRequired(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {policy: {proof: certificate}}}}}"})
	two := start(t, w, "two.test", federation.Options{Foreign: true})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	if got := romeo.Refuses("juliet@two.test"); got != "remote-server-timeout" {
		t.Errorf("to them: %s", got)
	}
	juliet.Say("<message type='chat' id='in' to='romeo@one.test'><body>let me in</body></message>")
	await(t, "the refusal", func() bool { return two.log.has("another server is not reached", "not-authorized") })
}

// await waits for what no event tells of.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// Direct TLS (XEP-0368 §3), by the better priority.
func TestDirectTLS(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{Hidden: true})
	w.Zone.Host("xmpp.two.test", "127.0.0.1")
	_, port, err := net.SplitHostPort(two.Door("s2s-tls"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	w.Zone.SRV("_xmpps-server._tcp.two.test", "xmpp.two.test", n)
	w.Zone.SRVOf("_xmpp-server._tcp.two.test", "nowhere.two.test", 1, 5, 0)
	romeo, juliet := one.online("romeo"), two.online("juliet")
	romeo.Say("<message type='chat' to='juliet@two.test'><body>direct</body></message>")
	juliet.Hears("a message", body("direct"))
}

// RFC 6120 §10.4.3, rule 32, and what is answered at once: no such domain, one that is not to
// be talked to, one whose addresses are inside (reliability row 20).
func TestErrors(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {deny: [enemy.test, '*.enemy.test']}}}}"})
	romeo := one.online("romeo")
	for to, want := range map[string]string{
		"a@nowhere.test":     "remote-server-not-found",
		"a@enemy.test":       "not-allowed",
		"a@under.enemy.test": "not-allowed",
	} {
		if got := romeo.Refuses(to); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	romeo.Say("<presence to='a@nowhere.test'/><message type='error' to='a@nowhere.test'><error/></message><iq type='result' id='x' to='a@nowhere.test'/>") // never answered (rule 29)
	romeo.Say("<presence type='subscribe' id='s' to='b@nowhere.test'/>")
	for {
		el := romeo.Hears("an error", func(el *stanza.Element) bool { return el.Get("type") == "error" })
		if el.Get("from") == "b@nowhere.test" {
			break
		}
		t.Errorf("an error for what is not to be answered: %s", el.Bytes(""))
	}
}

func TestReliability20PrivateAddresses(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {private_addresses: false}}}}"})
	romeo := one.online("romeo")
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	touched := make(chan struct{}, 1)
	go func() {
		if c, err := trap.Accept(); err == nil {
			_ = c.Close()
			touched <- struct{}{}
		}
	}()
	port := trap.Addr().(*net.TCPAddr).Port
	for name, ip := range map[string]string{"loop": "127.0.0.1", "six": "::1", "mapped": "::ffff:127.0.0.1", "home": "192.168.1.1", "cloud": "169.254.169.254", "carrier": "100.64.0.1", "ula": "fd00::1", "none": "0.0.0.0"} {
		w.Zone.Host("xmpp."+name+".test", ip)
		w.Zone.SRV("_xmpp-server._tcp."+name+".test", "xmpp."+name+".test", port)
		if got := romeo.Refuses("a@" + name + ".test"); got != "remote-server-not-found" {
			t.Errorf("%s: %s", ip, got)
		}
	}
	if got := romeo.Refuses("a@127.0.0.1"); got != "remote-server-not-found" {
		t.Errorf("an address as the domain: %s", got)
	}
	select {
	case <-touched:
		t.Error("it has connected")
	default:
	}
}

// What is sent while a server is away waits for it, in order; what has waited too
// long is answered (rule 32).
func TestQueue(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{})
	romeo := one.online("romeo")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.Announce("two.test", free.Addr().String())
	_ = free.Close()
	for _, text := range []string{"a", "b", "c"} {
		romeo.Say("<message type='chat' to='juliet@two.test'><body>%s</body></message>", text)
	}
	await(t, "the first failure", func() bool { return one.log.has("another server is not reached", "to=two.test") })
	two := start(t, w, "two.test", federation.Options{})
	juliet := two.online("juliet")
	for _, text := range []string{"a", "b", "c"} {
		if m := juliet.Hears("a message", func(el *stanza.Element) bool { return el.Name.Local == "message" }); !body(text)(m) {
			t.Errorf("%s, want %s", m.Bytes(""), text)
		}
	}
}

func TestQueueTimeout(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {queue: {patience: 1s, stanzas: 2}}}}}"})
	romeo := one.online("romeo")
	w.Announce("two.test", "127.0.0.1:1")
	romeo.Say("<message id='1' to='a@two.test'><body>1</body></message><iq type='get' id='2' to='two.test'><ping xmlns='urn:xmpp:ping'/></iq><message id='3' to='a@two.test'><body>3</body></message>")
	got := map[string]string{}
	for len(got) < 3 {
		el := romeo.Hears("errors", func(el *stanza.Element) bool { return el.Get("type") == "error" })
		got[el.Get("id")] = condition(el)
	}
	if got["1"] != "remote-server-timeout" || got["2"] != "remote-server-timeout" || got["3"] != "resource-constraint" {
		t.Error(got)
	}
}

// Subscriptions, presence and its end across servers (RFC 6121 §3, §4).
func TestPresence(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	romeo.Say("<presence type='subscribe' to='juliet@two.test'/>")
	juliet.Hears("a request", presence("subscribe", "romeo@one.test"))
	juliet.Say("<presence type='subscribed' to='romeo@one.test'/><presence type='subscribe' to='romeo@one.test'/>")
	romeo.Hears("an approval", presence("subscribed", "juliet@two.test"))
	romeo.Hears("a request", presence("subscribe", "juliet@two.test"))
	romeo.Say("<presence type='subscribed' to='juliet@two.test'/>")
	juliet.Hears("presence", presence("", romeo.JID.String()))
	juliet.Say("<presence><show>away</show></presence>")
	romeo.Hears("a change", func(el *stanza.Element) bool {
		return presence("", juliet.JID.String())(el) && el.Child(stanza.NSClient, "show") != nil
	})
	juliet.Close()
	romeo.Hears("an end", presence("unavailable", juliet.JID.String()))
	juliet = two.online("juliet") // a probe brings what romeo is
	juliet.Hears("presence", presence("", romeo.JID.String()))
	romeo.Hears("presence", presence("", juliet.JID.String()))
}

// A room of one server with an occupant of the other (XEP-0045).
func TestRooms(t *testing.T) {
	w := federation.New(t)
	one, two := start(t, w, "one.test", federation.Options{}), start(t, w, "two.test", federation.Options{})
	romeo, juliet := one.online("romeo"), two.online("juliet")
	const room = "garden@conference.one.test"
	enter := "<presence to='" + room + "/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
	romeo.Say(enter, "romeo")
	romeo.Hears("himself", presence("", room+"/romeo"))
	romeo.Say("<iq type='set' id='open' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>", room)
	romeo.Hears("an open room", withID("open"))
	juliet.Say(enter, "juliet")
	juliet.Hears("herself", presence("", room+"/juliet"))
	romeo.Hears("her", presence("", room+"/juliet"))
	juliet.Say("<message type='groupchat' to='%s'><body>who is here?</body></message>", room)
	romeo.Hears("a question", body("who is here?"))
	juliet.Hears("her own", body("who is here?"))
	romeo.Say("<message type='groupchat' to='%s'><body>I am</body></message>", room)
	juliet.Hears("an answer", body("I am"))
	juliet.Say("<message type='chat' to='%s/romeo'><body>between us</body></message>", room)
	romeo.Hears("a private message", body("between us"))
	juliet.Close()
	romeo.Hears("her end", presence("unavailable", room+"/juliet"))
}

// Every service of a server is reached from others, and serves whom it is for.
func TestServices(t *testing.T) {
	w := federation.New(t)
	start(t, w, "one.test", federation.Options{})
	juliet := start(t, w, "two.test", federation.Options{}).online("juliet")
	for _, service := range []string{"conference", "pubsub", "upload", "search"} {
		juliet.Say("<iq type='get' id='%[1]s' to='%[1]s.one.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>", service)
		if el := juliet.Hears("what "+service+" is", withID(service)); el.Get("type") != "result" {
			t.Errorf("%s: %s", service, el.Bytes(""))
		}
	}
	for id, request := range map[string]string{
		"upload": "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>",
		"search": "<query xmlns='jabber:iq:search'><email>romeo@example.org</email></query>",
	} {
		juliet.Say("<iq type='%s' id='r' to='%s.one.test'>%s</iq>", map[string]string{"upload": "get", "search": "set"}[id], id, request)
		if el := juliet.Hears("an answer of "+id, withID("r")); el.Get("type") != "error" {
			t.Errorf("%s serves a stranger: %s", id, el.Bytes(""))
		}
	}
}

// A server of two domains speaks for each with its own certificate, whoever
// connects: where nothing else counts both are reached.
func TestCertificatePerDomain(t *testing.T) {
	w := federation.New(t)
	other, err := w.CA.Issue(t.TempDir(), federation.Leaf{Names: []string{"other.test"}})
	if err != nil {
		t.Fatal(err)
	}
	one := start(t, w, "one.test", federation.Options{Config: fmt.Sprintf(
		"domains: [one.test, other.test]\nservers: {streamer: {tls: {domains: {other.test: {certificate: %q, key: %q}}}}}", other.Certificate, other.Key)})
	w.Announce("other.test", one.Door("s2s"))
	two := start(t, w, "two.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {policy: {proof: certificate}}}}}"})
	juliet := two.online("juliet")
	for _, domain := range []string{"one.test", "other.test"} {
		juliet.Say("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", domain, domain)
		if a := juliet.Hears("an answer", withID(domain)); a.Get("type") != "result" || a.Get("from") != domain {
			t.Errorf("%s", a.Bytes(""))
		}
		if !two.log.has("stream of another server", "from="+domain, "by=certificate") {
			t.Errorf("%s is not known by its certificate", domain)
		}
		p := one.dial()
		p.secure("three.test", domain)
		if shown := p.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]; shown.VerifyHostname(domain) != nil {
			t.Errorf("%s is shown as %v", domain, shown.DNSNames)
		}
	}
}

// One server, three domains: who of them talks to whom is each one's own affair.
func TestDomainsOfOurs(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: `
domains: [one.test, quiet.test, strict.test]
servers:
  streamer:
    components:
      s2s:
        deny: [enemy.test]
        own:
          quiet.test: {enabled: false}
          strict.test: {policy: {proof: certificate}, deny: []}
`})
	for _, d := range []string{"quiet.test", "conference.quiet.test", "strict.test"} {
		w.Announce(d, one.Door("s2s"))
	}
	two := start(t, w, "two.test", federation.Options{Foreign: true, Config: "servers: {streamer: {components: {s2s: {queue: {patience: 1s}}}}}"})
	enemy := start(t, w, "enemy.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {queue: {patience: 1s}}}}}"})
	juliet, tybalt := two.online("juliet"), enemy.online("tybalt")
	for _, c := range []struct {
		who      *federation.Person
		to, want string
	}{
		{juliet, "one.test", ""}, // by dialback
		{juliet, "quiet.test", "remote-server-timeout"},
		{juliet, "conference.quiet.test", "remote-server-timeout"},
		{juliet, "strict.test", "remote-server-timeout"},
		{tybalt, "one.test", "remote-server-timeout"},
		{tybalt, "strict.test", ""}, // by its certificate
	} {
		c.who.Say("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", c.to, c.to)
		if a := c.who.Hears("an answer", withID(c.to)); condition(a) != c.want {
			t.Errorf("%s to %s: %s", c.who.JID, c.to, a.Bytes(""))
		}
	}
	p := one.dial() // who does not talk to others answers for no keys either
	p.secure("two.test", "one.test")
	p.say("<db:verify from='two.test' to='quiet.test' id='x'>0</db:verify>")
	if el := p.next(); el.Name.Local != "verify" || el.Get("type") != "error" {
		t.Errorf("%s", el.Bytes(""))
	}
	for domain, want := range map[string]string{"one.test": "not-allowed", "quiet.test": "remote-server-not-found", "strict.test": "service-unavailable"} {
		if got := one.loginAt(domain, "romeo").Refuses("nobody@enemy.test"); got != want {
			t.Errorf("%s to the one that is denied: %s", domain, got)
		}
	}
}

// A domain that is gone is not served to other servers either, on no stream that they
// have (RFC 6120 §4.9.3.5, §4.9.3.6).
func TestDomainGone(t *testing.T) {
	w := federation.New(t)
	one := start(t, w, "one.test", federation.Options{Config: "domains: [one.test, other.test]"})
	w.Announce("other.test", one.Door("s2s"))
	juliet := start(t, w, "two.test", federation.Options{Config: "servers: {streamer: {components: {s2s: {queue: {patience: 1s}}}}}"}).online("juliet")
	ping := func(id, to string) *stanza.Element {
		juliet.Say("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", id, to)
		return juliet.Hears("an answer of "+to, withID(id))
	}
	for _, at := range []string{"one.test", "other.test"} {
		if a := ping(at, at); a.Get("type") != "result" {
			t.Fatalf("%s", a.Bytes(""))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := one.Host().Control().RemoveDomain(ctx, "a test", "other.test"); err != nil {
		t.Fatal(err)
	}
	if a := ping("gone", "other.test"); a.Get("type") != "error" {
		t.Errorf("%s", a.Bytes(""))
	}
	if a := ping("there", "one.test"); a.Get("type") != "result" {
		t.Errorf("%s", a.Bytes(""))
	}
}
