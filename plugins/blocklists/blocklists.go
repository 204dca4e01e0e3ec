// Package blocklists keeps away those who are on block lists that others keep: nodes of
// pubsub whose items are SHA-256 sums of bare JIDs, or of domains (real-time block lists,
// as muc_bans_sha256).
//
//	a list's service  → fetched whole (XEP-0060 §6.5) when it is due, and subscribed to
//	what it says      → each change at once, on all nodes
//	the table         → what counts after a restart and while the service is away
//	who is listed     → to accounts like somebody who is blocked (XEP-0191 §3.3); in rooms forbidden
//
// Whoever is in an account's roster, or has an affiliation with a room, is known there:
// lists do not keep him away.
package blocklists

import (
	"context"
	"embed"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/muc"
	"parley/plugins/pubsub"
	"parley/plugins/roster"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "blocklists"

//go:embed sql
var migrations embed.FS

// Plugin provides the components and the contract *Lists.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Keeps away those who are on block lists that others keep.",
	Requires: []string{admin.Name, muc.Name, pubsub.Name, roster.Name},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newPart},
		{Server: admin.Name, New: newDoor},
	},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newLists(env), nil },
}

// Config is the component's section.
type Config struct {
	Lists    []string      `yaml:"lists" max:"20" doc:"Block lists that keep people away from accounts and rooms: rtbl.example, or xmpp:rtbl.example?;node=NODE; the node is muc_bans_sha256 unless it is named."`
	Rooms    []string      `yaml:"room_lists" max:"20" doc:"Block lists that keep people away from rooms alone."`
	MaxItems int           `yaml:"max_items" min:"1" max:"5000000" doc:"Items of one list; what is more is left out."`
	Refresh  time.Duration `yaml:"refresh" min:"1m" max:"168h" doc:"How often a list is fetched whole, and subscribed to again; changes come at once."`
	Retry    time.Duration `yaml:"retry" min:"100ms" max:"1h" doc:"When a list is tried again that could not be fetched; twice as long each time, an hour at most."`
}

func defaults() *Config {
	return &Config{MaxItems: 100_000, Refresh: 6 * time.Hour, Retry: time.Minute}
}

// contacts is what is asked of the roster.
type contacts interface {
	Contacts(ctx context.Context, owner jid.JID) (*roster.Snapshot, error)
}

// part works in the processor.
type part struct {
	env    plugins.Env
	cfg    Config
	wanted map[string]*list // by source
	lists  *Lists
	roster contacts
	pubsub *pubsub.PubSub
	reg    *processor.Registrar

	refused *prometheus.CounterVec
	items   *prometheus.GaugeVec
	age     *prometheus.GaugeVec

	fetches sync.WaitGroup // one for each list at most
	mu      sync.Mutex
	busy    map[string]bool      // lists that are being fetched
	began   map[string]time.Time // when each was last, by this node

	cancel context.CancelFunc
	ready  chan struct{} // closed when reg is there
	hurry  chan struct{} // something is due
	done   chan struct{}
}

var _ processor.Component = (*part)(nil)

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &part{env: env, cfg: *defaults(), busy: map[string]bool{}, began: map[string]time.Time{}, ready: make(chan struct{}), hurry: make(chan struct{}, 1), done: make(chan struct{})}
	err := c.Decode(&p.cfg)
	if err != nil {
		return nil, err
	}
	if p.wanted, err = p.cfg.sources(); err != nil {
		return nil, err
	}
	if p.lists, err = plugins.Need[*Lists](env, Name); err != nil {
		return nil, err
	}
	if p.roster, err = plugins.Need[contacts](env, roster.Name); err != nil {
		return nil, err
	}
	if p.pubsub, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name); err != nil {
		return nil, err
	}
	p.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_blocklist_refused_total", Help: "Stanzas of people who are on a block list: message, presence, iq; room: what they wanted of rooms."}, []string{"list", "what"})
	p.items = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_blocklist_items", Help: "How many are on a block list."}, []string{"list"})
	p.age = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_blocklist_fetched_timestamp_seconds", Help: "When a block list was fetched the last time."}, []string{"list"})
	for _, m := range []prometheus.Collector{p.refused, p.items, p.age} {
		if err := env.Metrics.Register(m); err != nil {
			return nil, fmt.Errorf("blocklists metrics: %w", err)
		}
	}
	return p, nil
}

// sources reads what is configured.
func (c *Config) sources() (map[string]*list, error) {
	out := map[string]*list{}
	for _, group := range []struct {
		names []string
		rooms bool
	}{{c.Rooms, true}, {c.Lists, false}} { // what is in both is for everything
		for _, name := range group.names {
			src, err := parseSource(name)
			if err != nil {
				return nil, err
			}
			out[src.String()] = &list{source: src, rooms: group.rooms}
		}
	}
	return out, nil
}

// Start implements plugins.Component: what is kept counts before the first stanza.
func (p *part) Start(ctx context.Context) error {
	all := make([]*list, 0, len(p.wanted))
	for src, l := range p.wanted {
		if err := p.lists.store.ensure(ctx, src); err != nil {
			return err
		}
		all = append(all, l)
	}
	p.lists.configure(all)
	for src := range p.wanted {
		if err := p.lists.load(ctx, src); err != nil {
			return err
		}
	}
	life, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.tend(life)
	return nil
}

// Stop implements plugins.Component.
func (p *part) Stop(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	close(p.ready)
	if len(p.wanted) == 0 {
		return
	}
	processor.On(r, processor.Incoming, processor.First, p.incoming)
	processor.On(r, processor.Asked, processor.First, p.incoming)
	processor.On(r, muc.Arriving, processor.First, p.arriving)
	processor.On(r, processor.ToServer, processor.Early, p.notified)
	processor.On(r, pubsub.Published, processor.Normal, p.published)
	processor.On(r, pubsub.Retracted, processor.Normal, p.retracted)
}

// incoming keeps away who is on a list: to him it looks like an account that is offline,
// or not there (XEP-0191 §3.3, RFC 6121 §8.5.1).
func (p *part) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.From.Bare() == f.Account {
		return processor.Continue, nil
	}
	src := p.lists.Match(f.From, false)
	if src == "" {
		return processor.Continue, nil
	}
	s, err := p.roster.Contacts(ctx, f.To.Bare())
	if err != nil {
		return processor.Stop, err
	}
	if _, known := s.Item(f.From.Bare()); known {
		return processor.Continue, nil
	}
	p.refused.WithLabelValues(src, f.Kind.String()).Inc()
	if f.Kind == stanza.Presence {
		return processor.Stop, nil
	}
	return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
}

// arriving keeps him out of rooms (XEP-0045 §7.2.7) unless they know him.
func (p *part) arriving(_ context.Context, a *muc.Arrival) (processor.Verdict, error) {
	src := p.lists.Match(a.From, true)
	if src == "" || a.Standing() > muc.IsNone {
		return processor.Continue, nil
	}
	p.refused.WithLabelValues(src, "room").Inc()
	return processor.Stop, stanza.NewError(stanza.Forbidden, "you are on the block list "+src+"; an admin of the room can make you a member")
}
