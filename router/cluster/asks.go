package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"parley/router/channel"
	"parley/router/channel/nats"
)

// What takes its time cannot be answered by the acknowledgement of the pipe, as
// a notice is: everything behind it would wait. It is taken at once, done on a
// goroutine of its own, and answered by a notice back.
//
//	ask     number, topic, key    the asker's number, larger in every later life
//	answer  number

const (
	topicAsk    = "ask"
	topicAnswer = "answer"
	// askHands is how many questions a node works on at a time; further ones
	// hold up the asker's notices.
	askHands = 64
)

// asks are the questions under way.
type asks struct {
	hands chan struct{} // those of others

	mu   sync.Mutex
	last uint64
	open map[uint64]*ask // those of this node
}

// ask is one question.
type ask struct {
	of  map[string]struct{} // who has not answered
	all chan struct{}       // closed when everybody has, or is gone
}

// first makes the numbers those of a life.
func (a *asks) first(life uint64) {
	a.hands, a.last, a.open = make(chan struct{}, askHands), life<<32, map[uint64]*ask{}
}

func (a *asks) begin(peers []string) (uint64, <-chan struct{}) {
	q := &ask{of: map[string]struct{}{}, all: make(chan struct{})}
	for _, p := range peers {
		q.of[p] = struct{}{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.open[a.last] = q
	return a.last, q.all
}

// answered notes that a node has, or never will.
func (a *asks) answered(number uint64, node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.open[number]; q != nil {
		a.strike(number, q, node)
	}
}

// strike takes a node off a question; a.mu is held.
func (a *asks) strike(number uint64, q *ask, node string) {
	delete(q.of, node)
	if len(q.of) == 0 {
		delete(a.open, number)
		close(q.all)
	}
}

// left notes that a node is gone.
func (a *asks) left(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for number, q := range a.open {
		a.strike(number, q, node)
	}
}

func (a *asks) forget(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, number)
}

// Ask is Tell for what takes its time, and for one node alone, or with node ""
// for every other live one. The functions of the topic run beside others'; ctx
// says how long they are waited for.
func (n *Node) Ask(ctx context.Context, node, topic, key string) error {
	peers := []string{node}
	if node == "" {
		peers = n.others()
	}
	if len(peers) == 0 {
		return nil
	}
	number, all := n.asks.begin(peers)
	defer n.asks.forget(number)
	payload := encodeNotice(topicAsk, string(binary.AppendUvarint(nil, number))+string(encodeNotice(topic, key)))
	var failed error
	for _, p := range peers {
		if err := n.bus.Send(ctx, p, portNotices, payload, nil); err != nil {
			if !errors.Is(err, nats.ErrGone) {
				failed = fmt.Errorf("%s is not asked: %w", p, err)
			}
			n.asks.answered(number, p)
		}
	}
	select {
	case <-all:
		return failed
	case <-ctx.Done():
		return fmt.Errorf("a node does not answer: %w", ctx.Err())
	}
}

// asked does what another node asks for.
func (n *Node) asked(ctx context.Context, from nats.Peer, text string) error {
	number, k := binary.Uvarint([]byte(text))
	if k <= 0 {
		return fmt.Errorf("question of %s: %w", from.Node, channel.ErrWire)
	}
	topic, key, ok := decodeNotice(text[k:])
	if !ok {
		return fmt.Errorf("question of %s: %w", from.Node, channel.ErrWire)
	}
	select {
	case n.asks.hands <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
	n.task(func() {
		defer func() { <-n.asks.hands }()
		n.harmless(from.Node, topic, key)
		answer := encodeNotice(topicAnswer, string(binary.AppendUvarint(nil, number)))
		if err := n.bus.Send(n.ctx, from.Node, portNotices, answer, nil); err != nil && !errors.Is(err, nats.ErrGone) {
			n.log.Warn("another node does not learn that what it has asked for is done", "node", from.Node, "topic", topic, "err", err)
		}
	})
	return nil
}

// harmless is notice for a goroutine of its own: a panic there must not take the
// node along.
func (n *Node) harmless(from, topic, key string) {
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("what another node asks for panicked", "node", from, "topic", topic, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	n.notice(topic, key)
}
