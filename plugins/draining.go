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
)

// How a Host lets its clients go to the other nodes: because somebody says so
// (Control.Drain), or because it stops.
//
// A node that drains lets nobody in as long as others do. When there is none that
// would take its clients, because all drain or the others have gone, it goes on
// with those it has and lets new ones in, until there is one again.

// Errors of Control.Drain.
var (
	ErrNode  = errors.New("no such node")
	ErrAlone = errors.New("there is no other node that would take its clients")
)

// Drainer is a Server whose clients can go to other nodes while it goes on.
type Drainer interface {
	// Drain lets nobody in any more and sends away who is there, pace of them a
	// second. It returns when nobody is left, or ctx is done. With a pace of 0 the
	// Server is about to be stopped: it returns when everybody has been told, in
	// less time than clients have to leave.
	Drain(ctx context.Context, pace float64) error
	// Reopen lets clients in again, when Drain has returned.
	Reopen(ctx context.Context) error
}

// callDrain is how a node is told to drain, with the pace, or with drainOff not
// to any more.
const (
	callDrain = "drain"
	drainOff  = "off"
)

// orderLimit bounds what a node does when it is told to.
const orderLimit = 10 * time.Second

// Drain implements Control.
func (c control) Drain(ctx context.Context, node string, pace float64) error {
	if _, err := c.h.find(node); err != nil {
		return err
	}
	if !c.h.heirs(node) {
		return fmt.Errorf("%s is not drained: %w", node, ErrAlone)
	}
	return c.h.order(ctx, node, strconv.FormatFloat(pace, 'g', -1, 64))
}

// Undrain implements Control.
func (c control) Undrain(ctx context.Context, node string) error {
	if _, err := c.h.find(node); err != nil {
		return err
	}
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
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	if node == h.opt.Node {
		return h.obey(ctx, what)
	}
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
	if err != nil || !(pace > 0) {
		return fmt.Errorf("%q is not a pace", what)
	}
	return h.drain(ctx, pace)
}

// drainage is a drain that goes on by itself.
type drainage struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: none has begun
	over   chan struct{}      // closed when it has ended
	closed bool               // the Host stops
}

var errStopping = errors.New("the node stops")

// begin ends the drain that is under way; the caller unlocks mu.
func (d *drainage) begin(ctx context.Context) error {
	d.mu.Lock()
	if d.closed {
		return errStopping
	}
	return d.halt(ctx)
}

// halt ends the drain, wherever it is; mu is held.
func (d *drainage) halt(ctx context.Context) error {
	if d.cancel == nil {
		return nil
	}
	d.cancel()
	select {
	case <-d.over:
		d.cancel = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the drain that is under way does not end: %w", ctx.Err())
	}
}

// close ends the drain; there will be no other one.
func (d *drainage) close(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.halt(ctx)
}

// drain begins to, or goes on at another pace.
func (h *Host) drain(ctx context.Context, pace float64) error {
	defer h.drainage.mu.Unlock()
	if err := h.drainage.begin(ctx); err != nil {
		return err
	}
	if err := h.handOver(ctx); err != nil {
		return err
	}
	h.opt.Log.Info("draining", "pace", pace)
	on, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	h.drainage.cancel, h.drainage.over = cancel, over
	go func() {
		defer close(over)
		h.keepAway(on, pace)
	}()
	return nil
}

// heirsEvery is how often a node that drains looks whether others take clients.
const heirsEvery = 500 * time.Millisecond

// keepAway drains whenever there are heirs, until ctx is done.
func (h *Host) keepAway(ctx context.Context, pace float64) {
	for ctx.Err() == nil {
		on, cancel := context.WithCancel(ctx)
		var going sync.WaitGroup
		going.Go(func() {
			if err := h.sendAway(on, pace); err == nil {
				h.opt.Log.Info("drained")
			} else if on.Err() == nil {
				h.opt.Log.Error("draining ended", "err", err)
			}
		})
		h.await(ctx, func() bool { return !h.heirs(h.opt.Node) })
		cancel()
		going.Wait()
		if ctx.Err() != nil {
			return
		}
		h.opt.Log.Warn("no other node takes clients: this one does, until another one does")
		if err := h.reopen(ctx); err != nil {
			h.opt.Log.Error("clients are not let in", "err", err)
		}
		h.await(ctx, func() bool { return h.heirs(h.opt.Node) })
	}
}

// await returns when something has come true, or ctx is done.
func (h *Host) await(ctx context.Context, come func() bool) {
	for !come() && Pause(ctx, h.opt.Clock, heirsEvery) {
	}
}

// sendAway drains every Server that can.
func (h *Host) sendAway(ctx context.Context, pace float64) error {
	return h.drainers(func(d Drainer) error { return d.Drain(ctx, pace) })
}

func (h *Host) reopen(ctx context.Context) error {
	return h.drainers(func(d Drainer) error { return d.Reopen(ctx) })
}

func (h *Host) drainers(f func(Drainer) error) error {
	var errs []error
	for _, r := range h.servers {
		if d, ok := r.server.(Drainer); ok {
			errs = append(errs, f(d))
		}
	}
	return errors.Join(errs...)
}

func (h *Host) undrain(ctx context.Context) error {
	defer h.drainage.mu.Unlock()
	if err := h.drainage.begin(ctx); err != nil {
		return err
	}
	var err error
	if h.node != nil {
		err = h.node.Members().Undrain(ctx)
	}
	return errors.Join(err, h.reopen(ctx))
}

// moveOut is the first part of a stop: what this node owns and its clients go to
// other nodes, if there are any. Nothing of it is needed for what clients were told
// to be stored, so it is left out when the node is fenced or the database does not
// answer, and ends when that comes to be so.
func (h *Host) moveOut(ctx context.Context) error {
	if err := h.drainage.close(ctx); err != nil {
		return err
	}
	if h.node == nil || !h.node.Held() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fenced := h.node.Fenced()
	go func() {
		select {
		case <-fenced:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := h.handOver(ctx); err != nil {
		h.opt.Log.Warn("the other nodes do not know that this one is about to leave; its clients find out", "err", err)
		return nil
	}
	if !h.heirs(h.opt.Node) {
		return nil
	}
	if err := h.sendAway(ctx, 0); err != nil {
		h.opt.Log.Warn("not all clients were told one after the other", "err", err)
	}
	return nil
}
