package sasl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// house is a domain's accounts in memory, and the Server in front of them.
type house struct {
	t testing.TB
	*Server
	mu     sync.Mutex
	keys   map[string]map[Hash]Keys
	errs   map[string]error
	tokens map[string]Tokens
	uses   []TokenUse
	useErr error
	work   []Work
	now    time.Time
}

const testDomain = "example.org"

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	h := &house{t: t, keys: map[string]map[Hash]Keys{}, errs: map[string]error{}, tokens: map[string]Tokens{}, now: time.Unix(1_800_000_000, 0)}
	cfg := Config{
		Domain: testDomain, Credentials: h, Tokens: h, Username: prepareLocal, Authzid: prepareBare,
		Secret: []byte(strings.Repeat("s", 32)), Iterations: MinIterations, Downgrade: true,
		Pool: NewPool(2, 16), Verified: NewVerified(16), Clock: func() time.Time { return h.now },
		Observe: func(w Work) { h.mu.Lock(); h.work = append(h.work, w); h.mu.Unlock() },
	}
	for _, f := range change {
		f(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = srv
	return h
}

// prepareLocal and prepareBare stand for the real preparation.
func prepareLocal(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "@/:<>\"&' \x00") || len(s) > 1023 {
		return "", errors.New("bad localpart")
	}
	return strings.ToLower(s), nil
}

func prepareBare(s string) (string, string, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || strings.Contains(domain, "/") {
		return "", "", errors.New("not a bare JID")
	}
	local, err := prepareLocal(local)
	return local, strings.ToLower(domain), err
}

func (h *house) add(user, password string, hashes ...Hash) {
	h.t.Helper()
	if len(hashes) == 0 {
		hashes = []Hash{SHA1, SHA256}
	}
	h.keys[user] = map[Hash]Keys{}
	for _, hash := range hashes {
		k, err := Derive(password, NewSalt(), MinIterations, hash)
		if err != nil {
			h.t.Fatal(err)
		}
		h.keys[user][hash] = k
	}
}

func (h *house) Keys(_ context.Context, username string, hash Hash) (Keys, error) {
	all, ok := h.keys[username]
	if !ok {
		if err := h.errs[username]; err != nil {
			return Keys{}, err
		}
		return Keys{}, ErrUnknownUser
	}
	if hash == AnyHash {
		hash = SHA256
		if _, ok := all[hash]; !ok {
			hash = SHA1
		}
	}
	k, ok := all[hash]
	if !ok {
		return Keys{}, ErrUnknownUser
	}
	return k, h.errs[username]
}

func (h *house) Tokens(_ context.Context, username, clientID string) (Tokens, error) {
	return h.tokens[username+"/"+clientID], h.errs[username]
}

func (h *house) Used(_ context.Context, use TokenUse) error {
	h.uses = append(h.uses, use)
	return h.useErr
}

var _ Credentials = (*house)(nil)
var _ TokenStore = (*house)(nil)

var testBinding = Binding{TLS: true, Exporter: []byte("0123456789abcdef0123456789abcdef"), EndPoint: []byte("fedcba9876543210fedcba9876543210")}

// session is a stream with TLS to which everything possible was announced.
func (h *house) session(b Binding) Session {
	ses := Session{Binding: b}
	ses.Offer = h.Offer(ses)
	return ses
}

func (h *house) start(name string, ses Session) Exchange {
	h.t.Helper()
	return h.begin(h.t, name, ses)
}

// begin is start inside a fuzz target, which has its own t.
func (h *house) begin(t testing.TB, name string, ses Session) Exchange {
	t.Helper()
	x, err := h.Start(name, ses)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return x
}

// condition checks that err is a *Failure and returns its condition.
func condition(t testing.TB, err error) Condition {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("got %v (%T), want a *Failure", err, err)
	}
	return f.Condition
}

