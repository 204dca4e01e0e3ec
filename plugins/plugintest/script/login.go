package script

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"
)

// randomText is n characters of a small alphabet that every localpart and id may hold.
func randomText(n int) string {
	return strings.ToLower(rand.Text()[:n])
}

// open sends a stream header (RFC 6120 §4.2, RFC 7395 §3.4).
func (c *client) open() error {
	domain := attrEscaper.Replace(c.opts.target.Domain())
	if c.link == nil {
		return errNotConnected
	}
	if c.link.ws {
		return c.write("<open xmlns='" + nsFraming + "' to='" + domain + "' version='1.0'/>")
	}
	return c.write("<?xml version='1.0'?><stream:stream to='" + domain + "' version='1.0' xml:lang='en' xmlns='" +
		nsClient + "' xmlns:stream='" + nsStream + "'>")
}

// features opens a stream and reads the server's header and features.
func (c *client) features(ctx context.Context) (*node, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	it, err := c.next(ctx)
	if err != nil {
		return nil, fmt.Errorf("stream header: %w", err)
	}
	if it.kind != itemOpen && !(it.kind == itemElement && it.node.is(nsFraming, "open")) {
		return nil, fmt.Errorf("stream header: the server sent %s", it)
	}
	return c.element(ctx, nsStream, "features")
}

// element takes the next item, which must be that element.
func (c *client) element(ctx context.Context, space, local string) (*node, error) {
	it, err := c.next(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", local, err)
	}
	if it.kind != itemElement || !it.node.is(space, local) {
		return nil, fmt.Errorf("expected <%s>, the server sent %s", local, it)
	}
	return it.node, nil
}

// secured opens a connection up to the features after TLS.
func (c *client) secured(ctx context.Context, via Via) (*node, error) {
	if via == ViaSTARTTLS {
		if err := c.secure(ctx); err != nil {
			return nil, err
		}
	} else if err := c.dial(ctx, via); err != nil {
		return nil, err
	}
	return c.features(ctx)
}

// secure opens a connection and does STARTTLS (RFC 6120 §5.4); the stream inside TLS is not opened.
func (c *client) secure(ctx context.Context) error {
	if err := c.dial(ctx, ViaSTARTTLS); err != nil {
		return err
	}
	f, err := c.features(ctx)
	if err != nil {
		return err
	}
	if f.child(nsTLS, "starttls") == nil {
		return errors.New("the server offers no STARTTLS (use plain or direct TLS)")
	}
	if err := c.write("<starttls xmlns='" + nsTLS + "'/>"); err != nil {
		return err
	}
	if _, err := c.element(ctx, nsTLS, "proceed"); err != nil {
		return err
	}
	return c.startTLS(ctx)
}

func (c *client) via() Via {
	if c.decl.hasVia {
		return c.decl.via
	}
	return c.opts.via
}

// authenticate opens a connection, secures it, logs in by SASL and reads the features after it; nothing is bound.
func (c *client) authenticate(ctx context.Context) error {
	f, err := c.secured(ctx, c.via())
	if err != nil {
		return err
	}
	if err := c.sasl(ctx, f.child(nsSASL, "mechanisms")); err != nil {
		return err
	}
	_, err = c.features(ctx)
	return err
}

// sasl logs in with the best mechanism offered (RFC 6120 §6).
func (c *client) sasl(ctx context.Context, offered *node) error {
	has := map[string]bool{}
	var names []string
	if offered != nil {
		for _, k := range offered.kids {
			has[k.text] = true
			names = append(names, k.text)
		}
	}
	switch {
	case has["SCRAM-SHA-256"]:
		return c.scram(ctx, "SCRAM-SHA-256", scram.SHA256)
	case has["SCRAM-SHA-1"]:
		return c.scram(ctx, "SCRAM-SHA-1", scram.SHA1)
	case has["PLAIN"]:
		return c.saslStep(ctx, "<auth xmlns='"+nsSASL+"' mechanism='PLAIN'>"+c.plain()+"</auth>", func(string) error { return nil })
	}
	return fmt.Errorf("the server offers no mechanism this client knows: %v", names)
}

// plain is the base64 of the PLAIN message (RFC 4616 §2).
func (c *client) plain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + c.user + "\x00" + c.password))
}

