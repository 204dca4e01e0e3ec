package accounts

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/stream/sasl"
)

// asIs gives a component the defaults.
type asIs struct{ change func(*Config) }

func (a asIs) Decode(into any) error {
	c := into.(*Config)
	c.Iterations = sasl.MinIterations
	if a.change != nil {
		a.change(c)
	}
	return c.Validate()
}

func (b *bench) credentials(change func(*Config)) *credentials {
	b.t.Helper()
	s := &credentials{env: b.env, cfg: *defaults(), accounts: b.Accounts}
	b.must(asIs{change}.Decode(&s.cfg))
	s.throttle = sasl.NewThrottle(sasl.ThrottleConfig{Lock: s.cfg.Throttle.Alert, Lockout: s.lockout, Clock: b.clock.Now})
	b.must(s.Start(b.ctx))
	return s
}

// try runs one exchange with one message.
func (b *bench) try(s *credentials, mechanism, domain string, ses sasl.Session, message string) (sasl.Result, error) {
	b.t.Helper()
	srv, err := s.SASL(domain)
	b.must(err)
	ses.Offer = srv.Offer(ses)
	x, err := srv.Start(mechanism, ses)
	if err != nil {
		return sasl.Result{}, err
	}
	_, done, err := x.Next(b.ctx, []byte(message))
	if err == nil && !done {
		b.t.Fatal("more was asked")
	}
	return x.Result(), err
}

func condition(err error) sasl.Condition {
	var f *sasl.Failure
	if errors.As(err, &f) {
		return f.Condition
	}
	return ""
}

var secured = sasl.Session{Binding: sasl.Binding{TLS: true}}

func TestLogin(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		s := b.credentials(nil)
		r, err := b.try(s, "PLAIN", "capulet.example", secured, "\x00Juliet\x00secret-123")
		b.must(err)
		if r.Authzid != juliet.String() {
			t.Fatalf("logged in as %q", r.Authzid)
		}
		_, err = b.try(s, "PLAIN", "capulet.example", secured, "romeo@montague.example\x00juliet\x00secret-123")
		if condition(err) != sasl.InvalidAuthzid { // RFC 6120 §6.5.6, rule 12
			t.Fatalf("foreign authzid: %v", err)
		}
		if _, err := s.SASL("elsewhere.example"); err == nil {
			t.Fatal("mechanisms of a domain that is not ours")
		}
		b.must(b.Disable(b.ctx, juliet))
		_, err = b.try(s, "PLAIN", "capulet.example", secured, "\x00juliet\x00secret-123")
		if condition(err) != sasl.AccountDisabled {
			t.Fatalf("disabled: %v", err)
		}
		b.must(b.Enable(b.ctx, juliet))
		b.must(b.SetPassword(b.ctx, juliet, "secret-456"))
		_, err = b.try(s, "PLAIN", "capulet.example", secured, "\x00juliet\x00secret-123")
		if condition(err) != sasl.NotAuthorized {
			t.Fatalf("old password: %v", err)
		}
	})
}

// Rule 35 (RFC 6120 §13.11): names that exist, do not, and did, look alike.
func TestRule35LoginsLookAlike(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		b.must(b.Create(b.ctx, jidOf("tybalt"), "secret-123"))
		b.must(b.Disable(b.ctx, jidOf("tybalt")))
		b.must(b.Create(b.ctx, jidOf("mercutio"), "secret-123"))
		b.must(b.store.mark(b.ctx, jidOf("mercutio"), b.clock.Now()))
		s := b.credentials(nil)
		answers := map[string]bool{}
		for _, name := range []string{"juliet", "nobody", "tybalt", "mercutio"} {
			_, err := b.try(s, "PLAIN", "capulet.example", secured, "\x00"+name+"\x00wrong")
			answers[fmt.Sprint(err)] = true
		}
		if len(answers) != 1 {
			t.Fatalf("answers differ: %v", answers)
		}
	})
}

// Reliability row 8: an unknown user's salt is the same at every try, also
// after a restart and on every node, and as long as a real one.
func TestReliability08UnknownSaltIsStable(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		first := func(s *credentials, name string) string {
			srv, err := s.SASL("capulet.example")
			b.must(err)
			ses := secured
			ses.Offer = srv.Offer(ses)
			x, err := srv.Start("SCRAM-SHA-256", ses)
			b.must(err)
			challenge, _, err := x.Next(b.ctx, []byte("n,,n="+name+",r=abcdef"))
			b.must(err)
			_, rest, _ := strings.Cut(string(challenge), ",s=")
			return rest
		}
		one, two := b.credentials(nil), b.credentials(nil)
		if first(one, "nobody") != first(two, "nobody") {
			t.Fatal("another salt after a restart")
		}
		if first(one, "nobody") == first(one, "nobody2") {
			t.Fatal("one salt for all")
		}
		if a, b := first(one, "nobody"), first(one, "juliet"); len(a) != len(b) {
			t.Fatalf("%q and %q tell who exists", a, b)
		}
	})
}

