package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/plugins/config"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/channel/nats/embedded"
	"parley/router/cluster"
	"parley/router/cluster/owner"
	"parley/storage"
)

// How a Host takes part in a cluster: it enters before anything is made (ids
// need the node's number), joins when there is something to reach, and leaves
// when nothing is.

// The Servers of the road.
const (
	streamer  = "streamer"
	parser    = "parser"
	processor = "processor"
	router    = "router"
)

// farWorkers is how many workers a Server has that another node's stage sends
// to, when the configuration does not say: what comes over one pipe comes on one
// goroutine, and must not wait there for the database.
const farWorkers = 64

// workers is how many workers the Server's channel has.
func (h *Host) workers(server string, d Deployment) int {
	if d.Workers > 0 || h.node == nil {
		return d.Workers
	}
	far := server == streamer && h.node.Front() || server == processor && d.Type == distributed
	if !far {
		return 0
	}
	return farWorkers
}

// distributed is the deployment of what other nodes reach.
const distributed = "distributed"

// errFenced ends a process that the other nodes may take for dead.
var errFenced = errors.New("this node has lost its place in the cluster (Postgres did not answer, or the process stood still): it ends, so that what others do in its place is not done twice; start it again")

// clustered reports whether there are to be other nodes.
func (h *Host) clustered() bool { return h.settings.Clustered() }

// enter takes the node's place, if there is a cluster.
func (h *Host) enter(ctx context.Context, all []Plugin) error {
	if !h.clustered() {
		return h.alone(ctx)
	}
	c := h.settings.Cluster.NATS
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
		Registry: h.sessions, Orphaned: h.orphaned, Clock: h.opt.Clock, Log: h.opt.Log, Metrics: h.opt.Metrics,
	})
	if err != nil {
		h.closeMesh()
		return c.explain(err)
	}
	h.node.Answer(callDrain, h.ordered)
	return nil
}

// BesideError is why a process that is no node of the cluster does not work on
// its database: the nodes would not hear of what it does, nor forget what they
// know, and some of its ids would be theirs.
type BesideError struct {
	Nodes []string // that live
}

func (e *BesideError) Error() string {
	return fmt.Sprintf("nodes of a cluster work on this database (%s), and this process is none of them: stop them, or configure cluster.nats; a node that was killed counts until its lease is over", strings.Join(e.Nodes, ", "))
}

// alone refuses to work beside nodes without being one.
func (h *Host) alone(ctx context.Context) error {
	if h.opt.DB.Dialect() != storage.Postgres {
		return nil
	}
	all, err := cluster.Living(ctx, h.opt.DB)
	if err != nil || len(all) == 0 {
		return err
	}
	beside := &BesideError{}
	for _, m := range all {
		beside.Nodes = append(beside.Nodes, m.Node)
	}
	slices.Sort(beside.Nodes)
	return beside
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

// own makes what says which node does the work for a key.
func (h *Host) own() (err error) {
	o := owner.Options{DB: h.opt.DB, Server: "processor", Clock: h.opt.Clock, Log: h.opt.Log.With("component", "owners"), Metrics: h.opt.Metrics}
	if h.node != nil {
		o.Members, o.Pipes = h.node.Members(), h.node.Bus()
	}
	if h.owners, err = owner.New(o); err == nil && h.node != nil {
		h.node.OnLeft(h.owners.Left)
	}
	return err
}

// handOverWithin is how long a drain, or a stop, waits for work that is done for
// keys of this node; what is not given away then goes when it is idle, and is free
// when the node has left.
const handOverWithin = 2 * time.Second

// handOver tells the other nodes that this one drains, and gives them what it
// owns. The error is that they do not know; what is not given away goes later.
func (h *Host) handOver(ctx context.Context) error {
	if h.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handOverWithin)
	defer cancel()
	err := h.owners.Drain(ctx)
	if err != nil && h.node.Members().Self().Draining {
		h.opt.Log.Warn("not everything that this node owns was given away", "err", err)
		return nil
	}
	return err
}

