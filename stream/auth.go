package stream

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net/netip"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/stream/sasl"
)

// Orders of the core features among <stream:features/>.
const (
	orderTLS = 10 * (iota + 1)
	orderSASL
	orderSASL2
	orderBinding
	orderRegister
	orderBind
	orderSM
	orderCSI
	orderLimits
)

// coreFeatures are what the streamer itself negotiates.
func coreFeatures() []Feature {
	return []Feature{
		{In: Fresh | Secured, Order: orderTLS, Advertise: advertiseTLS, Elements: map[stanza.Name]ElementHandler{
			{Space: stanza.NSTLS, Local: "starttls"}: startTLS,
		}},
		{In: Secured, Order: orderSASL, Advertise: advertiseSASL, Elements: map[stanza.Name]ElementHandler{
			{Space: stanza.NSSASL, Local: "auth"}:     saslAuth,
			{Space: stanza.NSSASL, Local: "response"}: saslResponse,
			{Space: stanza.NSSASL, Local: "abort"}:    saslAbort,
		}},
		{In: Secured, Order: orderBinding, Advertise: advertiseBindings},
		{In: Authenticated, Order: orderBind, Advertise: advertiseBind},
		sasl2Feature(), smFeature(), csiFeature(), limitsFeature(),
	}
}

// advertiseTLS offers STARTTLS until the stream is encrypted, and not to
// framed transports (RFC 7395 §4).
func advertiseTLS(c *Conn) *stanza.Element {
	if c.tr.TLS() != nil || c.tr.Framed() {
		return nil
	}
	el := stanza.El(stanza.NSTLS, "starttls")
	if c.phase == Fresh {
		el.Add(stanza.El(stanza.NSTLS, "required"))
	}
	return el
}

// startTLS is RFC 6120 §5.4.2; where TLS is, it fails (§5.4.2.2).
func startTLS(_ context.Context, c *Conn, _ *stanza.Element) error {
	if c.tr.TLS() != nil || c.tr.Framed() {
		c.Send(stanza.El(stanza.NSTLS, "failure"))
		c.goodbye()
		return errEnd
	}
	return c.proceed(c.srv.certs.client(false, c.domain))
}

// proceed answers <starttls/>.
func (c *Conn) proceed(cfg *tls.Config) error {
	c.Send(stanza.El(stanza.NSTLS, "proceed"))
	c.tr.Flush()
	if err := c.encrypt(func() error { return c.tr.StartTLS(cfg, c.srv.cfg.Timeouts.Handshake) }); err != nil {
		c.log.Debug("STARTTLS failed", "err", err)
		return errEnd
	}
	return nil
}

// encrypt runs a handshake, after which the stream begins anew.
func (c *Conn) encrypt(shake func() error) error {
	var err error
	c.outside(func() { err = shake() })
	if err != nil {
		return err
	}
	c.tr.SetReadDeadline(time.Now().Add(c.srv.cfg.Timeouts.Login))
	// RFC 6120 §5.4.3.3: nothing from before the handshake counts.
	c.restart((*stanza.Reader).Reset)
	c.binding = c.srv.certs.binding(c.tr.TLS(), c.domain)
	c.addressed(jid.JID{}, "")
	c.lang, c.auth, c.offered = "", nil, nil
	c.phase = Secured
	return nil
}

// authentication is a SASL exchange in progress.
type authentication struct {
	exchange sasl.Exchange
	sasl2    *sasl2Request // nil: classic SASL
}

// mechanisms returns the domain's mechanisms; nil while nobody knows keys.
func (c *Conn) mechanisms() *sasl.Server {
	cr := c.srv.table.Load().credentials
	if cr == nil {
		return nil
	}
	s, err := cr.SASL(c.domain)
	if err != nil {
		c.log.Error("no mechanisms", "domain", c.domain, "err", err)
		return nil
	}
	return s
}

// saslSession is what the stream announces, settled when its header comes: an
// exchange is judged by what the client has been told.
func (c *Conn) saslSession() sasl.Session {
	if c.offered == nil {
		ses := c.newOffer()
		c.offered = &ses
	}
	return *c.offered
}

