package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"parley/plugins"
)

// acme gets and renews certificates from an authority (RFC 8555).
type acme struct {
	log    *slog.Logger
	names  []string // at first; there is one
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer
	http   string
	more   chan []string // names that are there now, to who runs
}

func newACME(cfg ACME, names []string, env plugins.Env) (*acme, error) {
	a := &acme{log: env.Log, names: names, http: cfg.HTTP, more: make(chan []string, 1)}
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           zap.NewNop(),
	})
	a.magic = certmagic.New(cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: filepath.Join(env.DataDir, "acme")},
		Logger:  zap.NewNop(),
	})
	directory := cfg.Directory
	if directory == "" {
		directory = certmagic.LetsEncryptProductionCA
	}
	a.issuer = certmagic.NewACMEIssuer(a.magic, certmagic.ACMEIssuer{
		CA: directory, Email: cfg.Email, Agreed: true, DisableTLSALPNChallenge: true, Logger: zap.NewNop(),
	})
	a.magic.Issuers = []certmagic.Issuer{a.issuer}
	if len(names) == 0 {
		return nil, fmt.Errorf("acme: no domains")
	}
	return a, nil
}

// get returns the certificate for a name; "": that of the first one.
func (a *acme) get(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	named := *hello
	named.ServerName = ascii(cmp.Or(name, a.names[0]))
	return a.magic.GetCertificate(&named)
}

// run answers challenges and keeps certificates fresh until ctx is done.
func (a *acme) run(ctx context.Context) {
	srv := &http.Server{Addr: a.http, Handler: a.issuer.HTTPChallengeHandler(http.NotFoundHandler()), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	go func() {
		if err := srv.ListenAndServe(); err != nil && ctx.Err() == nil {
			a.log.Error("no door for ACME challenges; certificates cannot be renewed", "address", a.http, "err", err)
		}
	}()
	for names := a.names; ; {
		if err := a.magic.ManageAsync(ctx, names); err != nil {
			a.log.Error("no certificate from the ACME authority", "err", err)
		}
		select {
		case names = <-a.more:
		case <-ctx.Done():
			return
		}
	}
}

// manage gets certificates for further names. It is called by one at a time.
func (a *acme) manage(names []string) {
	select {
	case <-a.more: // they are among these, or gone
	default:
	}
	a.more <- names
}
