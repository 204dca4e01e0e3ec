package sasl

import (
	"context"
	"crypto/pbkdf2"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func saltedPassword(t testing.TB, password string, k Keys) []byte {
	t.Helper()
	b, err := pbkdf2.Key(k.Hash.new, password, k.Salt, k.Iterations, k.Hash.Size())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// transcript is all that a stranger can learn from an attempt with a wrong secret: bytes, and the work done.
func (h *house) transcript(t *testing.T, mechanism string, msgs ...string) (string, []Work) {
	t.Helper()
	h.work = nil
	ses := h.session(testBinding)
	ses.Fast = &Fast{ClientID: "c"}
	x := h.start(mechanism, ses)
	var b strings.Builder
	for _, msg := range msgs {
		challenge, done, err := x.Next(t.Context(), []byte(msg))
		b.Write(challenge)
		if done {
			t.Fatal("got in")
		}
		var f *Failure
		if errors.As(err, &f) {
			b.WriteString("|" + string(f.Condition) + "|" + f.Text)
			break
		}
	}
	return b.String(), slices.Clone(h.work)
}

// Reliability row 8, RFC 6120 §13.11: unknown, disabled, damaged, keyless accounts and wrong passwords look alike,
// byte by byte but for the salt, and cost alike.
func TestSecurityUserEnumeration(t *testing.T) {
	h := newHouse(t)
	h.nonce = func() string { return "XYZ" }
	h.add("alice", "secret")
	h.add("frank", "secret")
	h.errs["frank"] = ErrDisabled
	h.add("grace", "secret")
	h.errs["grace"] = ErrExpired
	h.errs["heidi"] = ErrDisabled // without keys
	h.add("kevin", "secret", SHA256)
	h.add("laura", "secret")
	for hash, k := range h.keys["laura"] {
		k.StoredKey = k.StoredKey[:5]
		h.keys["laura"][hash] = k
	}
	tok := Token{Secret: "token", Mechanism: "HT-SHA-256-NONE", Expires: h.now.Add(1)}
	h.tokens["alice/c"] = Tokens{New: &tok, Current: &tok}
	h.tokens["frank/c"] = Tokens{Current: &tok}
	others := names("ghost", "frank", "grace", "heidi", "kevin", "laura", "nobody")

	proof := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	salt := regexp.MustCompile(`s=([^,]*)`)
	for _, c := range []struct {
		mechanism string
		msgs      []string // USER is replaced
	}{
		{"SCRAM-SHA-256", names("n,,n=USER,r=abc", "c=biws,r=abcXYZ,p="+proof(32))},
		{"SCRAM-SHA-1", names("n,,n=USER,r=abc", "c=biws,r=abcXYZ,p="+proof(20))},
		{"SCRAM-SHA-256-PLUS", names("p=tls-exporter,,n=USER,r=abc", "c="+base64.StdEncoding.EncodeToString(append([]byte("p=tls-exporter,,"), testBinding.Exporter...))+",r=abcXYZ,p="+proof(32))},
		{"PLAIN", names("\x00USER\x00wrong")},
		{"PLAIN", names("\x00USER\x00wrong\u00bd")}, // two forms to try
		{"PLAIN", names("\x00USER\x00" + strings.Repeat("x", MaxPassword+1))},
		{"PLAIN", names("bob@example.org\x00USER\x00wrong")},
		{"HT-SHA-256-NONE", names("USER\x00" + strings.Repeat("x", 32))},
	} {
		of := func(user string) (string, []Work) {
			msgs := slices.Clone(c.msgs)
			for i := range msgs {
				msgs[i] = strings.ReplaceAll(msgs[i], "USER", user)
			}
			s, w := h.transcript(t, c.mechanism, msgs...)
			if m := salt.FindStringSubmatch(s); m != nil {
				raw, ok := decodeBase64(m[1])
				if !ok || len(raw) != SaltSize {
					t.Errorf("%s: salt %q", user, m[1])
				}
				again, _ := h.transcript(t, c.mechanism, msgs...)
				if again != s {
					t.Errorf("%s %s: not the same twice:\n%q\n%q", c.mechanism, user, s, again)
				}
				s = strings.Replace(s, m[1], "SALT", 1)
			}
			return s, w
		}
		want, work := of("alice")
		for _, user := range others {
			got, w := of(user)
			if got != want {
				t.Errorf("%s %q: %s differs\ngot  %q\nwant %q", c.mechanism, c.msgs[0], user, got, want)
			}
			if !slices.Equal(w, work) {
				t.Errorf("%s %q: %s costs %v, alice %v", c.mechanism, c.msgs[0], user, w, work)
			}
		}
		if strings.HasPrefix(c.mechanism, "SCRAM") && len(work) == 0 {
			t.Errorf("%s: the counter counts nothing", c.mechanism)
		}
	}
}

// Fake salts differ by user, hash, domain and secret, or they would give themselves away.
func TestSecurityFakeSalt(t *testing.T) {
	h := newHouse(t)
	other := newHouse(t, func(c *Config) { c.Secret = []byte(strings.Repeat("t", 32)) })
	domain := newHouse(t, func(c *Config) { c.Domain = "example.net" })
	seen := map[string]bool{}
	for _, k := range []Keys{h.standIn("a", SHA1), h.standIn("a", SHA256), h.standIn("b", SHA256), other.standIn("a", SHA256), domain.standIn("a", SHA256)} {
		seen[string(k.Salt)] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d different salts of 5", len(seen))
	}
}

// The stand-in's keys are known to everybody: they must not open anything. An all-zero StoredKey cannot be matched,
// but even a proof that did match would not help.
func TestSecurityStandInNeverMatches(t *testing.T) {
	if err := (credential{}).verdict(true); err == nil || err.Condition != NotAuthorized {
		t.Fatal(err)
	}
}

// Only who proves the password learns that the account is disabled or the password expired.
func TestDisabledAndExpired(t *testing.T) {
	h := newHouse(t)
	for user, c := range map[string]struct {
		err  error
		want Condition
	}{"frank": {ErrDisabled, AccountDisabled}, "grace": {ErrExpired, CredentialsExpired}} {
		h.add(user, "secret")
		h.errs[user] = c.err
		_, done, err := h.start("PLAIN", h.session(testBinding)).Next(t.Context(), []byte("\x00"+user+"\x00secret"))
		if done {
			t.Fatal("got in")
		}
		wantCondition(t, err, c.want)
	}
}

// Reliability row 31: the database is down.
func TestTemporaryFailure(t *testing.T) {
	h := newHouse(t)
	for user, e := range map[string]error{"x": ErrTemporary, "y": errors.New("connection refused"), "z": context.DeadlineExceeded} {
		h.errs[user] = e
		for mechanism, msg := range map[string]string{"PLAIN": "\x00" + user + "\x00secret", "SCRAM-SHA-1": "n,,n=" + user + ",r=abc", "HT-SHA-256-NONE": user + "\x00" + strings.Repeat("x", 32)} {
			ses := h.session(testBinding)
			ses.Fast = &Fast{ClientID: "c"}
			_, _, err := h.start(mechanism, ses).Next(t.Context(), []byte(msg))
			wantCondition(t, err, TemporaryAuthFailure)
			if !errors.Is(err, e) {
				t.Errorf("%v does not tell its cause", err)
			}
		}
	}
}

// RFC 4616 §2, RFC 6120 §6.5.6: PLAIN cannot be used to become somebody else.
func TestSecurityPlainAuthzid(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	h.add("bob", "secret")
	for authzid, ok := range map[string]bool{
		"": true, "alice@example.org": true, "ALICE@EXAMPLE.ORG": true,
		"bob@example.org": false, "alice@example.net": false, "alice": false, "bob": false, "alice@example.org/x": false, "example.org": false, "ghost@example.org": false, "@": false,
	} {
		x := h.start("PLAIN", h.session(testBinding))
		_, done, err := x.Next(t.Context(), []byte(authzid+"\x00alice\x00secret"))
		if done != ok {
			t.Errorf("%q: done %v, %v", authzid, done, err)
		}
		if !ok {
			wantCondition(t, err, InvalidAuthzid)
		} else if r := x.Result(); r.Authzid != "alice@example.org" || r.Username != "alice" || r.Data != nil {
			t.Errorf("%q: result %+v", authzid, r)
		}
	}
}

func TestPlainMalformed(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	for msg, want := range map[string]Condition{
		"": MalformedRequest, "\x00": MalformedRequest, "\x00\x00": MalformedRequest, "alice\x00secret": MalformedRequest,
		"\x00alice\x00": MalformedRequest, "\x00\x00secret": MalformedRequest, "\x00alice\x00secret\x00": MalformedRequest,
		"\x00al\xffice\x00secret": MalformedRequest, "\x00alice@example.org\x00secret": MalformedRequest,
		"\x00alice\x00se\u0007cret": NotAuthorized, // no password can hold a control character
	} {
		_, done, err := h.start("PLAIN", h.session(testBinding)).Next(t.Context(), []byte(msg))
		if done || condition(t, err) != want {
			t.Errorf("%q: %v, want %s", msg, err, want)
		}
	}
}

func (h *house) plain(t testing.TB, user, password string) (pbkdf2s int, err error) {
	t.Helper()
	h.work = nil
	_, done, err := h.start("PLAIN", h.session(testBinding)).Next(t.Context(), []byte("\x00"+user+"\x00"+password))
	if done != (err == nil) {
		t.Fatal(done, err)
	}
	for _, w := range h.work {
		if w == WorkPBKDF2 {
			pbkdf2s++
		}
	}
	return pbkdf2s, err
}

// A password that has matched is not derived again, until the account has another one.
func TestPlainVerified(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	h.add("bob", "secret")
	step := func(user, password string, want int, ok bool) {
		t.Helper()
		n, err := h.plain(t, user, password)
		if n != want || (err == nil) != ok {
			t.Fatalf("%s/%s: %d derivations, %v", user, password, n, err)
		}
	}
	step("alice", "secret", 1, true)
	step("alice", "secret", 0, true)
	step("alice", "wrong", 1, false)
	step("alice", "wrong", 1, false) // failures are not remembered
	step("bob", "secret", 1, true)   // nor do users share
	h.add("alice", "changed")
	step("alice", "secret", 1, false)
	step("alice", "secret", 1, false)
	step("alice", "changed", 1, true)
	h.errs["alice"] = ErrDisabled
	if _, err := h.plain(t, "alice", "changed"); condition(t, err) != AccountDisabled {
		t.Fatal(err)
	}
	delete(h.keys, "bob")
	if n, err := h.plain(t, "bob", "secret"); n != 1 || condition(t, err) != NotAuthorized {
		t.Fatal("a deleted account is still remembered", n, err)
	}
}

func TestVerifiedIsBounded(t *testing.T) {
	v := NewVerified(3)
	tag := func(i int) verifiedTag { return verifiedTag{byte(i)} }
	for i := range 3 {
		v.add(tag(i), []byte{1})
	}
	v.match(tag(0), []byte{1}) // used: stays
	v.add(tag(3), []byte{1})
	v.add(tag(3), []byte{2})
	for i, want := range []bool{true, false, true, false} {
		if v.match(tag(i), []byte{1}) != want {
			t.Errorf("entry %d", i)
		}
	}
	if v.Len() != 2 { // the last look-up dropped an entry whose key had changed
		t.Errorf("%d entries", v.Len())
	}
	NewVerified(0).add(tag(1), nil)
}

// The parts of an entry cannot run into each other, and another process has other hashes.
func TestVerifiedTag(t *testing.T) {
	v := NewVerified(1)
	seen := map[verifiedTag]bool{}
	for _, c := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "b\x00", "c"}} {
		seen[v.tag(kdf{}, c[0], c[1], c[2])] = true
	}
	seen[NewVerified(1).tag(kdf{}, "a", "b", "c")] = true
	if len(seen) != 6 {
		t.Errorf("%d of 6", len(seen))
	}
}

