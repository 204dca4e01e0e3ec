package stream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"parley/plugins"
	"parley/stream/sasl"
)

// certificates hold what the doors present: from files, read again when they
// change; from an ACME authority; or a self-signed one made on first run.
type certificates struct {
	log       *slog.Logger
	clock     plugins.Clock
	cert, key string
	acme      *acme // nil: not configured
	current   atomic.Pointer[loaded]
}

// loaded is a certificate with what it was read from. Its configurations carry
// the keys of session tickets, so that a client that comes back saves the
// handshake's signature (RFC 7590 §3.3). A new certificate brings new ones:
// nobody resumes on a certificate that the binding tls-server-end-point does
// not name (RFC 5929 §4).
type loaded struct {
	tls.Certificate
	stamp            time.Time
	starttls, direct *tls.Config
}

// selfSignedFor is how long a self-signed certificate is good.
const selfSignedFor = 10 * 365 * 24 * time.Hour

// certCheck is how often files are looked at.
const certCheck = 10 * time.Second

func newCertificates(cfg TLS, env plugins.Env) (*certificates, error) {
	c := &certificates{log: env.Log, clock: env.Clock, cert: cfg.Certificate, key: cfg.Key}
	names := slices.Concat(env.Domains, cfg.ExtraNames)
	switch {
	case cfg.ACME.Enabled:
		a, err := newACME(cfg.ACME, names, env)
		if err != nil {
			return nil, err
		}
		c.acme = a
		return c, nil
	case (c.cert == "") != (c.key == ""):
		return nil, errors.New("tls.certificate and tls.key go together: one of them is missing")
	case c.cert == "":
		c.cert = filepath.Join(env.DataDir, "tls", "self-signed.crt")
		c.key = filepath.Join(env.DataDir, "tls", "self-signed.key")
		if err := ensureSelfSigned(c.cert, c.key, names, env.Clock.Now()); err != nil {
			return nil, fmt.Errorf("self-signed certificate: %w", err)
		}
	}
	return c, c.load()
}

// load reads the files; on an error the certificate in force stays.
func (c *certificates) load() error {
	stamp, err := newest(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", c.cert, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("certificate %s: %w", c.cert, err)
		}
	}
	now := &loaded{Certificate: pair, stamp: stamp}
	now.starttls = newTLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &now.Certificate, nil })
	now.direct = now.starttls.Clone()
	now.direct.NextProtos = xmppClient()
	c.current.Store(now)
	return nil
}

func newest(files ...string) (t time.Time, err error) {
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return t, err
		}
		if st.ModTime().After(t) {
			t = st.ModTime()
		}
	}
	return t, nil
}

// watch reloads files that have changed and warns of what expires (reliability
// row 36) until ctx is done.
func (c *certificates) watch(ctx context.Context) {
	if c.acme != nil {
		c.acme.run(ctx)
		return
	}
	t := time.NewTicker(certCheck)
	defer t.Stop()
	warned := 0
	for {
		cur := c.current.Load()
		if stamp, err := newest(c.cert, c.key); err == nil && !stamp.Equal(cur.stamp) {
			if err := c.load(); err != nil {
				c.log.Error("certificate not reloaded; the old one stays", "err", err)
			} else {
				c.log.Info("certificate reloaded", "file", c.cert, "until", c.current.Load().Leaf.NotAfter)
				warned = 0
			}
		}
		warned = c.warn(warned)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// warn logs once at 14, 7 and 1 days before the end.
func (c *certificates) warn(level int) int {
	leaf := c.current.Load().Leaf
	left := leaf.NotAfter.Sub(c.clock.Now())
	for i, days := range []int{14, 7, 1} {
		if left < time.Duration(days)*24*time.Hour && level <= i {
			c.log.Warn("certificate expires soon", "until", leaf.NotAfter, "file", c.cert)
			return i + 1
		}
	}
	return level
}

// newTLS is RFC 7590 §3: 1.2 and above.
func newTLS(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get}
}

// xmppClient is what direct TLS negotiates (XEP-0368 §3).
func xmppClient() []string { return []string{"xmpp-client"} }

// client is the configuration of one client's connection; it is shared, and
// must not be changed.
func (c *certificates) client(direct bool) *tls.Config {
	if c.acme != nil { // it does not tell when certificates change
		cfg := newTLS(c.acme.get)
		cfg.SessionTicketsDisabled = true
		if direct {
			cfg.NextProtos = xmppClient()
		}
		return cfg
	}
	if direct {
		return c.current.Load().direct
	}
	return c.current.Load().starttls
}

// web is the configuration of an HTTP door, for as long as it is open.
func (c *certificates) web() *tls.Config {
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current.Load().Certificate, nil }
	if c.acme != nil {
		get = c.acme.get
	}
	cfg := newTLS(get)
	cfg.NextProtos = []string{"http/1.1"} // WebSockets need it
	return cfg
}

// binding collects the channel bindings of a connection.
func (c *certificates) binding(st *tls.ConnectionState) sasl.Binding {
	var leaf *x509.Certificate
	if c.acme != nil {
		if cert, err := c.acme.get(&tls.ClientHelloInfo{ServerName: st.ServerName}); err == nil {
			leaf = cert.Leaf
		}
	} else {
		leaf = c.current.Load().Leaf
	}
	return sasl.NewBinding(st, leaf)
}

// ensureSelfSigned makes a certificate unless there is one that is good for
// the names.
func ensureSelfSigned(certFile, keyFile string, names []string, now time.Time) error {
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil {
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err == nil && now.Before(leaf.NotAfter) && coversAll(leaf, names) {
			return nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0], Organization: []string{"Parley (self-signed)"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			continue
		}
		tmpl.DNSNames = append(tmpl.DNSNames, n)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func coversAll(leaf *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return leaf.VerifyHostname(n) != nil })
}
