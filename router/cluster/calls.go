package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"parley/router/channel/nats"
)

// Calls are questions that one node asks another and waits for the answer to:
// what a front's features want to know of their core's.

const (
	portCalls   = "calls"
	portReplies = "replies"
	// maxCalls is how many calls of all others a node answers at a time.
	maxCalls = 256
)

// ErrNoAnswer says that the other node does not know the question, or could not
// answer it; what it says follows.
var ErrNoAnswer = errors.New("no answer")

// Answer is the function that answers calls of a name.
type Answer func(ctx context.Context, from string, payload []byte) ([]byte, error)

// desk is where calls are answered and waited for.
type desk struct {
	mu      sync.Mutex
	answers map[string]Answer
	waiting map[uint64]chan reply
	last    uint64
	busy    *semaphore.Weighted
}

type reply struct {
	payload []byte
	err     error
}

// Answer lets f answer calls of that name. Several may run at once. It is for
// the time before Begin.
func (n *Node) Answer(name string, f func(ctx context.Context, from string, payload []byte) ([]byte, error)) {
	n.desk.mu.Lock()
	defer n.desk.mu.Unlock()
	if n.desk.answers == nil {
		n.desk.answers = map[string]Answer{}
	}
	n.desk.answers[name] = f
}

// CallCore asks the front's core. The error wraps ErrNoAnswer when that one has
// answered with one.
func (n *Node) CallCore(ctx context.Context, name string, payload []byte) ([]byte, error) {
	core, err := n.Core(ctx)
	if err != nil {
		return nil, err
	}
	d := &n.desk
	answered := make(chan reply, 1)
	d.mu.Lock()
	if d.waiting == nil {
		d.waiting = map[uint64]chan reply{}
	}
	d.last++
	id := d.last
	d.waiting[id] = answered
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.waiting, id)
	}()
	gone := make(chan error, 1)
	err = n.bus.Send(ctx, core, portCalls, encodeCall(id, name, payload), func(err error) {
		if err != nil {
			gone <- err
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	select {
	case r := <-answered:
		return r.payload, r.err
	case err := <-gone:
		return nil, fmt.Errorf("%s: %w", name, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: core %s: %w", name, core, ctx.Err())
	case <-n.ctx.Done():
		return nil, fmt.Errorf("%s: %w", name, n.ctx.Err())
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

// called is the handler of what others ask. It does not wait for the answer: a
// slow one must not hold up others.
func (n *Node) called(ctx context.Context, from nats.Peer, payload []byte) error {
	id, name, question, err := decodeCall(payload)
	if err != nil {
		return fmt.Errorf("call of %s: %w", from.Node, err)
	}
	n.desk.mu.Lock()
	f := n.desk.answers[name]
	n.desk.mu.Unlock()
	if err := n.desk.busy.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("call of %s: %w", from.Node, err)
	}
	n.task(func() {
		defer n.desk.busy.Release(1)
		var answer []byte
		failed := fmt.Sprintf("%s is not known here", name)
		if f != nil {
			failed = ""
			if answer, err = f(n.ctx, from.Node, question); err != nil {
				failed = err.Error()
			}
		}
		if err := n.bus.Send(n.ctx, from.Node, portReplies, encodeCall(id, failed, answer), nil); err != nil && !errors.Is(err, nats.ErrGone) {
			n.log.Warn("call not answered", "call", name, "node", from.Node, "err", err)
		}
	})
	return nil
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
	n.desk.mu.Lock()
	defer n.desk.mu.Unlock()
	if w := n.desk.waiting[id]; w != nil {
		w <- r
		delete(n.desk.waiting, id)
	}
	return nil
}
