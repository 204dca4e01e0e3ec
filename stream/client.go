package stream

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// clientProfile is a client's stream: STARTTLS, SASL and bind (RFC 6120), or
// SASL2 with Bind 2 (XEP-0388, XEP-0386).
type clientProfile struct{}

func (clientProfile) ContentNS() string { return stanza.NSClient }

// Header implements Profile (RFC 6120 §4.7).
func (clientProfile) Header(_ context.Context, c *Conn, h *stanza.Element) error {
	to, err := jid.Parse(h.Get("to"))
	if err != nil || !to.IsDomain() {
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	}
	c.addressed(c.claimed, to.Domain())
	if !c.srv.env.Local(to.Domain()) { // §4.9.1.3; after addressed: who is noted is told when the domain goes
		c.addressed(c.claimed, "")
		return &stanza.StreamError{Condition: stanza.StreamHostUnknown}
	}
	c.offered = nil
	if !supported(h.Get("version")) {
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedVersion}
	}
	c.Open(c.domain)
	c.SendFeatures()
	return nil
}

// supported reports whether the peer's version is at least 1.0, compared as
// pairs of integers (RFC 6120 §4.7.5).
func supported(version string) bool {
	major, rest := 0, version
	digits := 0
	for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' && digits < 9 {
		major = major*10 + int(rest[0]-'0')
		rest = rest[1:]
		digits++
	}
	if digits == 0 || len(rest) < 2 || rest[0] != '.' {
		return false
	}
	for _, d := range rest[1:] {
		if d < '0' || d > '9' {
			return false
		}
	}
	return major >= 1
}

// SendFeatures tells the client what it may do now (RFC 6120 §4.3.2).
func (c *Conn) SendFeatures() {
	fs := stanza.El(stanza.NSStream, "features")
	for _, f := range c.srv.table.Load().features {
		if f.In&c.phase == 0 || f.Advertise == nil {
			continue
		}
		if el := f.Advertise(c); el != nil {
			fs.Add(el)
		}
	}
	c.Send(fs)
}

// Element implements Profile: it looks the element up among what features
// have registered for the phase.
func (clientProfile) Element(ctx context.Context, c *Conn, t stanza.Token) error {
	if err := c.duringSASL2(t.Name); err != nil {
		return err
	}
	tab := c.srv.table.Load()
	for _, b := range tab.elements[t.Name] {
		if b.in&c.phase == 0 {
			continue
		}
		el, err := stanza.ParseElement(t.Raw, stanza.NSClient)
		if err != nil {
			return &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
		}
		return b.h(ctx, c, el)
	}
	if isStanza(t.Name, stanza.NSClient) {
		return c.early(ctx, t)
	}
	if t.Name.Space == stanza.NSClient && len(tab.elements[t.Name]) == 0 { // RFC 6120 §4.9.3.24
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
	}
	if slices.Contains([]string{stanza.NSServer, stanza.NSComponent}, t.Name.Space) { // §4.8.3
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	}
	if len(tab.elements[t.Name]) > 0 && c.phase < Authenticated {
		return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
}

// early deals with a stanza of a stream that is not bound (RFC 6120 §7.1):
// binding itself, and what may be asked before login.
func (c *Conn) early(ctx context.Context, t stanza.Token) error {
	st, err := stanza.Parse(t.Raw, stanza.NSClient, nil)
	if err != nil || st.Kind != stanza.IQ {
		return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	q := st.Payload()
	switch {
	case q == nil || st.Type != "set" && st.Type != "get":
	case c.phase == Authenticated && q.Name == (stanza.Name{Space: stanza.NSBind, Local: "bind"}):
		return c.bindRequest(ctx, st, q)
	case c.phase == Secured:
		if h := c.srv.table.Load().preAuth[q.Name]; h != nil {
			return c.answerEarly(ctx, st, h)
		}
		if q.Name == register { // clients ask without having been offered it
			return c.answerEarly(ctx, st, noRegistration)
		}
	}
	return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
}

var register = stanza.Name{Space: "jabber:iq:register", Local: "query"}

// noRegistration answers when no component takes registrations (XEP-0077 §3.1.1).
func noRegistration(context.Context, *Conn, *stanza.Stanza) (*stanza.Element, error) {
	return nil, stanza.NewError(stanza.ServiceUnavailable, "")
}

func (c *Conn) answerEarly(ctx context.Context, st *stanza.Stanza, h PreAuthIQ) error {
	result, err := h(ctx, c, st)
	reply := st.Reply(result)
	if err != nil {
		reply = st.ErrorReply(asStanzaError(c, err))
	}
	if reply != nil {
		c.sendStanza(reply.Raw, "")
	}
	return nil
}
