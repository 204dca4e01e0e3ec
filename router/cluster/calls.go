package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"parley/router/channel"
	"parley/router/channel/nats"
)

// Calls are questions that one node asks another and waits for the answer to:
// what a front's features want to know of their core's, and notices that take
// their time. They are taken at once, done on goroutines of their own, and
// answered by a message back, so that nothing waits behind a slow one.

const (
	portCalls   = "calls"
	portReplies = "replies"
	// maxCalls is how many calls of all others a node works on at a time; further
	// ones wait.
	maxCalls = 256
	// strangerWait is how long an answer waits until who asks is seen: a node is heard
	// as soon as it has come.
	strangerWait = 2 * time.Second
	// callNotice is the call that is a notice.
	callNotice = "notice"
)

// ErrNoAnswer says that the other node does not know the question, or could not
// answer it; what it says follows.
var ErrNoAnswer = errors.New("no answer")

// answerer answers the calls of a name.
type answerer func(ctx context.Context, from string, payload []byte) ([]byte, error)

// desk is where calls are answered and waited for.
type desk struct {
	begun   chan struct{} // closed when answers is complete
	busy    *semaphore.Weighted
	mu      sync.Mutex
	answers map[string]answerer
	waiting map[uint64]*call
	last    uint64
}

// call is one that waits for its answer.
type call struct {
	to   string
	done chan reply
}

type reply struct {
	payload []byte
	err     error
}

func newDesk() desk {
	return desk{begun: make(chan struct{}), busy: semaphore.NewWeighted(maxCalls), answers: map[string]answerer{}, waiting: map[uint64]*call{}}
}

// Answer lets f answer calls of that name. Several may run at once. It is for
// the time before Begin.
func (n *Node) Answer(name string, f func(ctx context.Context, from string, payload []byte) ([]byte, error)) {
	n.desk.mu.Lock()
	defer n.desk.mu.Unlock()
	n.desk.answers[name] = f
}

// CallCore asks the front's core, and waits until there is one; when that one goes
// without an answer, the next one is asked. The error wraps ErrNoAnswer when it has
// answered with one, else channel.ErrLost.
func (n *Node) CallCore(ctx context.Context, name string, payload []byte) ([]byte, error) {
	for {
		core, err := n.awaitCore(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, channel.ErrLost, err)
		}
		answer, err := n.Call(ctx, core.Node, name, payload)
		switch {
		case err == nil || errors.Is(err, ErrNoAnswer):
			return answer, err
		case errors.Is(err, nats.ErrGone) && n.outlive(ctx, core) == nil:
			continue
		}
		return nil, fmt.Errorf("%w: %w", channel.ErrLost, err)
	}
}

// Ask is Tell for what takes its time, and for one node alone, or with node ""
// for every other live one. The functions of the topic run beside others'; ctx
// says how long they are waited for. One that is gone need not answer.
func (n *Node) Ask(ctx context.Context, node, topic, key string) error {
	peers := []string{node}
	if node == "" {
		peers = n.others()
	}
	payload := encodeNotice(topic, key)
	errs := make([]error, len(peers))
	var asked sync.WaitGroup
	for i, p := range peers {
		asked.Go(func() {
			if _, err := n.Call(ctx, p, callNotice, payload); err != nil && !errors.Is(err, nats.ErrGone) {
				errs[i] = err
			}
		})
	}
	asked.Wait()
	return errors.Join(errs...)
}

