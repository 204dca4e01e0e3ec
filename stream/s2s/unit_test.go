package s2s

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
)

// The example of XEP-0185 §3.
func TestDialbackKey(t *testing.T) {
	k := newKeys("s3cr3tf0rd14lb4ck")
	const want = "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
	if got := k.key("xmpp.example.com", "example.org", "D60000229F"); got != want {
		t.Error(got)
	}
	for _, other := range [][3]string{{"example.org", "xmpp.example.com", "D60000229F"}, {"xmpp.example.com", "example.org", "D60000229E"}, {"xmpp.example.com", "example.net", "D60000229F"}} {
		if k.check(other[0], other[1], other[2], want) {
			t.Error(other)
		}
	}
}

// RFC 6125 §6.4.
func TestMatchDNS(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"example.org", "example.org", true}, {"EXAMPLE.org", "example.ORG", true}, {"example.org", "xexample.org", false},
		{"*.example.org", "im.example.org", true}, {"*.example.org", "example.org", false}, {"*.example.org", "a.b.example.org", false},
		{"x*.example.org", "xy.example.org", false}, {"*", "org", false}, {"*.org", "example.org", false}, {"im.*.org", "im.example.org", false},
	} {
		if got := matchDNS(c.pattern, c.host); got != c.want {
			t.Errorf("%s for %s: %v", c.pattern, c.host, got)
		}
	}
}

// altName is subjectAltName with one name of another kind (RFC 5280 §4.2.1.6).
func altName(t *testing.T, id asn1.ObjectIdentifier, tag int, value string) *x509.Certificate {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	inner := marshal(asn1.RawValue{Tag: tag, Bytes: []byte(value)})
	explicit := marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner})
	name := marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(marshal(id), explicit...)})
	all := marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: name})
	return &x509.Certificate{Extensions: []pkix.Extension{{Id: oidAltName, Value: all}}}
}

// SRV-ID and XmppAddr (RFC 6120 §13.7.1.2); the common name is nothing.
func TestCertificateNames(t *testing.T) {
	addr, srv := altName(t, oidXMPPAddr, asn1.TagUTF8String, "bücher.example"), altName(t, oidDNSSRV, asn1.TagIA5String, "_xmpp-server.im.example.org")
	for _, c := range []struct {
		cert   *x509.Certificate
		domain string
		want   bool
	}{
		{addr, "bücher.example", true}, {addr, "example", false}, {srv, "im.example.org", true}, {srv, "example.org", false},
		{altName(t, oidDNSSRV, asn1.TagIA5String, "_xmpp-client.im.example.org"), "im.example.org", false},
		{altName(t, oidXMPPAddr, asn1.TagUTF8String, "user@example.org"), "example.org", false},
		{&x509.Certificate{DNSNames: []string{"xn--bcher-kva.example"}}, "bücher.example", true},
		{&x509.Certificate{Subject: pkix.Name{CommonName: "example.org"}}, "example.org", false},
	} {
		if got := names(c.cert, c.domain); got != c.want {
			t.Errorf("%s: %v", c.domain, got)
		}
	}
}

// What is malformed is no name, and nothing panics.
func FuzzOtherNames(f *testing.F) {
	f.Add([]byte{0x30, 0x02, 0xa0, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		otherNames(&x509.Certificate{Extensions: []pkix.Extension{{Id: oidAltName, Value: b}}})
	})
}

// What Admit believes of a stanza is what the rest of the house reads in it: no
// spelling gets around the check (reliability row 22).
func FuzzReliability22Addresses(f *testing.F) {
	f.Add("<message from='a@evil.test/@one.test' to='b@one.test'/>")
	f.Add(`<message xmlns:x='u' x:from='a@one.test' from="&#x61;@EVIL.test" to='one.test/b@c'/>`)
	f.Add("<iq from='evil.test' to = 'b@one.test/c' id='1' type='get'><a xmlns='u' from='one.test'/></iq>")
	f.Fuzz(func(t *testing.T, text string) {
		rd := stanza.NewReader(stanza.Stream, stanza.Limits{})
		rd.Feed([]byte("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>" + text))
		for {
			tok, err := rd.Next()
			if err != nil {
				return
			}
			if tok.Kind != stanza.Item {
				continue
			}
			st, err := stanza.Parse(tok.Raw, stanza.NSServer, nil)
			if err != nil {
				continue
			}
			from, to := stanza.Addresses(tok.Raw)
			for _, c := range []struct{ text, domain string }{{from, st.From.Domain()}, {to, st.To.Domain()}} {
				if got, _ := domainOf(domainPart(c.text)); got != c.domain {
					t.Errorf("%s: %q is %q, and %q to the house", tok.Raw, c.text, got, c.domain)
				}
			}
		}
	})
}