func wantCondition(t testing.TB, err error, want Condition) {
	t.Helper()
	if got := condition(t, err); got != want {
		t.Fatalf("got %v, want %s", err, want)
	}
}

func names(ms ...string) []string { return ms }

// RFC 6120 §13.8.3: no password mechanism before TLS. XEP-0440 §3: types and -PLUS come together.
func TestRule10OfferDependsOnEncryption(t *testing.T) {
	bound := names("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")
	unbound := bound[2:]
	for _, c := range []struct {
		what       string
		ses        Session
		loopback   bool
		mechs, fst []string
		types      []BindingType
	}{
		{what: "plaintext", ses: Session{}},
		{what: "plaintext from loopback", ses: Session{Loopback: true}},
		{what: "loopback allowed", ses: Session{Loopback: true}, loopback: true, mechs: unbound},
		{what: "loopback allowed, elsewhere", ses: Session{}, loopback: true},
		{what: "TLS without bindings", ses: Session{Binding: Binding{TLS: true}}, mechs: unbound, fst: names("HT-SHA-256-NONE")},
		{what: "TLS", ses: Session{Binding: testBinding}, mechs: bound, fst: names("HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"), types: []BindingType{TLSExporter, TLSServerEndPoint}},
		{what: "TLS 1.2", ses: Session{Binding: Binding{TLS: true, EndPoint: []byte("x")}}, mechs: bound, fst: names("HT-SHA-256-ENDP", "HT-SHA-256-NONE"), types: []BindingType{TLSServerEndPoint}},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newHouse(t, func(cfg *Config) { cfg.Loopback = c.loopback })
			o := h.Offer(c.ses)
			if !slices.Equal(o.Mechanisms, c.mechs) || !slices.Equal(o.Tokens, c.fst) || !slices.Equal(o.Bindings, c.types) {
				t.Errorf("offer %+v", o)
			}
		})
	}
}

func TestRule10PlainNeedsEncryption(t *testing.T) {
	h := newHouse(t)
	_, err := h.Start("PLAIN", Session{Offer: Offer{Mechanisms: names("PLAIN")}})
	wantCondition(t, err, EncryptionRequired)
	_, err = h.Start("HT-SHA-256-NONE", Session{Loopback: true, Offer: Offer{Tokens: names("HT-SHA-256-NONE")}})
	wantCondition(t, err, EncryptionRequired)
}

