package script

import (
	"context"
	"fmt"
)

// verb runs `NAME verb …`.
func (x *run) verb(ctx context.Context, c *client, st step) error {
	c.started = true
	switch st.verb {
	case "connect":
		if c.user == "" {
			return fmt.Errorf("%s is a bare connection: write connect %s …", c.name, c.name)
		}
		return c.connect(ctx)
	case "auth":
		return c.authenticate(ctx)
	case "bind":
		return c.bind(ctx, x.bindResource(c, st.args))
	case "login":
		return c.available(ctx, "<presence/>")
	case "roster":
		_, err := c.roster(ctx)
		return err
	case "drain":
		return x.drain(ctx, c)
	case "drop":
		c.drop()
	case "close":
		return c.close(ctx)
	case "resume":
		return c.resume(ctx)
	case "eof":
		return x.eof(ctx, c)
	case "open":
		return c.open()
	case "starttls":
		return c.startTLS(ctx)
	case "acks":
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sm.manual = len(st.args) == 1 && st.args[0] == "manual"
	}
	return nil
}

func (x *run) bindResource(c *client, args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return c.wanted
}

// eof expects the server to close: its end of the stream, when it sends one, and then the end of the connection.
func (x *run) eof(ctx context.Context, c *client) error {
	it, err := x.take(ctx, c, either)
	if err == nil && isClose(it) {
		it, err = x.take(ctx, c, either)
	}
	c.optional = waits{}
	if err != nil {
		return &failure{expected: "end of connection", received: err.Error()}
	}
	if it.kind != itemEnd {
		return &failure{expected: "end of connection", received: it.String()}
	}
	c.drop()
	return nil
}

// directive runs a line that names no client first.
func (x *run) directive(ctx context.Context, st step) error {
	switch st.verb {
	case "connect":
		return x.connections(ctx, st.args)
	case "friends":
		return x.friends(ctx, st.args[0], st.args[1])
	case "set":
		v, err := expand(st.args[1], x.binds, x.lookup, func(s string) string { return s })
		x.binds = x.binds.with(st.args[0], v)
		return err
	case "service":
		for _, n := range st.args {
			if x.Target.Service(n) == "" {
				return skip{"the server has no " + n + " service"}
			}
		}
		return nil
	case "together":
		for _, c := range x.clients {
			c.place = 0
		}
		return nil
	case "restart":
		return x.Target.Restart(ctx)
	case "kill":
		k, ok := x.Target.(Killer)
		if !ok {
			return fmt.Errorf("kill: %w", ErrUnsupported)
		}
		return k.Kill(ctx)
	case "reload":
		return x.Target.Reload(ctx)
	}
	for _, n := range st.args { // login, roster, drain: one client after the other
		c := x.clients[n]
		if err := x.ensure(ctx, c); err != nil {
			return err
		}
		if err := x.verb(ctx, c, step{verb: st.verb}); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return nil
}

// connections is `connect NAME [raw|starttls|tls|ws] …`: sockets without a stream.
func (x *run) connections(ctx context.Context, args []string) error {
	for i := 0; i < len(args); i++ {
		c := &client{name: args[i], opts: x.opts, started: true}
		if old := x.clients[c.name]; old != nil {
			old.drop()
		}
		via, explicit := ViaPlain, false
		if i+1 < len(args) {
			if via, explicit = ParseVia(args[i+1]); explicit {
				i++
			}
		}
		if !explicit {
			via = ViaPlain
		}
		var err error
		if via == ViaSTARTTLS {
			err = c.secure(ctx)
		} else {
			err = c.dial(ctx, via)
		}
		x.add(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// friends makes two accounts subscribe to each other (RFC 6121 §3), through sessions of their own so that the
// script's clients see nothing of it. Every step waits for what the one before it causes.
func (x *run) friends(ctx context.Context, first, second string) error {
	a, b := x.temporary(first), x.temporary(second)
	defer a.drop()
	defer b.drop()
	for _, c := range []*client{a, b} {
		if err := c.connect(ctx); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
		if _, err := c.roster(ctx); err != nil {
			return fmt.Errorf("friends: roster: %w", err)
		}
		// A negative priority leaves stored messages alone (RFC 6121 §8.5.2.1.1).
		if err := c.available(ctx, "<presence><priority>-1</priority></presence>"); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
	}
	for _, pair := range [][2]*client{{a, b}, {b, a}} {
		if err := subscribe(ctx, pair[0], pair[1]); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
	}
	for _, c := range []*client{a, b} {
		if err := c.send("<presence type='unavailable'/>"); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
		if err := c.fence(ctx); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
	}
	for _, c := range []*client{a, b} {
		if err := c.close(ctx); err != nil {
			return fmt.Errorf("friends: %w", err)
		}
	}
	return nil
}

func (x *run) temporary(n string) *client {
	c := x.clients[n]
	return &client{name: n + "(friends)", place: c.place, opts: c.opts, decl: c.decl, user: c.user, password: c.password, started: true}
}

// subscribe lets a see b's presence.
func subscribe(ctx context.Context, a, b *client) error {
	domain := a.opts.target.Domain()
	from, to := a.user+"@"+domain, b.user+"@"+domain
	if err := a.send("<presence type='subscribe' to='" + to + "'/>"); err != nil {
		return err
	}
	if _, err := b.await(ctx, true, func(it item) bool {
		return it.kind == itemElement && it.node.is(nsClient, "presence") && it.node.get("type") == "subscribe" && it.node.get("from") == from
	}); err != nil {
		return fmt.Errorf("the subscription request did not arrive: %w", err)
	}
	if err := b.send("<presence type='subscribed' to='" + from + "'/>"); err != nil {
		return err
	}
	for _, wait := range []struct {
		who   *client
		other string
		dir   string
	}{{a, to, "to"}, {b, from, "from"}} {
		if _, err := wait.who.await(ctx, true, pushed(wait.other, wait.dir)); err != nil {
			return fmt.Errorf("%s got no roster push with subscription %s: %w", wait.who.name, wait.dir, err)
		}
	}
	return nil
}

// pushed waits for the roster push that says the subscription is there, alone or in both directions (RFC 6121 §3.1.6).
func pushed(contact, direction string) func(item) bool {
	return func(it item) bool {
		if it.kind != itemElement || !it.node.is(nsClient, "iq") || it.node.get("type") != "set" {
			return false
		}
		i := it.node.child(nsRoster, "query").child(nsRoster, "item")
		return i != nil && i.get("jid") == contact && (i.get("subscription") == direction || i.get("subscription") == "both")
	}
}