// scram runs RFC 5802 without channel binding, and checks the server's proof.
func (c *client) scram(ctx context.Context, mechanism string, hash scram.HashGeneratorFcn) error {
	cl, err := hash.NewClient(c.user, c.password, "")
	if err != nil {
		return err
	}
	conv := cl.NewConversation()
	first, err := conv.Step("")
	if err != nil {
		return err
	}
	if err := c.write("<auth xmlns='" + nsSASL + "' mechanism='" + mechanism + "'>" + base64.StdEncoding.EncodeToString([]byte(first)) + "</auth>"); err != nil {
		return err
	}
	ch, err := c.element(ctx, nsSASL, "challenge")
	if err != nil {
		return err
	}
	challenge, err := base64.StdEncoding.DecodeString(ch.text)
	if err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	answer, err := conv.Step(string(challenge))
	if err != nil {
		return fmt.Errorf("%s: %w", mechanism, err)
	}
	return c.saslStep(ctx, "<response xmlns='"+nsSASL+"'>"+base64.StdEncoding.EncodeToString([]byte(answer))+"</response>", func(final string) error {
		_, err := conv.Step(final)
		if err == nil && !conv.Valid() {
			err = errors.New("the server did not prove that it knows the password")
		}
		return err
	})
}

// saslStep sends the last message and reads the outcome; final checks what came with <success/>.
func (c *client) saslStep(ctx context.Context, message string, final func(string) error) error {
	if err := c.write(message); err != nil {
		return err
	}
	ok, err := c.element(ctx, nsSASL, "success")
	if err != nil {
		return fmt.Errorf("SASL as %s: %w", c.user, err)
	}
	data, err := base64.StdEncoding.DecodeString(ok.text)
	if ok.text == "=" || ok.text == "" {
		data, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("success: %w", err)
	}
	return final(string(data))
}

// bind binds a resource, or lets the server choose when it is "" (RFC 6120 §7).
func (c *client) bind(ctx context.Context, resource string) error {
	inner := ""
	if resource != "" {
		inner = "<resource>" + textEscaper.Replace(resource) + "</resource>"
	}
	_, err := c.ask(ctx, "set", "", "<bind xmlns='"+nsBind+"'>"+inner+"</bind>")
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	c.dirty = false
	return nil
}

// ask sends an IQ and waits for its result; other items stay in the queue.
func (c *client) ask(ctx context.Context, kind, to, payload string) (*node, error) {
	id := "ask-" + randomText(8)
	if to != "" {
		to = " to='" + attrEscaper.Replace(to) + "'"
	}
	if err := c.send("<iq type='" + kind + "' id='" + id + "'" + to + ">" + payload + "</iq>"); err != nil {
		return nil, err
	}
	it, err := c.await(ctx, false, func(it item) bool {
		return it.kind == itemElement && it.node.is(nsClient, "iq") && it.node.get("id") == id
	})
	if err != nil {
		return nil, err
	}
	if it.node.get("type") != "result" {
		return nil, fmt.Errorf("the server answered %s", it)
	}
	return it.node, nil
}

// connect is a complete login: connection, TLS, SASL, bind; a new session with new counters.
func (c *client) connect(ctx context.Context) error {
	if err := c.authenticate(ctx); err != nil {
		return fmt.Errorf("%s cannot log in: %w", c.name, err)
	}
	c.mu.Lock()
	c.sm = counters{manual: c.sm.manual}
	c.mu.Unlock()
	if err := c.bind(ctx, c.wanted); err != nil {
		return fmt.Errorf("%s cannot log in: %w", c.name, err)
	}
	return nil
}

// roster asks for the roster, which makes the session one that gets roster pushes (RFC 6121 §2.1.6).
func (c *client) roster(ctx context.Context) (*node, error) {
	return c.ask(ctx, "get", "", "<query xmlns='"+nsRoster+"'/>")
}

// available sends initial presence and takes the copy that comes back out of the queue (RFC 6121 §4.2.2).
func (c *client) available(ctx context.Context, presence string) error {
	if err := c.send(presence); err != nil {
		return err
	}
	_, err := c.await(ctx, false, func(it item) bool {
		return it.kind == itemElement && it.node.is(nsClient, "presence") && it.node.get("from") == c.fullJID() && it.node.get("type") == ""
	})
	if err != nil {
		return fmt.Errorf("own presence: %w", err)
	}
	return nil
}
