package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

// Fronts and cores. A front has sockets and nothing that decides: what comes in
// goes to one core, whose streamer it is. For everybody else its sessions are
// that core's, so nothing but this file and fronts.go, and the slot in their
// numbers, tells them apart. A front that has lost its core has lost its sessions, as a node
// that ends does; their clients resume, by way of the next core. A core that has
// lost a front ends that one's sessions; each waits for whoever takes it.

// Reachable is among Member.Servers of those that fronts may choose.
const Reachable = "fronts"

// front is what a node knows that has no processor.
type front struct {
	mu       sync.Mutex               // held while a core is chosen
	core     atomic.Pointer[coreLife] // nil: none
	ready    atomic.Bool              // Begin was called: attached is complete
	leaving  atomic.Uint64            // the life of a core that has said that it ends
	attached []func()
	once     sync.Once
	greeted  chan struct{} // closed when what is to be done about the first core is done
	lost     func(context.Context)
}

// coreLife is a core while it is a front's.
type coreLife struct {
	Member
	over  chan struct{} // closed when it is known to be gone, and its sessions have ended here
	doubt sync.Once     // whether it is still there
}

// isFront reports whether the member leaves processing to others.
func (m Member) isFront() bool { return m.has("streamer") && !m.has("processor") }

func (m Member) has(server string) bool {
	for _, s := range m.Servers {
		if s == server {
			return true
		}
	}
	return false
}

// Front reports whether the node's sessions are a core's.
func (n *Node) Front() bool { return n.front != nil }

// HasCore reports whether the front has a core.
func (n *Node) HasCore() bool { return n.front != nil && n.front.core.Load() != nil }

// Attached lets f be called, on a goroutine of its own, whenever the front has
// got a core. It is for the time before Begin.
func (n *Node) Attached(f func()) {
	if n.front != nil {
		n.front.attached = append(n.front.attached, f)
	}
}

// Core waits until the front has one, and returns its name.
func (n *Node) Core(ctx context.Context) (string, error) {
	c, err := n.awaitCore(ctx)
	if err != nil {
		return "", err
	}
	return c.Node, nil
}

func (n *Node) awaitCore(ctx context.Context) (*coreLife, error) {
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		if c := n.front.core.Load(); c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no core is there (a node with parser, processor and router, the processor distributed): %w", ctx.Err())
		case <-n.ctx.Done():
			return nil, n.ctx.Err()
		}
	}
}

// attachFrom lets the front look for a core from now on.
func (n *Node) attachFrom() {
	if n.front != nil {
		n.front.ready.Store(true)
		n.attach()
	}
}

// attach looks for a core when there is none: the one that its name gives it.
func (n *Node) attach() {
	f := n.front
	if f == nil || !f.ready.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.core.Load() != nil {
		return
	}
	m, ok := n.nextCore()
	n.mu.Lock()
	known := ok && n.lives[m.Node] == m.Incarnation
	if known {
		f.core.Store(&coreLife{Member: m, over: make(chan struct{})})
		n.stir()
	}
	n.mu.Unlock()
	if !known {
		return
	}
	n.log.Info("core found", "core", m.Node)
	var told sync.WaitGroup
	for _, each := range f.attached {
		told.Add(1)
		if !n.taskOr(func() { defer told.Done(); each() }) {
			told.Done()
		}
	}
	n.task(func() {
		told.Wait()
		f.once.Do(func() { close(f.greeted) })
	})
}

// nextCore is the core that the front's name gives it, among those that have not said
// that they end.
func (n *Node) nextCore() (Member, bool) {
	if !n.Held() {
		return Member{}, false
	}
	stay := slices.DeleteFunc(slices.Clone(n.members.Live()), func(m Member) bool { return m.Incarnation == n.front.leaving.Load() })
	return newView(stay).owner(n.opt.Name, Reachable)
}

// orphan is told that a node has left: if it was the core, its sessions are
// over before there is another one.
func (n *Node) orphan(m Member) {
	f := n.front
	if f == nil {
		return
	}
	for _, e := range n.opt.Registry.On(m.Node) {
		n.opt.Registry.Unbind(e.Ref)
	}
	n.part(peer(m))
}

