package s2s

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"parley/parser/stanza"
	"parley/stream"
)

// policyError is what another server does not fulfil.
type policyError struct{ why error }

func (e *policyError) Error() string { return "it does not meet the policy: " + e.why.Error() }
func (e *policyError) Unwrap() error { return e.why }

var errNoTLS = errors.New("it offers no TLS")

// Names of what servers say to each other on the way to a stream.
var (
	elFeatures  = stanza.Name{Space: stanza.NSStream, Local: "features"}
	elError     = stanza.Name{Space: stanza.NSStream, Local: "error"}
	elStartTLS  = stanza.Name{Space: stanza.NSTLS, Local: "starttls"}
	elNoTLS     = stanza.Name{Space: stanza.NSTLS, Local: "failure"}
	elProceed   = stanza.Name{Space: stanza.NSTLS, Local: "proceed"}
	elAuth      = stanza.Name{Space: stanza.NSSASL, Local: "auth"}
	elChallenge = stanza.Name{Space: stanza.NSSASL, Local: "challenge"}
	elSuccess   = stanza.Name{Space: stanza.NSSASL, Local: "success"}
	elFailure   = stanza.Name{Space: stanza.NSSASL, Local: "failure"}
	elResult    = stanza.Name{Space: nsDialback, Local: "result"}
	elVerify    = stanza.Name{Space: nsDialback, Local: "verify"}
	elEnabled   = stanza.Name{Space: stanza.NSSM, Local: "enabled"}
	elFailed    = stanza.Name{Space: stanza.NSSM, Local: "failed"}
	elAck       = stanza.Name{Space: stanza.NSSM, Local: "a"}
	elEnable    = stanza.Name{Space: stanza.NSSM, Local: "enable"}
	elBidi      = stanza.Name{Space: nsBidi, Local: "bidi"}
	elRequest   = stanza.Name{Space: stanza.NSSM, Local: "r"}
)

// initiating is what every stream to another server begins with: the header, and
// TLS.
type initiating struct {
	out     *outbound
	cfg     *settings
	policy  Policy
	pair           // who we are, and whom we call
	id      string // of the stream, by the other side
	old     bool   // the other side is older than features (RFC 6120 §4.7.5)
	trusted error  // why its certificate does not count; nil: it does
}

func (o *outbound) initiating(p pair) initiating {
	cfg := o.cfg.Load()
	return initiating{out: o, cfg: cfg, policy: cfg.policy(p.from, p.to), pair: p, trusted: errNoTLS}
}

// ContentNS implements stream.Profile.
func (*initiating) ContentNS() string { return stanza.NSServer }

// Declares implements stream.Declarer (XEP-0220 §2.1.1).
func (*initiating) Declares() stanza.Prefix { return dialbackPrefix }

var dialbackPrefix = stanza.Prefix{Prefix: "db", URI: nsDialback}

// header takes the answer to ours.
func (i *initiating) header(h *stanza.Element) {
	i.id, i.old = h.Get("id"), h.Get("version") == ""
}

// secured goes on with TLS. True: the stream is as safe as it gets, and what is
// offered now counts. An error is a *policyError.
func (i *initiating) secured(c *stream.Conn, features *stanza.Element) (bool, error) {
	if c.Fresh() {
		if features != nil && features.Child(stanza.NSTLS, "starttls") != nil {
			c.Send(stanza.El(stanza.NSTLS, "starttls"))
			return false, nil
		}
		if i.policy.TLS == Required {
			return false, &policyError{errNoTLS}
		}
		return true, nil
	}
	i.trusted = i.cfg.proves(c.Transport().TLS().PeerCertificates, i.to, i.out.env.Clock.Now())
	if i.trusted != nil && i.policy.Proof == Certificate {
		return false, &policyError{i.trusted}
	}
	return true, nil
}

// proceed runs the handshake after <proceed/>.
func (i *initiating) proceed(c *stream.Conn) error {
	cfg, err := i.out.clientTLS(i.pair, false)
	if err != nil {
		return err
	}
	if err := c.InitiateTLS(cfg); err != nil {
		return err
	}
	c.OpenTo(i.from, i.to)
	return nil
}

// clientTLS is for a connection to another server. Whether its certificate counts
// is found out when it is there (secured): one that does not may still be allowed.
func (o *outbound) clientTLS(p pair, direct bool) (*tls.Config, error) {
	host, err := ascii(p.to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNowhere, err)
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.certificate(p.from) },
	}
	if direct {
		cfg.NextProtos = xmppServer()
	}
	return cfg, nil
}

