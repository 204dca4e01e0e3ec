package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/plugins/config"
	"parley/router/channel/nats"
	"parley/router/channel/nats/embedded"
	"parley/router/cluster"
)

// How a Host takes part in a cluster: it enters before anything is made (ids
// need the node's number), joins when there is something to reach, and leaves
// when nothing is.

// The Servers that other nodes reach.
const (
	streamer = "streamer"
	router   = "router"
)

// errFenced ends a process that the other nodes may take for dead.
var errFenced = errors.New("this node has lost its place in the cluster (Postgres did not answer, or the process stood still): it ends, so that what others do in its place is not done twice; start it again")

// enter takes the node's place, if there is a cluster.
func (h *Host) enter(ctx context.Context, all []Plugin) error {
	c := h.settings.Cluster.NATS
	if c.chosen() == "" || !h.tree.ServerEnabled(streamer) { // without one nobody is connected: a tool that works on the database
		return nil
	}
	names, err := h.reachable(all)
	if err != nil {
		return err
	}
	o, err := h.carrier(ctx)
	if err != nil {
		return err
	}
	h.node, err = cluster.Enter(ctx, cluster.NodeOptions{
		Name: h.opt.Node, Version: h.opt.Version, Servers: names, DB: h.opt.DB, Lease: h.settings.Cluster.Lease, NATS: o,
		Registry: h.sessions, Clock: h.opt.Clock, Log: h.opt.Log, Metrics: h.opt.Metrics,
	})
	if err != nil {
		h.closeMesh()
		return c.explain(err)
	}
	return nil
}

// carrier is what carries envelopes to other nodes: NATS servers, or one in this
// process, which is started.
func (h *Host) carrier(ctx context.Context) (nats.Options, error) {
	c := h.settings.Cluster.NATS
	o, err := c.client()
	if err != nil || c.Embedded.Listen == "" {
		return o, err
	}
	mesh := c.mesh(o.TLS)
	mesh.Log, mesh.Metrics = h.opt.Log.With("component", "cluster"), h.opt.Metrics
	if h.mesh, err = embedded.Start(ctx, mesh); err != nil {
		return o, named(err)
	}
	o.Server, o.TLS = h.mesh, nil
	return o, nil
}

func (h *Host) closeMesh() {
	if h.mesh != nil {
		h.mesh.Close()
		h.mesh = nil
	}
}

// reachable are the Servers of this node; in a cluster they must be such that
// every node does everything, and the others reach what they have to.
func (h *Host) reachable(all []Plugin) (names []string, err error) {
	for _, p := range all {
		if p.Serve == nil {
			continue
		}
		name := p.Serve.Name
		if !h.tree.ServerEnabled(name) {
			continue
		}
		d, err := config.Get[Deployment](h.tree, config.ServerPath(name)+"."+deploymentKey)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", name, err)
		}
		want := "local"
		if name == streamer || name == router {
			want = "distributed"
		}
		if d.Type != want && d.Type != "" {
			return nil, fmt.Errorf("in a cluster servers.%s.deployment.type must be %s: every node runs all stages, and deliveries cross", name, want)
		}
		names = append(names, name)
	}
	for _, need := range []string{streamer, "parser", "processor", router} {
		if !slices.Contains(names, need) {
			return nil, fmt.Errorf("in a cluster every node runs all stages: servers.%s is switched off", need)
		}
	}
	return names, nil
}

// meetWithin is how long a start waits for other nodes; one that does not answer
// is dead, or out of reach, and is met when it comes back.
const meetWithin = 10 * time.Second

// join lets other nodes reach this one, and waits until it knows who is there.
// What arrives before a stage runs waits.
func (h *Host) join(ctx context.Context) error {
	if h.node == nil {
		return nil
	}
	if err := h.node.Begin(cluster.Links{Streamer: h.links[streamer], Parser: h.links["parser"], Processor: h.links["processor"], Router: h.links[router]}); err != nil {
		return err
	}
	h.watch.Go(func() {
		select {
		case <-h.node.Fenced():
			select {
			case h.fatal <- errFenced:
			default:
			}
		case <-h.left:
		}
	})
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	if err := h.node.Met(ctx); err != nil {
		h.opt.Log.Warn("not all nodes were met at the start", "err", err)
	}
	return nil
}

// leave gives the place back; once.
func (h *Host) leave(ctx context.Context) error {
	if h.node == nil {
		return nil
	}
	close(h.left)
	h.watch.Wait()
	err := h.node.End(ctx)
	h.node = nil
	h.closeMesh()
	return err
}

// Settled returns when everything that was on its way to other nodes has
// arrived; for tests.
func (h *Host) Settled(ctx context.Context) error {
	if h.node == nil {
		return nil
	}
	return h.node.Settled(ctx)
}

func (h *Host) slot() int {
	if h.node == nil {
		return -1
	}
	return h.node.Number()
}

func (h *Host) notices() Notices {
	if h.node == nil {
		return nil
	}
	return h.node
}
