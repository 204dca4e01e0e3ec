package pubsub

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/disco"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
)

// component works in the processor.
type component struct {
	*PubSub
	cfg     Config
	rosters rosters
	caps    *disco.Caps
	reg     *processor.Registrar
	was     interests
	afar    *afar
	requests,
	sent *prometheus.CounterVec
	tasks sync.WaitGroup
	stop  context.CancelFunc
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, conf plugins.Config) (plugins.Component, error) {
	c := &component{cfg: *defaults(), afar: newAfar()}
	if err := conf.Decode(&c.cfg); err != nil {
		return nil, err
	}
	if strings.ContainsAny(c.cfg.Prefix, "@/ ") {
		return nil, fmt.Errorf("host_prefix %q is no label of a domain", c.cfg.Prefix)
	}
	var err error
	if c.cfg.Prefix != "" {
		if _, err = env.Domains.Services(c.cfg.Prefix); err != nil { // nothing else is to be there
			return nil, err
		}
	}
	if c.PubSub, err = plugins.Need[*PubSub](env, Name); err != nil {
		return nil, err
	}
	if c.rosters, err = plugins.Need[rosters](env, roster.Name); err != nil {
		return nil, err
	}
	if c.caps, err = plugins.Need[*disco.Caps](env, "disco"); err != nil {
		return nil, err
	}
	c.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_pubsub_requests_total", Help: "Requests to pubsub services, by what was asked and whether it was done."}, []string{"request", "outcome"})
	c.sent = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_pubsub_notifications_total", Help: "Notifications sent, by what for: subscription, interest, last; and last items not sent because of last_items."}, []string{"cause"})
	for _, m := range []prometheus.Collector{c.requests, c.sent} {
		if err := env.Metrics.Register(m); err != nil {
			return nil, fmt.Errorf("pubsub metrics: %w", err)
		}
	}
	return c, nil
}

// Start implements plugins.Component.
func (c *component) Start(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = cancel
	c.tasks.Go(func() { c.sweep(work) })
	return nil
}

// Stop implements plugins.Component.
func (c *component) Stop(context.Context) error {
	c.live.CompareAndSwap(c, nil)
	if c.stop != nil {
		c.stop()
	}
	c.tasks.Wait()
	return nil
}

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	c.reg = r
	c.live.Store(c)
	accounts := processor.Self | processor.Account
	r.IQ(NS, "pubsub", accounts, c.account)
	r.IQ(NSOwner, "pubsub", accounts, c.account)
	r.AccountFeature(accountFeatures()...)
	if c.cfg.Prefix != "" {
		r.Owned(processor.Owned{Key: c.addressed, Handle: c.serve})
	}
	processor.On(r, processor.Incoming, processor.Early, c.granted)
	processor.On(r, processor.Incoming, processor.Normal, c.answered)
	processor.On(r, processor.AccountRemoved, processor.Normal, c.removed)
	processor.On(r, disco.Info, processor.Normal, c.info)
	processor.On(r, disco.Items, processor.Normal, c.discoItems)
	processor.On(r, disco.CapsKnown, processor.Normal, c.interested)
	processor.On(r, presence.Became, processor.Normal, c.became)
	processor.On(r, roster.Reshared, processor.Late, c.reshared)
}

// service is the address of the common service of a domain.
func (c *component) service(domain string) (jid.JID, error) {
	return jid.Parse(c.cfg.Prefix + "." + domain)
}

// isService reports whether the domain is that of a common service.
func (c *component) isService(domain string) bool {
	rest, ok := strings.CutPrefix(domain, c.cfg.Prefix+".")
	return ok && c.cfg.Prefix != "" && c.env.Local(rest)
}
