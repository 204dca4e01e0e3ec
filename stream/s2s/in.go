package s2s

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
	"parley/stream"
)

// maxAuths is how often a stream may try EXTERNAL (RFC 6120 §6.4.5).
const maxAuths = 3

// incoming is the profile of another server's stream to us. The reader owns it, but
// for pairs.
type incoming struct {
	out *outbound
	cfg *settings

	from, to string // of the header; from may be empty
	auths    int
	authed   bool     // by SASL
	back     *carrier // nil: nothing of ours goes out on it (XEP-0288)
	id       string   // of the stream, where we have begun it

	mu    sync.Mutex
	pairs map[pair]shown // that it has proven: from their domain to ours
}

// shown is how a pair was proven.
type shown struct {
	at   time.Time
	by   Proof
	tls  bool
	both bool // on a stream that goes both ways
}

var (
	_ stream.Profile  = (*incoming)(nil)
	_ stream.Guard    = (*incoming)(nil)
	_ stream.Declarer = (*incoming)(nil)
	_ stream.Leaver   = (*incoming)(nil)
)

// take serves another server.
func (o *outbound) take(ctx context.Context, t stream.Transport, direct bool) {
	in := &incoming{out: o, cfg: o.cfg.Load(), pairs: map[pair]shown{}}
	if direct {
		if err := o.streams.Secure(ctx, t, in.serverTLS(true)); err != nil {
			o.env.Log.Debug("direct TLS with a server failed", "remote", t.RemoteAddr().String(), "err", err)
			t.Close(0)
			return
		}
	}
	o.streams.Serve(ctx, t, in)
}

// serverTLS asks for the other server's certificate (XEP-0178 §3).
func (in *incoming) serverTLS(direct bool) *tls.Config {
	o := in.out
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return o.certificate(cmp.Or(h.ServerName, in.to, o.env.Domains.List()[0]), in.to)
		},
	}
	if direct {
		cfg.NextProtos = xmppServer()
	}
	return cfg
}

// ContentNS implements stream.Profile.
func (*incoming) ContentNS() string { return stanza.NSServer }

// Declares implements stream.Declarer.
func (*incoming) Declares() stanza.Prefix { return dialbackPrefix }

// Left implements stream.Leaver.
func (in *incoming) Left() {
	in.out.goodbye(in)
	if in.back != nil {
		in.out.withdraw(in.back)
		in.back.ended(nil)
	}
}

// Header implements stream.Profile (RFC 6120 §4.7).
func (in *incoming) Header(_ context.Context, c *stream.Conn, h *stanza.Element) error {
	to, ok := domainOf(h.Get("to"))
	if !ok || !in.out.fed.serves(to) || !in.rules().federates(to) { // §4.9.3.6
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	}
	c.For(to)
	if !in.out.fed.serves(to) { // from here on the stream ends with the domain
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	}
	in.to, in.from = to, ""
	if text := h.Get("from"); text != "" {
		from, ok := domainOf(text)
		switch {
		case !ok: // §4.9.3.7
			return &stanza.StreamError{Condition: stanza.StreamImproperAddressing}
		case in.out.fed.serves(from): // nobody else speaks for us (reliability row 22)
			return &stanza.StreamError{Condition: stanza.StreamInvalidFrom}
		case !in.rules().allowed(to, from):
			return denied()
		}
		in.from = from
	}
	old := h.Get("version") == ""
	if old && in.policy().TLS == Required && c.Fresh() {
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedVersion}
	}
	c.Open(to)
	if !old {
		c.Send(in.features(c))
	}
	if in.authed {
		in.offer(in.proved()...)
	}
	return nil
}

// rules are the settings that count now: who may talk, and what is asked.
func (in *incoming) rules() *settings { return in.out.cfg.Load() }

// policy is what is asked of whom the stream is said to be from.
func (in *incoming) policy() Policy { return in.rules().policy(in.to, in.from) }

func denied() *stanza.StreamError {
	return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: errDenied.Text}
}

// features are those of XEP-0178 §3, XEP-0220 §2.4.2, XEP-0198 §2 and XEP-0288 §2.1.
func (in *incoming) features(c *stream.Conn) *stanza.Element {
	fs := stanza.El(stanza.NSStream, "features")
	if in.cfg.Bidi && !in.authed {
		fs.Add(stanza.El(nsBidiFeature, "bidi"))
	}
	if c.Fresh() {
		el := stanza.El(stanza.NSTLS, "starttls")
		if in.policy().TLS == Required {
			return fs.Add(el.Add(stanza.El(stanza.NSTLS, "required")))
		}
		fs.Add(el)
	}
	switch {
	case in.authed:
		fs.Add(stanza.El(stanza.NSSM, "sm"))
	case in.shows(c, in.from) == nil:
		fs.Add(stanza.El(stanza.NSSASL, "mechanisms").Add(stanza.El(stanza.NSSASL, "mechanism").AddText("EXTERNAL")))
	}
	return fs.Add(stanza.El(nsDialbackFeatures, "dialback").Add(stanza.El(nsDialbackFeatures, "errors")))
}

