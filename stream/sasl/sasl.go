// Package sasl is the server's side of SASL: mechanisms as small state machines without sockets or XML.
//
// Specs: RFC 4422 and RFC 6120 §6 (framework, conditions), RFC 5802 and RFC 7677 (SCRAM), RFC 4616 (PLAIN),
// RFC 5929 §4 and RFC 9266 (channel bindings), XEP-0440 (announcing them), XEP-0474 (downgrade protection),
// XEP-0484 with draft-schmaus-kitten-sasl-ht-09 (FAST).
//
// Flow: a stream asks Server.Offer what to announce on it, keeps the Offer in its Session, and calls Server.Start
// with the mechanism the client chose. What the client sends goes through DecodeResponse into Exchange.Next, until
// Next says done (Exchange.Result tells who it is) or returns a *Failure, which is a SASL <failure/> word for word.
// A Throttle says how long to hold the answer back; a failed Exchange is thrown away, never continued.
//
// Unknown users, wrong passwords and accounts without usable keys take the same steps, the same work and get the
// same bytes (RFC 6120 §13.11).
package sasl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Mechanism is a row of the table of mechanisms.
type Mechanism struct {
	Name           string      // as registered with IANA, e.g. "SCRAM-SHA-256-PLUS"
	Hash           Hash        // AnyHash for PLAIN
	Strength       int         // higher is preferred; offers are sorted by it
	NeedsTLS       bool        // RFC 6120 §13.8.3: no password mechanism without encryption
	ChannelBinding bool        // usable only with channel binding data
	Binding        BindingType // fixed by the name (HT-*-EXPR, -ENDP); "" when the client chooses
	Token          bool        // FAST: announced in <fast/>, not among the mechanisms (XEP-0484 §3.1)
	first          func(*exchange) step
}

// mechanisms is the table, strongest first.
func mechanisms() []Mechanism {
	return []Mechanism{
		{Name: "SCRAM-SHA-256-PLUS", Hash: SHA256, Strength: 60, NeedsTLS: true, ChannelBinding: true, first: scramFirst},
		{Name: "SCRAM-SHA-1-PLUS", Hash: SHA1, Strength: 50, NeedsTLS: true, ChannelBinding: true, first: scramFirst},
		{Name: "SCRAM-SHA-256", Hash: SHA256, Strength: 40, NeedsTLS: true, first: scramFirst},
		{Name: "SCRAM-SHA-1", Hash: SHA1, Strength: 30, NeedsTLS: true, first: scramFirst},
		{Name: "PLAIN", Strength: 10, NeedsTLS: true, first: plainFirst},
		{Name: "HT-SHA-256-EXPR", Hash: SHA256, Strength: 9, NeedsTLS: true, ChannelBinding: true, Binding: TLSExporter, Token: true, first: tokenFirst},
		{Name: "HT-SHA-256-ENDP", Hash: SHA256, Strength: 8, NeedsTLS: true, ChannelBinding: true, Binding: TLSServerEndPoint, Token: true, first: tokenFirst},
		{Name: "HT-SHA-256-NONE", Hash: SHA256, Strength: 7, NeedsTLS: true, Token: true, first: tokenFirst},
	}
}

// Mechanisms lists every mechanism this package implements, strongest first; FAST's come last.
func Mechanisms() []Mechanism { return mechanisms() }

// Config is what a Server needs. Everything is required unless said otherwise.
type Config struct {
	Domain      string                                             // the prepared domain whose accounts these are
	Credentials Credentials                                        // who knows the keys
	Tokens      TokenStore                                         // optional: without it no FAST
	Username    func(raw string) (string, error)                   // prepares a localpart (RFC 7622 §3.3, UsernameCaseMapped)
	Authzid     func(raw string) (local, domain string, err error) // prepares a bare JID; errors for anything else
	Secret      []byte                                             // ≥ 32 bytes, the same on every node and after restarts: fake salts come from it
	Iterations  int                                                // what new accounts get; announced for unknown users, so they look alike. ≥ 4096
	Mechanisms  []string                                           // optional: names allowed; empty allows all
	Loopback    bool                                               // allow password mechanisms without TLS on loopback connections
	Downgrade   bool                                               // add the XEP-0474 hash to SCRAM's first challenge
	Pool        *Pool                                              // where PBKDF2 runs; may be shared by Servers
	Verified    *Verified                                          // passwords PLAIN has seen; may be shared by Servers
	Clock       func() time.Time                                   // token expiry
	// Weak, optional, is told the password of who has proven it with PLAIN and
	// whose keys have fewer Iterations than new ones.
	Weak    func(ctx context.Context, username, password string, keys Keys)
	Observe func(Work) // optional: called for each costly step, from any goroutine
}

