package stream

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/plugins"
)

// TestReliability36ResumptionEndsWithTheCertificate: a client that comes back
// resumes its TLS session (RFC 7590 §3.3), but never past a new certificate,
// which tls-server-end-point would name though it has not been shown.
func TestReliability36ResumptionEndsWithTheCertificate(t *testing.T) {
	dir := t.TempDir()
	c, err := newCertificates(TLS{}, plugins.Env{DataDir: dir, Domains: plugins.NewDomains("localhost"), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, direct := range []bool{true, false} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(0), MaxVersion: version, NextProtos: xmppClient()}
			login := func(want bool) {
				t.Helper()
				server, conn := connect(t, c.client(direct, "localhost"), client)
				if server.DidResume != want || conn.DidResume != want {
					t.Errorf("direct %v, %s: resumed %v, want %v", direct, tls.VersionName(version), server.DidResume, want)
				}
				if b := c.binding(&server, "localhost"); b.Exporter == nil || b.EndPoint == nil {
					t.Errorf("direct %v, %s, resumed %v: bindings %v", direct, tls.VersionName(version), want, b.Types())
				}
			}
			login(false)
			login(true)
			for _, f := range []string{"self-signed.crt", "self-signed.key"} {
				if err := os.Remove(filepath.Join(dir, "tls", f)); err != nil {
					t.Fatal(err)
				}
			}
			if err := ensureSelfSigned(c.main.cert, c.main.key, []string{"localhost"}, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := c.load(c.main); err != nil {
				t.Fatal(err)
			}
			login(false)
			login(true)
		}
	}
}

// connect shakes hands, and lets the client read a byte: tickets come before.
func connect(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	served := make(chan tls.ConnectionState, 1)
	go func() {
		conn := tls.Server(there, server)
		_, _ = conn.Write([]byte("x"))
		served <- conn.ConnectionState()
	}()
	conn := tls.Client(here, client)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return <-served, conn.ConnectionState()
}
