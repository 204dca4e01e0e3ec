package accounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/storage"
	"parley/stream"
	"parley/stream/sasl"
)

// Config is the section of the streamer's component.
type Config struct {
	Iterations int           `yaml:"iterations" min:"4096" max:"4194304" doc:"PBKDF2 rounds of new passwords (RFC 5802 §5.1: at least 4096). More makes a stolen database slower to attack, and each login slower: with SCRAM on the client's processor, with PLAIN on the server's. 10000 costs a phone a few hundredths of a second. Old passwords get them when somebody logs in with PLAIN; SCRAM never tells the server the password."`
	Mechanisms []string      `yaml:"mechanisms" doc:"SASL mechanisms that may be used, HT-… for FAST included; empty: all there are."`
	Downgrade  bool          `yaml:"downgrade_protection" doc:"Let clients find out in SCRAM when somebody between took mechanisms off the list (XEP-0474)."`
	FastTTL    time.Duration `yaml:"fast_ttl" doc:"How long a FAST token is good (XEP-0484 §3.3); 0: no tokens."`
	Remembered int           `yaml:"remembered" min:"0" max:"1000000" doc:"Passwords that PLAIN has seen, kept as keyed hashes in memory, so that clients that reconnect do not cost PBKDF2 each time."`
	Throttle   Throttle      `yaml:"throttle" doc:"How guessing is slowed down. It never slows down addresses that did not fail."`
}

// Throttle is the section about guessing.
type Throttle struct {
	Free   int           `yaml:"free" min:"1" doc:"Failures of an account from an address that cost nothing."`
	Spray  int           `yaml:"spray" min:"1" doc:"Failures of an address over all accounts that cost nothing."`
	Base   time.Duration `yaml:"base" min:"1ms" doc:"The first delay; each further failure doubles it."`
	Max    time.Duration `yaml:"max" min:"1ms" doc:"The longest delay."`
	Forget time.Duration `yaml:"forget" min:"1s" doc:"After so long without failures everything is forgiven."`
	Alert  int           `yaml:"alert" min:"1" doc:"Failures of an account from an address after which a warning is logged."`
}

func defaults() *Config {
	return &Config{
		Iterations: 10000, Downgrade: true, FastTTL: 30 * 24 * time.Hour, Remembered: 10000,
		Throttle: Throttle{Free: 2, Spray: 20, Base: time.Second, Max: 30 * time.Second, Forget: 15 * time.Minute, Alert: 10},
	}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	var errs []error
	for _, name := range c.Mechanisms {
		if !slices.ContainsFunc(sasl.Mechanisms(), func(m sasl.Mechanism) bool { return m.Name == name }) {
			errs = append(errs, config.Key("mechanisms", "%q is not a mechanism of this server", name))
		}
	}
	if c.FastTTL < 0 || c.FastTTL > 0 && c.FastTTL < time.Minute {
		errs = append(errs, config.Key("fast_ttl", "is either 0 or at least a minute"))
	}
	return errors.Join(errs...)
}

// credentials is the streamer's component.
type credentials struct {
	env      plugins.Env
	cfg      Config
	accounts *Accounts
	throttle *sasl.Throttle
	make     func(domain string) (*sasl.Server, error) // set by Start
	domains  sync.Map                                  // *sasl.Server by domain
	unwatch  func()
}

var (
	_ stream.Component   = (*credentials)(nil)
	_ stream.Credentials = (*credentials)(nil)
)

func newCredentials(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*Accounts](env, Name)
	if err != nil {
		return nil, err
	}
	s := &credentials{env: env, cfg: *defaults(), accounts: a}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	t := s.cfg.Throttle
	s.throttle = sasl.NewThrottle(sasl.ThrottleConfig{
		Free: t.Free, Spray: t.Spray, Base: t.Base, Max: t.Max, Forget: t.Forget, Lock: t.Alert,
		Lockout: s.lockout, Clock: env.Clock.Now,
	})
	return s, s.measure()
}

func (s *credentials) measure() error {
	gauges := []struct {
		name, help string
		f          func() int
	}{
		{"parley_password_work_running", "Passwords whose keys are being derived.", s.accounts.pool.Running},
		{"parley_password_work_waiting", "Passwords that wait for a processor.", s.accounts.pool.Waiting},
		{"parley_login_throttle_entries", "Accounts and addresses with failed logins.", s.throttle.Len},
	}
	for _, g := range gauges {
		err := s.env.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 { return float64(g.f()) }))
		if err != nil {
			return fmt.Errorf("accounts metrics: %w", err)
		}
	}
	return nil
}

// lockout is the event of reliability row 8.
func (s *credentials) lockout(l sasl.Lockout) {
	s.env.Log.Warn("many failed logins", "account", l.Account, "remote", l.Addr.String(), "failures", l.Failures)
}

// Register implements stream.Component.
func (s *credentials) Register(r *stream.Registrar) { r.Credentials(s) }

