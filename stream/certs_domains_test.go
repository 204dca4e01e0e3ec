package stream

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/plugins"
	"parley/stream/sasl"
)

// pair makes a certificate of a name in dir.
func pair(t *testing.T, dir, file, name string) CertificateFiles {
	t.Helper()
	f := CertificateFiles{filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")}
	if err := ensureSelfSigned(f.Certificate, f.Key, []string{name}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return f
}

// Each domain has its own certificate: by SNI, or without one by the domain that
// the stream is to (XEP-0368 §3, RFC 6120 §5.4.3.1); the nearest counts.
func TestCertificateOfADomain(t *testing.T) {
	dir := t.TempDir()
	main := pair(t, dir, "main", "main.example")
	cfg := TLS{Certificate: main.Certificate, Key: main.Key, Domains: map[string]CertificateFiles{
		"a.example":         pair(t, dir, "a", "a.example"),
		"*.below.a.example": pair(t, dir, "wide", "wide.example"),
		"bücher.example":    pair(t, dir, "b", "xn--bcher-kva.example"),
	}}
	c, err := newCertificates(cfg, plugins.Env{DataDir: dir, Domains: plugins.NewDomains("main.example", "a.example"), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ sni, to, want string }{
		{"", "", "main.example"},
		{"", "main.example", "main.example"},
		{"", "a.example", "a.example"},
		{"a.example", "", "a.example"},
		{"A.Example", "main.example", "a.example"},
		{"host.elsewhere.example", "a.example", "a.example"},
		{"host.elsewhere.example", "", "main.example"},
		{"main.example", "", "main.example"},
		{"rooms.a.example", "", "a.example"},
		{"below.a.example", "", "a.example"},
		{"x.below.a.example", "", "wide.example"},
		{"xn--bcher-kva.example", "", "xn--bcher-kva.example"},
		{"", "bücher.example", "xn--bcher-kva.example"},
		{"nota.example", "", "main.example"},
	} {
		for _, direct := range []bool{true, false} {
			client := &tls.Config{InsecureSkipVerify: true, ServerName: tt.sni, NextProtos: xmppClient()}
			server, conn := connect(t, c.client(direct, tt.to), client)
			if got := conn.PeerCertificates[0].DNSNames[0]; got != tt.want {
				t.Errorf("SNI %q to %q: %s, want %s", tt.sni, tt.to, got, tt.want)
			}
			if b := c.binding(&server, tt.to); !bytes.Equal(b.EndPoint, sasl.EndPoint(c.leaf(t, tt.want))) {
				t.Errorf("SNI %q to %q: the binding is of another certificate", tt.sni, tt.to)
			}
		}
		_, conn := connect(t, c.web(), &tls.Config{InsecureSkipVerify: true, ServerName: tt.sni})
		if got := conn.PeerCertificates[0].DNSNames[0]; tt.to == "" && got != tt.want {
			t.Errorf("HTTPS, SNI %q: %s, want %s", tt.sni, got, tt.want)
		}
	}
}

// leaf is the certificate of a name.
func (c *certificates) leaf(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	for _, s := range c.sources() {
		if l := s.current.Load(); l.Leaf.DNSNames[0] == name {
			return l.Leaf
		}
	}
	t.Fatalf("no certificate of %s", name)
	return nil
}

// One domain's certificate is reloaded alone, and a client of it resumes neither on
// the old one nor on another domain's.
func TestReliability36CertificateOfADomainReplaced(t *testing.T) {
	dir := t.TempDir()
	files := pair(t, dir, "a", "a.example")
	c, err := newCertificates(TLS{Domains: map[string]CertificateFiles{"a.example": files}},
		plugins.Env{DataDir: dir, Domains: plugins.NewDomains("main.example", "a.example"), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	cache := tls.NewLRUClientSessionCache(0)
	login := func(sni string, want bool) {
		t.Helper()
		client := &tls.Config{InsecureSkipVerify: true, ServerName: sni, ClientSessionCache: cache, NextProtos: xmppClient()}
		if server, _ := connect(t, c.client(true, ""), client); server.DidResume != want {
			t.Errorf("%s: resumed %v, want %v", sni, server.DidResume, want)
		}
	}
	login("a.example", false)
	login("a.example", true)
	login("main.example", false)
	login("main.example", true)
	for _, f := range []string{files.Certificate, files.Key} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	c.look() // nothing is there to read: the old one stays
	login("a.example", true)
	pair(t, dir, "a", "a.example")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(files.Certificate, later, later); err != nil {
		t.Fatal(err)
	}
	c.look()
	login("a.example", false)
	login("a.example", true)
	login("main.example", true)
}

// A file that is missing is named, with the key that names it.
func TestCertificateMissing(t *testing.T) {
	dir := t.TempDir()
	_, err := newCertificates(TLS{Domains: map[string]CertificateFiles{"a.example": {filepath.Join(dir, "not-there.crt"), filepath.Join(dir, "not-there.key")}}},
		plugins.Env{DataDir: dir, Domains: plugins.NewDomains("a.example"), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "not-there.crt") || !strings.Contains(err.Error(), `tls.domains."a.example"`) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tls")); !os.IsNotExist(err) {
		t.Errorf("a certificate was made that nobody needs: %v", err)
	}
}

// Domains that are not ASCII have a certificate under the names that TLS has for them
// (RFC 5280 §7.2, RFC 6120 §13.7.1.1).
func TestSelfSignedInternationalDomains(t *testing.T) {
	env := plugins.Env{DataDir: t.TempDir(), Domains: plugins.NewDomains("bücher.example", "例え.example"), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)}
	for range 2 { // and after a restart
		c, err := newCertificates(TLS{ExtraNames: []string{"192.0.2.1", "2001:db8::1"}}, env)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"xn--bcher-kva.example", "xn--r8jz45g.example"} {
			_, client := connect(t, c.client(true, env.Domains.List()[0]), &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: xmppClient()})
			if err := client.PeerCertificates[0].VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	}
}
