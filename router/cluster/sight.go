package cluster

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

// How nodes see each other's sessions.
//
// Owner events with snapshots, on pipes that keep their order, and not a watched
// key-value bucket: that would need JetStream, which is not in the path of
// anything else, and a login would wait for a disk. What travels is always all
// that a node has of an account, so an event is a snapshot of its own: events
// may be left out (a peer that is behind gets everything later), and memory for
// what could not be sent is one flag for each peer.

const (
	showLocks = 64
	// showWait is how long a change waits for the others to know of it. They
	// nearly always do within a millisecond; it lets whoever learns of the
	// change by other ways find it true everywhere. One that is slower is told
	// all the same.
	showWait = 250 * time.Millisecond
)

// show tells the others what sessions the account has here, and waits a little
// until they know.
func (n *Node) show(account jid.JID) {
	peers := n.others()
	if len(peers) == 0 {
		return
	}
	var late peerSet
	seen := n.showTo(peers, account, &late)
	limit := time.NewTimer(showWait)
	defer limit.Stop()
	select {
	case <-seen:
	case <-limit.C:
		// What they route until they know may be kept, though somebody is here.
		known := n.gaps.unseen(account, &late)
		n.task(func() {
			select {
			case <-seen:
				n.notice(TopicMissed, account.String())
			case <-n.ctx.Done():
			}
			known()
		})
	case <-n.ctx.Done():
	}
}

// showTo sends to each of the peers; what is sent of one account keeps the order
// in which it became true. seen is closed when those that could be sent to have
// seen it; until then they are in late.
func (n *Node) showTo(peers []string, account jid.JID, late *peerSet) (seen <-chan struct{}) {
	lock := n.showLock(account)
	lock.Lock()
	defer lock.Unlock()
	payload := encodeSight(account, n.opt.Registry.Of(n.opt.Name, account))
	a, all := awaited()
	for _, p := range peers {
		a.expect()
		late.add(p)
		answered := func(err error) {
			if errors.Is(err, nats.ErrRefused) { // nothing helps but the same release on both
				n.complaints.Do(func() { n.log.Error("another node does not understand who is here", "node", p, "err", err) })
			}
			if n.gaps.from(p, account) {
				n.notice(TopicMissed, account.String())
			}
			late.remove(p)
			a.came(err)
		}
		if err := n.bus.Send(n.ctx, p, portSessions, payload, answered); err != nil {
			if !errors.Is(err, nats.ErrGone) {
				n.lags(p)
			}
			late.remove(p)
			a.came(err)
		}
	}
	a.sent()
	return all
}

func (n *Node) showLock(account jid.JID) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(account.String()))
	return &n.showing[h.Sum32()%showLocks]
}

// encodeSight is the account, then an envelope for each of its sessions.
func encodeSight(account jid.JID, entries []*sessions.Entry) []byte {
	batch := make([]*channel.Envelope, 1, 1+len(entries))
	batch[0] = &channel.Envelope{Kind: channel.Change, Session: sessions.Ref{JID: account}}
	for _, e := range entries {
		st := e.State
		batch = append(batch, &channel.Envelope{Kind: channel.Bind, Session: e.Ref, State: &st})
	}
	return channel.EncodeBatch(nil, batch)
}

// adopt is the handler of what others show.
func (n *Node) adopt(ctx context.Context, from nats.Peer, payload []byte) error {
	if !n.introduced(ctx, from) {
		return nil
	}
	batch, err := channel.DecodeBatch(payload, n.jids)
	if err != nil {
		return refused(from, err)
	}
	if len(batch) == 0 {
		return refused(from, channel.ErrWire)
	}
	if batch[0].Session.JID.IsZero() {
		n.marked(from, batch[0].Kind)
		return nil
	}
	entries := make([]*sessions.Entry, 0, len(batch)-1)
	for _, e := range batch[1:] {
		if e.State == nil || e.Session.Node != from.Node || e.Session.JID.Bare() != batch[0].Session.JID {
			return refused(from, channel.ErrWire)
		}
		entries = append(entries, &sessions.Entry{Ref: e.Session, State: *e.State})
	}
	n.mu.Lock()
	if round := n.rounds[from.Node]; round != nil {
		round[batch[0].Session.JID] = struct{}{}
	}
	n.mu.Unlock()
	if n.Front() {
		n.recognize(from.Node, batch[0].Session.JID, entries)
		return nil
	}
	for _, e := range n.opt.Registry.Adopt(from.Node, batch[0].Session.JID, entries) {
		if e.Node == n.opt.Name {
			n.oust(e)
		}
	}
	return nil
}

// recognize is adopt for a front: of what its core shows, some are its own.
func (n *Node) recognize(core string, account jid.JID, entries []*sessions.Entry) {
	var own, others []*sessions.Entry
	for _, e := range entries {
		if sessions.SlotOf(e.Conn) == n.Number() {
			e.Node = n.opt.Name
			own = append(own, e)
			continue
		}
		others = append(others, e)
	}
	n.opt.Registry.Adopt(core, account, others)
	if c := n.front.core.Load(); c != nil && c.Node == core {
		n.opt.Registry.Adopt(n.opt.Name, account, own)
	}
}

