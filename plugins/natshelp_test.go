package plugins

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/router/channel/nats"
)

// soon bounds what must not take long; only a test that fails waits for it.
const soon = 30 * time.Second

// authority signs certificates, and keeps all in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("authority", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	if err := os.Rename(a.path("authority.pem"), a.path("ca.pem")); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.pem and NAME.key for a client and server of loopback.
func (a *authority) issue(name string) {
	a.t.Helper()
	a.sign(name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	c.SerialNumber, c.Subject = big.NewInt(a.next), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return c, key
}

// exampleNATS runs a server with examples/cluster/nats.conf as it is, but for where
// its files are and where it listens. It returns the authority and the address.
func exampleNATS(t *testing.T) (*authority, string) {
	t.Helper()
	a := newAuthority(t)
	a.issue("server")
	text, err := os.ReadFile("../examples/cluster/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("/etc/nats/"), []byte(a.dir+"/"))
	if err := os.WriteFile(a.path("nats.conf"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := natsserver.ProcessConfigFile(a.path("nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port = "127.0.0.1", -1
	return a, runNATS(t, o)
}

func runNATS(t *testing.T, o *natsserver.Options) (addr string) {
	t.Helper()
	o.NoSigs, o.NoLog = true, true
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(soon) {
		t.Fatal("NATS does not start")
	}
	return s.Addr().String()
}

// settings are those of a node with a certificate of the authority.
func (a *authority) settings(addr, name string) NATSSettings {
	a.t.Helper()
	a.issue(name)
	return NATSSettings{URLs: []string{"tls://" + addr}, CA: a.path("ca.pem"), Certificate: a.path(name + ".pem"), Key: a.path(name + ".key"), Prefix: "parley"}
}

// dialAs connects a node as enter does.
func dialAs(t *testing.T, s NATSSettings, node string, with ...func(*nats.Options)) (*nats.Bus, error) {
	t.Helper()
	o, err := s.client()
	if err != nil {
		return nil, err
	}
	o.Self = nats.Peer{Node: node, Incarnation: 1}
	for _, f := range with {
		f(&o)
	}
	b, err := nats.Dial(t.Context(), o)
	if err != nil {
		return nil, s.explain(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return b, nil
}

func mustDialAs(t *testing.T, s NATSSettings, node string, with ...func(*nats.Options)) *nats.Bus {
	t.Helper()
	b, err := dialAs(t, s, node, with...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// natsRefusal checks that an error says which key to look at, and no secret.
func natsRefusal(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one of %v", want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v: does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "sesame") {
		t.Errorf("%v: a secret", err)
	}
}

// inTurn sends a payload and waits until it is handled.
func inTurn(t *testing.T, from *nats.Bus, to, port string) error {
	t.Helper()
	told := make(chan error, 1)
	if err := from.Send(t.Context(), to, port, []byte("x"), func(err error) { told <- err }); err != nil {
		return err
	}
	select {
	case err := <-told:
		return err
	case <-time.After(soon):
		t.Fatalf("nothing comes back from %s of %s", port, to)
		return nil
	}
}

func receive(t *testing.T, b *nats.Bus, ports ...string) {
	t.Helper()
	for _, p := range ports {
		if err := b.Handle(p, func(context.Context, nats.Peer, []byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

// await waits for a line with all of these.
func (l *lines) await(t *testing.T, want ...string) {
	t.Helper()
	late := time.After(soon)
	for {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
	next:
		for line := range strings.Lines(text) {
			for _, w := range want {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return
		}
		select {
		case <-l.news:
		case <-late:
			t.Fatalf("no line with %v:\n%s", want, text)
		}
	}
}
