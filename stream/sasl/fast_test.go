package sasl

import (
	"strings"
	"testing"
	"time"
)

func htMessage(user, secret string, cbind []byte) []byte {
	return append([]byte(user+"\x00"), kdf{}.hmac(SHA256, []byte(secret), []byte("Initiator"), cbind)...)
}

func (h *house) ht(mechanism string, fast *Fast, msg []byte) (Exchange, bool, error) {
	h.t.Helper()
	ses := h.session(testBinding)
	ses.Fast = fast
	x := h.start(mechanism, ses)
	_, done, err := x.Next(h.t.Context(), msg)
	return x, done, err
}

// XEP-0484 §3.4; draft-schmaus-kitten-sasl-ht-09 §3.
func TestHTBindings(t *testing.T) {
	for mechanism, cbind := range map[string][]byte{"HT-SHA-256-NONE": nil, "HT-SHA-256-EXPR": testBinding.Exporter, "HT-SHA-256-ENDP": testBinding.EndPoint} {
		h := newHouse(t)
		token := &Token{ID: 7, Secret: "tokentoken", Mechanism: mechanism, Expires: h.now.Add(time.Hour)}
		h.tokens["alice/c"] = Tokens{Current: token}
		x, done, err := h.ht(mechanism, &Fast{ClientID: "c", Count: 3}, htMessage("ALICE", "tokentoken", cbind))
		if !done || err != nil {
			t.Fatalf("%s: %v", mechanism, err)
		}
		r := x.Result()
		want := kdf{}.hmac(SHA256, []byte("tokentoken"), []byte("Responder"), cbind)
		use := TokenUse{Username: "alice", ClientID: "c", ID: 7, Count: 3, Expires: token.Expires}
		if string(r.Data) != string(want) || r.Username != "alice" || r.Authzid != "alice@example.org" || r.Mechanism != mechanism || *r.Token != use {
			t.Errorf("%s: %+v", mechanism, r)
		}
		if len(h.uses) != 1 || h.uses[0] != use {
			t.Errorf("%s: recorded %+v", mechanism, h.uses)
		}
		// The hash for another binding, or none, does not do.
		_, done, err = h.ht(mechanism, &Fast{ClientID: "c"}, htMessage("alice", "tokentoken", []byte("other")))
		if done {
			t.Fatalf("%s: bound to nothing", mechanism)
		}
		wantCondition(t, err, NotAuthorized)
	}
}

// XEP-0484 §5.1: the new slot first, then the current one.
func TestHTSlots(t *testing.T) {
	h := newHouse(t)
	exp := h.now.Add(time.Hour)
	h.tokens["alice/c"] = Tokens{New: &Token{ID: 2, Secret: "new", Mechanism: "HT-SHA-256-NONE", Expires: exp}, Current: &Token{ID: 1, Secret: "old", Mechanism: "HT-SHA-256-NONE", Expires: exp}}
	for secret, want := range map[string]TokenUse{"new": {ID: 2, New: true}, "old": {ID: 1}} {
		x, done, err := h.ht("HT-SHA-256-NONE", &Fast{ClientID: "c"}, htMessage("alice", secret, nil))
		if got := x.Result().Token; !done || got.ID != want.ID || got.New != want.New {
			t.Errorf("%s: %v %+v", secret, err, got)
		}
	}
}

// XEP-0484 §3.4, §4.2: what must be refused.
func TestHTRefuses(t *testing.T) {
	const ht = "HT-SHA-256-NONE"
	good := func(h *house) *Token {
		return &Token{ID: 1, Secret: "secret", Mechanism: ht, Expires: h.now.Add(time.Second), Count: 5}
	}
	for _, c := range []struct {
		what   string
		change func(*house, *Token)
		fast   *Fast
		msg    []byte
		want   Condition
	}{
		{"nothing wrong", nil, &Fast{ClientID: "c", Count: 6}, nil, ""},
		{"no count outside of 0-RTT", nil, &Fast{ClientID: "c"}, nil, ""},
		{"count seen", nil, &Fast{ClientID: "c", Count: 5}, nil, NotAuthorized},
		{"0-RTT without count", nil, &Fast{ClientID: "c", Early: true}, nil, NotAuthorized},
		{"0-RTT replayed", nil, &Fast{ClientID: "c", Count: 5, Early: true}, nil, NotAuthorized},
		{"0-RTT", nil, &Fast{ClientID: "c", Count: 6, Early: true}, nil, ""},
		{"negative count", nil, &Fast{ClientID: "c", Count: -1}, nil, MalformedRequest},
		{"raced by another", func(h *house, _ *Token) { h.useErr = ErrReplay }, &Fast{ClientID: "c", Count: 6}, nil, NotAuthorized},
		{"revoked meanwhile", func(h *house, _ *Token) { h.useErr = ErrUnknownUser }, &Fast{ClientID: "c"}, nil, NotAuthorized},
		{"not recorded", func(h *house, _ *Token) { h.useErr = ErrTemporary }, &Fast{ClientID: "c"}, nil, TemporaryAuthFailure},
		{"expired", func(h *house, tok *Token) { tok.Expires = h.now }, &Fast{ClientID: "c"}, nil, CredentialsExpired},
		{"for another mechanism", func(_ *house, tok *Token) { tok.Mechanism = "HT-SHA-256-EXPR" }, &Fast{ClientID: "c"}, nil, NotAuthorized},
		{"disabled", func(h *house, _ *Token) { h.errs["alice"] = ErrDisabled }, &Fast{ClientID: "c"}, nil, AccountDisabled},
		{"password expired", func(h *house, _ *Token) { h.errs["alice"] = ErrExpired }, &Fast{ClientID: "c"}, nil, CredentialsExpired},
		{"disabled, wrong token", func(h *house, _ *Token) { h.errs["alice"] = ErrDisabled }, &Fast{ClientID: "c"}, htMessage("alice", "x", nil), NotAuthorized},
		{"another client", nil, &Fast{ClientID: "d"}, nil, NotAuthorized},
		{"no client id", nil, &Fast{}, nil, MalformedRequest},
		{"no fast element", nil, nil, nil, MalformedRequest},
		{"wrong token", nil, &Fast{ClientID: "c"}, htMessage("alice", "x", nil), NotAuthorized},
		{"empty token", func(_ *house, tok *Token) { tok.Secret = "" }, &Fast{ClientID: "c"}, htMessage("alice", "", nil), NotAuthorized},
		{"empty slot's filler", nil, &Fast{ClientID: "c"}, htMessage("alice", strings.Repeat("\x00", 32), nil), NotAuthorized},
		{"no NUL", nil, &Fast{ClientID: "c"}, []byte("alice"), MalformedRequest},
		{"short hash", nil, &Fast{ClientID: "c"}, []byte("alice\x00abc"), MalformedRequest},
		{"no name", nil, &Fast{ClientID: "c"}, htMessage("", "secret", nil), MalformedRequest},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newHouse(t)
			tok := good(h)
			h.tokens["alice/c"] = Tokens{New: tok}
			if c.change != nil {
				c.change(h, tok)
			}
			if c.msg == nil {
				c.msg = htMessage("alice", "secret", nil)
			}
			x, done, err := h.ht(ht, c.fast, c.msg)
			if c.want == "" {
				if !done || err != nil {
					t.Fatal(err)
				}
				return
			}
			wantCondition(t, err, c.want)
			if x.Result().Token != nil || len(h.uses) > 0 && h.useErr == nil {
				t.Error("a refused token was used")
			}
		})
	}
}