// Call asks a node, which has to be there. The error wraps ErrNoAnswer when it has
// answered with one.
func (n *Node) Call(ctx context.Context, node, name string, payload []byte) ([]byte, error) {
	d, c := &n.desk, &call{to: node, done: make(chan reply, 1)}
	d.mu.Lock()
	d.last++
	id := d.last
	d.waiting[id] = c
	d.mu.Unlock()
	defer d.settle(id, reply{})
	err := n.bus.Send(ctx, node, portCalls, encodeCall(id, name, payload), func(err error) {
		if err != nil {
			d.settle(id, reply{err: err})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	select {
	case r := <-c.done:
		if r.err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, node, r.err)
		}
		return r.payload, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %s does not answer: %w", name, node, ctx.Err())
	case <-n.ctx.Done():
		return nil, fmt.Errorf("%s: %w", name, n.ctx.Err())
	}
}

// settle ends a call, if it is still waited for.
func (d *desk) settle(id uint64, r reply) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.waiting[id]; c != nil {
		c.done <- r
		delete(d.waiting, id)
	}
}

// left ends the calls to a node that is gone.
func (d *desk) left(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, c := range d.waiting {
		if c.to == node {
			c.done <- reply{err: nats.ErrGone}
			delete(d.waiting, id)
		}
	}
}

// encodeCall is a number, a text and the rest.
func encodeCall(id uint64, text string, payload []byte) []byte {
	b := binary.AppendUvarint(nil, id)
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(append(b, text...), payload...)
}

var errCall = errors.New("not a call")

func decodeCall(b []byte) (id uint64, text string, payload []byte, err error) {
	id, k := binary.Uvarint(b)
	if k <= 0 {
		return 0, "", nil, errCall
	}
	b = b[k:]
	size, k := binary.Uvarint(b)
	if k <= 0 || size > uint64(len(b)-k) {
		return 0, "", nil, errCall
	}
	b = b[k:]
	return id, string(b[:size]), b[size:], nil
}

// called is the handler of what others ask.
func (n *Node) called(ctx context.Context, from nats.Peer, payload []byte) error {
	id, name, question, err := decodeCall(payload)
	if err != nil {
		return fmt.Errorf("call of %s: %w", from.Node, err)
	}
	if err := n.desk.busy.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("call of %s: %w", from.Node, err)
	}
	if !n.taskOr(func() {
		defer n.desk.busy.Release(1)
		answer, failed := n.respond(from.Node, name, question)
		ctx, cancel := context.WithTimeout(n.ctx, strangerWait)
		defer cancel()
		if !n.introduced(ctx, from) { // there is no way back to who is not known
			n.log.Debug("call not answered: nobody knows who asks", "call", name, "node", from.Node)
			return
		}
		if err := n.bus.Send(n.ctx, from.Node, portReplies, encodeCall(id, failed, answer), nil); err != nil && !errors.Is(err, nats.ErrGone) {
			n.log.Warn("call not answered", "call", name, "node", from.Node, "err", err)
		}
	}) {
		n.desk.busy.Release(1)
	}
	return nil
}

// respond answers a call; failed says why there is no answer. A panic must not
// take the node along.
func (n *Node) respond(from, name string, question []byte) (answer []byte, failed string) {
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("what another node asks for panicked", "node", from, "call", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, failed = nil, "internal error"
		}
	}()
	if name == callNotice {
		topic, key, ok := decodeNotice(string(question))
		if !ok {
			return nil, "not a notice"
		}
		n.notice(topic, key)
		return nil, ""
	}
	select {
	case <-n.desk.begun:
	case <-n.ctx.Done():
		return nil, "the node ends"
	}
	n.desk.mu.Lock()
	f := n.desk.answers[name]
	n.desk.mu.Unlock()
	if f == nil {
		return nil, name + " is not known here"
	}
	answer, err := f(n.ctx, from, question)
	if err != nil {
		return nil, err.Error()
	}
	return answer, ""
}

// replied is the handler of answers.
func (n *Node) replied(_ context.Context, from nats.Peer, payload []byte) error {
	id, failed, answer, err := decodeCall(payload)
	if err != nil {
		return fmt.Errorf("answer of %s: %w", from.Node, err)
	}
	r := reply{payload: answer}
	if failed != "" {
		r.err = fmt.Errorf("%w: %s", ErrNoAnswer, failed)
	}
	n.desk.settle(id, r)
	return nil
}
