package script

import (
	"context"
	"strings"
)

// road is a way from the server to a client. What comes by one of them keeps its order.
type road uint8

// The roads. There is one, unless the target is Scattered.
const (
	near   road = iota
	far         // answers of services
	either      // whatever is next
)

// waits are the patterns of <? that wait for the next expectation of a road.
type waits [either][]*node

// nextOn takes the next item that came by a road; what came by another one keeps its place.
func (c *client) nextOn(ctx context.Context, on road) (item, error) {
	if on == either || len(c.asked) == 0 {
		return c.next(ctx)
	}
	return c.await(ctx, false, func(it item) bool { return c.cameBy(it) == on })
}

// asks notes what goes to a service of a Scattered target: the answer comes by a road of its own.
func (c *client) asks(n *node) {
	s, ok := c.opts.target.(Scattered)
	id, to := n.get("id"), n.get("to")
	if !ok || !s.Scattered() || id == "" || !n.isStanza() || to == "" || domainOf(to) == c.opts.target.Domain() {
		return
	}
	if c.asked == nil {
		c.asked = map[string]bool{}
	}
	c.asked[id] = true
}

// cameBy tells by which road an item came.
func (c *client) cameBy(it item) road {
	if it.kind == itemElement && it.node.isAnswer() && c.asked[it.node.get("id")] {
		return far
	}
	return near
}

// roadOf tells by which road what the pattern expects comes.
func (x *run) roadOf(c *client, p *node) road {
	if open := p.name.local == "iq" && (p.get("type") == "" || p.get("type") == "*"); len(c.asked) == 0 || !open && !p.isAnswer() {
		return near
	}
	id := p.get("id")
	switch {
	case id == "" || id == "*":
		return either
	case c.asked[show(id, x.binds, x.lookup)]:
		return far
	}
	return near
}

// isAnswer tells whether it answers a stanza (RFC 6120 §8.1.4).
func (n *node) isAnswer() bool {
	return n.isStanza() && (n.get("type") == "error" || n.name.local == "iq" && n.get("type") == "result")
}

func domainOf(jid string) string {
	bare, _, _ := strings.Cut(jid, "/")
	if _, domain, ok := strings.Cut(bare, "@"); ok {
		return domain
	}
	return bare
}

// met ends the waits of <? for a road whose expectation was met.
func (c *client) met(on road) {
	if on == either {
		c.optional = waits{}
		return
	}
	c.optional[on] = nil
}