// Reliability row 8: an event with account and address, without a secret.
func TestReliability08LockoutIsLogged(t *testing.T) {
	each(t, func(b *bench) {
		s := b.credentials(func(c *Config) { c.Throttle.Alert = 3 })
		for range 5 {
			s.Throttle().Fail("juliet", netip.MustParseAddr("192.0.2.7"))
		}
		if n := strings.Count(b.log.String(), "many failed logins"); n != 1 {
			t.Fatalf("%d events\n%s", n, b.log)
		}
		for _, want := range []string{"account=juliet", "remote=192.0.2.7", "failures=3"} {
			if !strings.Contains(b.log.String(), want) {
				t.Fatalf("no %s in %s", want, b.log)
			}
		}
	})
}

// fast is a login with a token (draft-schmaus-kitten-sasl-ht-09 §3).
func (b *bench) fast(s *credentials, client, secret string, count int64) error {
	b.t.Helper()
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte("Initiator"))
	ses := secured
	ses.Fast = &sasl.Fast{ClientID: client, Count: count}
	_, err := b.try(s, "HT-SHA-256-NONE", "capulet.example", ses, "juliet\x00"+string(m.Sum(nil)))
	return err
}

const ht = "HT-SHA-256-NONE"

func TestTokens(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		s := b.credentials(nil)
		refused := func(what string, err error, want sasl.Condition) {
			t.Helper()
			if condition(err) != want {
				t.Fatalf("%s: %v, want %s", what, err, want)
			}
		}
		issue := func(client string) sasl.Token {
			t.Helper()
			tok, err := s.Issue(b.ctx, juliet, client, ht)
			b.must(err)
			return tok
		}
		one := issue("phone")
		if !one.Expires.Equal(b.clock.Now().Add(s.cfg.FastTTL)) {
			t.Fatalf("expires %v", one.Expires)
		}
		b.must(b.fast(s, "phone", one.Secret, 0))
		refused("another client's", b.fast(s, "desk", one.Secret, 0), sasl.NotAuthorized)

		// XEP-0484 §3.5: the old one is good until the new one is used, and
		// one that was issued and never used gives way.
		unused := issue("phone")
		two := issue("phone")
		refused("replaced before it was used", b.fast(s, "phone", unused.Secret, 0), sasl.NotAuthorized)
		b.must(b.fast(s, "phone", one.Secret, 0))
		b.must(b.fast(s, "phone", two.Secret, 0))
		b.must(b.fast(s, "phone", two.Secret, 0))
		refused("rotated out", b.fast(s, "phone", one.Secret, 0), sasl.NotAuthorized)

		// XEP-0484 §3.4: a count is never taken twice.
		b.must(b.fast(s, "phone", two.Secret, 5))
		refused("replayed", b.fast(s, "phone", two.Secret, 5), sasl.NotAuthorized)
		refused("older", b.fast(s, "phone", two.Secret, 4), sasl.NotAuthorized)
		b.must(b.fast(s, "phone", two.Secret, 6))

		b.must(b.Disable(b.ctx, juliet))
		refused("disabled", b.fast(s, "phone", two.Secret, 0), sasl.AccountDisabled)
		_, err := s.Issue(b.ctx, juliet, "phone", ht)
		b.is(err, ErrDisabled)
		b.must(b.Enable(b.ctx, juliet))

		desk := issue("desk")
		b.must(s.Revoke(b.ctx, juliet, "phone"))
		refused("revoked", b.fast(s, "phone", two.Secret, 0), sasl.NotAuthorized)
		b.must(b.fast(s, "desk", desk.Secret, 0))
		b.clock.move(s.cfg.FastTTL)
		refused("expired", b.fast(s, "desk", desk.Secret, 0), sasl.CredentialsExpired)

		desk = issue("desk")
		b.must(b.SetPassword(b.ctx, juliet, "secret-456"))
		refused("from before the new password", b.fast(s, "desk", desk.Secret, 0), sasl.NotAuthorized)

		for client, want := range map[string]error{"": ErrClient, strings.Repeat("x", 257): ErrClient} {
			_, err := s.Issue(b.ctx, juliet, client, ht)
			b.is(err, want)
		}
		_, err = s.Issue(b.ctx, romeo, "phone", ht)
		b.is(err, ErrUnknown)
		if _, err := s.Issue(b.ctx, juliet, "phone", "PLAIN"); err == nil {
			t.Fatal("a token for PLAIN")
		}
	})
}

