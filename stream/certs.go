package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/plugins"
	"parley/stream/sasl"
)

// certificates hold what the doors present: for some domains from files of their
// own; for all others from one pair of files, from an ACME authority, or a
// self-signed one made on first run. Files are read again when they change.
type certificates struct {
	log   *slog.Logger
	clock plugins.Clock
	env   plugins.Env
	cfg   TLS
	acme  *acme // nil: main is for those that have none of their own
	main  *source
	named atomic.Pointer[map[string]*source] // by domain as certificates have it, or *.DOMAIN; not to be changed

	mu       sync.Mutex // held while files are looked at
	complain string     // what was last wrong with the directory
}

// source is a pair of files.
type source struct {
	name, cert, key string // name is of the key in the configuration
	current         atomic.Pointer[loaded]
	warned          int // of warn
}

// loaded is a certificate with what it was read from. Its configurations carry
// the keys of session tickets, so that a client that comes back saves the
// handshake's signature (RFC 7590 §3.3). A new certificate brings new ones, and
// each has its own: nobody resumes on a certificate that the binding
// tls-server-end-point does not name (RFC 5929 §4).
type loaded struct {
	tls.Certificate
	stamp            time.Time
	starttls, direct *tls.Config
	tickets          tickets
}

// certCheck is how often files are looked at.
const certCheck = 10 * time.Second

func newCertificates(cfg TLS, env plugins.Env) (*certificates, error) {
	c := &certificates{log: env.Log, clock: env.Clock, env: env, cfg: cfg}
	named := map[string]*source{}
	c.named.Store(&named)
	for _, domain := range slices.Sorted(maps.Keys(cfg.Domains)) {
		files := cfg.Domains[domain]
		s, err := c.source(fmt.Sprintf("tls.domains.%q", domain), files.Certificate, files.Key)
		if err != nil {
			return nil, err
		}
		named[ascii(domain)] = s
	}
	if err := c.discover(); err != nil {
		return nil, err
	}
	if names := c.unnamed(); cfg.ACME.Enabled && len(names) > 0 {
		a, err := newACME(cfg.ACME, names, env)
		if err != nil {
			return nil, err
		}
		c.acme = a
		return c, nil
	}
	return c, c.first()
}

// names are those that a certificate has that is made here, as certificates have them
// (RFC 5280 §7.2).
func (c *certificates) names() []string {
	all := slices.Concat(c.env.Domains.List(), c.cfg.ExtraNames)
	for i, n := range all {
		all[i] = ascii(n)
	}
	return all
}

// unnamed are the names that have no certificate of their own.
func (c *certificates) unnamed() []string {
	return slices.DeleteFunc(c.names(), func(n string) bool { return c.find(n) != nil })
}

// first finds the certificate of all that have none of their own.
func (c *certificates) first() (err error) {
	cert, key := c.cfg.Certificate, c.cfg.Key
	switch {
	case (cert == "") != (key == ""):
		return errors.New("tls.certificate and tls.key go together: one of them is missing")
	case cert == "":
		cert = filepath.Join(c.env.DataDir, "tls", "self-signed.crt")
		key = filepath.Join(c.env.DataDir, "tls", "self-signed.key")
		if err := ensureSelfSigned(cert, key, c.names(), c.clock.Now()); err != nil {
			return fmt.Errorf("self-signed certificate: %w", err)
		}
	}
	c.main, err = c.source("tls", cert, key)
	return err
}

// source reads a pair of files for the first time.
func (c *certificates) source(name, cert, key string) (*source, error) {
	s := &source{name: name, cert: cert, key: key}
	return s, c.load(s)
}

// load reads the files; on an error the certificate in force stays.
func (c *certificates) load(s *source) error {
	stamp, err := newest(s.cert, s.key)
	if err != nil {
		return fmt.Errorf("%s: certificate: %w", s.name, err)
	}
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return fmt.Errorf("%s: certificate %s with key %s: %w", s.name, s.cert, s.key, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("%s: certificate %s: %w", s.name, s.cert, err)
		}
	}
	now := &loaded{Certificate: pair, stamp: stamp}
	now.starttls = newTLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &now.Certificate, nil })
	now.direct = now.starttls.Clone()
	now.direct.NextProtos = xmppClient()
	now.tickets.renew(c.clock.Now(), now.starttls, now.direct)
	now.starttls.GetConfigForClient = c.elsewhere(s, func(l *loaded) *tls.Config { return l.starttls })
	now.direct.GetConfigForClient = c.elsewhere(s, func(l *loaded) *tls.Config { return l.direct })
	s.current.Store(now)
	return nil
}

// elsewhere lets a client that names another domain (SNI) see the certificate of
// that one.
func (c *certificates) elsewhere(s *source, of func(*loaded) *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if o := c.find(hello.ServerName); o != nil && o != s {
			return of(o.current.Load()), nil
		}
		return nil, nil
	}
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

// discover takes the files in the directory of domains that have none yet. They stay
// when they are taken away there.
func (c *certificates) discover() error {
	if c.cfg.Directory == "" {
		return nil
	}
	named, errs := maps.Clone(*c.named.Load()), []error(nil)
	for _, domain := range c.env.Domains.List() {
		name := ascii(domain)
		if named[name] != nil {
			continue
		}
		for f := range c.cfg.Found(domain) {
			s, err := c.source("tls.directory", f.Certificate, f.Key)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			named[name] = s
			break
		}
	}
	c.named.Store(&named)
	return errors.Join(errs...)
}

