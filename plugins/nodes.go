package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/router/cluster"
	"parley/router/sessions"
)

// What a Host tells of the cluster, and how it lets its clients go to the other
// nodes: because somebody says so (Control.Drain), or because it stops.

// Errors of Control.Drain.
var (
	ErrNode  = errors.New("no such node")
	ErrAlone = errors.New("there is no other node that would take its clients")
)

// Drainer is a Server whose clients can go to other nodes while it goes on.
type Drainer interface {
	// Drain lets nobody in any more and sends away who is there, pace of them a
	// second. It returns when nobody is left, or ctx is done. With a pace of 0 the
	// Server is about to be stopped: it takes no longer than that may, and those
	// who are left then are ended by the stop.
	Drain(ctx context.Context, pace float64) error
	// Reopen lets clients in again, when Drain has returned.
	Reopen(ctx context.Context) error
}

// Cluster is the nodes as one of them sees them.
type Cluster struct {
	Node  string       `json:"node"`  // which one
	Alone bool         `json:"alone"` // it is not one of several (cluster.nats.urls)
	Held  bool         `json:"held"`  // it counts as alive; false: it is fenced, and ends
	Nodes []NodeStatus `json:"nodes"` // those that are alive, by name
}

// NodeStatus is one of them.
type NodeStatus struct {
	Node        string    `json:"node"`
	Number      int       `json:"number"`      // its own in ids
	Incarnation uint64    `json:"incarnation"` // larger for every later life
	Since       time.Time `json:"since"`
	Version     string    `json:"version"`
	Servers     []string  `json:"servers"`
	Draining    bool      `json:"draining"`
	Sessions    int       `json:"sessions"` // whose sockets are there
	Away        int       `json:"away"`     // of them, those without a connection
	Lanes       []Lane    `json:"lanes"`    // what is on the way there; none to oneself
}

// Lane is a pipe to a node.
type Lane struct {
	Port     string  `json:"port"`
	InFlight uint64  `json:"in_flight"` // payloads that are not acknowledged
	Window   int     `json:"window"`    // how many may be
	Oldest   float64 `json:"oldest"`    // age of the oldest of them, in seconds
	Retries  uint64  `json:"retries"`   // payloads that were sent once more
	Stalled  bool    `json:"stalled"`   // nothing is acknowledged, so nothing more is taken
}

// Cluster implements Control.
func (c control) Cluster() Cluster {
	h := c.h
	here := Cluster{Node: h.opt.Node, Alone: h.node == nil, Held: h.node == nil || h.node.Held()}
	for _, m := range h.members() {
		n := NodeStatus{
			Node: m.Node, Number: m.Number, Incarnation: m.Incarnation, Since: m.Since, Version: m.Version,
			Servers: m.Servers, Draining: m.Draining, Lanes: []Lane{},
		}
		if h.node != nil {
			for _, l := range h.node.Lanes(m.Node) {
				n.Lanes = append(n.Lanes, Lane{Port: l.Port, InFlight: l.InFlight, Window: l.Window.Frames, Oldest: l.Oldest.Seconds(), Retries: l.Retries, Stalled: l.Stalled})
			}
		}
		here.Nodes = append(here.Nodes, n)
	}
	h.sessions.Each(func(e *sessions.Entry) bool {
		for i := range here.Nodes {
			if n := &here.Nodes[i]; h.socketAt(n, e) {
				n.Sessions++
				if e.Hibernated {
					n.Away++
				}
			}
		}
		return true
	})
	return here
}

// socketAt reports whether the session's socket is, or was, at the node: a front's
// sessions are its core's in everything else.
func (h *Host) socketAt(n *NodeStatus, e *sessions.Entry) bool {
	if h.node == nil {
		return n.Node == e.Node
	}
	return n.Number == sessions.SlotOf(e.Conn)
}

// members are the live nodes, or the one that is alone.
func (h *Host) members() []cluster.Member {
	if h.node != nil {
		return h.node.Members().Live()
	}
	self := cluster.Member{Node: h.opt.Node, Version: h.opt.Version, Since: h.since}
	for _, r := range h.servers {
		self.Servers = append(self.Servers, r.name)
	}
	return []cluster.Member{self}
}

// callDrain is how a node is told to drain, with the pace, or with drainOff not
// to any more.
const (
	callDrain = "drain"
	drainOff  = "off"
)

// orderLimit bounds what a node does when it is told so by another one.
const orderLimit = 10 * time.Second

// Drain implements Control.
func (c control) Drain(ctx context.Context, node string, pace float64) error {
	if !c.h.heirs(node) {
		if _, err := c.h.find(node); err != nil {
			return err
		}
		return fmt.Errorf("%s is not drained: %w", node, ErrAlone)
	}
	return c.h.order(ctx, node, strconv.FormatFloat(pace, 'g', -1, 64))
}

