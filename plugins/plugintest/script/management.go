package script

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// counters is the client's side of XEP-0198 §4.
type counters struct {
	on      bool
	id      string // for <resume/>
	handled uint32 // stanzas received since <enabled/>
	sent    uint32 // stanzas sent since <enable/>
	manual  bool   // the script answers <r/> itself
	asked   int    // <r/> the script sent and that are not answered yet
}

// sending counts what goes out. XEP-0198 §4: the count starts when <enable/> is sent.
func (s *counters) sending(n *node) {
	switch {
	case n.is(nsSM, "enable"):
		s.sent = 0
	case n.is(nsSM, "r"):
		s.asked++
	case n.isStanza():
		s.sent++
	}
}

// counted tells whether stream management is on.
func (c *client) counted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sm.on
}

// observe sees every element before the script does: it keeps the counters, the full JID and the stream's id, answers
// <r/> and swallows what belongs to the engine. True means the script shall not see the element.
func (c *client) observe(n *node) (swallow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n.isStanza():
		if c.sm.on {
			c.sm.handled++
		}
		return c.observeStanza(n)
	case n.is(nsStream, "stream"), n.is(nsFraming, "open"):
		c.stream = n.get("id")
	case n.is(nsSASL2, "success"): // XEP-0388 §2.6.1: the full JID when Bind 2 has bound one
		if id := n.child(nsSASL2, "authorization-identifier"); id != nil && strings.Contains(id.text, "/") {
			c.full = id.text
		}
	case n.is(nsSM, "enabled"):
		c.sm.on, c.sm.id, c.sm.handled = true, n.get("id"), 0
	case n.is(nsSM, "resumed"):
		c.sm.on = true
	case n.is(nsSM, "r"):
		if c.sm.on && !c.sm.manual {
			_ = c.write("<a xmlns='" + nsSM + "' h='" + strconv.FormatUint(uint64(c.sm.handled), 10) + "'/>") // a broken socket ends the reader next
			return true
		}
	case n.is(nsSM, "a"):
		if c.sm.asked == 0 && !c.sm.manual {
			return true // XEP-0198 §4: a server may acknowledge at any time
		}
		if c.sm.asked > 0 {
			c.sm.asked--
		}
	}
	return false
}

func (c *client) observeStanza(n *node) (swallow bool) {
	if n.name.local != "iq" || n.get("type") == "get" || n.get("type") == "set" {
		return false
	}
	if jid := n.child(nsBind, "bind").child(nsBind, "jid"); jid != nil {
		c.full = jid.text
	}
	if ch, ok := c.fences[n.get("id")]; ok {
		delete(c.fences, n.get("id"))
		close(ch)
		return true
	}
	return false
}

// ping is the marker: an IQ every server must answer, with a result or an error (XEP-0199 §4.2, RFC 6120 §8.2.3).
// Without a to it goes to the own bare JID (RFC 6120 §10.3.3).
func ping(id string) string {
	return "<iq type='get' id='" + id + "'><ping xmlns='" + nsPing + "'/></iq>"
}

// fence returns when the server has answered a ping, so it has handled everything this client sent before. The answer
// does not show up in the queue.
func (c *client) fence(ctx context.Context) error {
	id := "fence-" + randomText(8)
	ch := make(chan struct{})
	c.mu.Lock()
	if c.fences == nil {
		c.fences = map[string]chan struct{}{}
	}
	c.fences[id] = ch
	c.mu.Unlock()
	l := c.link
	if err := c.send(ping(id)); err != nil {
		return fmt.Errorf("ping by %s: %w", c.name, err)
	}
	select {
	case <-ch:
		c.dirty = false
		return nil
	case <-l.ended:
		return fmt.Errorf("the connection of %s ended before its ping was answered", c.name)
	case <-ctx.Done():
		return fmt.Errorf("the ping of %s was not answered", c.name)
	}
}

// resume opens a new connection and takes the session up again (XEP-0198 §5). Unacknowledged stanzas are the script's
// business: nothing is sent again.
func (c *client) resume(ctx context.Context) error {
	c.mu.Lock()
	sm, full := c.sm, c.full
	c.mu.Unlock()
	if sm.id == "" {
		return errors.New("resume: no resumable session (send <enable xmlns='urn:xmpp:sm:3' resume='true'/> first)")
	}
	if err := c.authenticate(ctx); err != nil {
		return err
	}
	err := c.send(fmt.Sprintf("<resume xmlns='%s' h='%d' previd='%s'/>", nsSM, sm.handled, attrEscaper.Replace(sm.id)))
	if err != nil {
		return err
	}
	it, err := c.next(ctx)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if it.kind != itemElement || !it.node.is(nsSM, "resumed") {
		return fmt.Errorf("resume: the server answered %s", it)
	}
	c.mu.Lock()
	c.full = full
	c.mu.Unlock()
	return nil
}
