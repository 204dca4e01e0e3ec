package plugintest

import (
	"context"
	"math/rand/v2"
	"time"

	"parley/router/channel"
)

// network is a channel whose envelopes arrive as bytes, as on another machine.
type network struct{ to channel.MessageChannel }

func (n network) Send(ctx context.Context, batch []*channel.Envelope) error {
	arrived := make([]*channel.Envelope, 0, len(batch))
	for _, e := range batch {
		a, err := channel.Decode(channel.Encode(nil, e), nil)
		if err != nil {
			return err
		}
		arrived = append(arrived, a)
	}
	return n.to.Send(ctx, arrived)
}

// jittery is a channel on which each batch is under way for a while: what comes by
// several ways comes in any order.
type jittery struct {
	to   channel.MessageChannel
	most time.Duration
}

func (j jittery) Send(ctx context.Context, batch []*channel.Envelope) error {
	time.Sleep(rand.N(j.most))
	return j.to.Send(ctx, batch)
}
