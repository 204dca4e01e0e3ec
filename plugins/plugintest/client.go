package plugintest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Client is a small XMPP client for traffic in Go tests: plain TCP on loopback,
// or a connection of the test's own, SASL PLAIN, bind. What a client sees on the wire is the scripts' business.
type Client struct {
	JID  jid.JID
	conn net.Conn
	rd   *stanza.Reader
	buf  []byte
}

// Password is that of every account that Login makes.
const Password = "correct horse battery staple"

// Login makes the account if need be, and logs in.
func (h *House) Login(ctx context.Context, user, resource string) (*Client, error) {
	_ = h.Account(ctx, user, Password) // there already: a second device
	c, err := Dial(ctx, h.Door("c2s"), h.Domain(), user, Password, resource)
	if err != nil {
		return nil, fmt.Errorf("login of %s: %w", user, err)
	}
	return c, nil
}

// Dial logs in at an address.
func Dial(ctx context.Context, addr, domain, user, password, resource string) (*Client, error) {
	c, err := Connect(ctx, addr, domain, user, password)
	if err != nil {
		return nil, err
	}
	if err := c.Bind(ctx, resource); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Connect authenticates at an address and leaves open what comes next: Bind, or
// the resumption of a session (XEP-0198 §5).
func Connect(ctx context.Context, addr, domain, user, password string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return Authenticate(ctx, conn, domain, user, password)
}

// Authenticate is Connect on a connection that is there already; when it fails,
// that one is closed.
func Authenticate(ctx context.Context, conn net.Conn, domain, user, password string) (*Client, error) {
	c := &Client{conn: conn, rd: stanza.NewReader(stanza.Stream, stanza.Limits{}), buf: make([]byte, 16<<10)}
	if err := c.authenticate(ctx, domain, user, password); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) authenticate(ctx context.Context, domain, user, password string) error {
	open := "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='" + domain + "'>"
	auth := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	if err := c.Send(open); err != nil {
		return err
	}
	if err := c.expect(ctx, "features"); err != nil {
		return err
	}
	if err := c.Send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + auth + "</auth>"); err != nil {
		return err
	}
	if err := c.expect(ctx, "success"); err != nil {
		return err
	}
	c.rd.Reset(stanza.Stream)
	if err := c.Send(open); err != nil {
		return err
	}
	return c.expect(ctx, "features")
}

// Bind binds a resource (RFC 6120 §7).
func (c *Client) Bind(ctx context.Context, resource string) error {
	if err := c.Send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq>"); err != nil {
		return err
	}
	el, err := c.Next(ctx)
	if err != nil {
		return err
	}
	bound := el.Child(stanza.NSBind, "bind")
	if bound == nil {
		return fmt.Errorf("not bound: %s", el.Bytes(""))
	}
	c.JID, err = jid.Parse(bound.Child(stanza.NSBind, "jid").Text())
	return err
}

func (c *Client) expect(ctx context.Context, local string) error {
	el, err := c.Next(ctx)
	if err != nil {
		return err
	}
	if el.Name.Local != local {
		return fmt.Errorf("expected %s, got %s", local, el.Bytes(""))
	}
	return nil
}

// Send writes bytes as they are.
func (c *Client) Send(text string) error {
	_, err := c.conn.Write([]byte(text))
	return err
}

// Next returns the next first-level element; ctx bounds the wait.
func (c *Client) Next(ctx context.Context) (*stanza.Element, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		t, err := c.rd.Next()
		switch {
		case err == nil && t.Kind == stanza.Item:
			return stanza.ParseElement(t.Raw, stanza.NSClient)
		case err == nil && t.Kind == stanza.Close:
			return nil, net.ErrClosed
		case err == nil:
			continue
		case !errors.Is(err, stanza.ErrMore):
			return nil, err
		}
		n, err := c.conn.Read(c.buf)
		if err != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		c.rd.Feed(c.buf[:n])
	}
}

// Close drops the connection without a farewell.
func (c *Client) Close() { _ = c.conn.Close() }
