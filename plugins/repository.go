package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/plugins/config"
)

// Errors of the Repository.
var (
	ErrUnknown   = errors.New("no such component")
	ErrElsewhere = errors.New("it is not at work on this node")
	ErrPhase     = errors.New("not possible in this phase")
	ErrRequired  = errors.New("others need it")
)

// Repository is the only one that sees both plugins and Servers: it takes
// components through their lives while the Servers go on. One change happens
// at a time.
type Repository struct {
	host    *Host
	plugins []Plugin // sorted by requirement

	change sync.Mutex // held during a change, which may wait for work to drain
	mu     sync.Mutex // guards what follows
	slots  []*slot    // in the order of plugins, then of their makers
	shared map[string]any
}

// slot is the place of one component.
type slot struct {
	server, name string
	plugin       Plugin
	maker        Maker

	phase   Phase
	since   time.Time
	err     string
	behind  string // why it has not followed what is wanted of it
	made    Component
	metrics *tracked
	detach  func(context.Context) error
}

func (s *slot) key() slotKey { return slotKey{s.server, s.name} }

func newRepository(h *Host, sorted []Plugin) *Repository {
	r := &Repository{host: h, plugins: sorted, shared: map[string]any{}}
	for _, p := range sorted {
		for _, m := range p.Components {
			if _, here := h.running(m.Server); !here {
				continue // that Server runs on another node
			}
			r.slots = append(r.slots, &slot{server: m.Server, name: m.name(p), plugin: p, maker: m, phase: Absent, since: h.opt.Clock.Now()})
		}
	}
	return r
}

// prepare migrates, makes contracts, and makes the components that the
// configuration enables, or that were installed or started at run time.
func (r *Repository) prepare(ctx context.Context) error {
	for _, p := range r.plugins {
		if p.Migrations != nil {
			if err := r.host.opt.DB.Migrate(ctx, p.Name, p.Migrations); err != nil {
				return fmt.Errorf("plugin %s: %w", p.Name, err)
			}
		}
		if p.Contract != nil {
			c, err := p.Contract(r.host.env(p.Name, r.visible(p)))
			if err != nil {
				return fmt.Errorf("plugin %s: %w", p.Name, err)
			}
			r.shared[p.Name] = c
		}
	}
	now := r.host.wanted()
	for _, s := range r.slots {
		if now.phase(s.key()) != Absent {
			if err := r.make(s, now.tree); err != nil {
				return err
			}
		}
	}
	return nil
}

// visible are the contracts that a plugin has asked for, and its own.
func (r *Repository) visible(p Plugin) map[string]any {
	out := map[string]any{}
	for _, name := range append([]string{p.Name}, p.Requires...) {
		if c, ok := r.shared[name]; ok {
			out[name] = c
		}
	}
	return out
}

// make builds the slot's component from a configuration. Absent → Installed.
func (r *Repository) make(s *slot, tree *config.Tree) error {
	c, m, err := r.build(s, tree)
	if err != nil {
		return err
	}
	r.set(s, func() { s.made, s.metrics, s.phase, s.err = c, m, Installed, "" })
	return nil
}

func (r *Repository) build(s *slot, tree *config.Tree) (Component, *tracked, error) {
	env := r.host.env(s.name, r.visible(s.plugin))
	m := &tracked{to: r.host.opt.Metrics}
	env.Metrics = m
	c, err := s.maker.New(env, tree.Section(config.ComponentPath(s.server, s.name)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s in %s: %w", s.name, s.server, err)
	}
	return c, m, nil
}

func (r *Repository) set(s *slot, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	s.since = r.host.opt.Clock.Now()
}

// note keeps why a slot has not followed, for who looks and for the next try.
func (r *Repository) note(s *slot, err error) {
	behind := ""
	if err != nil {
		behind = err.Error()
	}
	r.mu.Lock()
	before := s.behind
	s.behind = behind
	r.mu.Unlock()
	if behind != "" && behind != before {
		r.host.opt.Log.Error("component does not follow its configuration", "component", s.name, "server", s.server, "err", err)
	}
}

// behind tells of every slot that has not followed.
func (r *Repository) behind() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.slots {
		if s.behind != "" {
			out = append(out, s.behind)
		}
	}
	return out
}

func (r *Repository) startAll(ctx context.Context) error {
	r.change.Lock()
	defer r.change.Unlock()
	now := r.host.wanted()
	for _, s := range r.slots {
		if s.phase == Installed && now.phase(s.key()) == Running {
			if err := r.start(ctx, s); err != nil {
				return err
			}
		}
	}
	r.warn()
	return nil
}

func (r *Repository) stopAll(ctx context.Context) error {
	r.change.Lock()
	defer r.change.Unlock()
	var errs []error
	for _, s := range slices.Backward(r.slots) {
		if s.phase == Running {
			errs = append(errs, r.stop(ctx, s))
		}
	}
	return errors.Join(errs...)
}

// start puts a made component to work. Installed → Running.
func (r *Repository) start(ctx context.Context, s *slot) error {
	if err := s.made.Start(ctx); err != nil {
		r.set(s, func() { s.phase, s.err, s.made = Failed, err.Error(), nil })
		return fmt.Errorf("start %s in %s: %w", s.name, s.server, err)
	}
	srv, _ := r.host.running(s.server)
	detach, err := srv.server.Attach(s.name, s.made)
	if err != nil {
		err = errors.Join(err, s.made.Stop(ctx))
		r.set(s, func() { s.phase, s.err, s.made = Failed, err.Error(), nil })
		return fmt.Errorf("attach %s to %s: %w", s.name, s.server, err)
	}
	r.showMetrics(s.name, s.metrics)
	r.set(s, func() { s.detach, s.phase, s.err = detach, Running, "" })
	return nil
}