// rehosted finds certificates for domains that are new.
func (c *certificates) rehosted(come []string) {
	c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acme != nil {
		c.acme.manage(c.unnamed())
		return
	}
	if c.cfg.Certificate == "" {
		err := ensureSelfSigned(c.main.cert, c.main.key, c.names(), c.clock.Now())
		if err == nil {
			err = c.load(c.main)
		}
		if err != nil {
			c.log.Error("no self-signed certificate for the domains", "err", err)
		}
	}
	for _, domain := range come {
		cert, err := c.shown(&tls.ClientHelloInfo{}, domain)
		if err == nil {
			err = cert.Leaf.VerifyHostname(ascii(domain))
		}
		if err != nil {
			c.log.Warn("there is no certificate for a domain that is new: clients and servers will not trust it (servers.streamer.tls.directory)", "domain", domain, "err", err)
		}
	}
}

// sources are all pairs of files.
func (c *certificates) sources() []*source {
	all := slices.Collect(maps.Values(*c.named.Load()))
	if c.main != nil {
		all = append(all, c.main)
	}
	return all
}

// watch reloads files that have changed and warns of what expires (reliability
// row 36) until ctx is done.
func (c *certificates) watch(ctx context.Context) {
	if c.acme != nil {
		stopped := make(chan struct{})
		go func() { defer close(stopped); c.acme.run(ctx) }()
		defer func() { <-stopped }()
	}
	t := time.NewTicker(certCheck)
	defer t.Stop()
	for {
		c.look()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look is one turn of watch.
func (c *certificates) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := ""
	if err := c.discover(); err != nil {
		wrong = err.Error()
	}
	if wrong != "" && wrong != c.complain {
		c.log.Error("a certificate is not taken", "err", wrong)
	}
	c.complain = wrong
	for _, s := range c.sources() {
		if stamp, err := newest(s.cert, s.key); err == nil && !stamp.Equal(s.current.Load().stamp) {
			if err := c.load(s); err != nil {
				c.log.Error("certificate not reloaded; the old one stays", "err", err)
			} else {
				c.log.Info("certificate reloaded", "file", s.cert, "until", s.current.Load().Leaf.NotAfter)
				s.warned = 0
			}
		}
		c.warn(s)
		l := s.current.Load()
		l.tickets.renew(c.clock.Now(), l.starttls, l.direct)
	}
}

// warn logs once at 14, 7 and 1 days before the end.
func (c *certificates) warn(s *source) {
	leaf := s.current.Load().Leaf
	left := leaf.NotAfter.Sub(c.clock.Now())
	for i, days := range []int{14, 7, 1} {
		if left < time.Duration(days)*24*time.Hour && s.warned <= i {
			c.log.Warn("certificate expires soon", "until", leaf.NotAfter, "file", s.cert)
			s.warned = i + 1
			return
		}
	}
}

// shown is the certificate of the first name that has one; else what all others
// have. hello is for the ACME authority's.
func (c *certificates) shown(hello *tls.ClientHelloInfo, names ...string) (*tls.Certificate, error) {
	for _, n := range names {
		if s := c.find(n); s != nil {
			return &s.current.Load().Certificate, nil
		}
	}
	if c.acme == nil {
		return &c.main.current.Load().Certificate, nil
	}
	err := errNoCertificate
	for _, n := range names {
		var cert *tls.Certificate
		if cert, err = c.acme.get(hello, n); err == nil {
			return cert, nil
		}
	}
	return nil, err
}

// newTLS is RFC 7590 §3: 1.2 and above.
func newTLS(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get}
}

// xmppClient is what direct TLS negotiates (XEP-0368 §3).
func xmppClient() []string { return []string{"xmpp-client"} }

// client is the configuration of one client's connection; it is shared, and
// must not be changed. domain is what the stream is to; "": that is not known yet.
func (c *certificates) client(direct bool, domain string) *tls.Config {
	s := c.find(domain)
	switch {
	case s == nil && c.acme != nil:
		return c.authority(direct, domain)
	case s == nil:
		s = c.main
	}
	if direct {
		return s.current.Load().direct
	}
	return s.current.Load().starttls
}

// authority is client for an ACME authority's certificates: it does not tell when
// they change.
func (c *certificates) authority(direct bool, domain string) *tls.Config {
	cfg := newTLS(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return c.shown(hello, cmp.Or(hello.ServerName, domain), domain)
	})
	cfg.SessionTicketsDisabled = true
	if direct {
		cfg.NextProtos = xmppClient()
	}
	return cfg
}

// web is the configuration of an HTTP door, for as long as it is open.
func (c *certificates) web() *tls.Config {
	cfg := newTLS(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return c.shown(hello, hello.ServerName) })
	cfg.NextProtos = []string{"http/1.1"} // WebSockets need it
	return cfg
}

// binding collects the channel bindings of a connection. domain is what client was
// called with.
func (c *certificates) binding(st *tls.ConnectionState, domain string) sasl.Binding {
	var leaf *x509.Certificate
	if cert, err := c.shown(&tls.ClientHelloInfo{ServerName: st.ServerName}, cmp.Or(st.ServerName, domain), domain); err == nil {
		leaf = cert.Leaf
	}
	return sasl.NewBinding(st, leaf)
}
