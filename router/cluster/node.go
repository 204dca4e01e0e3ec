package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	portStreamer  = "streamer"  // Handled, Close: for this node's sockets
	portRouter    = "router"    // Deliver, Arrive: for this node's sessions, which may have to hold it back
	portParser    = "parser"    // what a front's sockets have brought
	portProcessor = "processor" // and what its parser has made of it
	portSessions  = "sessions"  // who is bound at the other node
	portNotices   = "notices"   // what must be forgotten
)

// addresses is how many prepared addresses of what arrives are remembered.
const addresses = 1 << 16

// NodeOptions make a Node.
type NodeOptions struct {
	Name, Version string
	Servers       []string // the stages that it runs
	DB            storage.DB
	Store         Store         // of lives; nil: tables of DB
	NATS          nats.Options  // Self is filled in
	Lease         time.Duration // 0: the default
	Registry      *sessions.Registry
	Orphaned      func(context.Context) // of a front: its core is gone, and with it every session
	Clock         Clock
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

// Links are the ways into the stages of this node; nil: it does not run that one.
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
	gaps    gaps    // who may not have got something besides
	notices noticeBoard
	holds   holds
	front   *front // nil: it has a processor
	fronts  fronts
	desk    desk
	graves  graves
	deaths  []func(ctx context.Context, node string, life uint64) error // told of lives that are over
	encode  func(dst []byte, batch []*channel.Envelope) []byte          // channel.EncodeBatch; tests write what a later release does

	complaints rate.Sometimes // log lines about what is not handed over

	ctx   context.Context // until End
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	entered bool
	early   []change                        // what has happened before Enter was done
	changed chan struct{}                   // closed, and replaced, with every change of the members
	lives   map[string]uint64               // by node, those that were let in
	ended   map[string]uint64               // the last life of a node that has left
	met     map[string]uint64               // lives that have shown all their sessions
	rounds  map[string]map[jid.JID]struct{} // by node that is showing everything, what it has shown
	onLeft  []func(Member)
}

// change is what one look at the members has brought.
type change struct{ joined, left []Member }

