package cluster

import (
	"context"

	"parley/router/channel"
)

// Settled returns when everything that was sent to other nodes before has been
// handled there. For tests: a house has no other need to know.
func (n *Node) Settled(ctx context.Context) error {
	nothing := channel.EncodeBatch(nil, nil)
	peers := n.others()
	arrived, all := awaited()
	for _, p := range peers {
		for _, port := range n.portsTo(p) {
			arrived.expect()
			if err := n.bus.Send(ctx, p, port, nothing, arrived.came); err != nil {
				arrived.came(err)
			}
		}
	}
	arrived.sent()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// portsTo are those by which this node's stages send to the peer's.
func (n *Node) portsTo(peer string) []string {
	m, _ := n.members.Find(peer)
	switch {
	case n.Front() && m.isFront():
		return nil
	case n.Front():
		return []string{portParser, portProcessor}
	case m.isFront():
		return []string{portStreamer}
	}
	return []string{portRouter, portStreamer}
}
