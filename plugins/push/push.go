// Package push wakes devices for what waits on the server (XEP-0357): it tells the
// push services that a client has enabled how many messages wait, and nothing of
// who wrote them or what.
package push

import (
	"context"
	"embed"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/inbox"
	"parley/plugins/message/kinds"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/storage/cache"
)

// Name is the plugin's and the component's.
const Name = "push"

// NS is the namespace of XEP-0357.
const NS = "urn:xmpp:push:0"

//go:embed sql
var migrations embed.FS

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Wakes sleeping devices by the push services that their clients have enabled.",
	Requires:   []string{inbox.Name, pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newPush}},
	Migrations: migrations,
}

// Config is the component's section.
type Config struct {
	MaxTargets int           `yaml:"max_targets" min:"1" max:"100" unit:"services" doc:"Push services that one account may have enabled; one more takes the place of the oldest."`
	Every      time.Duration `yaml:"every" min:"0s" max:"1h" doc:"How long one device is left alone after it was woken: what comes meanwhile is told together. Calls are told at once."`
	Text       string        `yaml:"text" doc:"What is sent in place of a message's text, which some push services need to show anything. Empty: nothing."`
	Tries      int           `yaml:"tries" min:"1" max:"20" doc:"How often in a row a push service may fail for now before it is disabled. One that refuses is disabled at once."`
}

func defaults() *Config {
	return &Config{MaxTargets: 20, Every: 10 * time.Second, Text: "New message", Tries: 8}
}

// Bounds of the work behind the messages.
const (
	maxEvents   = 4096             // messages that have not been counted yet; what is more wakes nobody
	maxGathered = 256              // events that are counted together
	sweepEvery  = 10 * time.Second // how often what is due is looked for
	sweepKey    = "push.sweep"     // one node of a cluster does it
	storeLimit  = 10 * time.Second // one access to the database
)

type push struct {
	env     plugins.Env
	cfg     Config
	store   store
	reg     *processor.Registrar
	enabled *cache.Cache[jid.JID, bool] // which accounts have targets
	events  chan event
	m       *metrics
	stop    context.CancelFunc
	tasks   sync.WaitGroup
}

// event is a message that waits, or with none an account to be looked at.
type event struct {
	account         jid.JID
	messages, calls int
}

var _ processor.Component = (*push)(nil)

const (
	topic     = "push-targets" // what nodes tell each other of changed accounts under
	cachedFor = 5 * time.Minute
	cacheSize = 50_000 // accounts
)

func newPush(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &push{env: env, cfg: *defaults(), store: store{env}, events: make(chan event, maxEvents)}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	o := plugins.CachedAccounts[bool](env, topic, cachedFor)
	o.Size = cacheSize
	var err error
	if p.enabled, err = cache.New(o); err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	p.m, err = newMetrics(env.Metrics)
	return p, err
}

// Start implements plugins.Component.
func (p *push) Start(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = cancel
	p.tasks.Go(func() { p.work(work) })
	return nil
}

// Stop implements plugins.Component.
func (p *push) Stop(context.Context) error {
	if p.stop != nil {
		p.stop()
	}
	p.tasks.Wait()
	return nil
}

// Register implements processor.Component.
func (p *push) Register(r *processor.Registrar) {
	p.reg = r
	r.AccountFeature(NS)
	r.IQ(NS, "enable", processor.Self, p.enable)
	r.IQ(NS, "disable", processor.Self, p.disable)
	processor.On(r, inbox.Waiting, processor.Normal, p.waits)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		if err := p.store.forget(ctx, account); err != nil {
			return processor.Continue, err
		}
		p.changed(ctx, account)
		return processor.Continue, nil
	})
}

// waits takes note of a message; it does not keep its lane waiting.
func (p *push) waits(_ context.Context, w *inbox.Wait) (processor.Verdict, error) {
	if w.Muted("client", "phone") {
		return processor.Continue, nil
	}
	e := event{account: w.Account, messages: 1}
	if w.Kind.Has(kinds.Call) {
		e.calls = 1
	}
	select {
	case p.events <- e:
	default: // the message is in the archive all the same
		p.m.notices.WithLabelValues("dropped").Inc()
	}
	return processor.Continue, nil
}

type metrics struct{ notices *prometheus.CounterVec }

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_push_notices_total", Help: "Notices to push services: sent, failed for now, postponed by the service, refused (the service is disabled), and messages dropped because too many waited to be counted.",
	}, []string{"result"})}
	if err := r.Register(m.notices); err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	return m, nil
}