// Around everything that a node has go two marks, which are about nobody.
const (
	everything    = channel.Unbind // what does not come before the other mark is no more
	wasEverything = channel.Change
)

func encodeMark(k channel.Kind) []byte {
	return channel.EncodeBatch(nil, []*channel.Envelope{{Kind: k}})
}

// marked takes a mark. An account that was not shown between the two has no
// sessions there any more: its end was among what the node could not send.
func (n *Node) marked(from nats.Peer, k channel.Kind) {
	n.mu.Lock()
	round := n.rounds[from.Node]
	delete(n.rounds, from.Node)
	if k == everything {
		n.rounds[from.Node] = map[jid.JID]struct{}{}
	}
	n.mu.Unlock()
	if k == everything {
		return
	}
	for _, e := range n.opt.Registry.On(from.Node) {
		if _, shown := round[e.JID.Bare()]; !shown && round != nil {
			n.opt.Registry.Adopt(from.Node, e.JID.Bare(), nil)
		}
	}
	n.meet(from)
}

// oust ends a session of this node whose address a newer one has elsewhere
// (RFC 6120 §7.7.2.2): neither node had seen the other's. When its stream has
// ended the processor does what belongs to that, as for any other; the other
// nodes hear at once that it does not wait for the newer one's end.
func (n *Node) oust(e *sessions.Entry) {
	n.task(func() { n.show(e.JID.Bare()) })
	n.task(func() {
		end := &channel.Envelope{Kind: channel.Close, To: []sessions.Ref{e.Ref}, Reason: "conflict"}
		if err := n.links.Streamer.Send(n.ctx, []*channel.Envelope{end}); err != nil {
			n.log.Error("a session that has been replaced is not ended", "jid", e.JID.String(), "err", err)
		}
	})
}

// peerSet are peers that have not been shown everything.
type peerSet struct {
	mu   sync.Mutex
	all  map[string]struct{}
	bell chan struct{}
}

func (s *peerSet) add(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]struct{}{}
	}
	s.all[node] = struct{}{}
	select {
	case s.ring() <- struct{}{}:
	default:
	}
}

// ring is told when somebody was added; s.mu is held.
func (s *peerSet) ring() chan struct{} {
	if s.bell == nil {
		s.bell = make(chan struct{}, 1)
	}
	return s.bell
}

func (s *peerSet) told() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ring()
}

func (s *peerSet) remove(node string) (was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, was = s.all[node]
	delete(s.all, node)
	return was
}

// list is sorted.
func (s *peerSet) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

func (s *peerSet) has(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.all[node]
	return has
}

func (s *peerSet) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all) == 0
}

func (s *peerSet) take() (nodes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node := range s.all {
		nodes = append(nodes, node)
	}
	s.all = nil
	return nodes
}

// catchUp shows everything to those that are behind, until End.
func (n *Node) catchUp() {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-n.behind.told():
		case <-again.C:
		case <-n.ctx.Done():
			return
		}
		for _, p := range n.behind.take() {
			n.payOwed(p)
			n.showAll(p)
		}
		if !n.behind.empty() { // who cannot be sent to now is not asked all the time
			wait(n.ctx, retryBehind)
		}
		again.Reset(retryBehind)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// showAll shows a peer every session of this node; what cannot be sent puts it
// behind again. What it has missed it is told about when it has seen all of
// this: what it has seen of an earlier time may not be what it has missed.
func (n *Node) showAll(p string) {
	missed := n.gaps.to(p) != 0
	sent := n.mark(p, everything, nil)
	seen := map[jid.JID]struct{}{}
	for _, e := range n.shows() {
		account := e.JID.Bare()
		if _, twice := seen[account]; twice || !sent {
			continue
		}
		seen[account] = struct{}{}
		n.showTo([]string{p}, account, &peerSet{})
		sent = !n.behind.has(p)
	}
	if !sent {
		return
	}
	n.mark(p, wasEverything, func(err error) {
		if missed && (err == nil || errors.Is(err, nats.ErrRefused)) {
			n.task(func() { n.shown(p) })
		}
	})
}

// shows are the sessions that others are shown by this node.
func (n *Node) shows() []*sessions.Entry {
	if n.Front() {
		return nil // its core does
	}
	return n.opt.Registry.On(n.opt.Name)
}

// mark sends a mark; when it cannot, the peer is behind. One that is gone is not.
func (n *Node) mark(p string, k channel.Kind, done func(error)) (sent bool) {
	err := n.bus.Send(n.ctx, p, portSessions, encodeMark(k), done)
	if err != nil && !errors.Is(err, nats.ErrGone) {
		n.behind.add(p)
	}
	return err == nil
}

// shown is when a peer that has missed something knows every session of this
// node. What either has routed before may have been kept, though somebody was
// there.
func (n *Node) shown(p string) {
	at := n.gaps.to(p)
	err := n.bus.Send(n.ctx, p, portNotices, encodeNotice(TopicMissed, ""), func(error) {
		n.notice(TopicMissed, "")
		n.gaps.close(p, at)
	})
	if err != nil && !errors.Is(err, nats.ErrGone) {
		n.lags(p)
	}
}
