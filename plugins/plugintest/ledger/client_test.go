package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// client is one device with stream management (XEP-0198). It lives longer than
// its connections: what was not acknowledged is sent again, in order, on a
// resumed stream or a new one. One goroutine works with it.
type client struct {
	user, resource string
	book           *book
	sees           func(*stanza.Element) // presence that comes; nil: nobody looks
	sits           bool                  // it enters the room
	inside         bool                  // it is in the room, as far as it has heard
	denied         bool                  // its entry was answered with an error that says to wait
	outside        bool                  // the room could not let it in, or has let it go: it tries again

	conn     *plugintest.Client
	elements chan *stanza.Element // of conn; closed when it ends
	previd   string               // "": there is nothing to resume
	resumed  bool                 // the last login went on with the session before it
	in       uint32               // stanzas received in this session
	out      uint32               // stanzas the server has acknowledged in it
	waiting  []outgoing           // sent, not acknowledged
	unheard  []outgoing           // acknowledged by <resumed/>: errors for them may still be on their way
	trace    trace                // of what it says and hears
}

// outgoing is a stanza; oid is "" when it is no message of the ledger.
type outgoing struct{ oid, raw string }

func (c *client) name() string { return c.user + "/" + c.resource }

// loginLimit ends a login that gets nowhere.
const loginLimit = 30 * time.Second

// errGone says that the stream cannot go on; the client comes back.
var errGone = errors.New("stream gone")

// connect logs in, resumes if it can, and sends again what was not acknowledged.
func (c *client) connect(ctx context.Context, in door) error {
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	conn, err := in.login(ctx, c.user)
	if err != nil {
		return err
	}
	c.conn = conn
	if err := c.begin(ctx); err != nil {
		c.trace.note("-", err.Error())
		conn.Close()
		return err
	}
	c.elements = make(chan *stanza.Element, 64)
	go c.read(conn, c.elements)
	return nil
}

// login connects and authenticates.
func (d door) login(ctx context.Context, user string) (*plugintest.Client, error) {
	conn, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	return plugintest.Authenticate(ctx, conn, "localhost", user, password)
}

func (c *client) begin(ctx context.Context) error {
	c.resumed = false
	if c.previd != "" {
		resumed, err := c.resume(ctx)
		if err != nil {
			return err
		}
		if resumed {
			return c.again(false)
		}
	}
	if err := c.conn.Bind(ctx, c.resource); err != nil {
		return err
	}
	if err := c.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"); err != nil {
		return err
	}
	el, err := c.answer(ctx, "enabled")
	if err != nil {
		return err
	}
	c.previd, c.in, c.out, c.inside, c.denied = el.Get("id"), 0, 0, false, false
	c.book.began(c.name())
	// Presence is a stanza like any other: it is counted.
	first := []outgoing{{raw: "<presence/>"}}
	if c.sits {
		first = append(first, outgoing{raw: c.enterHall()})
	}
	c.waiting = append(first, messages(append(c.unheard, c.waiting...))...)
	c.unheard = nil
	return c.again(true)
}

// messages leaves out what a new session does not say again.
func messages(list []outgoing) (kept []outgoing) {
	for _, o := range list {
		if o.oid != "" {
			kept = append(kept, o)
		}
	}
	return kept
}

// resume is XEP-0198 §5.
func (c *client) resume(ctx context.Context) (bool, error) {
	if err := c.say(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", c.previd, c.in)); err != nil {
		return false, err
	}
	el, err := c.answer(ctx, "resumed", "failed")
	if err != nil {
		return false, err
	}
	if h := el.Get("h"); h != "" { // <failed/> may have it, too
		if err := c.covered(h); err != nil {
			return false, err
		}
	}
	if el.Name.Local == "failed" {
		c.previd = ""
		return false, nil
	}
	c.resumed = true
	return true, nil
}

func (c *client) answer(ctx context.Context, names ...string) (*stanza.Element, error) {
	el, err := c.conn.Next(ctx)
	if err != nil {
		return nil, err
	}
	c.trace.note("<", string(el.Bytes("")))
	for _, n := range names {
		if el.Name.Local == n {
			return el, nil
		}
	}
	return nil, fmt.Errorf("%s: expected %v, got %s", c.name(), names, el.Bytes(""))
}

// again sends everything that waits; fresh: on a new session.
func (c *client) again(fresh bool) error {
	var b strings.Builder
	for _, o := range c.waiting {
		b.WriteString(o.raw)
		if o.oid != "" && fresh {
			c.book.sentAgain(o.oid)
		}
	}
	b.WriteString("<r xmlns='urn:xmpp:sm:3'/>")
	return c.say(b.String())
}

