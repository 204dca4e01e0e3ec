// Package archive keeps messages: the history that an account's devices query,
// and what waits for an account whose devices are away. It is one store, so
// the two cannot disagree.
//
// Specs: XEP-0313 (archive), XEP-0441 (preferences), XEP-0359 (stanza ids),
// XEP-0160 (offline messages), XEP-0203 (delay), XEP-0334 (hints), XEP-0059
// (pages); RFC 6121 §8.5.2.2.1; the promises D1 to D3 of the design.
//
// The flow of a message (keep.go):
//
//	Outgoing hook, Late  a row in the sender's archive
//	Incoming hook, Late  a row in the recipient's archive, and one in
//	                     archive_pending: somebody has to take it
//	group commit         both are durable, then it is routed and acknowledged
//	Acked hook           one device has it: the pending row goes, a little later
//
// A device that becomes available gets what is pending (replay.go), in order,
// before anything newer: while that lasts the router keeps live messages back.
// Queries are answered in query.go and page.go; rows end in retention.go.
//
// A message that the archive must not hold (preference never, the hint
// no-permanent-store, the configuration "undeliverable") has its body in the
// pending row, so that it is gone when it is delivered.
package archive

import (
	"context"
	"embed"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/message/kinds"
	"parley/plugins/roster"
	"parley/processor"
	"parley/storage"
	"parley/storage/atrest"
	"parley/stream"
)

//go:embed sql
var migrations embed.FS

// Names and namespaces.
const (
	Name = "archive"
	NS   = kinds.NSArchive
)

// Plugin provides the archive.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Messages are stored before they are delivered, kept for devices that are away, and can be queried.",
	Requires: []string{roster.Name}, // the preference that asks for contacts
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newPart},
		{Server: stream.Name, New: newBound},
	},
	Migrations: migrations,
	Sealed:     []atrest.Table{sealedRows, sealedPending},
	Reached:    reached,
	Restored:   restored,
	Contract:   newArchive,
}

// Store says which messages are stored.
type Store string

// The stores.
const (
	All           Store = "all"           // every message that matters, before anybody gets it
	Undeliverable Store = "undeliverable" // only those that no device can take now, until one does
)

// Config is the component's section.
type Config struct {
	Store      Store                    `yaml:"store" enum:"all,undeliverable" doc:"Which messages are stored. all: every one, before it is delivered, so that nothing acknowledged is ever lost and devices can query the history. undeliverable: only those for accounts that are away; delivery does not wait for the disk, there is no history, and what a crash catches on its way is lost."`
	MaxAge     time.Duration            `yaml:"max_age" min:"0s" doc:"Older messages are removed from archives, except those that wait for their recipient. 0: never."`
	MaxAges    map[string]time.Duration `yaml:"max_ages" doc:"max_age of single archives instead: by account or room, or by domain for all of a domain, such as a service of rooms."`
	Quota      int                      `yaml:"quota" min:"0" unit:"messages" doc:"Messages that one account's archive holds; beyond it the oldest are removed. When those wait for their recipient, new ones are refused. 0: no limit."`
	MaxPending int                      `yaml:"max_pending" min:"1" unit:"messages" doc:"Messages that may wait for one account; more are refused (RFC 6121 §8.5.2.2.1)."`
	Page       int                      `yaml:"page" min:"1" max:"1000" unit:"messages" doc:"Size of a page when the client names none."`
	MaxPage    int                      `yaml:"max_page" min:"1" max:"1000" unit:"messages" doc:"Largest page."`
	Queries    int                      `yaml:"queries" min:"1" doc:"Queries that one account may have under way."`
	Timeout    time.Duration            `yaml:"timeout" min:"10ms" doc:"How long one query may take."`
	Expiry     time.Duration            `yaml:"expiry_interval" min:"1s" doc:"How often old messages are looked for."`
}

func defaults() *Config {
	return &Config{
		Store: All, MaxPending: 10_000, Page: 50, MaxPage: 250, Queries: 2,
		Timeout: 2 * time.Second, Expiry: time.Hour,
	}
}

// Archive is the contract: what the components of one Host share.
type Archive struct {
	env    plugins.Env
	owners *owners
	ids    *ids
	mask   *storage.Mask
	resent *resent
	days   *days
	quiet  *quiet
	index  *index
	jids   *jid.Cache   // of stored stanzas: who waits for messages has few senders
	began  int64        // the first id of this process
	open   atomic.Int32 // components that answer queries; two while one replaces the other
	will   will

	serving atomic.Pointer[part] // answers queries of rooms, whose messages it keeps; nil: they have no archive
}

// addresses is how many of stored stanzas are remembered.
const addresses = 1 << 14

