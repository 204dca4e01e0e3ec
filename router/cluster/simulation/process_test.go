package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser"
	"parley/plugins"
	"parley/processor"
	"parley/router"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/cluster"
	"parley/router/cluster/owner"
	"parley/router/sessions"
)

// process is one process that lives, or tries to, under a node's name.
type process struct {
	w           *world
	name        string
	number      int // of all processes of this run
	link        link
	way         way
	clock       *clock
	registry    *sessions.Registry
	metrics     *prometheus.Registry
	streamer    *streamer
	archive     *archive
	desk        *desk
	incarnation uint64 // lives.mu

	ctx   context.Context // until it has died
	kill  context.CancelFunc
	died  chan struct{}
	left  chan struct{} // nothing of it runs any more
	tasks sync.WaitGroup

	mu     sync.Mutex
	node   *cluster.Node // nil: not in the cluster yet
	open   bool          // clients may come
	dead   bool
	thawed chan struct{} // not nil: frozen, until it is closed
}

func (p *process) String() string { return fmt.Sprintf("%s.%d", p.name, p.number) }

// awake waits while the process is frozen; false: it is dead.
func (p *process) awake() bool {
	for {
		p.mu.Lock()
		dead, thawed := p.dead, p.thawed
		p.mu.Unlock()
		if dead || thawed == nil {
			return !dead
		}
		select {
		case <-thawed:
		case <-p.died:
		}
	}
}

func (p *process) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// acts reports whether the process takes itself for a living node.
func (p *process) acts() bool {
	p.mu.Lock()
	node, dead := p.node, p.dead
	p.mu.Unlock()
	return !dead && node != nil && node.Held()
}

// freeze is SIGSTOP: what comes waits, what it would say waits, its clock's
// timers too. What is at work goes on as far as it can without those.
func (p *process) freeze(d time.Duration) {
	p.mu.Lock()
	if p.dead || p.thawed != nil {
		p.mu.Unlock()
		return
	}
	thawed := make(chan struct{})
	p.thawed = thawed
	p.mu.Unlock()
	p.w.server.hold(p, true)
	p.w.after(d, func() {
		p.mu.Lock()
		p.thawed = nil
		p.mu.Unlock()
		close(thawed)
		p.w.server.hold(p, false)
		p.w.note("fault", "%s goes on", p)
	})
}

// crash is kill -9.
func (p *process) crash(why string) {
	p.mu.Lock()
	was := p.dead
	p.dead, p.open = true, false
	p.mu.Unlock()
	if was {
		return
	}
	p.w.note("fault", "%s has died: %s", p, why)
	close(p.died)
	p.kill()
	p.w.server.cut(p, true)
	p.streamer.hangUp()
}

// plain is a configuration without keys.
type plain struct{}

func (plain) Decode(any) error { return nil }

// live is the process from its start to its end.
func (p *process) live() {
	defer close(p.left)
	if err := p.start(); err != nil {
		p.w.note("node", "%s does not start: %v", p, err)
		p.crash("it cannot start")
		p.stop()
		return
	}
	select {
	case <-p.node.Fenced():
		if p.awake() { // who is frozen ends later
			p.crash("it is fenced")
		}
	case <-p.died:
	}
	p.stop()
}