// read passes on what comes until the connection ends.
func (c *client) read(conn *plugintest.Client, to chan<- *stanza.Element) {
	defer close(to)
	for {
		el, err := conn.Next(context.Background())
		if err != nil {
			return
		}
		to <- el
	}
}

// drop closes the connection without a farewell and frees its reader.
func (c *client) drop() {
	if c.conn == nil {
		return
	}
	c.conn.Close()
	for range c.elements {
	}
	c.conn = nil
}

// send sends messages and asks what became of them.
func (c *client) send(list []outgoing) error {
	var b strings.Builder
	for _, o := range list {
		b.WriteString(o.raw)
	}
	b.WriteString("<r xmlns='urn:xmpp:sm:3'/>")
	c.waiting = append(c.waiting, list...)
	return c.say(b.String())
}

func (c *client) say(text string) error {
	c.trace.note(">", text)
	return c.conn.Send(text)
}

// ask asks for an acknowledgement.
func (c *client) ask() error { return c.conn.Send("<r xmlns='urn:xmpp:sm:3'/>") }

// covered takes what the server has acknowledged off the list.
func (c *client) covered(h string) error {
	n, err := strconv.ParseUint(h, 10, 32)
	if err != nil {
		return fmt.Errorf("%s: h=%q: %w", c.name(), h, err)
	}
	done := uint32(n) - c.out
	if int64(done) > int64(len(c.waiting)) {
		return c.wrong(fmt.Sprintf("h=%s after %d, with %d waiting", h, c.out, len(c.waiting)))
	}
	c.unheard = append(c.unheard, c.waiting[:done]...)
	c.waiting, c.out = c.waiting[done:], uint32(n)
	return nil
}

// heard counts what is acknowledged: every error that was queued before has come.
func (c *client) heard() {
	for _, o := range c.unheard {
		if o.oid != "" {
			c.book.acked(o.oid)
		}
	}
	c.unheard = nil
}

// wrong enters into the book what no server may do.
func (c *client) wrong(what string) error {
	c.book.mu.Lock()
	c.book.strange = append(c.book.strange, c.name()+": "+what)
	c.book.mu.Unlock()
	return fmt.Errorf("%s: %s", c.name(), what)
}

// handle deals with one element. message is set when it is one with a body.
func (c *client) handle(el *stanza.Element) (message *stanza.Element, err error) {
	c.trace.note("<", string(el.Bytes("")))
	switch {
	case el.Name.Space == stanza.NSSM && el.Name.Local == "r":
		return nil, c.conn.Send(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", c.in))
	case el.Name.Space == stanza.NSSM && el.Name.Local == "a":
		if err := c.covered(el.Get("h")); err != nil {
			return nil, err
		}
		c.heard()
		return nil, nil
	case el.Name.Space == stanza.NSStream: // a stream error
		if why := el.First(); why == nil || why.Name.Local != string(stanza.StreamSystemShutdown) {
			c.previd = ""
		}
		return nil, fmt.Errorf("%w: %s", errGone, el.Bytes(""))
	case el.Name.Space != stanza.NSClient:
		return nil, nil
	}
	c.in++
	if c.sits {
		c.place(el)
	}
	if el.Name.Local == "presence" && c.sees != nil {
		c.sees(el)
	}
	if el.Name.Local != "message" {
		return nil, nil
	}
	if el.Get("type") == "error" {
		c.refused(el)
		return nil, nil
	}
	return el, nil
}

// typingID is the id of chat states, of which nobody keeps a book.
const typingID = "typing"

func (c *client) refused(el *stanza.Element) {
	if el.Get("id") == typingID {
		return
	}
	e := el.Child(stanza.NSClient, "error")
	if e == nil || e.First() == nil {
		_ = c.wrong("an error without a condition: " + string(el.Bytes("")))
		return
	}
	typ, why := e.Get("type"), e.First().Name.Local
	if why == string(stanza.NotAcceptable) && el.Get("from") == hallJID && c.denied {
		typ = string(stanza.Wait) // it has spoken behind its entry, and not waited for the answer
	}
	c.book.refused(el.Get("id"), typ, why)
}

// sight reads a message of the ledger; false: it is none.
func (c *client) sight(el *stanza.Element) (sighting, bool) {
	o := el.Child(stanza.NSStanzaID, "origin-id")
	if o == nil {
		return sighting{}, false
	}
	s := sighting{oid: o.Get("id")}
	by := c.user + "@localhost"
	if fromHall(el) {
		by = hallJID
	}
	for id := range el.Elements() {
		if id.Name.Space == stanza.NSStanzaID && id.Name.Local == "stanza-id" && id.Get("by") == by {
			s.stanzaID = id.Get("id")
		}
	}
	if s.stanzaID == "" {
		_ = c.wrong(s.oid + " came without a stanza-id")
	}
	return s, true
}