// Server makes exchanges for the accounts of one domain. It is immutable and safe for concurrent use.
type Server struct {
	cfg   Config
	table []Mechanism
	kdf   kdf
	nonce func() string // the server's part of SCRAM's nonce; replaced only by tests of vectors
}

// New checks cfg and returns the Server.
func New(cfg Config) (*Server, error) {
	checks := []struct {
		ok   bool
		what string
	}{
		{cfg.Domain != "", "domain is empty"},
		{cfg.Credentials != nil, "credentials are missing"},
		{cfg.Username != nil && cfg.Authzid != nil, "preparation of names is missing"},
		{len(cfg.Secret) >= 32, "secret is shorter than 32 bytes"},
		{cfg.Iterations >= MinIterations && cfg.Iterations <= MaxIterations, "iteration count is out of range"}, // RFC 5802 §5.1, RFC 7677 §3
		{cfg.Pool != nil && cfg.Verified != nil && cfg.Clock != nil, "pool, verified or clock is missing"},
	}
	for _, c := range checks {
		if !c.ok {
			return nil, errors.New("sasl: " + c.what)
		}
	}
	table := mechanisms()
	for _, name := range cfg.Mechanisms {
		if !slices.ContainsFunc(table, func(m Mechanism) bool { return m.Name == name }) {
			return nil, fmt.Errorf("sasl: unknown mechanism %q", name)
		}
	}
	table = slices.DeleteFunc(table, func(m Mechanism) bool {
		return len(cfg.Mechanisms) > 0 && !slices.Contains(cfg.Mechanisms, m.Name) || m.Token && cfg.Tokens == nil
	})
	cfg.Secret = slices.Clone(cfg.Secret)
	return &Server{cfg: cfg, table: table, kdf: kdf{observe: cfg.Observe}, nonce: rand.Text}, nil
}

// Offer is what a stream announces. The zero value announces nothing.
type Offer struct {
	Mechanisms []string      // strongest first: SASL's <mechanisms/>, SASL2's <authentication/>
	Tokens     []string      // strongest first: FAST's <fast/>; SASL2 only
	Bindings   []BindingType // XEP-0440's <sasl-channel-binding/>; empty: no such feature
}

// bound tells whether a mechanism with channel binding was among the announced ones.
func (o Offer) bound(table []Mechanism) bool {
	return slices.ContainsFunc(table, func(m Mechanism) bool { return m.ChannelBinding && slices.Contains(o.Mechanisms, m.Name) })
}

// Session is what an exchange has to know of the stream it belongs to.
type Session struct {
	Binding  Binding // of the TLS connection below; the zero value without TLS
	Loopback bool    // the peer is on this machine
	Offer    Offer   // what the stream announced
	Fast     *Fast   // SASL2's <fast/> and <user-agent/>; nil without them
}

// Offer lists what may be announced on a stream. Session.Offer and Session.Fast are not read.
func (s *Server) Offer(ses Session) Offer {
	var o Offer
	for _, m := range s.table {
		switch {
		case !s.encrypted(m, ses) || !m.bindable(ses.Binding):
		case m.Token:
			o.Tokens = append(o.Tokens, m.Name)
		default:
			o.Mechanisms = append(o.Mechanisms, m.Name)
		}
	}
	if o.bound(s.table) { // XEP-0440 §3: types and -PLUS are announced together or not at all
		o.Bindings = ses.Binding.Types()
	}
	return o
}

// encrypted tells whether the connection is confidential enough for m.
func (s *Server) encrypted(m Mechanism, ses Session) bool {
	return !m.NeedsTLS || ses.Binding.TLS || s.cfg.Loopback && ses.Loopback && !m.Token
}

