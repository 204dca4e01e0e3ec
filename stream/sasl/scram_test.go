package sasl

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	xdg "github.com/xdg-go/scram"
	mellium "mellium.im/sasl"
)

func vectorKeys(t *testing.T, salt string, h Hash) Keys {
	t.Helper()
	raw, ok := decodeBase64(salt)
	if !ok {
		t.Fatal("bad salt")
	}
	k, err := Derive("pencil", raw, 4096, h)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The exchanges printed in RFC 5802 §5, RFC 7677 §3 and XEP-0474 §6.3 (with XEP-0388 §2.5, the same without hash).
func TestVectors(t *testing.T) {
	fake := Binding{TLS: true, Exporter: []byte("THIS IS FAKE CB DATA"), EndPoint: []byte("x")}
	for _, c := range []struct {
		source, mechanism, salt, nonce string
		hash                           Hash
		downgrade                      bool
		binding                        Binding
		c1, s1, c2, s2                 string
	}{
		{
			"RFC 5802 §5", "SCRAM-SHA-1", "QSXCR+Q6sek8bf92", "3rfcNHYJY1ZVvWVs7j", SHA1, false, Binding{TLS: true},
			"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		{
			"RFC 7677 §3", "SCRAM-SHA-256", "W22ZaJ0SNY7soEsUEjb6gQ==", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", SHA256, false, Binding{TLS: true},
			"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
		{
			"XEP-0474 §6.3", "SCRAM-SHA-1-PLUS", "QSXCR+Q6sek8bf92", "a09117a6-ac50-4f2f-93f1-93799c2bddf6", SHA1, true, fake,
			"p=tls-exporter,,n=user,r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6",
			"r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6a09117a6-ac50-4f2f-93f1-93799c2bddf6,s=QSXCR+Q6sek8bf92,i=4096,h=G6k/rBLDqgOhRRaCuuatSDFkJ08=",
			"c=cD10bHMtZXhwb3J0ZXIsLFRISVMgSVMgRkFLRSBDQiBEQVRB,r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6a09117a6-ac50-4f2f-93f1-93799c2bddf6,x=19C6532F-1CF4-4A27-A18D-DC9CEA41BBB3,p=M/SIDjT+dfcxUh89jZEypRvFxB4=",
			"v=MQrMPvv7yv4x4Cq4W4Ih25EqS2c=",
		},
	} {
		t.Run(c.source, func(t *testing.T) {
			h := newHouse(t, func(cfg *Config) {
				cfg.Downgrade = c.downgrade
				cfg.Mechanisms = names("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256")
				if c.hash == SHA1 {
					cfg.Mechanisms = cfg.Mechanisms[:2]
				}
			})
			h.keys["user"] = map[Hash]Keys{c.hash: vectorKeys(t, c.salt, c.hash)}
			h.nonce = func() string { return c.nonce }
			x := h.start(c.mechanism, h.session(c.binding))
			s1, done, err := x.Next(t.Context(), []byte(c.c1))
			if err != nil || done || string(s1) != c.s1 {
				t.Fatalf("server-first %q %v %v\nwant %q", s1, done, err, c.s1)
			}
			s2, done, err := x.Next(t.Context(), []byte(c.c2))
			if err != nil || !done || s2 != nil || string(x.Result().Data) != c.s2 {
				t.Fatalf("server-final %q %q %v %v, want %q", s2, x.Result().Data, done, err, c.s2)
			}
			if r := x.Result(); r.Username != "user" || r.Authzid != "user@example.org" || r.Mechanism != c.mechanism || x.Account() != "user" {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// XEP-0474 §6.1: sorted by octets, nothing about bindings without XEP-0440, another hash for another mechanism.
func TestDowngradeDigest(t *testing.T) {
	digest := func(s string) string { b := sha256.Sum256([]byte(s)); return base64.StdEncoding.EncodeToString(b[:]) }
	o := Offer{Mechanisms: names("SCRAM-SHA-256", "PLAIN", "SCRAM-SHA-1"), Tokens: names("HT-SHA-256-NONE")}
	if got, want := o.Digest(SHA256), digest("PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-256"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	o.Bindings = []BindingType{TLSServerEndPoint, TLSExporter}
	if got, want := o.Digest(SHA256), digest("PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-256\x1ftls-exporter\x1etls-server-end-point"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if o.Digest(SHA1) == o.Digest(SHA256) || o.Mechanisms[0] != "SCRAM-SHA-256" {
		t.Error("same for both hashes, or the offer was reordered")
	}
}

// RFC 7622 §3.3 and RFC 5802 §5.1 "n": the name is prepared for the look-up, but hashed as received.
func TestScramPreparesUsername(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	x := h.start("SCRAM-SHA-256", h.session(testBinding))
	client, _ := xdg.SHA256.NewClient("ALICE", "secret", "alice@Example.org")
	if err := run(t.Context(), x, client.NewConversation()); err != nil {
		t.Fatal(err)
	}
	if r := x.Result(); r.Username != "alice" || r.Authzid != "alice@example.org" {
		t.Errorf("result %+v", r)
	}
}

// run drives a foreign client through an exchange; the client checks the server's signature.
func run(ctx context.Context, x Exchange, c *xdg.ClientConversation) error {
	in := ""
	for {
		out, err := c.Step(in)
		if err != nil {
			return err
		}
		if c.Done() {
			return nil
		}
		challenge, done, err := x.Next(ctx, []byte(out))
		if err != nil {
			return err
		}
		if in = string(challenge); done {
			in = string(x.Result().Data)
		}
	}
}

// tlsPair makes a real connection and returns the server's binding and the client's view of it.
func tlsPair(t testing.TB) (Binding, *tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{testDomain}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	srv := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, SessionTicketsDisabled: true})
	cli := tls.Client(there, &tls.Config{InsecureSkipVerify: true})
	result := make(chan error, 1)
	go func() { result <- srv.Handshake() }()
	if err := cli.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	srvState, cliState := srv.ConnectionState(), cli.ConnectionState()
	return NewBinding(&srvState, leaf), &cliState
}

// Every mechanism against xdg-go/scram's client, with every channel binding; wrong passwords and bindings fail.
func TestOracleXDG(t *testing.T) {
	binding, cs := tlsPair(t)
	h := newHouse(t)
	h.add("alice", "pässword, =42")
	exporter, err := xdg.NewTLSExporterBinding(cs)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := xdg.NewTLSServerEndpointBinding(cs)
	if err != nil {
		t.Fatal(err)
	}
	lie := xdg.ChannelBinding{Type: xdg.ChannelBindingTLSExporter, Data: make([]byte, 32)}
	none := xdg.ChannelBinding{}
	for _, c := range []struct {
		mechanism, password string
		cb                  xdg.ChannelBinding
		want                Condition
	}{
		{"SCRAM-SHA-256", "pässword, =42", none, ""}, {"SCRAM-SHA-1", "pässword, =42", none, ""},
		{"SCRAM-SHA-256-PLUS", "pässword, =42", exporter, ""}, {"SCRAM-SHA-1-PLUS", "pässword, =42", exporter, ""},
		{"SCRAM-SHA-256-PLUS", "pässword, =42", endpoint, ""}, {"SCRAM-SHA-1-PLUS", "pässword, =42", endpoint, ""},
		{"SCRAM-SHA-256", "pässword", none, NotAuthorized}, {"SCRAM-SHA-1", "x", none, NotAuthorized},
		{"SCRAM-SHA-256-PLUS", "x", exporter, NotAuthorized},
		{"SCRAM-SHA-256-PLUS", "pässword, =42", lie, NotAuthorized},
		{"SCRAM-SHA-256-PLUS", "pässword, =42", none, MalformedRequest},
		{"SCRAM-SHA-256", "pässword, =42", exporter, MalformedRequest},
		{"SCRAM-SHA-256-PLUS", "pässword, =42", xdg.NewTLSUniqueBinding([]byte("unique")), MalformedRequest},
	} {
		t.Run(c.mechanism+" "+string(c.cb.Type)+" "+string(c.want), func(t *testing.T) {
			gen := xdg.SHA256
			if strings.HasPrefix(c.mechanism, "SCRAM-SHA-1") && !strings.HasPrefix(c.mechanism, "SCRAM-SHA-256") {
				gen = xdg.SHA1
			}
			client, err := gen.NewClient("alice", c.password, "")
			if err != nil {
				t.Fatal(err)
			}
			x := h.start(c.mechanism, h.session(binding))
			err = run(t.Context(), x, client.NewConversationWithChannelBinding(c.cb))
			if c.want == "" {
				if err != nil || x.Result().Username != "alice" {
					t.Fatalf("%v, %+v", err, x.Result())
				}
				return
			}
			wantCondition(t, err, c.want)
			if x.Result().Username != "" {
				t.Error("a result after a failure")
			}
		})
	}
}

// Every mechanism against mellium's client; -PLUS binds to a real TLS 1.3 connection.
func TestOracleMellium(t *testing.T) {
	binding, cs := tlsPair(t)
	h := newHouse(t)
	h.add("alice", "secret")
	for _, m := range []mellium.Mechanism{mellium.ScramSha256, mellium.ScramSha1, mellium.ScramSha256Plus, mellium.ScramSha1Plus, mellium.Plain} {
		for password, want := range map[string]Condition{"secret": "", "wrong": NotAuthorized} {
			t.Run(m.Name+" "+password, func(t *testing.T) {
				ses := h.session(binding)
				c := mellium.NewClient(m, mellium.TLSState(*cs), mellium.RemoteMechanisms(ses.Offer.Mechanisms...),
					mellium.Credentials(func() (u, p, i []byte) { return []byte("alice"), []byte(password), nil }))
				err := runMellium(t, h.start(m.Name, ses), c)
				switch {
				case want == "" && err != nil:
					t.Fatal(err)
				case want != "":
					wantCondition(t, err, want)
				}
			})
		}
	}
}

func runMellium(t *testing.T, x Exchange, c *mellium.Negotiator) error {
	t.Helper()
	var in []byte
	for {
		more, out, err := c.Step(in)
		if err != nil {
			t.Fatalf("client: %v", err)
		}
		if !more && out == nil {
			return nil
		}
		challenge, done, err := x.Next(t.Context(), out)
		if err != nil {
			return err
		}
		if in = challenge; done {
			in = x.Result().Data
		}
		if !more {
			return nil
		}
	}
}

// RFC 5802 §6: "y" says that the client saw no -PLUS. If there was one, somebody is between.
func TestRule14DowngradeFails(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	client, _ := xdg.SHA256.NewClient("alice", "secret", "")
	err := run(t.Context(), h.start("SCRAM-SHA-256", h.session(testBinding)), client.NewConversationAdvertisingChannelBinding())
	wantCondition(t, err, NotAuthorized)
	// Without -PLUS among the announced mechanisms it is the truth.
	err = run(t.Context(), h.start("SCRAM-SHA-256", h.session(Binding{TLS: true})), client.NewConversationAdvertisingChannelBinding())
	if err != nil {
		t.Fatal(err)
	}
}

// RFC 5802 §6: a binding type that was not announced is not accepted, even though the connection has it.
func TestRule14UnannouncedBindingType(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	ses := h.session(testBinding)
	ses.Offer.Bindings = []BindingType{TLSServerEndPoint}
	x := h.start("SCRAM-SHA-256-PLUS", ses)
	_, _, err := x.Next(t.Context(), []byte("p=tls-exporter,,n=alice,r=abc"))
	wantCondition(t, err, MalformedRequest)
}

// RFC 6120 §6.3.8, §6.5.6.
func TestRule12ScramAuthzid(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	h.add("bob", "secret")
	for _, authzid := range names("bob@example.org", "alice@example.net", "alice@example.org/home", "alice", "example.org", "ghost@example.org") {
		client, _ := xdg.SHA256.NewClient("alice", "secret", authzid)
		err := run(t.Context(), h.start("SCRAM-SHA-256", h.session(testBinding)), client.NewConversation())
		wantCondition(t, err, InvalidAuthzid)
	}
}

func TestScramMalformedFirst(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	for _, msg := range names(
		"", ",", "n", "n,", "n,,", "n,,n=alice", "n,,r=abc", "n,,r=abc,n=alice", "x,,n=alice,r=abc", "F,n,,n=alice,r=abc",
		"p=,,n=alice,r=abc", "p=a b,,n=alice,r=abc", "n,b=alice,n=alice,r=abc", "n,a=,n=alice,r=abc", "n,a=x=y,n=alice,r=abc",
		"n,,n=,r=abc", "n,,n=al=ice,r=abc", "n,,n=alice=,r=abc", "n,,n=alice=2,r=abc", "n,,n=alice=2c,r=abc", "n,,n=alice,r=",
		"n,,n=alice,r=a b", "n,,n=alice,r=ä", "n,,m=x,n=alice,r=abc", "n,,n=alice,m=x,r=abc", "n,,n=alice,r=abc,m=x",
		"n,,n=alice,r=abc,", "n,,n=alice,r=abc,x=", "n,,n=alice,r=abc,1=x", "n,,n=alice,r=abc,xy", "n,,n=al\x00ice,r=abc",
		"n,,n=al\xffice,r=abc", "n,,n=alice@example.org,r=abc", "n,,n=a=2Cb/c,r=abc",
	) {
		_, _, err := h.start("SCRAM-SHA-256", h.session(testBinding)).Next(t.Context(), []byte(msg))
		if c := condition(t, err); c != MalformedRequest {
			t.Errorf("%q: %v", msg, err)
		}
	}
	// Unknown optional attributes are ignored (RFC 5802 §5.1).
	if _, _, err := h.start("SCRAM-SHA-256", h.session(testBinding)).Next(t.Context(), []byte("n,,n=alice,r=abc,x=y,Z==")); err != nil {
		t.Error(err)
	}
}

func TestScramMalformedFinal(t *testing.T) {
	h := newHouse(t)
	h.add("alice", "secret")
	h.nonce = func() string { return "XYZ" }
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for msg, want := range map[string]Condition{
		"":                                    MalformedRequest,
		"c=biws,r=abcXYZ":                     MalformedRequest,
		"c=biws,r=abcXYZ,p=":                  MalformedRequest,
		"c=biws,r=abcXYZ,p=AAAA":              MalformedRequest, // too short for SHA-256
		"c=biws,p=" + proof:                   MalformedRequest,
		"r=abcXYZ,c=biws,p=" + proof:          MalformedRequest,
		"c=biws,r=abcXYZ,m=x,p=" + proof:      MalformedRequest,
		"c=biws,r=abcXYZ,p=" + proof + ",x=y": MalformedRequest,
		"c=bi\nws,r=abcXYZ,p=" + proof:        MalformedRequest,
		"c=biws,r=abcXYZ,p=" + proof:          NotAuthorized,
		"c=biws,r=abc,p=" + proof:             NotAuthorized,
		"c=biws,r=XYZ,p=" + proof:             NotAuthorized,
		"c=eSws,r=abcXYZ,p=" + proof:          NotAuthorized, // the GS2 header was changed
		"c=,r=abcXYZ,p=" + proof:              NotAuthorized,
	} {
		x := h.start("SCRAM-SHA-256", h.session(testBinding))
		if _, _, err := x.Next(t.Context(), []byte("n,,n=alice,r=abc")); err != nil {
			t.Fatal(err)
		}
		_, done, err := x.Next(t.Context(), []byte(msg))
		if done || condition(t, err) != want {
			t.Errorf("%q: done %v, %v, want %s", msg, done, err, want)
		}
	}
}

// A right proof for a wrong "c=" or nonce must fail: both are checked on their own (RFC 5802 §5.1, §6).
func TestScramRightProofWrongBinding(t *testing.T) {
	for _, c := range []struct{ cbind, nonce string }{{"biws", "abcXYZ"}, {"eSws", "abcXYZ"}, {"biws", "abcXYZ1"}} {
		h := newHouse(t, func(cfg *Config) { cfg.Downgrade = false })
		h.add("alice", "secret", SHA1)
		h.nonce = func() string { return "XYZ" }
		x := h.start("SCRAM-SHA-1", h.session(testBinding))
		s1, _, err := x.Next(t.Context(), []byte("n,,n=alice,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := x.Next(t.Context(), clientFinalFor(t, h.keys["alice"][SHA1], "secret", "n=alice,r=abc", string(s1), "c="+c.cbind+",r="+c.nonce))
		if good := c.cbind == "biws" && c.nonce == "abcXYZ"; done != good {
			t.Errorf("%+v: done %v, %v", c, done, err)
		}
	}
}

func clientFinalFor(t testing.TB, k Keys, password, bare, s1, withoutProof string) []byte {
	t.Helper()
	client, err := xdg.SHA1.NewClientUnprepped("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(xdg.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations})
	if err != nil || string(stored.StoredKey) != string(k.StoredKey) || string(stored.ServerKey) != string(k.ServerKey) {
		t.Fatalf("the oracle derives other keys (%v)", err)
	}
	salted := saltedPassword(t, password, k)
	clientKey := kdf{}.hmac(k.Hash, salted, []byte("Client Key"))
	if sum := sha1.Sum(clientKey); string(sum[:]) != string(k.StoredKey) {
		t.Fatal("client key")
	}
	sig := kdf{}.hmac(k.Hash, k.StoredKey, []byte(bare+","+s1+","+withoutProof))
	for i := range sig {
		sig[i] ^= clientKey[i]
	}
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(sig))
}

// RFC 5929 §4.1 for certificates without a single hash function: no binding, so no -PLUS by it.
func TestEndPointUndefinedForEd25519(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	if b := EndPoint(leaf); b != nil {
		t.Errorf("got %x", b)
	}
}