func (c *Conn) newOffer() sasl.Session {
	ses := sasl.Session{Binding: c.binding, Loopback: c.srv.cfg.TLS.Loopback && isLoopback(c.tr.RemoteAddr())}
	if !c.srv.cfg.TLS.Required { // the operator trusts what is between
		ses.Loopback = ses.Loopback || c.tr.TLS() == nil
	}
	if s := c.mechanisms(); s != nil {
		ses.Offer = s.Offer(ses)
	}
	return ses
}

// advertiseSASL lists mechanisms (RFC 6120 §6.4.1).
func advertiseSASL(c *Conn) *stanza.Element {
	offer := c.saslSession().Offer
	if len(offer.Mechanisms) == 0 {
		return nil
	}
	el := stanza.El(stanza.NSSASL, "mechanisms")
	for _, m := range offer.Mechanisms {
		el.Add(stanza.El(stanza.NSSASL, "mechanism").AddText(m))
	}
	return el
}

// advertiseBindings lists channel-binding types (XEP-0440 §3).
func advertiseBindings(c *Conn) *stanza.Element {
	offer := c.saslSession().Offer
	if len(offer.Bindings) == 0 {
		return nil
	}
	el := stanza.El(stanza.NSChannelBinding, "sasl-channel-binding")
	for _, t := range offer.Bindings {
		el.Add(stanza.El(stanza.NSChannelBinding, "channel-binding").With("type", string(t)))
	}
	return el
}

// saslAuth begins an exchange; one in progress is given up (RFC 6120 §6.4.2).
func saslAuth(ctx context.Context, c *Conn, el *stanza.Element) error {
	c.auth = nil
	response, err := sasl.DecodeResponse(el.Text(), true)
	if err != nil {
		return c.authFailed(ctx, "", err)
	}
	server := c.mechanisms()
	if server == nil {
		return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.TemporaryAuthFailure})
	}
	x, err := server.Start(el.Get("mechanism"), c.saslSession())
	if err != nil {
		return c.authFailed(ctx, "", err)
	}
	c.auth = &authentication{exchange: x}
	return c.authStep(ctx, response)
}

func saslResponse(ctx context.Context, c *Conn, el *stanza.Element) error {
	if c.auth == nil || c.auth.sasl2 != nil {
		return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.MalformedRequest})
	}
	response, err := sasl.DecodeResponse(el.Text(), false)
	if err != nil {
		return c.authFailed(ctx, c.auth.exchange.Account(), err)
	}
	return c.authStep(ctx, response)
}

func saslAbort(ctx context.Context, c *Conn, _ *stanza.Element) error {
	return c.authFailed(ctx, "", &sasl.Failure{Condition: sasl.Aborted})
}

// authStep feeds the exchange and says what came of it, in either dialect.
// Guessing is slowed down before the password is tried; where it comes along
// with the name, the answer is held back instead.
func (c *Conn) authStep(ctx context.Context, response []byte) error {
	x := c.auth.exchange
	named := x.Account() != ""
	if named {
		if err := c.holdBack(ctx, x.Account()); err != nil {
			return c.authFailed(ctx, x.Account(), err)
		}
	}
	challenge, done, err := x.Next(ctx, response)
	if !named && x.Account() != "" && (done || refused(err)) {
		if wait := c.holdBack(ctx, x.Account()); wait != nil {
			done, err = false, wait
		}
	}
	switch {
	case err != nil:
		return c.authFailed(ctx, x.Account(), err)
	case !done:
		c.Send(stanza.El(c.saslNS(), "challenge").AddText(base64.StdEncoding.EncodeToString(challenge)))
		return nil
	}
	return c.authenticated(ctx, x.Result())
}

// refused reports whether the failure is one that guessers make.
func refused(err error) bool {
	var f *sasl.Failure
	return errors.As(err, &f) && f.Condition == sasl.NotAuthorized
}

// holdBack waits as long as failures have earned (reliability row 8). The
// error says that too many wait already.
func (c *Conn) holdBack(ctx context.Context, account string) error {
	var d time.Duration
	var full bool
	c.throttle(func(t *sasl.Throttle, addr netip.Addr) {
		d = t.Wait(account, addr)
		full = d > t.Max()
	})
	if full {
		return &sasl.Failure{Condition: sasl.TemporaryAuthFailure}
	}
	c.pause(ctx, d)
	return nil
}