// start does what plugins.Host does.
func (p *process) start() error {
	node, err := cluster.Enter(p.ctx, cluster.NodeOptions{
		Name: p.name, Version: "1", Servers: []string{"streamer", "parser", "processor", "router"}, Store: p.desk,
		NATS: nats.Options{
			URLs: []string{"nats://10.0.0.1:4222"}, Cluster: "sim", Window: nats.Window{Frames: p.w.plan.window},
			Dial: p.dial,
		},
		Lease: p.w.plan.lease, Registry: p.registry, Clock: p.clock, Metrics: p.metrics,
		Log: slog.New(journal{w: p.w, process: p}),
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.node = node
	p.mu.Unlock()
	links := map[string]*channel.Inline{}
	for _, name := range []string{"streamer", "parser", "processor", "router"} {
		links[name] = channel.NewInline()
	}
	out := func(name string) channel.MessageChannel {
		if name == "streamer" {
			return node.Streamers(links[name])
		}
		return links[name]
	}
	owners, err := owner.New(owner.Options{Server: "processor", Clock: p.clock, Log: slog.New(slog.DiscardHandler)}) // nothing is owned here
	if err != nil {
		return errors.Join(err, node.End(p.ctx))
	}
	for _, s := range []plugins.Plugin{parser.Plugin, processor.Plugin, router.Plugin} {
		env := plugins.Env{
			Node: p.name, Slot: node.Number(), Domains: plugins.NewDomains(domain), Log: slog.New(journal{w: p.w, process: p}),
			Clock: wall{p.clock}, Metrics: p.metrics, Sessions: p.registry, Notices: node, Owners: owners,
		}
		srv, err := s.Serve.New(env, plain{}, plugins.Links{In: links[s.Name], Out: out})
		if err != nil {
			return errors.Join(err, node.End(p.ctx))
		}
		if s.Name == processor.Name {
			if _, err := srv.Attach("archive", p.archive); err != nil {
				return errors.Join(err, node.End(p.ctx))
			}
		}
		p.tasks.Go(func() { _ = srv.Serve(p.ctx) })
	}
	p.streamer.parser = links["parser"]
	p.tasks.Go(func() { _ = links["streamer"].Receive(p.ctx, p.streamer.deliver) })
	node.On(cluster.TopicMissed, p.archive.missed)
	if err := node.Begin(cluster.Links{Streamer: links["streamer"], Parser: links["parser"], Processor: links["processor"], Router: links["router"]}); err != nil {
		return errors.Join(err, node.End(p.ctx))
	}
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	if err := node.Met(ctx); err != nil {
		p.w.note("node", "%s has not met all: %v", p, err)
	}
	p.mu.Lock()
	p.open = !p.dead
	p.mu.Unlock()
	p.w.note("node", "%s is open, life %d", p, p.incarnation)
	return nil
}

// stop returns when nothing of the process runs any more.
func (p *process) stop() {
	p.mu.Lock()
	node := p.node
	p.mu.Unlock()
	if node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := node.End(ctx); err != nil && !p.over() {
			p.w.fail("%s does not end: %v", p, err)
		}
	}
	p.kill()
	p.streamer.readers.Wait()
	p.archive.tasks.Wait()
	p.tasks.Wait()
}

// leave ends the process in order: its sessions first.
func (p *process) leave() {
	p.mu.Lock()
	p.open = false
	p.mu.Unlock()
	p.streamer.shut()
	p.mu.Lock()
	node := p.node
	p.mu.Unlock()
	if node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := node.End(ctx); err != nil {
			p.w.note("node", "%s leaves badly: %v", p, err)
		}
	}
	p.crash("it has left")
}

// journal takes what the node logs; of what the cluster says of others it keeps
// count.
type journal struct {
	w       *world
	process *process
}

// Enabled implements slog.Handler.
func (journal) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j journal) WithGroup(string) slog.Handler { return j }

// Handle implements slog.Handler.
func (j journal) Handle(_ context.Context, r slog.Record) error {
	text, node, life := r.Message, "", uint64(0)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "node":
			node = a.Value.String()
		case "incarnation":
			life = a.Value.Uint64()
		}
		text += " " + a.String()
		return true
	})
	j.w.note("log", "%s: %s", j.process, text)
	switch r.Message {
	case "node has joined":
		j.w.saw(j.process, node, life, +1)
	case "node has left":
		j.w.saw(j.process, node, life, -1)
	}
	if r.Level >= slog.LevelError {
		j.w.count("errors: " + r.Message)
	}
	return nil
}

// dial is nats.Options.Dial.
func (p *process) dial(context.Context, string, string) (net.Conn, error) { return p.w.server.dial(p) }
