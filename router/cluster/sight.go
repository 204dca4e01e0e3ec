package cluster

import (
	"context"
	"errors"
	"hash/fnv"
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
	seen := n.showTo(peers, account)
	limit := time.NewTimer(showWait)
	defer limit.Stop()
	select {
	case <-seen:
	case <-limit.C:
		n.task(func() { n.late(account, seen) })
	case <-n.ctx.Done():
	}
}

// late waits for those that did not know in time. What they have routed
// meanwhile may have been kept, though somebody was there.
func (n *Node) late(account jid.JID, seen <-chan struct{}) {
	select {
	case <-seen:
		n.notice(TopicMissed, account.String())
	case <-n.ctx.Done():
	}
}

// showTo sends to each of the peers; what is sent of one account keeps the order
// in which it became true. The result is closed when those that could be sent
// to have seen it.
func (n *Node) showTo(peers []string, account jid.JID) (seen <-chan struct{}) {
	lock := n.showLock(account)
	lock.Lock()
	defer lock.Unlock()
	payload := encodeSight(account, n.opt.Registry.Of(n.opt.Name, account))
	a, all := awaited()
	for _, p := range peers {
		a.expect()
		answered := func(err error) {
			if errors.Is(err, nats.ErrRefused) { // nothing helps but the same release on both
				n.complaints.Do(func() { n.log.Error("another node does not understand who is here", "node", p, "err", err) })
			}
			a.came(err)
		}
		if err := n.bus.Send(n.ctx, p, portSessions, payload, answered); err != nil {
			a.came(err)
			if !errors.Is(err, nats.ErrGone) {
				n.missed.add(p)
				n.behind.add(p)
			}
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
	if batch[0].Session.JID.IsZero() { // it has shown everything
		n.meet(from)
		return nil
	}
	entries := make([]*sessions.Entry, 0, len(batch)-1)
	for _, e := range batch[1:] {
		if e.State == nil || e.Session.Node != from.Node || e.Session.JID.Bare() != batch[0].Session.JID {
			return refused(from, channel.ErrWire)
		}
		entries = append(entries, &sessions.Entry{Ref: e.Session, State: *e.State})
	}
	for _, e := range n.opt.Registry.Adopt(from.Node, batch[0].Session.JID, entries) {
		if e.Node == n.opt.Name {
			n.oust(e)
		}
	}
	return nil
}

// oust ends a session of this node whose address a newer one has elsewhere
// (RFC 6120 §7.7.2.2). Whom it concerns has been told by that one's node.
func (n *Node) oust(e *sessions.Entry) {
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
// behind again.
func (n *Node) showAll(p string) {
	seen := map[jid.JID]struct{}{}
	for _, e := range n.opt.Registry.On(n.opt.Name) {
		account := e.JID.Bare()
		if _, twice := seen[account]; twice {
			continue
		}
		seen[account] = struct{}{}
		n.showTo([]string{p}, account)
		if n.behind.has(p) { // it cannot be sent to now
			return
		}
	}
	if err := n.bus.Send(n.ctx, p, portSessions, encodeSight(jid.JID{}, nil), func(err error) { n.shown(p, err) }); err != nil && !errors.Is(err, nats.ErrGone) {
		n.behind.add(p)
	}
}

// shown is when a peer knows every session of this node. What either has routed
// before may have been kept, though somebody was there.
func (n *Node) shown(p string, err error) {
	if err != nil || !n.missed.has(p) {
		return
	}
	n.task(func() {
		n.missed.remove(p)
		if err := n.bus.Send(n.ctx, p, portNotices, encodeNotice(TopicMissed, ""), nil); err != nil && !errors.Is(err, nats.ErrGone) {
			n.missed.add(p)
			n.behind.add(p)
			return
		}
		n.notice(TopicMissed, "")
	})
}
