package component

import (
	"context"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"net"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
	"parley/stream"
)

// acceptOn runs until the listener is closed.
func (l *listener) acceptOn(open net.Listener) {
	stream.Accept(l.ctx, open, l.env.Clock, l.log, func(c net.Conn) { _ = c.Close() }, func(c net.Conn) {
		// The stream belongs to the Server, which waits for it.
		go l.streams.Serve(l.ctx, stream.NewTCP(c), &peer{listener: l})
	})
}

// peer is the profile of one component's stream.
type peer struct {
	listener *listener
	at       jid.JID // its domain
	bound    bool
}

var _ stream.Profile = (*peer)(nil)

// ContentNS implements stream.Profile.
func (p *peer) ContentNS() string { return stanza.NSComponent }

// Header implements stream.Profile: 'to' is the component's own name
// (XEP-0114 §3).
func (p *peer) Header(_ context.Context, c *stream.Conn, h *stanza.Element) error {
	at, err := jid.Parse(h.Get("to"))
	if err != nil || !at.IsDomain() || !p.listener.directory.Known(at.Domain()) {
		p.listener.log.Info("unknown component", "remote", c.Transport().RemoteAddr().String())
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	}
	p.at = at
	c.Open(at.Domain())
	return nil
}

// handshake is the element that proves the secret.
var handshake = stanza.Name{Space: stanza.NSComponent, Local: "handshake"}

// Element implements stream.Profile.
func (p *peer) Element(ctx context.Context, c *stream.Conn, t stanza.Token) error {
	switch {
	case p.bound && (t.Name.Space == stanza.NSClient || t.Name.Space == stanza.NSServer): // RFC 6120 §4.8.3
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	case p.bound:
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
	case t.Name != handshake:
		return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	el, err := stanza.ParseElement(t.Raw, stanza.NSComponent)
	if err != nil {
		return &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
	}
	return p.listener.admit(ctx, c, p, el.Text())
}

// admit checks the handshake and binds the component (XEP-0114 §3).
func (l *listener) admit(ctx context.Context, c *stream.Conn, p *peer, digest string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.cfg.Components[p.at.Domain()]
	if !ok || subtle.ConstantTimeCompare([]byte(digest), []byte(Handshake(c.ID(), e.Secret.Reveal()))) != 1 { // rule 69
		l.log.Warn("component refused: wrong secret", "component", p.at.String(), "remote", c.Transport().RemoteAddr().String())
		return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	if _, taken := l.directory.connected(p.at.Domain()); taken && l.cfg.Conflict == Refuse {
		l.log.Warn("component refused: it is connected already", "component", p.at.String(), "remote", c.Transport().RemoteAddr().String())
		return &stanza.StreamError{Condition: stanza.StreamConflict}
	}
	l.directory.tell() // what it may do counts from its first stanza on
	reason, err := c.BindAs(ctx, p.at, sessions.State{Kind: sessions.Component})
	switch {
	case err != nil:
		return err
	case reason != "":
		return &stanza.StreamError{Condition: stanza.StreamConflict, Text: reason}
	}
	p.bound = true
	c.Send(stanza.El(stanza.NSComponent, "handshake"))
	return nil
}

// Handshake is the proof of the secret on the stream with that id (XEP-0114 §3).
func Handshake(streamID, secret string) string {
	sum := sha1.Sum([]byte(streamID + secret))
	return hex.EncodeToString(sum[:])
}