func newArchive(env plugins.Env) (any, error) {
	a := &Archive{env: env, quiet: newQuiet(env.DB), index: newIndex(), jids: jid.NewCache(addresses)}
	var err error
	if a.owners, err = newOwners(env.DB); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	key, err := storage.Secret(ctx, env.DB, Name, maskKey)
	if err != nil {
		return nil, err
	}
	if a.mask, err = storage.NewMask(key); err != nil {
		return nil, fmt.Errorf("archive ids: %w", err)
	}
	if a.ids, err = newIDs(ctx, env.DB, env.Clock.Now, env.Slot); err != nil {
		return nil, err
	}
	a.began = a.ids.Next()
	if a.resent, err = newResent(); err != nil {
		return nil, err
	}
	if a.days, err = newDays(); err != nil {
		return nil, err
	}
	env.OnForget(topicOwners, func(key string) {
		if bare, err := jid.Parse(key); err == nil {
			a.owners.forget(bare)
		}
	})
	env.OnForget(plugins.Missed, a.missed)
	return a, nil
}

// startLimit bounds what is read at start.
const startLimit = 30 * time.Second

// part works in the processor.
type part struct {
	*Archive
	cfg     Config
	ages    maxAges
	rosters *roster.Rosters
	reg     *processor.Registrar
	metrics *metrics
	acks    *acks
	replays *replays
	busy    busy
	prune   chan *owner
	tasks   sync.WaitGroup
	stop    context.CancelFunc
	stopped atomic.Bool
}

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*Archive](env, Name)
	if err != nil {
		return nil, err
	}
	p := &part{Archive: a, cfg: *defaults(), prune: make(chan *owner, pruneQueue)}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	if p.rosters, err = plugins.Need[*roster.Rosters](env, roster.Name); err != nil {
		return nil, err
	}
	if p.metrics, err = newMetrics(env.Metrics); err != nil {
		return nil, err
	}
	if p.ages, err = newMaxAges(&p.cfg); err != nil {
		return nil, err
	}
	p.acks = newAcks(p)
	p.replays = newReplays(p)
	p.busy.limit = p.cfg.Queries
	a.owners.count.Store(p.cfg.Quota > 0)
	return p, nil
}

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	processor.On(r, processor.Outgoing, processor.Late, p.outgoing)
	processor.On(r, processor.Incoming, processor.Late, p.incoming)
	processor.On(r, processor.Undelivered, processor.Late, p.undelivered)
	processor.On(r, processor.Acked, processor.Normal, p.acked)
	processor.On(r, processor.Unbound, processor.Normal, p.unbound)
	processor.On(r, processor.Unbound, processor.Last, p.handOn)
	processor.On(r, processor.AccountRemoved, processor.Normal, p.removed)
	processor.On(r, processor.Poisoned, processor.Late, p.poisoned)
	p.replays.register(r)
	p.env.Clock.AfterFunc(ackLinger, func() { p.will.open(p) }) // when acknowledgements come here
	r.Feature("msgoffline")                                     // XEP-0160 §4
	r.AccountFeature("urn:xmpp:sid:0")
	if p.cfg.Store != All {
		return
	}
	anybody := processor.Self | processor.Account
	r.IQ(NS, "query", anybody, p.query)
	r.IQ(NS, "metadata", anybody, p.ownMetadata)
	r.IQ(NS, "prefs", anybody, p.prefs)
	r.AccountFeature(p.features()...)
	r.Feature(retractFeatures()...) // XEP-0424 §3
	p.serving.Store(p)
}

// features are what an archive announces (XEP-0313 §7, XEP-0413 §6,
// XEP-0424 §5, XEP-0431 §3).
func (a *Archive) features() []string {
	all := append(retractFeatures(), NS, NS+"#extended", NS+"#groupchat-field", nsOrder, nsOrder+"@"+NS)
	if a.searches() {
		all = append(all, nsText)
	}
	return all
}

// Start implements plugins.Component.
func (p *part) Start(ctx context.Context) error {
	if p.cfg.Store == Undeliverable {
		p.env.Log.Warn("only messages that nobody can take now are stored: there is no history, and a crash loses what is on its way")
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = cancel
	p.tasks.Go(func() { p.acks.run(work) })
	p.tasks.Go(func() { p.expire(work) })
	if p.cfg.Store == All {
		p.tasks.Go(func() { p.keepIndex(work) })
		p.open.Add(1)
	}
	return nil
}

// Stop implements plugins.Component: what was acknowledged is written down, and
// whoever comes next learns who waits for what.
func (p *part) Stop(context.Context) error {
	p.will.close(p)
	p.serving.CompareAndSwap(p, nil)
	if p.stop != nil {
		p.stop()
		if p.cfg.Store == All {
			p.open.Add(-1)
		}
	}
	p.tasks.Wait()
	p.will.leave(p)
	return nil
}