// Enter takes the node's name and connects it. From now on the others count on
// it: it forgets what they tell it to, and learns of their sessions. What needs
// its stages waits for Begin. The error says what to do.
func Enter(ctx context.Context, o NodeOptions) (*Node, error) {
	n := &Node{opt: o, encode: channel.EncodeBatch, complaints: rate.Sometimes{Interval: time.Second}, log: o.Log.With("component", "cluster"), jids: jid.NewCache(addresses), changed: make(chan struct{}), lives: map[string]uint64{}, ended: map[string]uint64{}, met: map[string]uint64{}, rounds: map[string]map[jid.JID]struct{}{}, graves: graves{bell: make(chan struct{}, 1)}, desk: newDesk()}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if (Member{Servers: o.Servers}).isFront() {
		n.front = &front{lost: o.Orphaned, greeted: make(chan struct{})}
	}
	if o.Store == nil {
		if err := Migrate(ctx, o.DB); err != nil {
			return nil, err
		}
	}
	var err error
	if n.members, err = n.join(ctx, Options{DB: o.DB, Store: o.Store, Node: o.Name, Version: o.Version, Servers: o.Servers, Clock: o.Clock, Log: n.log, Metrics: o.Metrics, Lease: o.Lease, Changed: n.change}); err != nil {
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
	n.On(topicEnded, n.heardEnded)
	n.On(topicDead, n.heardDead)
	if !n.Front() {
		o.Registry.Mirror(o.Name, n.show)
	}
	if err := n.handle(map[string]nats.Handler{portSessions: n.adopt, portNotices: n.noticed, portCalls: n.called, portReplies: n.replied}); err != nil {
		return nil, errors.Join(err, n.End(ctx))
	}
	n.mu.Lock()
	n.entered = true
	early := n.early
	n.early = nil
	n.mu.Unlock()
	n.admit(n.members.Live())
	for _, c := range early {
		n.apply(c)
	}
	n.tasks.Go(n.catchUp)
	return n, nil
}

func (n *Node) handle(all map[string]nats.Handler) error {
	for port, h := range all {
		if err := n.bus.Handle(port, h); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	return nil
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

// LifeOf is the number of a node's life that counts as alive; 0: none does.
func (n *Node) LifeOf(node string) uint64 {
	m, _ := n.members.Find(node)
	return m.Incarnation
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

// Bus is the pipes to the other nodes, for what has ports of its own.
func (n *Node) Bus() *nats.Bus { return n.bus }

// OnLeft lets f be called with every life that is over, one at a time, when its
// pipes have ended. It is for the time before Begin.
func (n *Node) OnLeft(f func(Member)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onLeft = append(n.onLeft, f)
}

// Fenced is closed when the others may take this node for dead: it must not
// acknowledge anything any more.
func (n *Node) Fenced() <-chan struct{} { return n.members.Fenced() }

// Lanes are the pipes to another node.
func (n *Node) Lanes(node string) []nats.Lane { return n.bus.Lanes(node) }

// Begin lets the node take part.
func (n *Node) Begin(l Links) error {
	n.links = l
	close(n.desk.begun)
	ports := map[string]nats.Handler{}
	if n.Front() {
		ports[portStreamer] = n.returns
	} else {
		ports[portStreamer], ports[portRouter] = n.arrive(sockets{n, l.Streamer}), n.arrive(l.Router)
		ports[portParser], ports[portProcessor] = n.enters(l.Parser), n.enters(l.Processor)
		n.tasks.Go(n.undertake)
	}
	for port, h := range ports {
		ports[port] = n.alive(h)
	}
	if err := n.handle(ports); err != nil {
		return err
	}
	n.attachFrom()
	return nil
}

// alive keeps from the stages what was sent to a node that the others may take for
// dead by now. To one that was frozen a sender who has moved speaks through the pipes
// of two nodes, and which of them comes first is chance: what was said there waits in
// the database, for wherever the recipient goes.
func (n *Node) alive(h nats.Handler) nats.Handler {
	return func(ctx context.Context, from nats.Peer, payload []byte) error {
		if !n.members.Held() {
			return refused(from, ErrFenced)
		}
		return h(ctx, from, payload)
	}
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
	if !n.entered {
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
		n.survive(m)
		n.mu.Lock()
		if n.lives[m.Node] == m.Incarnation {
			delete(n.lives, m.Node)
		}
		among := maps.Clone(n.lives)
		among[n.opt.Name] = n.Life()
		if !n.Front() { // it tells nobody
			n.graves.dig(m, among, n.opt.Registry.On(m.Node), n.opt.Clock.Now())
		}
		n.ended[m.Node] = max(n.ended[m.Node], m.Incarnation)
		delete(n.met, m.Node)
		delete(n.rounds, m.Node)
		n.mu.Unlock()
		n.bus.Leave(peer(m))
		for _, f := range n.onLeft {
			f(m)
		}
		n.behind.remove(m.Node)
		n.gaps.left(m.Node)
		n.desk.left(m.Node)
		n.orphan(m)
		n.fronts.know(m, false)
		if m.isFront() && !n.Front() {
			n.buryFront(m)
		}
	}
	signal(n.graves.bell)
	n.admit(c.joined)
	n.attach()
}

// admit lets members in that are not yet.
func (n *Node) admit(all []Member) {
	for _, m := range all {
		if n.graves.wait(m) {
			continue
		}
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
		n.fronts.know(m, true)
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
	for asked := false; ; asked = true {
		n.mu.Lock()
		here, gone, changed := n.lives[p.Node], n.ended[p.Node], n.changed
		n.mu.Unlock()
		switch {
		case here == p.Incarnation:
			return true
		case gone >= p.Incarnation || here > p.Incarnation:
			return false
		case !asked:
			n.members.kick() // who is heard is there, and need not wait for the next round
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

// retryBehind is how often somebody is tried again who was not shown something.
const retryBehind = time.Second
