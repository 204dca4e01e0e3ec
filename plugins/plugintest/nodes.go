package plugintest

import (
	"context"

	"parley/plugins"
)

// Node is one of the nodes of a House, for tests in which nodes come and go. Its
// number stays the same; i counts from 0.
type Node struct {
	house *House
	i     int
}

// Node returns the i-th node.
func (h *House) Node(i int) Node { return Node{h, i} }

// Host is its Host, the one that runs now.
func (n Node) Host() *plugins.Host { return n.house.node(n.i).host }

// Dial logs in at the node; the account exists.
func (n Node) Dial(ctx context.Context, user, resource string) (*Client, error) {
	return Dial(ctx, n.house.node(n.i).doors["c2s"], n.house.Domain(), user, Password, resource)
}

// Stop ends the node in order.
func (n Node) Stop(ctx context.Context) error { return n.house.EndNode(ctx, n.i) }

// Kill ends the node with what is committed at that moment: its database is cut
// off first. The others have to wait for its lease to run out.
func (n Node) Kill(ctx context.Context) error {
	at := n.house.node(n.i)
	err := at.db.Close()
	_ = at.host.Stop(ctx) // it complains of the database
	return err
}

// Start starts the node again.
func (n Node) Start(ctx context.Context) error { return n.house.BeginNode(ctx, n.i) }