func (r *Repository) showMetrics(name string, m *tracked) {
	if err := m.show(); err != nil {
		r.host.opt.Log.Warn("metrics not registered", "component", name, "err", err)
	}
}

// stop takes the component from its Server, waits until nothing runs in it any
// more, and ends it. Running → Absent: a stopped one is never started again.
func (r *Repository) stop(ctx context.Context, s *slot) error {
	if err := s.detach(ctx); err != nil {
		return fmt.Errorf("detach %s from %s: %w", s.name, s.server, err)
	}
	s.metrics.hide()
	err := s.made.Stop(ctx)
	r.set(s, func() { s.made, s.detach, s.phase, s.err = nil, nil, Absent, "" })
	if err != nil {
		return fmt.Errorf("stop %s in %s: %w", s.name, s.server, err)
	}
	return nil
}

// replace puts a component with another configuration in the place of the one
// at work: in place if it can, else a new one is built and started, takes over
// in one step, and the old one ends. A failure leaves the old one at work.
func (r *Repository) replace(ctx context.Context, s *slot, tree *config.Tree) error {
	if rc, ok := s.made.(Reconfigurer); ok {
		return rc.Reconfigure(ctx, tree.Section(config.ComponentPath(s.server, s.name)))
	}
	fresh, m, err := r.build(s, tree)
	if err != nil {
		return err
	}
	if err := fresh.Start(ctx); err != nil {
		return fmt.Errorf("start %s in %s: %w", s.name, s.server, err)
	}
	srv, _ := r.host.running(s.server)
	detach, err := srv.server.Attach(s.name, fresh)
	if err != nil {
		return errors.Join(err, fresh.Stop(ctx))
	}
	old, oldMetrics := s.made, s.metrics
	oldMetrics.hide()
	r.showMetrics(s.name, m)
	r.set(s, func() { s.made, s.metrics, s.detach = fresh, m, detach })
	if err := old.Stop(ctx); err != nil {
		r.host.opt.Log.Error("replaced component did not stop cleanly", "component", s.name, "err", err)
	}
	return nil
}

func (r *Repository) find(server, name string) (*slot, error) {
	i := slices.IndexFunc(r.slots, func(s *slot) bool { return s.server == server && s.name == name })
	if i < 0 {
		return nil, r.missing(server, func(p Plugin, m Maker) bool { return m.Server == server && m.name(p) == name }, name+" in "+server)
	}
	return r.slots[i], nil
}

// missing says why there is no such component here: nobody knows it, or its
// Server is on other nodes, which are told.
func (r *Repository) missing(server string, is func(Plugin, Maker) bool, what string) error {
	known := slices.ContainsFunc(r.plugins, func(p Plugin) bool {
		return slices.ContainsFunc(p.Components, func(m Maker) bool { return is(p, m) })
	})
	if !known {
		return fmt.Errorf("%w: %s; `parley component list` shows those of this node", ErrUnknown, what)
	}
	var nodes []string
	for _, m := range r.host.members() {
		if server == "" && m.Node != r.host.opt.Node || slices.Contains(m.Servers, server) {
			nodes = append(nodes, m.Node)
		}
	}
	if len(nodes) == 0 {
		return fmt.Errorf("%w: %s; no node with its Server is there now", ErrElsewhere, what)
	}
	return fmt.Errorf("%w: %s; give the command on one of %s: the change reaches every node", ErrElsewhere, what, strings.Join(nodes, ", "))
}

// needed returns an error when running components of other plugins require the
// slot's plugin: it names them all, in the order in which they can be stopped.
func (r *Repository) needed(s *slot) error {
	by := r.dependants(s, nil)
	if len(by) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s is required by %s: stop them first, in this order", ErrRequired, s.plugin.Name, strings.Join(by, ", "))
}

// dependants are the running components whose plugins require the slot's, directly
// or by way of others, those that nothing else requires first. besides names Servers
// whose components do not count; nil: none.
func (r *Repository) dependants(s *slot, besides map[string]bool) (out []string) {
	need := map[string]bool{s.plugin.Name: true}
	for _, o := range r.slots { // each comes behind what it requires
		if !besides[o.server] && o.phase == Running && slices.ContainsFunc(o.plugin.Requires, func(name string) bool { return need[name] }) && o.plugin.Name != s.plugin.Name {
			need[o.plugin.Name] = true
			out = append(out, fmt.Sprintf("%s in %s", o.name, o.server))
		}
	}
	slices.Reverse(out)
	return out
}

// warn says of what is switched off in the configuration which components that run
// would have more to do with it. At run time they would have to be stopped first; a
// configuration may want them without.
func (r *Repository) warn() {
	for _, s := range r.slots {
		if s.phase != Absent {
			continue
		}
		there := map[string]bool{} // with a part of the plugin beside them, components have what they require
		for _, o := range r.slots {
			there[o.server] = there[o.server] || o.plugin.Name == s.plugin.Name && o.phase == Running
		}
		if by := r.dependants(s, there); len(by) > 0 {
			r.host.opt.Log.Warn("a component is switched off that others require: they do without what it does", "component", s.name, "server", s.server, "without", strings.Join(by, ", "))
		}
	}
}

func (r *Repository) list() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Status, 0, len(r.slots))
	for _, s := range r.slots {
		out = append(out, Status{Server: s.server, Name: s.name, Plugin: s.plugin.Name, Doc: s.plugin.Doc, Phase: s.phase, Since: s.since, Error: cmp.Or(s.behind, s.err)})
	}
	return out
}
