package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How a node follows what was changed on another. It is told, and looks by
// itself besides; it goes from its version to the last one at once. What cannot
// be done here is said in the database, where all nodes see it, and tried again
// with each look; it keeps nobody else from following.

const (
	// topicConfig is what nodes tell each other of a new version under.
	topicConfig = "config"
	// LookEvery is how long a node may not notice what it was not told.
	LookEvery = 3 * time.Second
	// followWait is how long a change waits for the other nodes.
	followWait = 10 * time.Second
	// askEvery is how often it asks whether they have followed.
	askEvery = 50 * time.Millisecond
)

// ConfigNode is how far a node is with what is set at run time.
type ConfigNode struct {
	Node    string    `json:"node"`
	Live    bool      `json:"live"`
	Version int64     `json:"version"` // that counts there
	Tried   int64     `json:"tried"`   // later: one that does not go with its file
	At      time.Time `json:"at"`      // when it came there
	Error   string    `json:"error,omitempty"`
}

// follower is what lets a node follow the others.
type follower struct {
	kick    chan struct{}
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	told    ConfigNode              // what it has last said of itself; with Repository.change
	refused atomic.Pointer[refusal] // why this node cannot take the last version at all
}

// refusal is a version that does not go with the node's file.
type refusal struct {
	version int64
	why     string
}

// hear lets the node be told of changes.
func (h *Host) hear() {
	h.follow.kick = make(chan struct{}, 1)
	if h.node == nil {
		return
	}
	look := func(key string) {
		select {
		case h.follow.kick <- struct{}{}:
		default: // it will look anyway
		}
	}
	h.node.On(topicConfig, look)
	h.node.On(Missed, func(key string) {
		if key == "" {
			look(key)
		}
	})
}

// keepUp takes over what has changed since the Host was made, and follows until
// letGo.
func (h *Host) keepUp(ctx context.Context) {
	if h.node == nil {
		return // nobody else changes anything
	}
	ctx, h.follow.stop = context.WithCancel(context.WithoutCancel(ctx))
	complained := h.look(ctx, "")
	h.follow.tasks.Go(func() {
		for {
			again := make(chan struct{})
			halt := h.opt.Clock.AfterFunc(LookEvery, func() { close(again) })
			select {
			case <-h.follow.kick:
			case <-again:
			case <-ctx.Done():
				halt()
				return
			}
			halt()
			complained = h.look(ctx, complained)
		}
	})
}

func (h *Host) letGo() {
	if h.follow.stop != nil {
		h.follow.stop()
		h.follow.tasks.Wait()
	}
}

// look follows once, and returns what it has complained of, last or before.
func (h *Host) look(ctx context.Context, before string) (complained string) {
	h.repo.change.Lock()
	defer h.repo.change.Unlock()
	c := control{h}
	err := c.catchUp(ctx)
	if ctx.Err() != nil {
		return ""
	}
	if err != nil {
		complained = err.Error()
	}
	if err != nil && complained != before {
		h.opt.Log.Error("this node does not follow the configuration", "err", err)
	}
	c.report(ctx)
	return complained
}

// catchUp follows to the last version, and tries again what could not be done
// before. An error says that this node does not know it, or cannot take it; what
// fails for a component alone is noted there. With Repository.change.
func (c control) catchUp(ctx context.Context) error {
	h := c.h
	v, err := h.overlay.version(ctx)
	if err != nil {
		return err
	}
	now := h.wanted()
	to := now
	if v != now.tree.Version() {
		if to, err = c.load(ctx, now); err != nil {
			return err
		}
	}
	w := todo(now, to)
	for _, s := range h.repo.slots {
		if s.behind != "" {
			w[s.key()] = true
		}
	}
	h.follow.refused.Store(nil)
	if v == now.tree.Version() && len(w) == 0 {
		return nil
	}
	if err := misplaces(now, to); err != nil {
		h.opt.Log.Error("what is configured for domains that are not served does not count", "err", err)
	}
	c.settle(ctx, w, to)
	h.want(to)
	h.serve(to)
	if to.tree.Version() != now.tree.Version() {
		h.opt.Log.Info("followed the configuration", "version", to.tree.Version(), "from", now.tree.Version(), "components", len(w))
	}
	return nil
}

