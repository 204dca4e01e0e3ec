package resumption

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/stream"
)

// How this node gets a session that another one has, or has let go (nodes.go).

// Take implements stream.Resumptions.
func (b *book) Take(ctx context.Context, k stream.Key, account jid.JID, offered bool) (*stream.Lasting, error) {
	if b.env.Notices == nil {
		return nil, nil
	}
	defer b.takes(ctx, k)()
	node, given, err := nodeOf(ctx, b.env.DB, k, account)
	if err != nil || offered && (!given || node == b.env.Node) {
		return nil, err
	}
	l, err := b.takeFrom(ctx, node, given, k, account)
	if l == nil && err == nil && !offered { // one that goes on with what was offered may have been faster
		before := node
		if node, given, err = nodeOf(ctx, b.env.DB, k, account); err == nil && node != before {
			l, err = b.takeFrom(ctx, node, given, k, account)
		}
	}
	if err != nil || l == nil {
		return nil, err
	}
	if l.err != nil {
		b.env.Log.Warn("a session of another node cannot be resumed", "err", l.err)
		b.drop(*l)
		return nil, nil
	}
	b.free(ctx, l.Ref.JID, node)
	b.keep(*l)
	return &l.Lasting, nil
}

// takeFrom takes a session from the node that has it, which is asked for it unless
// it has let it go already. nil: it cannot be had.
func (b *book) takeFrom(ctx context.Context, node string, given bool, k stream.Key, account jid.JID) (*left, error) {
	switch {
	case node == b.env.Node:
		return b.takeHere(ctx, given, k, account)
	case given:
		return takeOne(ctx, b.env.DB, k, account, b.env.Node, b.life(), true)
	}
	return b.takeAsked(ctx, node, k, account)
}

// takeHere is takeFrom for a session of one of this node's fronts, or of one that
// it has let go, or lost.
func (b *book) takeHere(ctx context.Context, given bool, k stream.Key, account jid.JID) (*left, error) {
	r := b.heldBy(k)
	if r != nil && r.ref.JID.Bare() == account {
		limited, cancel := context.WithTimeout(ctx, surrenderLimit)
		defer cancel()
		b.release(limited, r)
	}
	return takeOne(ctx, b.env.DB, k, account, b.env.Node, b.life(), given || r != nil)
}

// freeLimit is how long an address may seem to be in use on a node that has let
// it go.
const freeLimit = time.Second

// free waits until this node has seen that the address is not in use any more on
// the one that had the session.
func (b *book) free(ctx context.Context, at jid.JID, node string) {
	old, ok := b.env.Sessions.Find(at)
	if !ok || old.Node != node {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, freeLimit)
	defer cancel()
	select {
	case <-b.env.Sessions.Gone(old.Ref):
	case <-ctx.Done():
	}
}

// takeAsked takes a session from another node that has it; node "": there is no
// row, but the first one may not be written yet. nil: it cannot be had.
func (b *book) takeAsked(ctx context.Context, node string, k stream.Key, account jid.JID) (*left, error) {
	within := takeLimit
	if node == "" {
		within = surrenderLimit
	}
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		asked := error(nil)
		lives := node == "" || b.env.Notices.Alive(node)
		if lives {
			asked = b.env.Notices.Ask(limited, node, topicSurrender, named(k, account))
			lives = node == "" || b.env.Notices.Alive(node)
		}
		if !lives { // nobody may hear behind its client's presence that it has gone
			asked = b.env.Notices.Buried(limited, node, account)
		}
		if lives || asked == nil {
			l, err := takeOne(ctx, b.env.DB, k, account, b.env.Node, b.life(), lives)
			if err != nil || l != nil || asked == nil {
				if l != nil && !lives && !l.given {
					l.State.Buried = true // or all nodes died, and nobody has seen it there since
				}
				return l, err
			}
		}
		if node != "" && wait(limited, askAgain) {
			continue
		}
		b.env.Log.Warn("a session is not taken from a node that does not answer", "account", account.String(), "node", node, "err", asked)
		return nil, nil // it may go on with the session: the client begins anew
	}
}

// takes begins to take a session, one at a time; the result is called when it is
// here, or not to be had. A front that has gone meanwhile does not say that it has
// got what it wanted: it keeps others waiting for takeLimit.
func (b *book) takes(ctx context.Context, k stream.Key) (done func()) {
	limited, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	mine := make(chan struct{})
	for !b.begins(limited, k, mine) {
		b.come(limited, k)
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, comes := b.restored[k]; !comes && b.taking[k] == mine { // else Adopt follows
			b.arrived(k)
		}
	}
}

// begins reports whether nobody else takes the session, or ctx is done.
func (b *book) begins(ctx context.Context, k stream.Key, mine chan struct{}) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, busy := b.taking[k]; busy && ctx.Err() == nil {
		return false
	}
	b.arrived(k)
	b.taking[k] = mine
	return true
}

// arrived tells who waits for a session that is being taken; b.mu is held.
func (b *book) arrived(k stream.Key) {
	if took, ok := b.taking[k]; ok {
		close(took)
		delete(b.taking, k)
	}
}

// come waits until a session that is being taken is here.
func (b *book) come(ctx context.Context, k stream.Key) {
	b.mu.Lock()
	took, ok := b.taking[k]
	b.mu.Unlock()
	if !ok {
		return
	}
	select {
	case <-took:
	case <-ctx.Done():
	}
}