// leaveFronts lets the clients of this node's fronts go on elsewhere, before it stops.
func (h *Host) leaveFronts(ctx context.Context) {
	if h.node == nil || !h.node.Held() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverWithin)
	defer cancel()
	if err := h.node.LeaveFronts(ctx); err != nil {
		h.opt.Log.Warn("not every front knows that this node stops: it finds out", "err", err)
	}
}

// reachable are the Servers of this node. In a cluster a node has everything, or
// is a front or a core, and what others have to reach is distributed.
func (h *Host) reachable(all []Plugin) (names []string, err error) {
	types := map[string]string{}
	for _, p := range all {
		if p.Serve == nil || !h.tree.ServerEnabled(p.Serve.Name) {
			continue
		}
		d, err := config.Get[Deployment](h.tree, config.ServerPath(p.Serve.Name)+"."+deploymentKey)
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", p.Serve.Name, err)
		}
		names = append(names, p.Serve.Name)
		types[p.Serve.Name] = d.Type
	}
	has := func(server string) bool { return slices.Contains(names, server) }
	for _, server := range []string{streamer, router} {
		if has(server) && types[server] != distributed {
			return nil, fmt.Errorf("in a cluster servers.%s.deployment.type must be distributed: deliveries cross", server)
		}
	}
	if has(parser) && types[parser] == distributed {
		return nil, errors.New("servers.parser.deployment.type must be local: what comes to a core without its parser is parsed by the core's")
	}
	switch {
	case has(processor) != has(router):
		return nil, errors.New("servers.processor and servers.router are switched on together: they share who is bound where, and each reads what the other has just written")
	case has(processor) && !has(parser):
		return nil, errors.New("servers.parser is switched off: a core needs its own for what comes back")
	case has(processor) && !has(streamer) && types[processor] != distributed:
		return nil, errors.New("servers.processor.deployment.type must be distributed where there is no streamer: fronts reach it")
	case has(streamer) && !has(processor) && types[processor] == "": // a front
	case !has(streamer) && !has(processor):
		return nil, errors.New("this node has neither a streamer nor a processor: switch on the streamer (a front), the processor and the router (a core), or all of them")
	}
	if types[processor] == distributed {
		names = append(names, cluster.Reachable)
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
	if err := h.node.Begin(cluster.Links{Streamer: h.link(streamer), Parser: h.link(parser), Processor: h.link(processor), Router: h.link(router)}); err != nil {
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
	if h.node.Front() {
		if err := h.node.AwaitCore(ctx); errors.Is(err, cluster.ErrFenced) {
			return errFenced
		} else if err != nil {
			return fmt.Errorf("waiting for a core: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	if err := h.node.Met(ctx); err != nil {
		h.opt.Log.Warn("not all nodes were met at the start", "err", err)
	}
	return nil
}

// orphan is a Server that has lost what it sends to.
type orphan interface{ Orphaned(context.Context) }

// orphaned is when a front's core is gone.
func (h *Host) orphaned(ctx context.Context) {
	for _, r := range h.servers {
		if o, ok := r.server.(orphan); ok {
			o.Orphaned(ctx)
		}
	}
}

// leave gives the place back; once. What a Server that has not ended in time still
// sends finds a node that has left, not none.
func (h *Host) leave(ctx context.Context) (err error) {
	h.leaving.Do(func() {
		if h.owners != nil {
			h.owners.Close()
		}
		if h.node == nil {
			return
		}
		close(h.left)
		h.watch.Wait()
		err = h.node.End(ctx)
		h.closeMesh()
	})
	return err
}

// Settled returns when everything that was on its way to other nodes, or in
// queues of this one, has been handled; for tests.
func (h *Host) Settled(ctx context.Context) error {
	if h.node == nil {
		return nil
	}
	if err := h.node.Settled(ctx); err != nil {
		return err
	}
	for _, l := range h.links {
		if q, ok := l.DataReceiver.(*channel.Queue); ok {
			if err := q.Idle(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) slot() int {
	if h.node == nil {
		return -1
	}
	return h.node.Number()
}

func (h *Host) halves() Halves {
	if h.node == nil {
		return nil
	}
	return h.node
}

func (h *Host) notices() Notices {
	if h.node == nil {
		return nil
	}
	return h.node
}
