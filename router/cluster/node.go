package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
	"parley/storage"
)

// The ports of a node's pipes, one for each kind of thing that must not wait
// behind another.
const (
	portStreamer = "streamer" // Handled, Close: for this node's sockets
	portRouter   = "router"   // Deliver, Arrive: for this node's sessions, which may have to hold it back
	portSessions = "sessions" // who is bound at the other node
	portNotices  = "notices"  // what must be forgotten
)

// addresses is how many prepared addresses of what arrives are remembered.
const addresses = 1 << 16

// NodeOptions make a Node.
type NodeOptions struct {
	Name, Version string
	Servers       []string // the stages that it runs
	DB            storage.DB
	NATS          nats.Options  // Self is filled in
	Lease         time.Duration // 0: the default
	Registry      *sessions.Registry
	Clock         Clock
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

// Links are the ways into the stages of this node.
type Links struct{ Streamer, Parser, Processor, Router channel.MessageChannel }

// Node is this process's part in the cluster: it is a member, it has pipes to
// the others, shows them its sessions and keeps a replica of theirs.
type Node struct {
	opt     NodeOptions
	log     *slog.Logger
	members *Members
	bus     *nats.Bus
	jids    *jid.Cache
	links   Links
	showing [showLocks]sync.Mutex
	behind  peerSet // who has not been shown something
	missed  peerSet // who may not have got something besides
	notices noticeBoard
	holds   holds
	encode  func(dst []byte, batch []*channel.Envelope) []byte // channel.EncodeBatch; tests write what a later release does

	complaints rate.Sometimes // log lines about what is not handed over

	ctx   context.Context // until End
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	begun   bool
	early   []change          // what has happened before Begin
	changed chan struct{}     // closed, and replaced, with every change of the members
	lives   map[string]uint64 // by node, those that were let in
	ended   map[string]uint64 // the last life of a node that has left
	met     map[string]uint64 // lives that have shown all their sessions
}

// change is what one look at the members has brought.
type change struct{ joined, left []Member }

// Enter takes the node's name and connects it. Nothing is sent or received
// before Begin. The error says what to do.
func Enter(ctx context.Context, o NodeOptions) (*Node, error) {
	n := &Node{opt: o, encode: channel.EncodeBatch, complaints: rate.Sometimes{Interval: time.Second}, log: o.Log.With("component", "cluster"), jids: jid.NewCache(addresses), changed: make(chan struct{}), lives: map[string]uint64{}, ended: map[string]uint64{}, met: map[string]uint64{}}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := Migrate(ctx, o.DB); err != nil {
		return nil, err
	}
	var err error
	if n.members, err = n.join(ctx, Options{DB: o.DB, Node: o.Name, Version: o.Version, Servers: o.Servers, Clock: o.Clock, Log: n.log, Metrics: o.Metrics, Lease: o.Lease, Changed: n.change}); err != nil {
		return nil, err
	}
	if f, ok := o.DB.(storage.Fencer); ok {
		f.Fence(n.Held)
	}
	o.NATS.Self = peer(n.members.Self())
	o.NATS.Log, o.NATS.Metrics = n.log, o.Metrics
	if n.bus, err = nats.Dial(ctx, o.NATS); err != nil {
		return nil, errors.Join(err, n.members.Leave(ctx))
	}
	return n, nil
}

// againEvery is how often a name that is taken is tried again.
const againEvery = 250 * time.Millisecond

// join waits for the lease of the node's life before, which after a crash has to
// run out. One that is renewed meanwhile is another process's.
func (n *Node) join(ctx context.Context, o Options) (*Members, error) {
	patience := time.NewTimer(leaseOf(o) + leaseOf(o)/2)
	defer patience.Stop()
	for waits := false; ; {
		m, err := Join(ctx, o)
		if !errors.Is(err, ErrTaken) {
			return m, err
		}
		if !waits {
			n.log.Warn("waiting for the lease of an earlier life of this node", "err", err)
			waits = true
		}
		select {
		case <-time.After(againEvery):
		case <-patience.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

func leaseOf(o Options) time.Duration {
	o, _ = o.withDefaults()
	return o.Lease
}

func peer(m Member) nats.Peer { return nats.Peer{Node: m.Node, Incarnation: m.Incarnation} }

// Number tells the node apart in what all nodes make: ids.
func (n *Node) Number() int { return n.members.Self().Number }

// Owns reports whether what one node has to do for the key is this one's.
func (n *Node) Owns(key string) bool {
	m, ok := n.members.Owner(key, "processor")
	return !ok || m.Node == n.opt.Name
}

// Alive reports whether a node counts as alive.
func (n *Node) Alive(node string) bool {
	_, alive := n.members.Find(node)
	return alive
}

// Held reports whether this node counts as alive.
func (n *Node) Held() bool { return n.members.Held() }

// Members are the nodes that are there.
func (n *Node) Members() *Members { return n.members }

// Fenced is closed when the others may take this node for dead: it must not
// acknowledge anything any more.
func (n *Node) Fenced() <-chan struct{} { return n.members.Fenced() }

// Begin lets the node take part.
func (n *Node) Begin(l Links) error {
	n.links = l
	for port, h := range map[string]nats.Handler{
		portStreamer: n.arrive(l.Streamer), portRouter: n.arrive(l.Router),
		portSessions: n.adopt, portNotices: n.noticed,
	} {
		if err := n.bus.Handle(port, h); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	n.opt.Registry.Mirror(n.opt.Name, n.show)
	n.mu.Lock()
	n.begun = true
	early := n.early
	n.early = nil
	n.mu.Unlock()
	n.admit(n.members.Live())
	for _, c := range early {
		n.apply(c)
	}
	n.tasks.Go(n.catchUp)
	return nil
}

// End takes the node out: the others see it leave.
func (n *Node) End(ctx context.Context) error {
	n.stop()
	err := n.bus.Close(ctx)
	n.tasks.Wait()
	if leave := n.members.Leave(ctx); leave != nil {
		err = errors.Join(err, fmt.Errorf("leaving the cluster: %w", leave))
	}
	return err
}

// change is told by Members, one call at a time.
func (n *Node) change(joined, left []Member) {
	c := change{joined, left}
	n.mu.Lock()
	if !n.begun {
		n.early = append(n.early, c)
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	n.apply(c)
}

func (n *Node) apply(c change) {
	for _, m := range c.left {
		n.log.Warn("node has left", "node", m.Node, "incarnation", m.Incarnation)
		n.mu.Lock()
		if n.lives[m.Node] == m.Incarnation {
			delete(n.lives, m.Node)
		}
		n.ended[m.Node] = max(n.ended[m.Node], m.Incarnation)
		delete(n.met, m.Node)
		n.mu.Unlock()
		n.bus.Leave(peer(m))
		n.behind.remove(m.Node)
		n.missed.remove(m.Node)
		n.bury(m)
		n.task(func() { n.notice(TopicMissed, "") }) // what it has stored last it may have told nobody
	}
	n.admit(c.joined)
}

// admit lets members in that are not yet.
func (n *Node) admit(all []Member) {
	for _, m := range all {
		n.mu.Lock()
		known := m.Node == n.opt.Name || n.lives[m.Node] >= m.Incarnation || n.ended[m.Node] >= m.Incarnation
		if !known {
			n.lives[m.Node] = m.Incarnation
		}
		n.mu.Unlock()
		if known {
			continue
		}
		n.log.Info("node has joined", "node", m.Node, "incarnation", m.Incarnation, "version", m.Version)
		n.bus.Join(peer(m))
		n.behind.add(m.Node) // it knows nothing of this node's sessions
	}
	n.mu.Lock()
	n.stir()
	n.mu.Unlock()
}

// introduced waits until the members list has the life that something comes
// from: a node may be heard of on the network before it is seen there. False: it
// has left, or the node ends.
func (n *Node) introduced(ctx context.Context, p nats.Peer) bool {
	for {
		n.mu.Lock()
		here, gone, changed := n.lives[p.Node], n.ended[p.Node], n.changed
		n.mu.Unlock()
		switch {
		case here == p.Incarnation:
			return true
		case gone >= p.Incarnation || here > p.Incarnation:
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		case <-n.ctx.Done():
			return false
		}
	}
}

// meet notes that a life has shown everything.
func (n *Node) meet(p nats.Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.met[p.Node] = p.Incarnation
	n.stir()
}

// stir wakes who waits for a change of what mu guards.
func (n *Node) stir() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Met waits until every other live node has let this one in and shown it its
// sessions, so that nobody who is there is taken for absent. The error names
// who has not.
func (n *Node) Met(ctx context.Context) error {
	for {
		n.mu.Lock()
		changed, missing := n.changed, ""
		for node, life := range n.lives {
			if n.met[node] != life {
				missing = node
			}
		}
		n.mu.Unlock()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("node %s has not shown its sessions: %w", missing, ctx.Err())
		case <-n.ctx.Done():
			return n.ctx.Err()
		}
	}
}

// others are the nodes that were let in.
func (n *Node) others() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]string, 0, len(n.lives))
	for node := range n.lives {
		out = append(out, node)
	}
	return out
}

// bury ends the sessions of a node that is gone. Everybody forgets them; one
// node, the same for all, tells whom it concerns (RFC 6121 §4.5.2).
func (n *Node) bury(m Member) {
	var mine []*channel.Envelope
	for _, e := range n.opt.Registry.On(m.Node) {
		owner, ok := n.members.Owner(e.JID.Bare().String(), "processor")
		if ok && owner.Node != n.opt.Name {
			n.opt.Registry.Unbind(e.Ref)
			continue
		}
		mine = append(mine, &channel.Envelope{Kind: channel.Unbind, Session: e.Ref})
	}
	const at = 256 // envelopes of one batch
	for len(mine) > 0 {
		some := mine[:min(at, len(mine))]
		mine = mine[len(some):]
		if err := n.links.Processor.Send(n.ctx, some); err != nil {
			n.log.Error("sessions of a node that has left are not ended", "node", m.Node, "sessions", len(some)+len(mine), "err", err)
			return
		}
	}
}

// retryBehind is how often somebody is tried again who was not shown something.
const retryBehind = time.Second
