package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

// streamers is the way to the streamers of all nodes: what is for this node's
// sockets goes on as it came, everything else goes to the node that has them,
// also what its other stages have to see first.
type streamers struct {
	node  *Node
	local channel.MessageChannel
}

// Streamers returns the way to all sockets, given the one to this node's; nil:
// it has none itself.
func (n *Node) Streamers(local channel.MessageChannel) channel.MessageChannel {
	return streamers{n, sockets{n, local}}
}

// Send implements channel.MessageChannel.
func (s streamers) Send(ctx context.Context, batch []*channel.Envelope) error {
	here := s.node.opt.Name
	stays := true
	for _, e := range batch {
		stays = stays && onlyAt(e, here)
	}
	if stays {
		if batch = s.node.holds.behind(batch); len(batch) == 0 {
			return nil
		}
		return s.local.Send(ctx, batch)
	}
	mine := make([]*channel.Envelope, 0, len(batch))
	away := map[destination][]*channel.Envelope{}
	for _, e := range batch {
		for node, part := range split(e) {
			if node == here {
				mine = append(mine, part)
				continue
			}
			d := destination{node, portOf(part)}
			away[d] = append(away[d], part)
		}
	}
	mine, done := s.later(mine)
	for d, part := range away {
		done.expect()
		s.node.handOver(ctx, d, part, done.came)
	}
	var err error
	if len(mine) > 0 {
		err = s.local.Send(ctx, mine)
	}
	done.sent()
	return err
}

// later holds what is told about the batch until everything in it was handed
// over, or that has taken too long.
func (s streamers) later(mine []*channel.Envelope) (now []*channel.Envelope, done *answers) {
	now, release := s.node.holds.begin(mine)
	tell := sync.OnceFunc(func() {
		release(func(handled []*channel.Envelope) {
			if err := s.local.Send(s.node.ctx, handled); err != nil && s.node.ctx.Err() == nil {
				s.node.log.Error("streamer does not take what is done", "err", err, "count", len(handled))
			}
		})
	})
	limit := time.AfterFunc(handedWithin, tell)
	return now, newAnswers(func() {
		limit.Stop()
		tell()
	})
}

type destination struct{ node, port string }

// onlyAt reports whether the envelope is for sockets of this node alone.
func onlyAt(e *channel.Envelope, node string) bool {
	if e.Kind == channel.Handled {
		return e.Session.Node == node
	}
	for _, ref := range e.To {
		if ref.Node != node {
			return false
		}
	}
	return true
}

// split returns the envelope's parts by the node they are for.
func split(e *channel.Envelope) map[string]*channel.Envelope {
	if e.Kind == channel.Handled {
		return map[string]*channel.Envelope{e.Session.Node: e}
	}
	return parts(e, func(ref sessions.Ref) string { return ref.Node })
}

// parts divides an envelope by something that its recipients differ in.
func parts[K comparable](e *channel.Envelope, of func(sessions.Ref) K) map[K]*channel.Envelope {
	out := map[K]*channel.Envelope{}
	for _, ref := range e.To {
		k := of(ref)
		p := out[k]
		if p == nil {
			fresh := *e
			fresh.To = nil
			p = &fresh
			out[k] = p
		}
		p.To = append(p.To, ref)
	}
	return out
}

// portOf: what may have to be held back behind a replay goes to the router of
// the node that replays, and what its processor has to see with it.
func portOf(e *channel.Envelope) string {
	if e.Kind == channel.Deliver || e.Kind == channel.Arrive {
		return portRouter
	}
	return portStreamer
}

// handOver gives envelopes to another node. What that one cannot take comes
// back to the house: messages are pending, and requests are answered.
func (n *Node) handOver(ctx context.Context, d destination, part []*channel.Envelope, done func(error)) {
	part, stays := n.over(d, part)
	if len(stays) > 0 {
		n.giveBack(d.node, stays, errGap)
	}
	if len(part) == 0 {
		done(nil)
		return
	}
	payload := n.encode(nil, part)
	err := n.bus.Send(ctx, d.node, d.port, payload, func(err error) {
		if err != nil {
			n.giveBack(d.node, part, err)
		}
		done(err)
	})
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrTooLarge) && len(part) > 1:
		half := len(part) / 2
		both := newAnswers(func() { done(nil) })
		both.expect()
		n.handOver(ctx, d, part[:half], both.came)
		n.handOver(ctx, d, part[half:], both.came)
	default:
		n.giveBack(d.node, part, err)
		done(err)
	}
}

// giveBack lets the house deal with what did not get to its sessions, as with
// what a session has left behind (XEP-0198 §5).
func (n *Node) giveBack(node string, part []*channel.Envelope, why error) {
	var back []*channel.Envelope
	for _, e := range part {
		if e.Kind != channel.Deliver || e.Class != channel.Urgent || e.Solicited && e.Pending == 0 {
			continue
		}
		raw := e.Edits.Render(nil, e.Raw)
		for _, ref := range e.To {
			back = append(back, &channel.Envelope{Kind: channel.Undelivered, Session: ref, Raw: raw, Pending: e.Pending, Stamp: e.Stamp, Hops: e.Hops})
		}
	}
	if errors.Is(why, nats.ErrStalled) {
		n.owes(node, part)
		n.lags(node)
	}
	n.complaints.Do(func() {
		n.log.Warn("not handed over to another node; messages wait in the database", "node", node, "envelopes", len(part), "back", len(back), "err", why)
	})
	if len(back) == 0 {
		return
	}
	if errors.Is(why, nats.ErrRefused) {
		n.task(func() { n.remind(node, back) })
	}
	n.task(func() {
		if err := n.links.Parser.Send(n.ctx, back); err != nil {
			n.log.Error("what another node does not take cannot be given back", "err", err, "count", len(back))
		}
	})
}

// remind lets a node look itself for what is pending for its sessions, which it can
// read in the database, though not from here.
func (n *Node) remind(node string, back []*channel.Envelope) {
	asked := map[jid.JID]struct{}{}
	for _, e := range back {
		account := e.Session.JID.Bare()
		if _, twice := asked[account]; twice || e.Pending == 0 {
			continue
		}
		asked[account] = struct{}{}
		if err := n.bus.Send(n.ctx, node, portNotices, encodeNotice(TopicMissed, account.String()), nil); err != nil {
			n.lags(node)
			return
		}
	}
}

// task runs f, for which End waits, on a goroutine of its own: who calls may be
// in the middle of what f needs.
func (n *Node) task(f func()) { n.taskOr(f) }

// taskOr is task that says whether f runs: not when the node ends.
func (n *Node) taskOr(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	n.tasks.Go(f)
	return true
}

// arrive is the handler of what other nodes send to a stage of this one. What it
// cannot take goes back as it came, all of it: nothing may be lost on the way.
func (n *Node) arrive(to channel.MessageChannel) func(context.Context, nats.Peer, []byte) error {
	return func(ctx context.Context, from nats.Peer, payload []byte) error {
		batch, err := channel.DecodeBatch(payload, n.jids)
		if err != nil {
			return refused(from, err)
		}
		if len(batch) == 0 {
			return nil
		}
		n.across(from, batch)
		if err := to.Send(ctx, batch); errors.Is(err, channel.ErrClosed) { // the stage has ended, its node is about to
			return refused(from, err)
		} else if err != nil {
			return fmt.Errorf("from %s: %w", from.Node, err)
		}
		return nil
	}
}

// refused makes a payload go back to its sender.
func refused(from nats.Peer, why error) error {
	return fmt.Errorf("%w, from %s: %w", nats.ErrRefused, from.Node, why)
}
