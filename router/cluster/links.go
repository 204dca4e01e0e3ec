package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	return channel.Divide(e, func(ref sessions.Ref) string { return ref.Node })
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
	if same := ofOneVersion(part); same < len(part) {
		n.inTwo(ctx, d, part[:same], part[same:], done)
		return
	}
	payload := n.encode(nil, part)
	err := n.bus.Send(ctx, d.node, d.port, payload, func(err error) {
		switch {
		case errors.Is(err, nats.ErrRefused) && n.plainly(d, part, done):
			return
		case err != nil:
			n.giveBack(d.node, part, err)
		}
		done(err)
	})
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrTooLarge) && (len(part) > 1 || len(part[0].To) > 1):
		first, second := halves(part)
		n.inTwo(ctx, d, first, second, done)
	default:
		n.giveBack(d.node, part, err)
		done(err)
	}
}

// inTwo gives envelopes to another node in two parts.
func (n *Node) inTwo(ctx context.Context, d destination, first, second []*channel.Envelope, done func(error)) {
	both := newAnswers(func() { done(nil) })
	both.expect()
	n.handOver(ctx, d, first, both.came)
	n.handOver(ctx, d, second, both.came)
}

// ofOneVersion is how many of the first envelopes the same nodes read: they travel
// apart from the others (channel.WireVersion).
func ofOneVersion(part []*channel.Envelope) int {
	i := slices.IndexFunc(part, func(e *channel.Envelope) bool { return e.Version() != part[0].Version() })
	if i < 0 {
		return len(part)
	}
	return i
}

// halves divides envelopes, or the recipients of one.
func halves(part []*channel.Envelope) (first, second []*channel.Envelope) {
	if half := len(part) / 2; half > 0 {
		return part[:half], part[half:]
	}
	a, b := *part[0], *part[0]
	half := len(a.To) / 2
	a.To, b.To = a.To[:half], b.To[half:]
	return []*channel.Envelope{&a}, []*channel.Envelope{&b}
}

// plainly sends once more, in the form that every release reads, what may have been
// refused by one that does not know of Splice. False: that is not why.
func (n *Node) plainly(d destination, part []*channel.Envelope, done func(error)) bool {
	if part[0].Splice == channel.Nobody {
		return false
	}
	var apart []*channel.Envelope
	for _, e := range part {
		apart = append(apart, e.Apart()...)
	}
	return n.taskOr(func() { n.handOver(n.ctx, d, apart, done) }) // who tells this must not wait for room
}

// giveBack lets the house deal with what did not get to its sessions, as with
// what a session has left behind (XEP-0198 §5).
func (n *Node) giveBack(node string, part []*channel.Envelope, why error) {
	var back []*channel.Envelope
	for _, e := range part {
		if e.Kind != channel.Deliver || e.Class != channel.Urgent || e.Solicited && e.Pending == 0 {
			continue
		}
		for _, ref := range e.To {
			back = append(back, &channel.Envelope{Kind: channel.Undelivered, Session: ref, Raw: e.Rendered(nil, ref.JID), Pending: e.Pending, Stamp: e.Stamp, Hops: e.Hops})
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
		accounts := waiting(back) // before the parser has them
		n.task(func() { n.remind(node, accounts) })
	}
	n.task(func() {
		if err := n.links.Parser.Send(n.ctx, back); err != nil {
			n.log.Error("what another node does not take cannot be given back", "err", err, "count", len(back))
		}
	})
}

// waiting are the accounts for which something of it is pending, each once.
func waiting(back []*channel.Envelope) (accounts []jid.JID) {
	seen := map[jid.JID]struct{}{}
	for _, e := range back {
		account := e.Session.JID.Bare()
		if _, twice := seen[account]; twice || e.Pending == 0 {
			continue
		}
		seen[account] = struct{}{}
		accounts = append(accounts, account)
	}
	return accounts
}

// remind lets a node look itself for what is pending for accounts with sessions
// there, which it can read in the database, though not from here.
func (n *Node) remind(node string, accounts []jid.JID) {
	for _, account := range accounts {
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