// part takes a core that ends, or has, from the front: what it has of sessions ends
// here.
func (n *Node) part(from nats.Peer) {
	f := n.front
	c := f.core.Load()
	if c == nil || peer(c.Member) != from || !f.core.CompareAndSwap(c, nil) {
		return
	}
	defer close(c.over)
	for _, e := range n.opt.Registry.On(n.opt.Name) {
		n.opt.Registry.Unbind(e.Ref)
	}
	n.log.Warn("the core is gone: its sessions end here, and go on when their clients resume", "core", c.Node)
	if f.lost != nil {
		f.lost(n.ctx)
	}
}

// toCore is the way from a front's stage to its core's next one.
type toCore struct {
	node *Node
	port string
}

// ToCore returns the way to a stage of the core.
func (n *Node) ToCore(server string) channel.MessageChannel { return toCore{n, server} }

// Send implements channel.MessageChannel. A core that is slow, or out of reach,
// makes it wait; with one that is gone all sessions are, and the error wraps
// channel.ErrLost. Who sends must not wait for more: it may be in the way of that.
func (c toCore) Send(ctx context.Context, batch []*channel.Envelope) error {
	core := c.node.front.core.Load()
	if core == nil {
		return fmt.Errorf("no core: %w", channel.ErrLost)
	}
	rename(batch, c.node.opt.Name, core.Node)
	return c.send(ctx, core, batch)
}

func (c toCore) send(ctx context.Context, core *coreLife, batch []*channel.Envelope) error {
	payload := c.node.encode(nil, batch)
	of := make([]sessions.Ref, 0, len(batch)) // the batch is not the caller's for longer than this
	for _, e := range batch {
		if !e.Session.IsZero() {
			of = append(of, e.Session)
		}
	}
	for {
		err := c.node.bus.Send(ctx, core.Node, c.port, payload, func(err error) {
			if errors.Is(err, nats.ErrRefused) {
				c.node.notTaken(&core.Member, of)
			}
		})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, nats.ErrTooLarge) && len(batch) > 1:
			half := len(batch) / 2
			if err := c.send(ctx, core, batch[:half]); err != nil {
				return err
			}
			return c.send(ctx, core, batch[half:])
		case errors.Is(err, nats.ErrStalled):
			if err := c.node.bear(ctx, core); err != nil {
				return fmt.Errorf("core %s: %w", core.Node, err)
			}
		case errors.Is(err, nats.ErrGone):
			c.node.look(core)
			return fmt.Errorf("core %s: %w", core.Node, channel.ErrLost)
		default:
			return fmt.Errorf("core %s: %w", core.Node, err)
		}
	}
}