// RFC 6120 §6.5.7; XEP-0388 §2.3: what was not announced fails.
func TestStartInvalidMechanism(t *testing.T) {
	h := newHouse(t, func(cfg *Config) { cfg.Mechanisms = names("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "HT-SHA-256-NONE") })
	ses := h.session(Binding{TLS: true})
	for _, name := range names("", "X-UNKNOWN", "scram-sha-256", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS") {
		_, err := h.Start(name, ses)
		wantCondition(t, err, InvalidMechanism)
	}
	ses.Offer.Tokens = nil // a stream without SASL2 announces no FAST
	_, err := h.Start("HT-SHA-256-NONE", ses)
	wantCondition(t, err, InvalidMechanism)
}

func TestOfferWithoutTokenStore(t *testing.T) {
	h := newHouse(t, func(cfg *Config) { cfg.Tokens = nil })
	if o := h.Offer(Session{Binding: testBinding}); len(o.Tokens) != 0 {
		t.Errorf("offers %v", o.Tokens)
	}
}

// The table is sorted, names are unique, and every mechanism demands encryption.
func TestMechanismTable(t *testing.T) {
	last := 1 << 30
	seen := map[string]bool{}
	for _, m := range Mechanisms() {
		if m.Strength >= last || seen[m.Name] || !m.NeedsTLS || m.first == nil || m.ChannelBinding != (strings.HasSuffix(m.Name, "-PLUS") || m.Binding != "") {
			t.Errorf("bad row %+v", m)
		}
		last, seen[m.Name] = m.Strength, true
	}
}

func TestNewRejectsBadConfig(t *testing.T) {
	good := newHouse(t).cfg
	for what, f := range map[string]func(*Config){
		"domain": func(c *Config) { c.Domain = "" }, "credentials": func(c *Config) { c.Credentials = nil },
		"secret": func(c *Config) { c.Secret = c.Secret[:31] }, "iterations": func(c *Config) { c.Iterations = 4095 },
		"mechanism": func(c *Config) { c.Mechanisms = names("CRAM-MD5") }, "pool": func(c *Config) { c.Pool = nil },
		"names": func(c *Config) { c.Authzid = nil }, "clock": func(c *Config) { c.Clock = nil },
	} {
		cfg := good
		f(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// RFC 6120 §6.4.2, §6.5.5, §13.9.1.
func TestRule11DecodeResponse(t *testing.T) {
	for _, c := range []struct {
		text    string
		initial bool
		want    []byte // nil with ok: none
		ok      bool
	}{
		{"", true, nil, true}, {"=", true, []byte{}, true}, {"", false, []byte{}, true}, {"=", false, nil, false},
		{"YQ==", true, []byte("a"), true}, {"YQ==", false, []byte("a"), true},
		{"YQ", false, nil, false}, {"YQ=", false, nil, false}, {"YR==", false, nil, false}, // stray bits
		{"Y Q==", false, nil, false}, {"YQ==\n", false, nil, false}, {"\r\nYQ==", true, nil, false}, {"_-==", false, nil, false}, {"YQ==YQ==", false, nil, false},
	} {
		got, err := DecodeResponse(c.text, c.initial)
		if (err == nil) != c.ok || string(got) != string(c.want) || c.ok && (got == nil) != (c.want == nil) {
			t.Errorf("DecodeResponse(%q, %v) = %q, %v", c.text, c.initial, got, err)
		}
		if err != nil {
			wantCondition(t, err, IncorrectEncoding)
		}
	}
}

// RFC 4422 §3: all mechanisms here are client-first, so a missing initial response is asked for, once.
func TestNoInitialResponse(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	for _, name := range h.Offer(Session{Binding: testBinding}).Mechanisms {
		x := h.start(name, h.session(testBinding))
		challenge, done, err := x.Next(t.Context(), nil)
		if challenge == nil || len(challenge) != 0 || done || err != nil {
			t.Fatalf("%s: %q %v %v", name, challenge, done, err)
		}
		_, _, err = x.Next(t.Context(), nil)
		wantCondition(t, err, MalformedRequest)
	}
	x := h.start("PLAIN", h.session(testBinding))
	x.Next(t.Context(), nil)
	if _, done, err := x.Next(t.Context(), []byte("\x00alice\x00secret")); !done || err != nil {
		t.Fatal(done, err)
	}
}

// An exchange that is over stays over, whichever way it ended; nothing can be retried inside it.
func TestExchangeIsOver(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	for _, first := range names("\x00alice\x00wrong", "\x00alice\x00secret", "") {
		x := h.start("PLAIN", h.session(testBinding))
		_, done, err := x.Next(t.Context(), []byte(first))
		if got := x.Result(); done != (got.Username == "alice") || done != (got.Mechanism == "PLAIN") {
			t.Errorf("done %v (%v), result %+v", done, err, got)
		}
		_, done, err = x.Next(t.Context(), []byte("\x00alice\x00secret"))
		if done {
			t.Fatal("went on")
		}
		wantCondition(t, err, MalformedRequest)
	}
}

func TestOverlongMessage(t *testing.T) {
	h := newHouse(t)
	for _, m := range Mechanisms() {
		ses := h.session(testBinding)
		ses.Fast = &Fast{ClientID: "c"}
		x := h.start(m.Name, ses)
		_, _, err := x.Next(t.Context(), []byte(strings.Repeat("n", maxMessage+1)))
		wantCondition(t, err, MalformedRequest)
	}
}