// shows returns nil when the certificate that the other side has shown is one of
// the domain.
func (in *incoming) shows(c *stream.Conn, domain string) error {
	if c.Fresh() || domain == "" {
		return errNoCertificate
	}
	return in.cfg.proves(c.Transport().TLS().PeerCertificates, domain, in.out.env.Clock.Now())
}

// incomingElements is what the other side may say besides stanzas.
var incomingElements = map[stanza.Name]func(context.Context, *incoming, *stream.Conn, *stanza.Element) error{
	elStartTLS: func(_ context.Context, in *incoming, c *stream.Conn, _ *stanza.Element) error {
		if !c.Fresh() || c.Bound() { // what was proven in the clear does not last (RFC 6120 §5.4.3.3)
			c.Send(stanza.El(stanza.NSTLS, "failure"))
			c.Goodbye()
			return nil
		}
		return c.AcceptTLS(in.serverTLS(false))
	},
	elBidi: func(_ context.Context, in *incoming, c *stream.Conn, _ *stanza.Element) error {
		in.bothWays(c)
		return nil
	},
	elAuth: func(ctx context.Context, in *incoming, c *stream.Conn, el *stanza.Element) error {
		return in.auth(ctx, c, el)
	},
	elResult: func(ctx context.Context, in *incoming, c *stream.Conn, el *stanza.Element) error {
		return in.result(ctx, c, el)
	},
	elVerify: func(_ context.Context, in *incoming, c *stream.Conn, el *stanza.Element) error {
		return in.verify(c, el)
	},
	elError: func(_ context.Context, in *incoming, c *stream.Conn, el *stanza.Element) error {
		in.out.env.Log.Info("another server ends its stream", "from", in.from, "to", in.to, "err", streamError(el))
		c.Goodbye()
		return nil
	},
}

// Element implements stream.Profile.
func (in *incoming) Element(ctx context.Context, c *stream.Conn, t stanza.Token) error {
	if known, err := in.managed(ctx, c, t); known {
		return err
	}
	h := incomingElements[t.Name]
	switch {
	case h != nil:
		el, err := parse(t)
		if err != nil {
			return err
		}
		return h(ctx, in, c, el)
	case t.Name.Space == stanza.NSClient || t.Name.Space == stanza.NSComponent: // RFC 6120 §4.8.3
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	case !c.Bound(): // nobody knows who this is
		return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
}

// managed deals with stream management (XEP-0198). On a stream that goes both ways
// what is counted of ours is what the routes have written.
func (in *incoming) managed(ctx context.Context, c *stream.Conn, t stanza.Token) (known bool, err error) {
	switch {
	case in.back == nil || !c.Bound():
	case t.Name == elAck:
		el, err := parse(t)
		if err != nil {
			return true, err
		}
		c.Answered()
		return true, in.back.acknowledged(el, in.out.env.Clock.Now())
	case t.Name == elEnable:
		in.back.manage(func() bool { // nothing is written between the answer and the first that counts
			known, err = c.Managed(ctx, t)
			return err == nil
		})
		return known, err
	}
	return c.Managed(ctx, t)
}

// bothWays lets our stanzas out on the stream, once it has proven something: what it
// has, and nothing else (XEP-0288 §2.2). It is asked for under TLS and before the
// proof; later or in the clear it has no effect.
func (in *incoming) bothWays(c *stream.Conn) {
	if in.cfg.Bidi && !c.Fresh() && !c.Bound() && in.back == nil {
		in.back = &carrier{queue: &in.cfg.Queue, conn: c}
	}
}

// auth is SASL EXTERNAL (XEP-0178 §3, RFC 6120 §6).
func (in *incoming) auth(ctx context.Context, c *stream.Conn, el *stanza.Element) error {
	fail := func(condition string, why error) error {
		in.out.metrics.proofs.WithLabelValues("in", "certificate", "refused").Inc()
		in.out.env.Log.Info("another server is not who it says to be", "from", in.from, "to", in.to, "by", "certificate", "err", why)
		c.Send(stanza.El(stanza.NSSASL, "failure").Add(stanza.El(stanza.NSSASL, condition)))
		if in.auths++; in.auths >= maxAuths {
			return &stanza.StreamError{Condition: stanza.StreamPolicyViolation}
		}
		return nil
	}
	switch {
	case in.authed:
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
	case c.Fresh():
		return fail("encryption-required", errNoTLS)
	case el.Get("mechanism") != "EXTERNAL":
		return fail("invalid-mechanism", nil)
	}
	as := in.from
	if text := strings.TrimSpace(el.Text()); text != "" && text != "=" {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fail("incorrect-encoding", err)
		}
		named, ok := domainOf(string(b))
		if !ok || as != "" && named != as {
			return fail("invalid-authzid", nil)
		}
		as = named
	}
	if in.out.fed.serves(as) || !in.rules().allowed(in.to, as) {
		return fail("invalid-authzid", nil)
	}
	if err := in.shows(c, as); err != nil {
		return fail("not-authorized", err)
	}
	c.Send(stanza.El(stanza.NSSASL, "success"))
	in.from, in.authed = as, true
	if err := in.proven(ctx, c, pair{as, in.to}, Certificate); err != nil {
		return err
	}
	c.Restart()
	return nil
}

