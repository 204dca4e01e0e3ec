package sasl

import (
	"strings"
	"testing"
	"unicode/utf8"

	xdg "github.com/xdg-go/scram"
)

// checkOutcome: exactly one of challenge, success, *Failure; and nobody gets in without a secret.
func checkOutcome(t *testing.T, x Exchange, challenge []byte, done bool, err error) {
	t.Helper()
	if err != nil {
		if condition(t, err); done || challenge != nil || x.Result().Username != "" {
			t.Fatalf("a failure with more: %q %v %+v", challenge, done, x.Result())
		}
		return
	}
	if done {
		t.Fatal("got in")
	}
	if challenge == nil {
		t.Fatal("neither challenge nor failure")
	}
}

func FuzzSCRAM(f *testing.F) {
	for _, s := range []string{"n,,n=alice,r=abc", "y,a=alice@example.org,n=al=2Cice,r=abc,x=y", "p=tls-exporter,,n=alice,r=abc", "p=tls-server-end-point,,n=ghost,r=~", "n,,m=x,n=a,r=b", "n,a==3D,n==,r=,"} {
		f.Add(s, "c=biws,r=abcXYZ,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true)
		f.Add(s, "c=cD10bHMtZXhwb3J0ZXIsLA==,r=abcXYZ,x=1,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", false)
	}
	h := newHouse(f)
	h.add("alice", "secret")
	h.nonce = func() string { return "XYZ" }
	h.cfg.Observe, h.kdf.observe = nil, nil
	oracle, err := xdg.SHA256.NewServer(func(string) (xdg.StoredCredentials, error) {
		k := h.keys["alice"][SHA256]
		return xdg.StoredCredentials{KeyFactors: xdg.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations}, StoredKey: k.StoredKey, ServerKey: k.ServerKey}, nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, final string, plus bool) {
		name, ses := "SCRAM-SHA-256", h.session(Binding{TLS: true})
		if plus {
			name, ses = "SCRAM-SHA-256-PLUS", h.session(testBinding)
		}
		x := h.begin(t, name, ses)
		challenge, done, err := x.Next(t.Context(), []byte(first))
		checkOutcome(t, x, challenge, done, err)
		if err != nil {
			if c, ok := parseClientFirst(first); ok && c.gs2+c.bare != first {
				t.Fatalf("%q parsed as %+v", first, c)
			}
			return
		}
		// What we take, the oracle takes, too (it is laxer about most things; without -PLUS only).
		if !plus {
			if _, err := oracle.NewConversation().Step(first); err != nil {
				t.Fatalf("we accept %q, the oracle says %v", first, err)
			}
		}
		c, ok := parseClientFirst(first)
		if !ok || c.gs2+c.bare != first || !utf8.ValidString(c.username) || !strings.HasPrefix(string(challenge), "r="+c.nonce+"XYZ,s=") {
			t.Fatalf("%q parsed as %+v, answered %q", first, c, challenge)
		}
		challenge, done, err = x.Next(t.Context(), []byte(final))
		checkOutcome(t, x, challenge, done, err)
		if err == nil {
			t.Fatal("a third step")
		}
		if c, ok := parseClientFinal(final); ok && !strings.HasPrefix(final, c.withoutProof+",p=") {
			t.Fatalf("%q parsed as %+v", final, c)
		}
	})
}

func FuzzPLAIN(f *testing.F) {
	for _, s := range []string{"\x00alice\x00x", "alice@example.org\x00alice\x00x", "\x00\x00", "\x00al\xffice\x00½", "a\x00b\x00c\x00d", "\x00alice\x00\u0627\u00ad"} {
		f.Add([]byte(s))
	}
	h := newHouse(f)
	h.cfg.Observe, h.kdf.observe = nil, nil
	k := Keys{Hash: SHA1, Salt: []byte("salt"), Iterations: 1, StoredKey: make([]byte, 20), ServerKey: make([]byte, 20)}
	h.keys["alice"] = map[Hash]Keys{SHA1: k} // one iteration: fast; keys that nothing matches
	h.cfg.Iterations = 1
	f.Fuzz(func(t *testing.T, msg []byte) {
		if msg == nil {
			msg = []byte{}
		}
		x := h.begin(t, "PLAIN", h.session(testBinding))
		challenge, done, err := x.Next(t.Context(), msg)
		checkOutcome(t, x, challenge, done, err)
		if err == nil {
			t.Fatal("a second step")
		}
		if parts := strings.Split(string(msg), "\x00"); len(parts) == 3 {
			prepared, err := PreparePassword(parts[2])
			if err != nil {
				return
			}
			// Preparing twice changes nothing, or keys could be derived from two forms.
			if again, err := PreparePassword(prepared); err != nil || again != prepared {
				t.Fatalf("%q becomes %q, then %q (%v)", parts[2], prepared, again, err)
			}
		}
	})
}

func FuzzHT(f *testing.F) {
	f.Add(htMessage("alice", "x", nil), "c", int64(1), false)
	f.Add(htMessage("ghost", "", testBinding.Exporter), "", int64(-1), true)
	f.Add([]byte("\x00\x00"), "c", int64(0), true)
	h := newHouse(f)
	h.cfg.Observe, h.kdf.observe = nil, nil
	h.tokens["alice/c"] = Tokens{New: &Token{Secret: "unguessable secret", Mechanism: "HT-SHA-256-EXPR", Expires: h.now.Add(1)}}
	f.Fuzz(func(t *testing.T, msg []byte, client string, count int64, early bool) {
		if msg == nil {
			msg = []byte{}
		}
		for _, name := range names("HT-SHA-256-EXPR", "HT-SHA-256-NONE") {
			ses := h.session(testBinding)
			ses.Fast = &Fast{ClientID: client, Count: count, Early: early}
			x := h.begin(t, name, ses)
			challenge, done, err := x.Next(t.Context(), msg)
			checkOutcome(t, x, challenge, done, err)
			if err == nil || len(h.uses) > 0 {
				t.Fatal("one message decides, and this one cannot be right")
			}
		}
	})
}
