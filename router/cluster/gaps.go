package cluster

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
)

// A stored message that does not get to its session waits in the database. What
// its sender says next to the same recipient must not overtake it (D3), so a
// message over a gap is the sign for its recipients to look there first: it is
// kept from them, and they find it behind what is older. There is a gap
//
//	at the sending node      from what the other one did not take, or the death of
//	                         a third, until the other one has been told that it
//	                         may have missed something; what it sends meanwhile
//	                         says so (Envelope.Behind)
//	at the receiving node    as long as the other one has not seen a session, or
//	                         not everything that it has to be shown: what was
//	                         routed there meanwhile may have been kept
type gaps struct {
	n     atomic.Int32 // of nodes and unseen: nearly always none
	mu    sync.Mutex
	count uint64
	nodes map[string]uint64                 // the number of the last thing that was missed
	late  map[jid.JID]map[*peerSet]struct{} // by account, who has not seen what it has here
}

// open begins a gap to a node.
func (g *gaps) open(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nodes == nil {
		g.nodes = map[string]uint64{}
	}
	g.count++
	g.nodes[node] = g.count
	g.size()
}

// size is called with mu, after a change.
func (g *gaps) size() { g.n.Store(int32(len(g.nodes) + len(g.late))) } //nolint:gosec // no more than nodes and accounts

// to returns what stands for the gap to a node, for close; 0: there is none.
func (g *gaps) to(node string) uint64 {
	if g.n.Load() == 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[node]
}

// close ends a gap, unless more was missed meanwhile.
func (g *gaps) close(node string, at uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nodes[node] == at {
		delete(g.nodes, node)
		g.size()
	}
}

// left ends the gap to a node that has left.
func (g *gaps) left(node string) { g.close(node, g.to(node)) }

// unseen notes that those in late have not seen the account's sessions, until
// seen is called.
func (g *gaps) unseen(account jid.JID, late *peerSet) (seen func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.late == nil {
		g.late = map[jid.JID]map[*peerSet]struct{}{}
	}
	of := g.late[account]
	if of == nil {
		of = map[*peerSet]struct{}{}
		g.late[account] = of
	}
	of[late] = struct{}{}
	g.size()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(of, late)
		if len(of) == 0 {
			delete(g.late, account)
		}
		g.size()
	}
}

// from reports whether there is a gap between a node and the account's sessions
// here.
func (g *gaps) from(node string, account jid.JID) bool {
	if g.n.Load() == 0 {
		return false
	}
	g.mu.Lock()
	_, open := g.nodes[node]
	late := slices.Collect(maps.Keys(g.late[account]))
	g.mu.Unlock()
	return open || slices.ContainsFunc(late, func(s *peerSet) bool { return s.has(node) })
}

// stored reports whether the envelope brings a message that waits in the
// database as well.
func stored(e *channel.Envelope) bool {
	return e.Kind == channel.Deliver && e.Pending != 0 && !e.Replay
}

// lags notes that a node may have missed something: it is shown everything, and
// told to look.
func (n *Node) lags(node string) {
	n.gaps.open(node)
	n.behind.add(node)
}

// over prepares what goes over a gap. A front has no archive to look into: what
// is stored stays here, and is given to its sessions when the gap is closed.
func (n *Node) over(d destination, part []*channel.Envelope) (goes, stays []*channel.Envelope) {
	if n.gaps.to(d.node) == 0 {
		return part, nil
	}
	for _, e := range part {
		if stored(e) && d.port == portStreamer {
			stays = append(stays, e)
			continue
		}
		e.Behind = stored(e)
		goes = append(goes, e)
	}
	return goes, stays
}

// topicDead is what nodes tell each other about a life that is over; the key is
// its number and its node.
const topicDead = "dead"

// survive lets what a dead node has stored, and perhaps told nobody, be looked
// for. Its clients come here and go on: to a node that does not know of the death
// yet, what they say next is over a gap.
func (n *Node) survive(m Member) {
	n.notice(TopicMissed, "")
	if n.Front() || m.isFront() { // it stores nothing
		return
	}
	payload := encodeNotice(topicDead, strconv.FormatUint(m.Incarnation, 10)+" "+m.Node)
	for _, p := range n.others() {
		if to, there := n.members.Find(p); !there || to.isFront() || p == m.Node {
			continue
		}
		n.gaps.open(p)
		at := n.gaps.to(p)
		n.task(func() {
			err := n.bus.Send(n.ctx, p, portNotices, payload, func(error) { n.gaps.close(p, at) })
			if err != nil && !errors.Is(err, nats.ErrGone) {
				n.lags(p)
			}
		})
	}
}

// heardDead looks as well, unless this node has seen the death.
func (n *Node) heardDead(key string) {
	number, node, _ := strings.Cut(key, " ")
	life, err := strconv.ParseUint(number, 10, 64)
	n.mu.Lock()
	seen := n.ended[node] >= life
	n.mu.Unlock()
	if err == nil && !seen {
		n.notice(TopicMissed, "")
	}
}

// errGap is why something stays that could be sent.
var errGap = errors.New("what is older has not got there")

// across lets sessions here look into the database when what a node sends them
// comes over a gap.
func (n *Node) across(from nats.Peer, batch []*channel.Envelope) {
	for _, e := range batch {
		if !stored(e) || !e.Behind && n.gaps.n.Load() == 0 {
			continue
		}
		var told jid.JID // recipients of an envelope are nearly always of one account
		for _, ref := range e.To {
			account := ref.JID.Bare()
			if account != told && (e.Behind || n.gaps.from(from.Node, account)) {
				n.notice(TopicMissed, account.String())
				told = account
			}
		}
	}
}