// Undrain implements Control.
func (c control) Undrain(ctx context.Context, node string) error {
	return c.h.order(ctx, node, drainOff)
}

func (h *Host) find(node string) (cluster.Member, error) {
	for _, m := range h.members() {
		if m.Node == node {
			return m, nil
		}
	}
	return cluster.Member{}, fmt.Errorf("%w: %s", ErrNode, node)
}

// heirs reports whether there are nodes to take the clients of another one: that
// listen for them if it does, and handle their stanzas if it does.
func (h *Host) heirs(of string) bool {
	leaves, err := h.find(of)
	if err != nil {
		return false
	}
	for _, server := range []string{streamer, processor} {
		takes := func(m cluster.Member) bool {
			return m.Node != of && !m.Draining && slices.Contains(m.Servers, server)
		}
		if slices.Contains(leaves.Servers, server) && !slices.ContainsFunc(h.members(), takes) {
			return false
		}
	}
	return true
}

// order lets a node know, which may be this one.
func (h *Host) order(ctx context.Context, node, what string) error {
	switch _, err := h.find(node); {
	case err != nil:
		return err
	case node == h.opt.Node:
		return h.obey(ctx, what)
	}
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	_, err := h.node.Call(ctx, node, callDrain, []byte(what))
	return err
}

// ordered is what another node wants of this one.
func (h *Host) ordered(ctx context.Context, _ string, what []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	return nil, h.obey(ctx, string(what))
}

func (h *Host) obey(ctx context.Context, what string) error {
	if what == drainOff {
		return h.undrain(ctx)
	}
	pace, err := strconv.ParseFloat(what, 64)
	if err != nil || pace <= 0 {
		return fmt.Errorf("%q is not a pace", what)
	}
	return h.drain(ctx, pace)
}

// drainage is a drain that goes on by itself.
type drainage struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: none has begun
	over   sync.WaitGroup
	closed bool // the Host stops
}

var errStopping = errors.New("the node stops")

// begin ends the drain that is under way; the caller unlocks mu.
func (d *drainage) begin() error {
	d.mu.Lock()
	if d.closed {
		return errStopping
	}
	d.halt()
	return nil
}

// halt ends the drain, wherever it is; mu is held.
func (d *drainage) halt() {
	if d.cancel != nil {
		d.cancel()
		d.over.Wait()
		d.cancel = nil
	}
}

// drain begins to, or goes on at another pace.
func (h *Host) drain(ctx context.Context, pace float64) error {
	defer h.drainage.mu.Unlock()
	if err := h.drainage.begin(); err != nil {
		return err
	}
	if h.node != nil {
		if err := h.handOver(ctx); err != nil {
			return err
		}
	}
	h.opt.Log.Info("draining", "pace", pace)
	ctx, h.drainage.cancel = context.WithCancel(context.Background())
	h.drainage.over.Go(func() {
		err := h.sendAway(ctx, pace)
		switch {
		case err == nil:
			h.opt.Log.Info("drained")
		case ctx.Err() == nil:
			h.opt.Log.Error("draining ended", "err", err)
		}
	})
	return nil
}

// sendAway drains every Server that can.
func (h *Host) sendAway(ctx context.Context, pace float64) error {
	var errs []error
	for _, r := range h.servers {
		if d, ok := r.server.(Drainer); ok {
			errs = append(errs, d.Drain(ctx, pace))
		}
	}
	return errors.Join(errs...)
}

func (h *Host) undrain(ctx context.Context) error {
	defer h.drainage.mu.Unlock()
	if err := h.drainage.begin(); err != nil {
		return err
	}
	var errs []error
	if h.node != nil {
		errs = append(errs, h.node.Members().Undrain(ctx))
	}
	for _, r := range h.servers {
		if d, ok := r.server.(Drainer); ok {
			errs = append(errs, d.Reopen(ctx))
		}
	}
	return errors.Join(errs...)
}

// moveOut is the first part of a stop: what this node owns and its clients go to
// other nodes, if there are any.
func (h *Host) moveOut(ctx context.Context) error {
	h.drainage.mu.Lock()
	h.drainage.closed = true
	h.drainage.halt()
	h.drainage.mu.Unlock()
	if h.node == nil || !h.node.Held() {
		return nil
	}
	if err := h.handOver(ctx); err != nil {
		h.opt.Log.Warn("the other nodes do not know that this one is about to leave", "err", err)
	}
	if !h.heirs(h.opt.Node) {
		return nil
	}
	return h.sendAway(ctx, 0)
}