// proven lets the pair's stanzas in.
func (in *incoming) proven(ctx context.Context, c *stream.Conn, p pair, method Proof) error {
	in.let(p, shown{in.out.env.Clock.Now(), method, !c.Fresh(), in.back != nil})
	in.out.metrics.proofs.WithLabelValues("in", string(method), "accepted").Inc()
	in.out.env.Log.Info("stream of another server", "from", p.from, "to", p.to, "remote", c.Transport().RemoteAddr().String(), "by", method, "tls", !c.Fresh())
	if !c.Bound() {
		if err := in.bind(ctx, c, p.from); err != nil {
			return err
		}
		in.out.welcome(in, c)
		if in.back != nil {
			c.Settle(func() { in.back.pump(in.out.env.Clock.Now()) })
		}
	}
	if !in.rules().allowed(p.to, p.from) { // since it was asked; from here on part finds it
		return denied()
	}
	return nil
}

// let notes that a pair is proven.
func (in *incoming) let(p pair, how shown) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.pairs[p] = how
}

// proved are the pairs that let has noted.
func (in *incoming) proved() []pair {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Collect(maps.Keys(in.pairs))
}

// trespasses reports whether it has proven a pair that may not talk.
func (in *incoming) trespasses(cfg *settings) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for p := range in.pairs {
		if !cfg.allowed(p.to, p.from) {
			return true
		}
	}
	return false
}

// offer lets ours out to who has proven pairs on a stream that goes both ways, when
// the other side knows that it has.
func (in *incoming) offer(all ...pair) {
	if in.back == nil {
		return
	}
	for _, p := range all {
		in.out.offer(pair{p.to, p.from}, back{in.back, in.shows(in.back.conn, p.from) == nil})
	}
}

// bind makes the stream a session of the domain's server.
func (in *incoming) bind(ctx context.Context, c *stream.Conn, domain string) error {
	// Never the domain alone: that is a component's. One that we have begun has no id of ours.
	at, err := jid.New("", domain, cmp.Or(c.ID(), rand.Text()))
	if err != nil {
		return err
	}
	reason, err := c.BindAs(ctx, at, sessions.State{Kind: sessions.Server})
	switch {
	case err != nil:
		return err
	case reason != "":
		return &stanza.StreamError{Condition: stanza.StreamInternalServerError, Text: reason}
	}
	c.Pace(in.cfg.Rate)
	return nil
}

// Admit implements stream.Guard: each stanza is of a pair that was proven
// (RFC 6120 §8.1.2.2, §8.1.1.2; reliability row 22).
func (in *incoming) Admit(_ *stream.Conn, raw []byte) error {
	from, to := stanza.Addresses(raw)
	if from == "" || to == "" {
		return &stanza.StreamError{Condition: stanza.StreamImproperAddressing}
	}
	p := pair{domainPart(from), domainPart(to)}
	if in.has(p) && in.out.fed.serves(p.to) {
		return nil
	}
	var ok bool
	if p.from, ok = domainOf(p.from); !ok {
		return &stanza.StreamError{Condition: stanza.StreamImproperAddressing}
	}
	if p.to, ok = domainOf(p.to); !ok {
		return &stanza.StreamError{Condition: stanza.StreamImproperAddressing}
	}
	switch {
	case !in.out.fed.serves(p.to): // or not any more
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	case in.has(p):
		return nil
	}
	in.out.env.Log.Warn("another server speaks for a domain that it has not proven", "from", p.from, "to", p.to, "stream", in.from)
	return &stanza.StreamError{Condition: stanza.StreamInvalidFrom}
}

func (in *incoming) has(p pair) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.pairs[p]
	return ok
}

// domainPart is what of an address is its domain (RFC 7622 §3.2).
func domainPart(address string) string {
	bare, _, _ := strings.Cut(address, "/")
	if _, domain, ok := strings.Cut(bare, "@"); ok {
		return domain
	}
	return bare
}

// domainOf prepares a domain; false: it is none.
func domainOf(text string) (string, bool) {
	at, err := jid.Parse(text)
	return at.Domain(), err == nil && at.IsDomain()
}
