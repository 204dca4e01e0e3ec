package cluster

import (
	"context"

	"parley/router/channel"
)

// Settled returns when everything that was sent to other nodes before has been
// handled there. For tests: a house has no other need to know.
func (n *Node) Settled(ctx context.Context) error {
	nothing := channel.EncodeBatch(nil, nil)
	peers, ports := n.others(), []string{portRouter, portStreamer}
	arrived, all := awaited()
	for _, p := range peers {
		for _, port := range ports {
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