// RFC 2782: by priority, and within one by weight.
func TestOrder(t *testing.T) {
	first := map[string]int{}
	for pick := range 11 {
		all := []target{{host: "backup", priority: 2}, {host: "heavy", priority: 1, weight: 9}, {host: "light", priority: 1, weight: 1}}
		order(all, func(n int) int { return min(pick, n-1) })
		if all[2].host != "backup" {
			t.Fatal(all)
		}
		first[all[0].host]++
	}
	if first["heavy"] <= first["light"] || first["light"] == 0 {
		t.Error(first)
	}
}

// RFC 8305 §5: one that fails or takes long does not keep the others waiting, and
// what is left over is closed.
func TestDialRaces(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	hangs, fails, works := at("192.0.2.1:1"), at("192.0.2.2:1"), at("192.0.2.3:1")
	ends := make(chan struct{})
	connect := func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		switch a {
		case hangs:
			<-ctx.Done()
			close(ends)
			return nil, ctx.Err()
		case fails:
			return nil, errors.New("refused")
		}
		c, _ := net.Pipe()
		return c, nil
	}
	c, err := dial(t.Context(), []netip.AddrPort{fails, hangs, works}, connect)
	if err != nil || c == nil {
		t.Fatal(err)
	}
	<-ends
	if _, err := dial(t.Context(), []netip.AddrPort{fails, fails}, connect); err == nil {
		t.Error("nobody was there")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	ends = make(chan struct{})
	if _, err := dial(ctx, []netip.AddrPort{hangs}, connect); err == nil {
		t.Error("nobody was there")
	}
}

func TestPolicy(t *testing.T) {
	s := &settings{Config: *defaults(), served: plugins.NewDomains("our.example", "quiet.example", "team.quiet.example")}
	s.Domains = map[string]Policy{"strict.example": {Required, Certificate}}
	s.Deny = []string{"*.evil.example"}
	s.Own = config.ByDomain[Own]{
		"quiet.example":      {false, s.Rules},
		"team.quiet.example": {true, Rules{Policy{Optional, Certificate}, []string{"good.example"}, nil}},
	}
	for _, c := range []struct {
		ours, theirs string
		want         Policy
	}{
		{"our.example", "strict.example", Policy{Required, Certificate}},
		{"our.example", "other.example", Policy{Required, Dialback}},
		{"team.quiet.example", "other.example", Policy{Optional, Certificate}},
		{"conference.team.quiet.example", "other.example", Policy{Optional, Certificate}},
		{"team.quiet.example", "strict.example", Policy{Required, Certificate}},
	} {
		if got := s.policy(c.ours, c.theirs); got != c.want {
			t.Errorf("%s of %s: %v", c.ours, c.theirs, got)
		}
	}
	for p, want := range map[pair]bool{
		{"our.example", "evil.example"}:                    true,
		{"our.example", "a.evil.example"}:                  false,
		{"conference.our.example", "a.evil.example"}:       false,
		{"our.example", "good.example"}:                    true,
		{"quiet.example", "good.example"}:                  false,
		{"conference.quiet.example", "good.example"}:       false,
		{"team.quiet.example", "good.example"}:             true,
		{"conference.team.quiet.example", "evil.example"}:  false,
		{"notteam.quiet.example", "good.example"}:          false, // a service of quiet.example
		{"component.elsewhere.example", "a.evil.example"}:  false,
		{"component.elsewhere.example", "another.example"}: true,
	} {
		if s.allowed(p.from, p.to) != want {
			t.Error(p)
		}
	}
	bad := s.Config
	bad.Deny = []string{"A B"}
	bad.Own = config.ByDomain[Own]{"quiet.example": {false, bad.Rules}, "team.quiet.example": {true, Rules{Deny: []string{"C D"}}}}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "A B") != 1 || strings.Count(err.Error(), "C D") != 1 {
		t.Errorf("each is wrong once: %v", err)
	}
	s.Allow = []string{"good.example"}
	if s.allowed("our.example", "other.example") || !s.allowed("our.example", "good.example") {
		t.Error("allow")
	}
	if got := slices.DeleteFunc([]string{"localhost", "im.localhost", "intranet", "quiet.example", "team.quiet.example", "our.example"}, func(d string) bool { return !s.federates(d) }); len(got) != 2 {
		t.Error(got)
	}
}