// bear returns nil when a core that acknowledges nothing may be tried again. Only the
// database says whether it is gone; a front that is fenced hears nothing from there,
// and has lost its sessions all the same.
func (n *Node) bear(ctx context.Context, core *coreLife) error {
	again := time.NewTimer(againEvery)
	defer again.Stop()
	select {
	case <-again.C:
		return nil
	case <-core.over:
		return channel.ErrLost
	case <-n.Fenced():
		return channel.ErrLost
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}

// look asks the database at once whether the core is still there: the network has
// heard of its next life.
func (n *Node) look(core *coreLife) { core.doubt.Do(n.members.kick) }

// outlive returns when the front knows that the core is gone.
func (n *Node) outlive(ctx context.Context, core *coreLife) error {
	n.look(core)
	select {
	case <-core.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}

// topicLeaving is how a core tells its fronts that it ends; they know then before
// they see it.
const topicLeaving = "leaving"

// parted is what a core tells with it.
func (n *Node) parted(from nats.Peer) {
	if !n.Front() {
		return
	}
	n.front.leaving.Store(from.Incarnation)
	n.part(from)
	n.task(n.attach)
}

// LeaveFronts lets the clients of this node's fronts go on elsewhere, before it ends:
// the fronts disconnect them and take nothing from it any more, then their sessions
// are paused as those of a streamer that stops. The error names a front that does
// not answer.
func (n *Node) LeaveFronts(ctx context.Context) error {
	at := n.fronts.bySlot.Load()
	if n.Front() || at == nil {
		return nil
	}
	told := n.tell(ctx, slices.Collect(maps.Values(*at)), topicLeaving, "")
	var paused []*channel.Envelope
	for _, e := range n.opt.Registry.On(n.opt.Name) {
		if sessions.SlotOf(e.Conn) != n.Number() {
			paused = append(paused, &channel.Envelope{Kind: channel.Unbind, Session: e.Ref, Reason: "system-shutdown"})
		}
	}
	if len(paused) == 0 {
		return told
	}
	return errors.Join(told, n.links.Processor.Send(ctx, paused))
}

// notTaken ends the sessions whose stanzas their core cannot read, being of another
// release: they must not go on without them.
func (n *Node) notTaken(core *Member, of []sessions.Ref) {
	for i := range of {
		of[i].Node = n.opt.Name
	}
	end := &channel.Envelope{Kind: channel.Close, To: of, Reason: "internal-server-error"}
	n.log.Error("the core does not understand this front", "core", core.Node, "version", core.Version, "sessions", len(of))
	n.task(func() {
		if err := n.links.Streamer.Send(n.ctx, []*channel.Envelope{end}); err != nil && n.ctx.Err() == nil {
			n.log.Error("sessions are not ended", "err", err)
		}
	})
}

// rename gives references to one node's streams another node's name.
func rename(batch []*channel.Envelope, from, to string) {
	for _, e := range batch {
		if e.Session.Node == from {
			e.Session.Node = to
		}
		for i := range e.To {
			if e.To[i].Node == from {
				e.To[i].Node = to
			}
		}
	}
}

// returns is the handler, at a front, of what its core sends to sockets.
func (n *Node) returns(ctx context.Context, from nats.Peer, payload []byte) error {
	batch, err := channel.DecodeBatch(payload, n.jids)
	if err != nil {
		return refused(from, err)
	}
	if len(batch) == 0 {
		return nil
	}
	if n.front.leaving.Load() == from.Incarnation { // for sessions that have ended here, and wait at the core
		return nil
	}
	if c := n.front.core.Load(); c == nil || peer(c.Member) != from { // nobody else has anything to say to these sockets
		return refused(from, errForeign)
	}
	rename(batch, from.Node, n.opt.Name)
	return n.links.Streamer.Send(ctx, batch)
}

// errForeign is a front that speaks for sockets that it does not have, or a node
// that speaks to sockets of another one's front.
var errForeign = errors.New("sessions that are not the sender's")

// enters is the handler, at a core, of what its fronts send to a stage.
func (n *Node) enters(to channel.MessageChannel) nats.Handler {
	return func(ctx context.Context, from nats.Peer, payload []byte) error {
		if !n.introduced(ctx, from) {
			return nil
		}
		batch, err := channel.DecodeBatch(payload, n.jids)
		if err != nil {
			return refused(from, err)
		}
		m, _ := n.members.Find(from.Node)
		for _, e := range batch {
			if !e.Session.IsZero() && (e.Session.Node != n.opt.Name || sessions.SlotOf(e.Session.Conn) != m.Number) {
				return fmt.Errorf("from %s: %w", from.Node, errForeign)
			}
		}
		if len(batch) == 0 {
			return nil
		}
		return to.Send(ctx, batch)
	}
}

// coreWait is how often a front that has no core says so.
const coreWait = 10 * time.Second

// AwaitCore returns when the front has a core, and what Attached was given for that
// is done; it says in the log what it waits for. The error wraps ErrFenced when the
// node must not wait any more.
func (n *Node) AwaitCore(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer func() { cancel(nil); <-over }()
	go func() {
		defer close(over)
		select {
		case <-n.Fenced():
			cancel(ErrFenced)
		case <-ctx.Done():
		}
	}()
	if n.front.core.Load() == nil {
		n.log.Warn("waiting for a core: a node with parser, processor and router, the processor distributed")
	}
	for {
		limited, done := context.WithTimeout(ctx, coreWait)
		_, err := n.Core(limited)
		done()
		if err == nil {
			break
		}
		if ctx.Err() != nil || n.ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		n.log.Warn("waiting for a core", "err", err)
	}
	select {
	case <-n.front.greeted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}