// xmppServer is what direct TLS negotiates (XEP-0368 §3).
func xmppServer() []string { return []string{"xmpp-server"} }

// certificate is what we show under the first of the names that has one.
func (o *outbound) certificate(names ...string) (*tls.Certificate, error) {
	return o.streams.Certificate(names...)
}

// dialbackElement renders what of dialback we say. Its prefix is the customary one,
// because some know no other (XEP-0220 §2).
func dialbackElement(name string, p pair, id, typ, content string) []byte {
	el := stanza.El("", "db:"+name).With("from", p.from).With("to", p.to).WithOpt("id", id).WithOpt("type", typ)
	if strings.HasPrefix(content, "<") {
		el.AddRaw([]byte(content))
	} else {
		el.AddText(content)
	}
	return el.Bytes("")
}

// parse reads a first-level element.
func parse(t stanza.Token) (*stanza.Element, error) {
	el, err := stanza.ParseElement(t.Raw, stanza.NSServer)
	if err != nil {
		return nil, &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
	}
	return el, nil
}

// streamError is what the other side ends a stream with, for the log.
func streamError(el *stanza.Element) error {
	condition, text := "undefined-condition", ""
	for c := range el.Elements() {
		switch {
		case c.Name.Space != stanza.NSStreams:
		case c.Name.Local == "text":
			text = c.Text()
		default:
			condition = c.Name.Local
		}
	}
	return fmt.Errorf("it says %s %q", condition, text)
}

// verification asks the server of a domain whether a key is one of its own
// (XEP-0220 §2.1.2, as the receiving server).
type verification struct {
	initiating
	key, about string // and the id of the stream that the key came on
	asked      bool
	valid      bool
	err        error
	done       chan struct{} // closed when valid and err are settled
	settled    bool
}

var _ stream.Initiator = (*verification)(nil)

// verify asks about a key with which they have said to be p.to to us, p.from.
func (o *outbound) verify(ctx context.Context, p pair, about, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Load().Connect)
	defer cancel()
	if err := o.verifies.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer o.verifies.Release(1)
	tr, err := o.dial(ctx, p)
	if err != nil {
		return false, err
	}
	v := &verification{initiating: o.initiating(p), key: key, about: about, done: make(chan struct{})}
	o.tasks.Go(func() { o.streams.Serve(o.ctx, tr, v) })
	select {
	case <-v.done:
		return v.valid, v.err
	case <-ctx.Done():
		tr.Close(0)
		return false, ctx.Err()
	}
}

// Begin implements stream.Initiator.
func (v *verification) Begin(c *stream.Conn) { c.OpenTo(v.from, v.to) }

// Ended implements stream.Initiator.
func (v *verification) Ended() { v.settle(false, errors.New("the stream has ended")) }

// settle is for the first to know; all run on the reader.
func (v *verification) settle(valid bool, err error) {
	if !v.settled {
		v.settled, v.valid, v.err = true, valid, err
		close(v.done)
	}
}

// Header implements stream.Profile.
func (v *verification) Header(_ context.Context, c *stream.Conn, h *stanza.Element) error {
	v.header(h)
	if v.old {
		v.ask(c, nil)
	}
	return nil
}

// Element implements stream.Profile.
func (v *verification) Element(_ context.Context, c *stream.Conn, t stanza.Token) error {
	el, err := parse(t)
	if err != nil {
		return err
	}
	switch t.Name {
	case elFeatures:
		v.ask(c, el)
	case elProceed:
		if err := v.proceed(c); err != nil {
			v.settle(false, err)
			c.Transport().Close(0)
		}
	case elVerify:
		if !v.asked || el.Get("id") != v.about || el.Get("from") != v.to || el.Get("to") != v.from {
			return nil
		}
		switch el.Get("type") {
		case "valid", "invalid":
			v.settle(el.Get("type") == "valid", nil)
		default:
			v.settle(false, errors.New("it cannot say"))
		}
		c.Goodbye()
	case elError:
		v.settle(false, streamError(el))
	}
	return nil
}

func (v *verification) ask(c *stream.Conn, features *stanza.Element) {
	safe, err := v.secured(c, features)
	switch {
	case err != nil:
		v.settle(false, err)
		c.Goodbye()
	case safe && !v.asked:
		v.asked = true
		c.SendRaw(dialbackElement("verify", v.pair, v.about, "", v.key))
	}
}

// authzid is who we say to be when we show a certificate (XEP-0178 §3).
func authzid(domain string) string { return base64.StdEncoding.EncodeToString([]byte(domain)) }
