// Package s2s talks to other servers (RFC 6120, dialback XEP-0220).
//
//	to them    router → Gateway → the route of the pair (our domain, theirs), which
//	           queues, finds the server, connects, proves who we are (SASL EXTERNAL,
//	           XEP-0178, or dialback), and writes
//	from them  a door → a stream that proves who it is, pair by pair → parser →
//	           processor, where their users are nobody's clients
//
// Each node of a cluster has streams of its own: what one sender says leaves by
// one node, the one with the client's socket or the room, so that its order is
// kept (RFC 6120 §10.1) without anybody owning a domain.
//
// Dialback keys are made from a secret that all nodes share (XEP-0185), so any node
// answers for the key that another one has sent.
package s2s

import (
	"context"
	"embed"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/router"
	"parley/router/channel"
	"parley/stream"
)

// Namespaces.
const (
	nsDialback         = "jabber:server:dialback"     // XEP-0220 §2
	nsDialbackFeatures = "urn:xmpp:features:dialback" // XEP-0220 §2.4.2
	nsBidi             = "urn:xmpp:bidi"              // XEP-0288 §2.2
	nsBidiFeature      = "urn:xmpp:features:bidi"     // XEP-0288 §2.1
)

//go:embed sql
var migrations embed.FS

// Name is the component's name in configurations.
const Name = "s2s"

// Plugin provides both ends.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Talks to other servers: federation.",
	Contract: func(env plugins.Env) (any, error) { return &Federation{env: env}, nil },
	Components: []plugins.Maker{
		{Server: stream.Name, Defaults: defaults(), New: newStreams},
		{Server: router.Name, New: newGateway},
		{Server: admin.Name, New: newDesk},
	},
	Requires:   []string{admin.Name},
	Migrations: migrations,
}

// Federation joins the plugin's parts; it is the contract.
type Federation struct {
	env    plugins.Env
	out    atomic.Pointer[outbound]         // nil: there are no streams
	router atomic.Pointer[router.Registrar] // nil: there is no router in this process
}

// serves reports whether a domain is one that is served here.
func (f *Federation) serves(domain string) bool {
	if r := f.router.Load(); r != nil {
		return r.Serves(domain)
	}
	return slices.ContainsFunc(f.env.Domains.List(), func(d string) bool { // a front: its core knows which services there are
		return within(domain, d)
	})
}

// gateway takes what the router has for other servers.
type gateway struct{ *Federation }

var _ router.Component = gateway{}

func newGateway(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	f, err := plugins.Need[*Federation](env, Name)
	return gateway{f}, err
}

// Register implements router.Component.
func (g gateway) Register(r *router.Registrar) {
	g.router.Store(r)
	r.Remote(g.send)
}

func (g gateway) send(_ context.Context, e *channel.Envelope) (bool, *stanza.Error) {
	o := g.out.Load()
	if o == nil {
		return false, nil
	}
	return o.send(e)
}

// Start implements plugins.Component.
func (gateway) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (gateway) Stop(context.Context) error { return nil }

// streams is the part in the streamer: doors, and the streams to others.
type streams struct {
	env plugins.Env
	fed *Federation
	out *outbound

	mu      sync.Mutex // guards doors and reg
	doors   []*door
	reg     *stream.Registrar
	stopped bool
	unwatch func()
	accept  sync.WaitGroup
	ctx     context.Context // of accepting
	cancel  context.CancelFunc
}

// door is where other servers come in.
type door struct {
	name, address string
	direct        bool
	open          net.Listener // nil: closed
}

var (
	_ stream.Component     = (*streams)(nil)
	_ plugins.Reconfigurer = (*streams)(nil)
)

func newStreams(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg, err := decode(c, env.Domains)
	if err != nil {
		return nil, err
	}
	f, err := plugins.Need[*Federation](env, Name)
	if err != nil {
		return nil, err
	}
	return &streams{env: env, fed: f, out: newOutbound(f, cfg)}, nil
}

func decode(c plugins.Config, served *plugins.Domains) (*settings, error) {
	cfg := *defaults()
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	return newSettings(cfg, served)
}

// wanted are the doors that a configuration asks for.
func (s *streams) wanted(c *settings) []*door {
	if !c.open() {
		return nil
	}
	all := []*door{{name: Name, address: c.Address}, {name: "s2s-tls", address: c.Direct, direct: true}}
	return slices.DeleteFunc(all, func(d *door) bool { return d.address == "" })
}

