package script

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// failure is an expectation that was not met.
type failure struct {
	expected string
	received string
	nearest  string
}

func (f *failure) Error() string {
	if f.nearest != "" {
		return f.nearest
	}
	return "expected " + f.expected + ", received " + f.received
}

func (x *run) match(p *node, it item, exact bool) (binds, *difference, error) {
	if it.kind != itemElement && it.kind != itemOpen {
		return x.binds, &difference{path: p.name.local, text: "received " + it.String()}, nil
	}
	m := matcher{look: x.lookup, exact: exact}
	b, diff := m.match(p, it.node, x.binds, "")
	return b, diff, m.err
}

// take returns the next item of a road that no pending <? pattern accepts. A pattern that accepts ends its own wait and that of those before it.
func (x *run) take(ctx context.Context, c *client, on road) (item, error) {
	for {
		it, err := c.nextOn(ctx, on)
		if err != nil {
			return it, err
		}
		x.note(c.name, "←", it.String())
		accepted, by := false, c.cameBy(it)
		for i, p := range c.optional[by] {
			b, diff, err := x.match(p, it, false)
			if err != nil {
				return it, err
			}
			if diff == nil {
				x.binds, accepted = b, true
				c.optional[by] = c.optional[by][i+1:]
				break
			}
		}
		if !accepted {
			return it, nil
		}
	}
}

// expect is `<`: the next received matches.
func (x *run) expect(ctx context.Context, c *client, st step) error {
	if st.closing {
		it, err := x.take(ctx, c, either)
		if err != nil {
			return &failure{expected: "</stream:stream>", received: err.Error()}
		}
		c.optional = waits{}
		if it.kind != itemClose {
			return &failure{expected: "</stream:stream>", received: it.String()}
		}
		return nil
	}
	want := st.patterns[0]
	on := x.roadOf(c, want)
	it, err := x.take(ctx, c, on)
	if err != nil {
		return &failure{expected: showNode(want, x.binds, x.lookup), received: err.Error()}
	}
	c.met(on)
	b, diff, err := x.match(want, it, st.op == opExact)
	if err != nil {
		return err
	}
	if diff != nil {
		return &failure{expected: showNode(want, x.binds, x.lookup), received: it.String(), nearest: diff.String()}
	}
	x.binds = b
	return nil
}

// anyOrder is `<~ { … }`: as many items as there are patterns, each matching a different one.
func (x *run) anyOrder(ctx context.Context, c *client, st step) error {
	var got []item
	for _, p := range st.patterns {
		it, err := x.take(ctx, c, x.roadOf(c, p))
		if err != nil {
			return x.anyOrderFailure(st.patterns, got, err.Error())
		}
		got = append(got, it)
		if diff, err := x.nearest(st.patterns, it); err != nil {
			return err
		} else if diff != nil {
			f := x.anyOrderFailure(st.patterns, got[:len(got)-1], it.String())
			f.nearest = diff.String()
			return f
		}
	}
	for _, p := range st.patterns {
		c.met(x.roadOf(c, p))
	}
	b, ok, err := x.assign(st.patterns, got, make([]bool, len(got)), x.binds)
	if err != nil {
		return err
	}
	if !ok {
		return x.anyOrderFailure(st.patterns, nil, "elements that cannot be assigned one to each pattern")
	}
	x.binds = b
	return nil
}

// nearest returns nil when a pattern matches, else the smallest difference.
func (x *run) nearest(patterns []*node, it item) (*difference, error) {
	var best *difference
	for _, p := range patterns {
		_, diff, err := x.match(p, it, false)
		if diff == nil || err != nil {
			return nil, err
		}
		if best == nil || diff.score > best.score {
			best = diff
		}
	}
	return best, nil
}

// assign finds one item for each pattern.
func (x *run) assign(patterns []*node, got []item, used []bool, b binds) (binds, bool, error) {
	if len(patterns) == 0 {
		return b, true, nil
	}
	for i, it := range got {
		if used[i] || it.node == nil {
			continue
		}
		m := matcher{look: x.lookup}
		next, diff := m.match(patterns[0], it.node, b, "")
		if m.err != nil {
			return b, false, m.err
		}
		if diff != nil {
			continue
		}
		used[i] = true
		if next, ok, err := x.assign(patterns[1:], got, used, next); ok || err != nil {
			return next, ok, err
		}
		used[i] = false
	}
	return b, false, nil
}

// anyOrderFailure names the patterns that nothing has matched so far.
func (x *run) anyOrderFailure(patterns []*node, got []item, received string) *failure {
	met := make([]bool, len(patterns))
	for _, it := range got {
		for i, p := range patterns {
			if _, diff, err := x.match(p, it, false); !met[i] && diff == nil && err == nil {
				met[i] = true
				break
			}
		}
	}
	var open []string
	for i, p := range patterns {
		if !met[i] {
			open = append(open, showNode(p, x.binds, x.lookup))
		}
	}
	return &failure{expected: "in any order: " + strings.Join(open, " "), received: received}
}

// settle makes sure that what clients have sent is handled, so that silence means something: each of them does a round
// trip. Where something may be under way after that (Settler), the one that is asked does one too, unless the script
// counts its stanzas (XEP-0198): what it has sent itself may come back to it by a longer way than the answer to its
// ping. Against a foreign server Runner.Settle is waited on top.
func (x *run) settle(ctx context.Context, asked *client) error {
	s, settles := x.Target.(Settler)
	for _, n := range x.order {
		o := x.clients[n]
		if o == asked && (!settles || o.counted()) || !o.dirty || o.link == nil || o.user == "" || o.fullJID() == "" {
			continue
		}
		if err := o.fence(ctx); err != nil && ctx.Err() != nil {
			return err // a connection that has ended has nothing under way
		}
	}
	if settles {
		if err := s.Settled(ctx); err != nil {
			return err
		}
	}
	if x.Settle > 0 {
		timer := time.NewTimer(x.Settle)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// silence is `!`: the answer to a ping is the next thing received.
func (x *run) silence(ctx context.Context, c *client) error {
	if err := x.settle(ctx, c); err != nil {
		return err
	}
	id := "silence-" + randomText(8)
	if err := c.send(ping(id)); err != nil {
		return err
	}
	c.dirty = false
	it, err := x.take(ctx, c, either)
	c.optional = waits{}
	if err != nil {
		return &failure{expected: "silence: the answer to a ping and nothing before it", received: err.Error()}
	}
	if !it.answers(id) {
		return &failure{expected: "silence: the answer to a ping and nothing before it", received: it.String()}
	}
	return nil
}

// drain discards everything up to the answer to a ping.
func (x *run) drain(ctx context.Context, c *client) error {
	if err := x.settle(ctx, c); err != nil {
		return err
	}
	id := "drain-" + randomText(8)
	if err := c.send(ping(id)); err != nil {
		return err
	}
	c.dirty, c.optional = false, waits{}
	_, err := c.await(ctx, true, func(it item) bool { return it.answers(id) })
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// answers tells whether this is the server's answer to the IQ with that id.
func (it item) answers(id string) bool {
	return it.kind == itemElement && it.node.is(nsClient, "iq") && it.node.get("id") == id &&
		(it.node.get("type") == "result" || it.node.get("type") == "error")
}