// Accounts that only have SHA-1 keys can use PLAIN, and so can those whose keys come from SASLprep.
func TestPlainImportedKeys(t *testing.T) {
	h := newHouse(t)
	h.add("old", "secret", SHA1)
	if _, err := h.plain(t, "old", "secret"); err != nil {
		t.Error(err)
	}
	k, err := kdf{}.keys("1⁄2 pass", []byte("saltsaltsaltsalt"), 4096, SHA1) // SASLprep of "½ pass"
	if err != nil {
		t.Fatal(err)
	}
	h.keys["prep"] = map[Hash]Keys{SHA1: k}
	if _, err := h.plain(t, "prep", "½ pass"); err != nil {
		t.Error(err)
	}
}

// RFC 8265 §4.3 and RFC 4013 §3.
func TestPreparePassword(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"correct horse battery staple", "correct horse battery staple", true},
		{"Correct Horse", "Correct Horse", true},
		{"πßå", "πßå", true},
		{"Jack of ♦s", "Jack of ♦s", true},
		{"foo\u1680bar", "foo bar", true},
		{"a\u030a", "å", true},   // NFC
		{"½", "½", true},         // and not NFKC
		{"I\u00adX", "IX", true}, // only SASLprep takes a soft hyphen
		{"", "", false}, {"my cat is a \u0009by", "", false}, {"\u0007", "", false}, {"\xff", "", false},
		{strings.Repeat("x", 1024), strings.Repeat("x", 1024), true}, {strings.Repeat("x", 1025), "", false},
	} {
		got, err := PreparePassword(c.in)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
	for in, want := range map[string]string{"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX", "\u200b": " "} {
		if got, ok := saslprep(in); !ok || got != want {
			t.Errorf("saslprep(%q) = %q", in, got)
		}
	}
	for _, in := range names("\u0007", "\u06271", "\u00ad", "\ue000", "\u200e", "\ufdd0", "a\u0627") {
		if got, ok := saslprep(in); ok {
			t.Errorf("saslprep(%q) = %q", in, got)
		}
	}
}

