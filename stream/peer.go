package stream

// What streams of other kinds than clients' need: of other servers, and to them.

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"parley/parser/stanza"
)

// Initiator is the Profile of a stream that we begin ourselves (RFC 6120 §4.2).
type Initiator interface {
	Profile
	// Begin opens it (Conn.OpenTo), before anything is read.
	Begin(*Conn)
	// Ended is called once, when the connection is gone, or was not taken.
	Ended()
}

// Leaver is a Profile that hears of the end of its stream, once.
type Leaver interface {
	Left()
}

// Guard is a Profile that looks at the stanzas of a bound stream before they
// count. A *stanza.StreamError ends the stream.
type Guard interface {
	Admit(c *Conn, raw []byte) error
}

// Declarer is a Profile whose stream headers declare a further prefix.
type Declarer interface {
	Declares() stanza.Prefix
}

// OpenTo sends the header of a stream that we begin (RFC 6120 §4.7); it has no id.
func (c *Conn) OpenTo(from, to string) {
	c.voice.Lock()
	defer c.voice.Unlock()
	if !c.closing.Load() {
		c.openWith(stanza.El("", "x").With("from", from).With("to", to).With("xml:lang", streamLang))
	}
}

// For notes which domain of ours the peer wants to talk to.
func (c *Conn) For(domain string) { c.addressed(c.claimed, domain) }

// Restart makes the stream begin anew (RFC 6120 §4.3.3).
func (c *Conn) Restart() { c.restart((*stanza.Reader).Restart) }

// Fresh reports whether nothing of the stream is encrypted.
func (c *Conn) Fresh() bool { return c.tr.TLS() == nil }

// AcceptTLS answers <starttls/> with a handshake, after which the stream begins
// anew (RFC 6120 §5.4.2.3).
func (c *Conn) AcceptTLS(cfg *tls.Config) error { return c.proceed(cfg) }

// InitiateTLS is our end of the handshake, after <proceed/>.
func (c *Conn) InitiateTLS(cfg *tls.Config) error {
	t, ok := c.tr.(initiating)
	if !ok {
		return ErrNoUpgrade
	}
	return c.encrypt(func() error { return t.InitiateTLS(cfg, c.srv.cfg.Timeouts.Handshake) })
}

// Settle makes a stream that we have begun one that is negotiated. What comes on
// it goes to Profile.Element, or is of its session if it is bound; drained is called
// as Transport.OnDrained says.
func (c *Conn) Settle(drained func()) {
	if s := c.session; s != nil {
		own := drained
		drained = func() { s.drained(); own() }
	}
	c.tr.OnDrained(drained)
	c.phase = Established
	c.rd.SetLimits(c.srv.cfg.Limits.reader(true))
}

// Bound reports whether the stream has a session.
func (c *Conn) Bound() bool { return c.session != nil }

// SendRaw queues a first-level element that is rendered for this stream; any
// goroutine may call it. False: our end is closed. It is not flushed.
func (c *Conn) SendRaw(rendered []byte) bool {
	c.voice.Lock()
	defer c.voice.Unlock()
	if c.closing.Load() {
		return false
	}
	c.tr.Queue(rendered)
	return true
}

// Abort ends the stream with an error; any goroutine may call it.
func (c *Conn) Abort(se *stanza.StreamError) { c.abort(se) }

// Goodbye closes our end of the stream in peace (RFC 6120 §4.4); any goroutine
// may call it.
func (c *Conn) Goodbye() { c.goodbye() }

// Wait runs f, which waits for somebody else than the peer. The peer's time does
// not run meanwhile.
func (c *Conn) Wait(f func()) {
	c.tr.Flush()
	c.outside(f)
	if c.phase != Established {
		c.readUntil(time.Now().Add(c.srv.cfg.Timeouts.Login))
	}
}

// Managed deals with the elements of stream management (XEP-0198); false: this is
// none.
func (c *Conn) Managed(ctx context.Context, t stanza.Token) (bool, error) {
	h := smFeature().Elements[t.Name]
	if h == nil {
		return false, nil
	}
	el, err := stanza.ParseElement(t.Raw, c.profile.ContentNS())
	if err != nil {
		return true, &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
	}
	return true, h(ctx, c, el)
}

// Count starts stream management (XEP-0198 §3) of a bound stream on which we have
// asked for it: what the peer says counts from now on.
func (c *Conn) Count() {
	s := c.session
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sm == nil {
		s.sm = &management{base: s.received.Load()}
	}
}

// Answered takes note that the peer has answered what the session has asked, where what it
// acknowledges is not the session's.
func (c *Conn) Answered() {
	s := c.session
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sm != nil {
		s.sm.asked = time.Time{}
	}
}

// errNoCertificate says that there is none for a name.
var errNoCertificate = errors.New("no certificate")

// Certificate is what this server shows under the first of the names that has a
// certificate of its own, else what is for all others, for connections that a
// component makes or accepts.
func (r *Registrar) Certificate(names ...string) (*tls.Certificate, error) {
	return r.server.certs.shown(&tls.ClientHelloInfo{}, names...)
}

// Secure starts TLS on a transport whose peer begins with it (XEP-0368 §3).
func (r *Registrar) Secure(ctx context.Context, t Transport, cfg *tls.Config) error {
	s, ok := t.(*tcp)
	if !ok {
		return ErrNoUpgrade
	}
	if err := r.server.shake(ctx, s, cfg); err != nil {
		return err
	}
	s.name = "tls"
	return nil
}

// InitiateSecure is Secure with our end of the handshake.
func (r *Registrar) InitiateSecure(t Transport, cfg *tls.Config) error {
	s, ok := t.(*tcp)
	if !ok {
		return ErrNoUpgrade
	}
	if err := s.InitiateTLS(cfg, r.server.cfg.Timeouts.Handshake); err != nil {
		return err
	}
	s.name = "tls"
	return nil
}