func (c control) load(ctx context.Context, now wanted) (wanted, error) {
	st, err := c.h.overlay.load(ctx)
	if err != nil {
		return now, err
	}
	tree, err := now.tree.WithOverlay(st.overlay)
	if err != nil {
		err = fmt.Errorf("version %d of what is set at run time does not go with this node's file: %w", st.overlay.Version, err)
		c.h.follow.refused.Store(&refusal{st.overlay.Version, err.Error()})
		return now, err
	}
	return wanted{tree, st.said}, nil
}

// self is how far this node is.
func (c control) self() ConfigNode {
	n := ConfigNode{Node: c.h.opt.Node, Live: true, Version: c.h.current().Version()}
	n.Tried = n.Version
	failed := c.h.repo.behind()
	if r := c.h.follow.refused.Load(); r != nil {
		n.Tried, failed = r.version, append(failed, r.why)
	}
	n.Error = strings.Join(failed, "; ")
	return n
}

// report tells the other nodes how far this one is. With Repository.change.
func (c control) report(ctx context.Context) {
	if c.h.node == nil {
		return
	}
	n := c.self()
	if n == c.h.follow.told {
		return
	}
	if err := c.h.overlay.report(ctx, n, c.h.opt.Clock.Now()); err != nil {
		c.h.opt.Log.Warn("the other nodes do not hear which configuration counts here", "err", err)
		return
	}
	c.h.follow.told = n
}

// tellAll lets the other nodes follow to a version, and returns who has not.
func (h *Host) tellAll(ctx context.Context, version int64) []Behind {
	if h.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, followWait)
	defer cancel()
	if err := h.node.Tell(ctx, topicConfig, strconv.FormatInt(version, 10)); err != nil {
		h.opt.Log.Warn("not every node was told of a change", "version", version, "err", err)
	}
	for {
		behind, waiting := h.behind(context.WithoutCancel(ctx), version)
		if !waiting {
			return behind
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return behind
		}
	}
}

// behind are the live nodes where a version does not count as it should; and
// whether one may still come there by itself at once.
func (h *Host) behind(ctx context.Context, version int64) (out []Behind, waiting bool) {
	rows, err := h.overlay.nodes(ctx)
	if err != nil {
		return []Behind{{Node: "?", Why: "it is not known which nodes have followed: " + err.Error()}}, false
	}
	for _, m := range h.node.Members().Live() {
		n := rows[m.Node]
		switch {
		case m.Node == h.opt.Node:
		case n.Tried < version:
			waiting = true
			out = append(out, Behind{m.Node, fmt.Sprintf("it has not answered, and is at version %d; it follows as soon as it can", n.Version)})
		case n.Error != "":
			out = append(out, Behind{m.Node, n.Error})
		}
	}
	return out, waiting
}

// ConfigVersion implements Control.
func (c control) ConfigVersion() int64 { return c.h.current().Version() }

// ConfigLog implements Control.
func (c control) ConfigLog(ctx context.Context, limit int) ([]ConfigEvent, error) {
	return c.h.overlay.log(ctx, limit)
}

// ConfigNodes implements Control.
func (c control) ConfigNodes(ctx context.Context) ([]ConfigNode, error) {
	self := c.self()
	if c.h.node == nil {
		return []ConfigNode{self}, nil
	}
	rows, err := c.h.overlay.nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range c.h.node.Members().Live() {
		n := rows[m.Node]
		n.Node, n.Live = m.Node, true
		rows[m.Node] = n
	}
	self.At = rows[self.Node].At
	rows[self.Node] = self
	out := make([]ConfigNode, 0, len(rows))
	for _, n := range rows {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b ConfigNode) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}

// count registers what a graph shows of this.
func (h *Host) count() error {
	if h.opt.Metrics == nil {
		return nil
	}
	return errors.Join(
		h.opt.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_config_version",
			Help: "Version of what is set at run time that counts on this node."}, func() float64 { return float64(h.current().Version()) })),
		h.opt.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_config_behind",
			Help: "Components of this node that could not follow what was set."}, func() float64 { return float64(len(h.repo.behind())) })),
	)
}