func TestDeriveErrors(t *testing.T) {
	for what, f := range map[string]func() (Keys, error){
		"password":   func() (Keys, error) { return Derive("", NewSalt(), 4096, SHA256) },
		"salt":       func() (Keys, error) { return Derive("x", nil, 4096, SHA256) },
		"iterations": func() (Keys, error) { return Derive("x", NewSalt(), 0, SHA256) },
		"too many":   func() (Keys, error) { return Derive("x", NewSalt(), MaxIterations+1, SHA256) },
		"hash":       func() (Keys, error) { return Derive("x", NewSalt(), 4096, AnyHash) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// Reliability row 9: one worker, one in the queue, the third is told at once.
func TestPoolIsBounded(t *testing.T) {
	p := NewPool(1, 1)
	hold, entered := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 2)
	go func() { errs <- p.Do(t.Context(), func() { close(entered); <-hold }) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	go func() { errs <- p.Do(ctx, func() { t.Error("ran after its context ended") }) }()
	for p.Waiting() == 0 { // until the second one is in the queue
		if len(errs) > 0 {
			t.Fatal(<-errs)
		}
	}
	if err := p.Do(t.Context(), func() { t.Error("ran beyond the bound") }); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(hold)
	if err := <-errs; err != nil {
		t.Error(err)
	}
	if p.Running() != 0 || p.Waiting() != 0 {
		t.Errorf("%d running, %d waiting", p.Running(), p.Waiting())
	}
}

func TestPlainBusy(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Pool = NewPool(1, 1) })
	h.add("alice", "secret")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := h.cfg.Pool.Do(t.Context(), func() {
		_, _, err := h.start("PLAIN", h.session(testBinding)).Next(ctx, []byte("\x00alice\x00secret"))
		wantCondition(t, err, TemporaryAuthFailure)
	})
	if err != nil {
		t.Fatal(err)
	}
}
