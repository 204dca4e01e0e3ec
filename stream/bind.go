package stream

import (
	"context"
	"crypto/rand"
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// advertiseBind offers resource binding (RFC 6120 §7.4).
func advertiseBind(*Conn) *stanza.Element { return stanza.El(stanza.NSBind, "bind") }

// bindRequest is RFC 6120 §7.6, §7.7.
func (c *Conn) bindRequest(ctx context.Context, st *stanza.Stanza, q *stanza.Element) error {
	resource := ""
	if r := q.Child(stanza.NSBind, "resource"); r != nil {
		resource = r.Text()
	}
	full, err := c.Bind(ctx, resource, sessions.State{})
	if err != nil {
		c.sendStanza(st.ErrorReply(asStanzaError(c, err)).Raw, "")
		if c.bindFails++; c.bindFails >= c.srv.cfg.Limits.ResourceTries { // §7.7.3
			return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "too many attempts to bind"}
		}
		return nil
	}
	reply := st.Reply(stanza.El(stanza.NSBind, "bind").Add(stanza.El(stanza.NSBind, "jid").AddText(full.String())))
	c.sendStanza(reply.Raw, "")
	return nil
}

// renames is how often another resource is tried under the policy rename.
const renames = 3

// Bind gives the stream its address; "" asks for a resource of our choice.
// The error is a *stanza.Error.
func (c *Conn) Bind(ctx context.Context, resource string, st sessions.State) (jid.JID, error) {
	st.Kind, st.Device = sessions.Client, c.device
	for range renames {
		if resource == "" {
			resource = rand.Text()[:12]
		}
		full, err := c.account.WithResource(resource)
		if err != nil { // RFC 6120 §7.7.2.1
			return jid.JID{}, stanza.NewError(stanza.BadRequest, "the resource is not acceptable")
		}
		reason, err := c.BindAs(ctx, full, st)
		switch {
		case err != nil:
			return jid.JID{}, err
		case reason == "":
			return full, nil
		case reason != "rename":
			return jid.JID{}, stanza.NewError(stanza.Condition(reason), "")
		}
		resource = ""
	}
	return jid.JID{}, stanza.NewError(stanza.Conflict, "")
}

// BindAs asks the house for exactly this address and returns why not, or "".
// Deliveries wait until the element that is being handled has been answered.
func (c *Conn) BindAs(ctx context.Context, at jid.JID, st sessions.State) (string, error) {
	st.Remote, st.Secure, st.Transport = c.tr.RemoteAddr().String(), c.tr.TLS() != nil, c.tr.Name()
	// A connection may try more than once: each try is a session of its own.
	sess := c.srv.newSession(c, c.srv.nextRef(at))
	reason, err := sess.bind(ctx, st)
	if err != nil || reason != "" {
		sess.end(context.WithoutCancel(ctx)) // the house may have bound it after all, too late
		if errors.Is(err, channel.ErrLost) { // many clients would wait for ever beside an error
			c.fail(shutdown())
		}
		return reason, err
	}
	c.established(sess)
	c.log.Info("bound", "transport", c.tr.Name())
	return "", nil
}

// established joins the stream to its session, a new one or one it resumes.
func (c *Conn) established(s *Session) {
	c.session = s
	c.hasSession.Store(true)
	c.tr.OnDrained(s.drained)
	c.phase = Established
	if s.ref.Peer() == sessions.Client { // a component speaks for many, and is trusted
		c.Pace(c.srv.cfg.Rate)
	}
	c.rd.SetLimits(c.srv.cfg.Limits.reader(true))
	c.log = c.log.With("jid", s.ref.JID.String())
}

// Pace slows down the reading of a bound stream: together with others of its
// account, or of its domain, and of its address.
func (c *Conn) Pace(r Rate) {
	c.limiter = c.srv.paces.limiter(r, c.srv.env.Clock, c.session.ref.JID.Bare(), c.origin)
}

func asStanzaError(c *Conn, err error) *stanza.Error {
	var se *stanza.Error
	if errors.As(err, &se) {
		return se
	}
	if errors.Is(err, channel.ErrLost) { // nobody reads it: the stream has ended
		return stanza.NewError(stanza.RemoteServerTimeout, "")
	}
	c.log.Error("request failed", "err", err)
	return stanza.NewError(stanza.InternalServerError, "")
}