// A use is judged by the table, not by what was read before it.
func TestTokenUsedTwiceAtOnce(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		s := b.credentials(nil)
		tok, err := s.Issue(b.ctx, juliet, "phone", ht)
		b.must(err)
		keys := keyring{b.Accounts, "capulet.example"}
		use := sasl.TokenUse{Username: "juliet", ClientID: "phone", ID: tok.ID, New: true, Count: 1}
		b.must(keys.Used(b.ctx, use))
		b.is(keys.Used(b.ctx, use), sasl.ErrReplay)
		use.Count = 0
		b.must(keys.Used(b.ctx, use)) // it is the current one now
		use.ID++
		b.is(keys.Used(b.ctx, use), sasl.ErrUnknownUser)
	})
}

func TestTokensAreBounded(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		s := b.credentials(nil)
		var last sasl.Token
		for i := range maxClients + 5 {
			var err error
			last, err = s.Issue(b.ctx, juliet, fmt.Sprint("client-", i), ht)
			b.must(err)
			b.clock.move(time.Second)
		}
		var n int64
		b.must(b.db.QueryRow(b.ctx, `SELECT count(*) FROM account_token`).Scan(&n))
		if n != maxClients {
			t.Fatalf("%d tokens", n)
		}
		b.must(b.fast(s, fmt.Sprint("client-", maxClients+4), last.Secret, 0))
	})
}

func TestNoTokensWhenOff(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		for _, change := range []func(*Config){
			func(c *Config) { c.FastTTL = 0 },
			func(c *Config) { c.Mechanisms = []string{"SCRAM-SHA-256"} },
		} {
			s := b.credentials(change)
			srv, err := s.SASL("capulet.example")
			b.must(err)
			if got := srv.Offer(secured).Tokens; len(got) > 0 {
				t.Fatalf("offered %v", got)
			}
			if _, err := s.Issue(b.ctx, juliet, "phone", ht); err == nil {
				t.Fatal("issued")
			}
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"mechanisms": func(c *Config) { c.Mechanisms = []string{"SCRAM-SHA-512"} },
		"fast_ttl":   func(c *Config) { c.FastTTL = time.Second },
	} {
		err := asIs{change}.Decode(defaults())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Keys come with temporary errors when the database is gone, never as unknown.
func TestReliability31DatabaseDown(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		s := b.credentials(nil)
		gone, cancel := context.WithCancel(b.ctx)
		cancel()
		b.ctx = gone
		_, err := b.try(s, "PLAIN", "capulet.example", secured, "\x00juliet\x00secret-123")
		if condition(err) != sasl.TemporaryAuthFailure {
			t.Fatalf("%v", err)
		}
		if !bytes.Contains([]byte(fmt.Sprint(err)), []byte("temporary")) {
			t.Fatalf("%v", err)
		}
	})
}

// Who logs in with PLAIN after iterations were raised has keys of that strength
// afterwards, with the same password and tokens; whoever fails changes nothing.
func TestKeysGrowStrongerAtPlainLogin(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		weak := b.credentials(nil)
		token, err := weak.Issue(b.ctx, juliet, "client", "HT-SHA-256-NONE")
		b.must(err)
		s := b.credentials(func(c *Config) { c.Iterations = 2 * sasl.MinIterations })
		iterations := func() (n []int) {
			l, err := b.store.login(b.ctx, juliet.String())
			b.must(err)
			for _, k := range l.keys {
				n = append(n, k.Iterations)
			}
			return n
		}
		weakest := func() int { return slices.Min(iterations()) }
		login := func(password string) error {
			_, err := b.try(s, "PLAIN", "capulet.example", secured, "\x00juliet\x00"+password)
			return err
		}
		if login("wrong") == nil || weakest() != sasl.MinIterations {
			t.Fatalf("a wrong password makes %v", iterations())
		}
		b.must(login("secret-123"))
		if weakest() != 2*sasl.MinIterations {
			t.Fatalf("keys have %v iterations", iterations())
		}
		b.must(login("secret-123"))
		b.must(b.fast(s, "client", token.Secret, 1))
		old := sasl.Keys{Hash: sasl.SHA256, StoredKey: make([]byte, 32)} // of a password that is not any more
		b.must(b.strengthen(b.ctx, juliet, "another", old))
		b.must(login("secret-123"))
	})
}