func (c *Conn) saslNS() string {
	if c.auth != nil && c.auth.sasl2 != nil {
		return stanza.NSSASL2
	}
	return stanza.NSSASL
}

func (c *Conn) authenticated(ctx context.Context, r sasl.Result) error {
	account, err := jid.Parse(r.Authzid)
	if err != nil {
		return err
	}
	if !c.auth.sasl2.mayAct(c.claimed, account) {
		return c.authFailed(ctx, r.Username, &sasl.Failure{Condition: sasl.InvalidAuthzid})
	}
	c.account = account
	c.rd.SetLimits(c.srv.cfg.Limits.reader(true))
	c.log = c.log.With("account", account.String())
	c.log.Info("logged in", "mechanism", r.Mechanism, "remote", c.tr.RemoteAddr().String(), "tls", c.tr.TLS() != nil)
	c.srv.metrics.logins.WithLabelValues(r.Mechanism).Inc()
	c.throttle(func(t *sasl.Throttle, addr netip.Addr) { t.OK(r.Username, addr) })
	c.phase = Authenticated
	a := c.auth
	c.auth = nil
	if a.sasl2 != nil {
		return c.sasl2Success(ctx, a.sasl2, r)
	}
	success := stanza.El(stanza.NSSASL, "success")
	if r.Data != nil {
		success.AddText(encodeData(r.Data))
	}
	c.Send(success)
	c.restart((*stanza.Reader).Restart) // a client need not wait before it opens the next stream
	return nil
}

// encodeData is base64, "=" for what is present but empty (RFC 6120 §6.4.2).
func encodeData(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// authFailed tells the client, and ends the stream after too many tries
// (RFC 6120 §6.4.5).
func (c *Conn) authFailed(ctx context.Context, account string, err error) error {
	var f *sasl.Failure
	if !errors.As(err, &f) {
		f = &sasl.Failure{Condition: sasl.TemporaryAuthFailure, Err: err}
	}
	if f.Err != nil {
		c.log.Error("login failed for a reason of our own", "err", f.Err)
	}
	c.srv.metrics.authFailures.WithLabelValues(string(f.Condition)).Inc()
	if f.Condition == sasl.NotAuthorized {
		c.log.Info("login failed", "account", account, "remote", c.tr.RemoteAddr().String(), "condition", string(f.Condition), "text", f.Text)
	}
	// Without an account nothing was guessed: a client whose channel binding
	// does not fit tries the next mechanism, and must not pay for it.
	if f.Condition == sasl.NotAuthorized && account != "" {
		c.throttle(func(t *sasl.Throttle, addr netip.Addr) { t.Fail(account, addr) })
	}
	ns := c.saslNS()
	el := stanza.El(ns, "failure").Add(stanza.El(stanza.NSSASL, string(f.Condition)))
	if f.Text != "" {
		el.Add(stanza.El(ns, "text").With("xml:lang", streamLang).AddText(f.Text))
	}
	c.auth = nil
	c.Send(el)
	if c.authFails++; c.authFails >= c.srv.cfg.Limits.AuthTries {
		return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "too many failed logins"}
	}
	return nil
}

func (c *Conn) throttle(f func(*sasl.Throttle, netip.Addr)) {
	cr := c.srv.table.Load().credentials
	addr := addressOf(c.tr.RemoteAddr())
	if cr == nil || !addr.IsValid() || cr.Throttle() == nil {
		return
	}
	f(cr.Throttle(), addr)
}

// pause holds this stream's next answer back; the time does not count as the
// client's.
func (c *Conn) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	c.tr.Flush()
	defer func() { c.readUntil(time.Now().Add(c.srv.cfg.Timeouts.Login)) }()
	done := make(chan struct{})
	stop := c.srv.env.Clock.AfterFunc(d, func() { close(done) })
	defer stop()
	c.outside(func() {
		select {
		case <-done:
		case <-ctx.Done():
		}
	})
}
