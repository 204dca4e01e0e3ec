package pubsub

import (
	"context"
	"slices"
	"sync"
	"time"

	"parley/plugins"
)

// What is told of a node is told in the order in which it was written: who writes
// takes a place in the node's line while nobody else of this process can write, and
// tells when those before it have. No lock is held meanwhile. Each process of a
// cluster has lines of its own: what two of them write at the same moment may be
// told in either order.

// toldWithin is how long somebody waits for those before it. Whoever takes longer
// has many to tell or stands still, and must not stop the others.
const toldWithin = 10 * time.Second

// lines are those of the nodes that somebody tells something of now.
type lines struct {
	mu  sync.Mutex
	all map[int64][]*turn // by node, in the order of writing
}

// turn is a place in the line of a node; nil: there is nothing to wait for.
type turn struct {
	of    *lines
	node  int64
	first chan struct{} // closed when nobody is before it
}

// enter takes the next place; it is to be left.
func (l *lines) enter(n *Node) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[int64][]*turn{}
	}
	t := &turn{of: l, node: n.id, first: make(chan struct{})}
	if len(l.all[n.id]) == 0 {
		close(t.first)
	}
	l.all[n.id] = append(l.all[n.id], t)
	return t
}

// leave lets the next one tell; it may be called again.
func (t *turn) leave() {
	if t == nil {
		return
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	line := t.of.all[t.node]
	at := slices.Index(line, t)
	if at < 0 {
		return
	}
	line = slices.Delete(line, at, at+1)
	switch {
	case len(line) == 0:
		delete(t.of.all, t.node)
		return
	case at == 0:
		close(line[0].first)
	}
	t.of.all[t.node] = line
}

// tell calls f in its turn, and leaves.
func (t *turn) tell(ctx context.Context, clock plugins.Clock, f func()) {
	defer t.leave()
	if t != nil {
		t.await(ctx, clock)
	}
	f()
}

func (t *turn) await(ctx context.Context, clock plugins.Clock) {
	select {
	case <-t.first:
		return
	default:
	}
	late := make(chan struct{})
	stop := clock.AfterFunc(toldWithin, func() { close(late) })
	defer stop()
	select {
	case <-t.first:
	case <-late:
	case <-ctx.Done():
	}
}
