package nats

import (
	"errors"

	natsgo "github.com/nats-io/nats.go"
)

// What is remembered of other nodes. Their names come from the network, so even
// that has a bound; a cluster has a few dozen nodes.
const (
	maxNeighbours = 4096
	maxDeparted   = 1024 // of them, those that have left
)

// neighbour is what is known of another node, which is its latest life.
type neighbour struct {
	life   uint64
	joined bool                 // may be sent to
	left   bool                 // and will not be heard again
	out    map[string]*sender   // by port
	in     map[string]*receiver // by port; may be of the life before
}

// Join says that p may be sent to from now on. An older life of the node leaves. A
// life that has left does not come back, and a node is no peer of itself: both are
// ignored.
func (b *Bus) Join(p Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.meet(p); n != nil && !n.left {
		n.joined = true
	}
}

// Leave says that p is over. What is not acknowledged, and who waits, gets
// ErrGone; what came from it and waits for its handler is dropped. A call that
// runs is neither waited for nor cut short.
func (b *Bus) Leave(p Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.meet(p)
	if n == nil || n.left {
		return
	}
	n.end(ErrGone)
	n.left = true
	b.departed = append(b.departed, p.Node)
	if len(b.departed) > maxDeparted {
		if old := b.neighbours[b.departed[0]]; old != nil && old.left {
			delete(b.neighbours, b.departed[0])
		}
		b.departed = b.departed[1:]
	}
}

// meet returns the neighbour whose latest life is p, nil when there is a later one.
// With mu.
func (b *Bus) meet(p Peer) *neighbour {
	n := b.neighbours[p.Node]
	switch {
	case b.closed || p.Node == b.o.Self.Node || !isNode(p.Node):
		return nil
	case n == nil && len(b.neighbours) >= maxNeighbours:
		b.strange.Do(func() { b.log.Error("nats: too many nodes, ignored", "peer", p.Node) })
		return nil
	case n == nil:
		n = &neighbour{life: p.Incarnation, out: map[string]*sender{}, in: map[string]*receiver{}}
		b.neighbours[p.Node] = n
	case n.life > p.Incarnation:
		return nil
	case n.life < p.Incarnation:
		n.end(ErrGone)
		n.life, n.joined, n.left, n.out = p.Incarnation, false, false, map[string]*sender{}
	}
	return n
}

// end ends the pipes of the neighbour's life.
func (n *neighbour) end(err error) {
	n.joined = false
	for _, s := range n.out {
		s.end(err)
	}
	for _, r := range n.in {
		r.end()
	}
	n.out = nil
}

// sender returns the near end of the pipe to a port; the first call opens it.
func (b *Bus) sender(node, port string) (*sender, error) {
	b.mu.RLock()
	n, closed := b.neighbours[node], b.closed
	var s *sender
	gone := n == nil || !n.joined
	if !gone {
		s = n.out[port]
	}
	b.mu.RUnlock()
	switch {
	case closed:
		return nil, ErrClosed
	case gone:
		return nil, ErrGone
	case s != nil:
		return s, nil
	case !isToken(port) || port == ackPort:
		return nil, errors.New("this cannot be a port")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, ErrClosed
	case !n.joined:
		return nil, ErrGone
	case n.out[port] == nil:
		s = newSender(b, Peer{node, n.life}, port)
		n.out[port] = s
		b.pipes.Go(s.complete)
	}
	return n.out[port], nil
}

// receiver returns the far end of the pipe that f came through, nil when its life
// is over. The first frame opens it.
func (b *Bus) receiver(f *frame, port string, h Handler) *receiver {
	b.mu.RLock()
	if n := b.neighbours[string(f.node)]; n != nil && n.life == f.life {
		if r := n.in[port]; r != nil && r.from.Incarnation == f.life {
			b.mu.RUnlock()
			return r
		}
	}
	b.mu.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := Peer{string(f.node), f.life}
	n := b.meet(p)
	if n == nil || n.left {
		return nil
	}
	before := n.in[port]
	if before != nil && before.from == p {
		return before
	}
	r := newReceiver(b, p, port, h)
	if before != nil {
		r.after = before.over
	}
	n.in[port] = r
	b.pipes.Go(r.work)
	return r
}

// acknowledged takes what a peer says about the pipe to one of its ports.
func (b *Bus) acknowledged(f frame) {
	b.mu.RLock()
	var s *sender
	if n := b.neighbours[string(f.node)]; n != nil && n.life == f.life {
		s = n.out[string(f.port)]
	}
	b.mu.RUnlock()
	if s != nil {
		s.acknowledged(&f)
	}
}

// senders appends all near ends to all.
func (b *Bus) senders(all []*sender) []*sender {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, n := range b.neighbours {
		for _, s := range n.out {
			all = append(all, s)
		}
	}
	return all
}

// reconnected repairs at once what the outage has cost.
func (b *Bus) reconnected(nc *natsgo.Conn) {
	b.biggest.Store(nc.MaxPayload())
	for _, s := range b.senders(nil) {
		s.reconnected()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, n := range b.neighbours {
		for _, r := range n.in {
			r.acknowledge()
		}
	}
}