// Start implements plugins.Component: it makes the mechanisms of each domain.
func (s *credentials) Start(ctx context.Context) error {
	secret, err := storage.Secret(ctx, s.env.DB, "accounts.salt", 32)
	if err != nil {
		return err
	}
	verified := sasl.NewVerified(s.cfg.Remembered)
	s.make = func(domain string) (*sasl.Server, error) {
		keys := keyring{s.accounts, domain}
		cfg := sasl.Config{
			Domain: domain, Credentials: keys, Username: keys.username, Authzid: authzid, Secret: secret,
			Iterations: s.cfg.Iterations, Mechanisms: s.cfg.Mechanisms, Downgrade: s.cfg.Downgrade,
			Loopback: true, // the streamer says which connections count as such
			Weak:     keys.stronger,
			Pool:     s.accounts.pool, Verified: verified, Clock: s.env.Clock.Now,
		}
		if s.cfg.FastTTL > 0 {
			cfg.Tokens = keys
		}
		srv, err := sasl.New(cfg)
		if err != nil {
			return nil, fmt.Errorf("mechanisms of %s: %w", domain, err)
		}
		return srv, nil
	}
	for _, domain := range s.env.Domains.List() {
		if _, err := s.SASL(domain); err != nil {
			return err
		}
	}
	s.unwatch = s.env.Domains.Watch(s.forgotten)
	s.accounts.iterations.Store(int64(s.cfg.Iterations))
	return nil
}

// forgotten lets go of domains that are gone.
func (s *credentials) forgotten(_, gone []string) {
	for _, domain := range gone {
		s.domains.Delete(domain)
	}
}

// Stop implements plugins.Component.
func (s *credentials) Stop(context.Context) error {
	if s.unwatch != nil {
		s.unwatch()
	}
	return nil
}

// SASL implements stream.Credentials.
func (s *credentials) SASL(domain string) (*sasl.Server, error) {
	if !s.env.Local(domain) {
		return nil, fmt.Errorf("%q is not served here", domain)
	}
	if srv, ok := s.domains.Load(domain); ok {
		return srv.(*sasl.Server), nil
	}
	srv, err := s.make(domain)
	if err != nil {
		return nil, err
	}
	now, _ := s.domains.LoadOrStore(domain, srv)
	return now.(*sasl.Server), nil
}

// Throttle implements stream.Credentials.
func (s *credentials) Throttle() *sasl.Throttle { return s.throttle }

// Issue implements stream.Credentials. Errors: ErrUnknown, ErrDisabled,
// ErrClient; one for a mechanism that takes no tokens or is not offered.
func (s *credentials) Issue(ctx context.Context, account jid.JID, clientID, mechanism string) (sasl.Token, error) {
	offered := s.cfg.FastTTL > 0 && (len(s.cfg.Mechanisms) == 0 || slices.Contains(s.cfg.Mechanisms, mechanism))
	known := slices.ContainsFunc(sasl.Mechanisms(), func(m sasl.Mechanism) bool { return m.Token && m.Name == mechanism })
	if !offered || !known {
		return sasl.Token{}, fmt.Errorf("no tokens for mechanism %q", mechanism)
	}
	return s.accounts.issue(ctx, account, clientID, mechanism, s.cfg.FastTTL)
}

// Revoke implements stream.Credentials.
func (s *credentials) Revoke(ctx context.Context, account jid.JID, clientID string) error {
	return s.accounts.RevokeTokens(ctx, account, clientID)
}

// keyring is what sasl asks about one domain.
type keyring struct {
	accounts *Accounts
	domain   string
}

var (
	_ sasl.Credentials = keyring{}
	_ sasl.TokenStore  = keyring{}
)

// username prepares a localpart (RFC 7622 §3.3).
func (k keyring) username(raw string) (string, error) {
	j, err := jid.New(raw, k.domain, "")
	return j.Local(), err
}

// authzid prepares a bare JID (RFC 6120 §6.3.8).
func authzid(raw string) (local, domain string, err error) {
	j, err := jid.Parse(raw)
	if err != nil {
		return "", "", err
	}
	if !j.IsBare() || j.Local() == "" {
		return "", "", ErrName
	}
	return j.Local(), j.Domain(), nil
}

// login reads what a login needs. With Postgres another process may change a
// password, and the old one is out at once: each login asks.
func (a *Accounts) login(ctx context.Context, account string) (login, error) {
	if a.env.DB.Dialect() == storage.Postgres {
		return a.store.login(ctx, account)
	}
	return a.logins.Load(ctx, account, a.store.login)
}

// account is the bare JID of a prepared localpart.
func (k keyring) account(username string) string { return username + "@" + k.domain }

// Keys implements sasl.Credentials. Names that do not exist are cached like
// others, and cost the same (RFC 6120 §13.11).
func (k keyring) Keys(ctx context.Context, username string, h sasl.Hash) (sasl.Keys, error) {
	l, err := k.accounts.login(ctx, k.account(username))
	if err != nil {
		return sasl.Keys{}, err
	}
	i := slices.IndexFunc(l.keys, func(k sasl.Keys) bool { return h == sasl.AnyHash || k.Hash == h })
	switch {
	case i < 0:
		return sasl.Keys{}, sasl.ErrUnknownUser
	case l.disabled:
		return l.keys[i], sasl.ErrDisabled
	}
	return l.keys[i], nil
}

// stronger makes new keys of a password whose keys have too few iterations, if
// it still is the password. The login succeeds without.
func (k keyring) stronger(ctx context.Context, username, password string, old sasl.Keys) {
	account, err := jid.New(username, k.domain, "")
	if err == nil {
		err = k.accounts.strengthen(ctx, account, password, old)
	}
	if err != nil {
		k.accounts.log.Warn("keys not made stronger", "account", k.account(username), "err", err)
	}
}

// Tokens implements sasl.TokenStore.
func (k keyring) Tokens(ctx context.Context, username, clientID string) (sasl.Tokens, error) {
	return k.accounts.store.tokens(ctx, k.account(username), clientID)
}

// Used implements sasl.TokenStore.
func (k keyring) Used(ctx context.Context, use sasl.TokenUse) error {
	return k.accounts.store.used(ctx, k.account(use.Username), use)
}