// Start implements plugins.Component. Whoever connects waits until Register.
func (s *streams) Start(ctx context.Context) (err error) {
	if !s.out.cfg.Load().open() {
		s.env.Log.Info("no other server is talked to: none of the domains is one that others can find and that is enabled", "domains", s.env.Domains.List())
	}
	if s.out.keys, err = loadKeys(ctx, s.env); err != nil {
		return err
	}
	if err := s.out.metrics.register(s.env.Metrics); err != nil {
		return err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doors = s.wanted(s.out.cfg.Load())
	for _, d := range s.doors {
		if err := d.listen(); err != nil {
			s.closeDoors()
			return err
		}
	}
	return nil
}

func (d *door) listen() (err error) {
	if d.open, err = net.Listen("tcp", d.address); err != nil {
		return fmt.Errorf("%s: %w (servers.streamer.components.s2s: another address, or \"\" for none)", d.name, err)
	}
	return nil
}

// Register implements stream.Component.
func (s *streams) Register(r *stream.Registrar) {
	if s.ctx == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reg = r
	s.out.begin(r)
	s.fed.out.Store(s.out)
	for _, d := range s.doors {
		s.serve(d)
	}
	s.unwatch = s.env.Domains.Watch(func(_, _ []string) { s.rehosted() })
}

// rehosted opens the doors when the first domain comes that others can find, and
// closes them with the last one.
func (s *streams) rehosted() {
	s.mu.Lock()
	stopped := s.stopped
	if !stopped {
		if err := s.reopen(s.out.cfg.Load()); err != nil {
			s.env.Log.Error("the doors for other servers stay closed", "err", err)
		}
	}
	s.mu.Unlock()
	if !stopped {
		s.out.part() // a domain may have become a service's, or the other way round
	}
}

// serve accepts on a door; s.mu is held.
func (s *streams) serve(d *door) {
	open := d.open
	s.reg.Door(d.name, open.Addr())
	s.env.Log.Info("listening", "door", d.name, "address", open.Addr().String())
	s.accept.Go(func() {
		stream.Accept(s.ctx, open, s.env.Clock, s.env.Log, func(c net.Conn) { _ = c.Close() }, func(c net.Conn) {
			go s.out.take(s.ctx, stream.NewTCP(c), d.direct) // the stream belongs to the Server, which waits for it
		})
	})
}

// closeDoors ends accepting; s.mu is held.
func (s *streams) closeDoors() {
	for _, d := range s.doors {
		if d.open == nil {
			continue
		}
		_ = d.open.Close()
		if s.reg != nil {
			s.reg.Door(d.name, nil)
		}
	}
	s.doors = nil
}

// Reconfigure implements plugins.Reconfigurer: streams that are there go on, but for
// those of pairs that may not talk any more.
func (s *streams) Reconfigure(_ context.Context, c plugins.Config) error {
	cfg, err := decode(c, s.env.Domains)
	if err != nil || s.ctx == nil {
		return err
	}
	s.mu.Lock()
	if err = s.reopen(cfg); err == nil {
		s.out.configure(cfg)
	}
	s.mu.Unlock()
	if err == nil {
		s.out.part()
	}
	return err
}

// reopen has the doors that a configuration wants, and no others; s.mu is held.
func (s *streams) reopen(cfg *settings) error {
	fresh := s.wanted(cfg)
	same := func(list []*door, d *door) *door {
		if i := slices.IndexFunc(list, func(x *door) bool { return x.name == d.name && x.address == d.address }); i >= 0 {
			return list[i]
		}
		return nil
	}
	var opened []*door
	for i, d := range fresh {
		if old := same(s.doors, d); old != nil {
			fresh[i] = old
			continue
		}
		if err := d.listen(); err != nil {
			for _, o := range opened {
				_ = o.open.Close()
			}
			return err
		}
		opened = append(opened, d)
	}
	s.doors = slices.DeleteFunc(s.doors, func(d *door) bool { return same(fresh, d) != nil })
	s.closeDoors()
	s.doors = fresh
	for _, d := range opened {
		s.serve(d)
	}
	return nil
}

// Stop implements plugins.Component: it ends every stream to other servers; what
// waits is refused.
func (s *streams) Stop(context.Context) error {
	s.fed.out.CompareAndSwap(s.out, nil)
	if s.ctx == nil {
		return nil
	}
	if s.unwatch != nil {
		s.unwatch()
	}
	s.mu.Lock()
	s.stopped = true
	s.closeDoors()
	s.mu.Unlock()
	s.cancel()
	s.accept.Wait()
	s.out.end()
	return nil
}