func (m Mechanism) bindable(b Binding) bool {
	switch {
	case !m.ChannelBinding:
		return true
	case m.Binding != "":
		return b.Data(m.Binding) != nil
	}
	return len(b.Types()) > 0
}

// Start begins an exchange. The error is a *Failure: invalid-mechanism for one that is unknown or was not announced
// (RFC 6120 §6.5.7), encryption-required for one that waits for TLS (§6.5.4).
func (s *Server) Start(name string, ses Session) (Exchange, error) {
	i := slices.IndexFunc(s.table, func(m Mechanism) bool { return m.Name == name })
	if i < 0 {
		return nil, fail(InvalidMechanism, "")
	}
	m := s.table[i]
	if !s.encrypted(m, ses) {
		return nil, fail(EncryptionRequired, "")
	}
	announced := ses.Offer.Mechanisms
	if m.Token {
		announced = ses.Offer.Tokens
	}
	if !m.bindable(ses.Binding) || !slices.Contains(announced, name) {
		return nil, fail(InvalidMechanism, "")
	}
	x := &exchange{srv: s, mech: m, ses: ses}
	x.step = m.first(x)
	return x, nil
}

// Exchange is one attempt to authenticate. It belongs to one goroutine.
type Exchange interface {
	// Next takes what the client sent, decoded. On the first call nil means that no initial response came, which is
	// answered with an empty challenge (RFC 4422 §3); a response that is present but empty is not nil.
	// While done is false the challenge is to be sent. The error is always a *Failure, and the exchange is over.
	Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error)
	// Account is the prepared localpart the client claims: not proven before done, "" before it is known.
	Account() string
	// Result says who it is. The zero value before done.
	Result() Result
}

// Result is a successful exchange.
type Result struct {
	Username  string    // the authenticated account's localpart, prepared
	Authzid   string    // the bare JID the stream acts as, prepared; never empty (RFC 6120 §6.3.8)
	Mechanism string    // its name
	Data      []byte    // additional data for <success/>; nil when there is none (RFC 4422 §3)
	Token     *TokenUse // the FAST token that was used; nil for other mechanisms
}

// step handles one message of the client. A nil next step ends the exchange successfully.
type step func(ctx context.Context, response []byte) (challenge []byte, next step, err *Failure)

type exchange struct {
	srv     *Server
	mech    Mechanism
	ses     Session
	step    step // nil when over
	begun   bool
	done    bool
	account string
	result  Result
}

var _ Exchange = (*exchange)(nil)

func (x *exchange) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	if x.step == nil {
		return nil, false, fail(MalformedRequest, "the exchange is over")
	}
	if response == nil && !x.begun {
		x.begun = true
		return []byte{}, false, nil
	}
	x.begun = true
	run := x.step
	x.step = nil // whatever goes wrong, there is no second try in this exchange
	if len(response) > maxMessage {
		return nil, false, fail(MalformedRequest, "too long")
	}
	challenge, next, err := run(ctx, response)
	if err != nil {
		return nil, false, err
	}
	x.step, x.done = next, next == nil
	return challenge, x.done, nil
}

func (x *exchange) Account() string { return x.account }

func (x *exchange) Result() Result {
	if !x.done {
		return Result{}
	}
	return x.result
}

// claim prepares the names the client sent. An authzid may only repeat the account's own bare JID.
func (x *exchange) claim(authcid, authzid string) *Failure {
	name, err := x.srv.cfg.Username(authcid)
	if err != nil || name == "" { // RFC 5802 §5.1 "n": preparation that fails aborts the exchange
		return fail(MalformedRequest, "invalid username")
	}
	if authzid != "" {
		local, domain, err := x.srv.cfg.Authzid(authzid)
		if err != nil || local != name || domain != x.srv.cfg.Domain { // RFC 6120 §6.3.8, §6.5.6
			return fail(InvalidAuthzid, "")
		}
	}
	x.account = name
	x.result = Result{Username: name, Authzid: name + "@" + x.srv.cfg.Domain, Mechanism: x.mech.Name}
	return nil
}
