package cluster

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"parley/router/channel"
	"parley/router/sessions"
)

// fronts are the sockets that this node has at others.
type fronts struct {
	bySlot atomic.Pointer[map[int]string] // of live fronts; nil: there are none

	mu   sync.Mutex
	owed map[string][]*channel.Envelope // what a front that stalls has to be told all the same
}

// maxOwed bounds what is kept for a front that stalls, in envelopes; one that is
// owed more is dead before long.
const maxOwed = 100_000

// know notes which fronts there are.
func (f *fronts) know(m Member, here bool) {
	if !m.isFront() {
		return
	}
	next := map[int]string{}
	if old := f.bySlot.Load(); old != nil {
		next = maps.Clone(*old)
	}
	switch {
	case here:
		next[m.Number] = m.Node
	case next[m.Number] == m.Node:
		delete(next, m.Number)
		f.mu.Lock()
		delete(f.owed, m.Node)
		f.mu.Unlock()
	}
	if len(next) == 0 {
		f.bySlot.Store(nil)
		return
	}
	f.bySlot.Store(&next)
}

func (f *fronts) owe(node string, e *channel.Envelope) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owed == nil {
		f.owed = map[string][]*channel.Envelope{}
	}
	if len(f.owed[node]) < maxOwed {
		f.owed[node] = append(f.owed[node], e)
	}
}

func (f *fronts) take(node string) []*channel.Envelope {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.owed[node]
	delete(f.owed, node)
	return out
}

// sockets is the way to this node's own sockets, some of which may be at fronts.
type sockets struct {
	node  *Node
	local channel.MessageChannel // nil: it has no streamer
}

// Send implements channel.MessageChannel.
func (s sockets) Send(ctx context.Context, batch []*channel.Envelope) error {
	at := s.node.fronts.bySlot.Load()
	if at == nil && s.local != nil {
		return s.local.Send(ctx, batch)
	}
	here := s.node.Number()
	var mine []*channel.Envelope
	away := map[int][]*channel.Envelope{}
	for _, e := range batch {
		for slot, part := range bySlot(e) {
			if slot == here {
				mine = append(mine, part)
				continue
			}
			away[slot] = append(away[slot], part)
		}
	}
	for slot, part := range away {
		name := ""
		if at != nil {
			name = (*at)[slot]
		}
		s.node.handOver(ctx, destination{name, portStreamer}, part, func(error) {})
	}
	if len(mine) == 0 || s.local == nil {
		return nil
	}
	return s.local.Send(ctx, mine)
}

// bySlot returns the envelope's parts by whose sockets they are for.
func bySlot(e *channel.Envelope) map[int]*channel.Envelope {
	if e.Kind == channel.Handled || len(e.To) == 0 {
		return map[int]*channel.Envelope{sessions.SlotOf(e.Session.Conn): e}
	}
	return channel.Divide(e, func(ref sessions.Ref) int { return sessions.SlotOf(ref.Conn) })
}

// owes keeps what a front of this node has to be told and nothing else makes up
// for: what was asked for, what is done, and which sessions end.
func (n *Node) owes(node string, part []*channel.Envelope) {
	m, ok := n.members.Find(node)
	if !ok || !m.isFront() {
		return
	}
	for _, e := range part {
		if e.Kind != channel.Deliver || e.Class == channel.Urgent && e.Solicited && e.Pending == 0 {
			n.fronts.owe(node, e)
		}
	}
	n.behind.add(node)
}

// payOwed sends what a front is owed.
func (n *Node) payOwed(node string) {
	if part := n.fronts.take(node); len(part) > 0 {
		n.handOver(n.ctx, destination{node, portStreamer}, part, func(error) {})
	}
}

// buryFront ends the sessions whose sockets were at a front that has left, also those
// that were about to begin, of which the registry does not know.
func (n *Node) buryFront(m Member) {
	nobody := sessions.Ref{Node: n.opt.Name, Conn: sessions.Conn(m.Number, 0)}
	lost := []*channel.Envelope{{Kind: channel.Unbind, Session: nobody, Reason: channel.FrontLost}}
	for _, e := range n.opt.Registry.On(n.opt.Name) {
		if sessions.SlotOf(e.Conn) == m.Number {
			lost = append(lost, &channel.Envelope{Kind: channel.Unbind, Session: e.Ref, Reason: channel.FrontLost})
		}
	}
	if sessions := len(lost) - 1; sessions > 0 {
		n.log.Warn("sessions end with their front", "front", m.Node, "sessions", sessions)
	}
	n.task(func() {
		if err := n.links.Processor.Send(n.ctx, lost); err != nil && n.ctx.Err() == nil {
			n.log.Error("sessions of a front that has left are not ended", "front", m.Node, "err", err)
		}
	})
}
