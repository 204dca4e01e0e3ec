// Package blocking keeps stanzas away from those who do not want them
// (XEP-0191), and takes the reports that come with a block (XEP-0377).
//
//	what a client sends   → Outgoing, First: to somebody it blocked → not-acceptable
//	what comes for it     → Incoming, First: from somebody it blocked → as if it were offline
//	presence on its way   → Reaches: not between people of whom one has blocked the other
//	block, unblock        → table, other devices, presence to those concerned
//
// The account itself and the server cannot be blocked (XEP-0191 §5, note). A
// subscription stays as it is: blocking is polite (XEP-0191 §4).
package blocking

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage/atrest"
)

// Namespaces of XEP-0191 §9.1 and XEP-0377 §11.1.
const (
	NS          = "urn:xmpp:blocking"
	NSErrors    = "urn:xmpp:blocking:errors"
	NSReporting = "urn:xmpp:reporting:1"
)

// Name is the plugin's name, for Requires and plugins.Need.
const Name = "blocking"

//go:embed sql
var migrations embed.FS

// Plugin provides the component and the contract *Lists.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Lets people block others and report abuse.",
	Requires:   []string{roster.Name, presence.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newBlocking}},
	Migrations: migrations,
	Sealed:     []atrest.Table{sealedReports},
	Contract:   func(env plugins.Env) (any, error) { return newLists(env) },
}

// Config is the component's section.
type Config struct {
	MaxItems int     `yaml:"max_items" min:"1" max:"100000" doc:"Addresses that one account may block."`
	Reports  Reports `yaml:"reports" doc:"Reports of abuse that come with a block."`
}

// Reports is the part of the section that is about XEP-0377.
type Reports struct {
	Keep time.Duration `yaml:"keep" min:"1h" doc:"How long reports are kept."`
	Max  int           `yaml:"max_per_account" min:"1" max:"10000" doc:"Reports kept of one reporter; older ones make room."`
}

func defaults() *Config {
	return &Config{MaxItems: 1000, Reports: Reports{Keep: 180 * 24 * time.Hour, Max: 100}}
}

// contacts is what blocking asks of the roster.
type contacts interface {
	Contacts(ctx context.Context, owner jid.JID) (*roster.Snapshot, error)
}

type blocking struct {
	env     plugins.Env
	cfg     Config
	lists   *Lists
	roster  contacts
	reg     *processor.Registrar
	stopped *prometheus.CounterVec
	reports *prometheus.CounterVec
}

var _ processor.Component = (*blocking)(nil)

func newBlocking(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	b := &blocking{env: env, cfg: *defaults()}
	if err := c.Decode(&b.cfg); err != nil {
		return nil, err
	}
	var err error
	if b.lists, err = plugins.Need[*Lists](env, Name); err != nil {
		return nil, err
	}
	if b.roster, err = plugins.Need[contacts](env, roster.Name); err != nil {
		return nil, err
	}
	b.stopped = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_blocked_stanzas_total", Help: "Stanzas that a block has stopped."}, []string{"direction"})
	b.reports = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_abuse_reports_total", Help: "Reports of abuse."}, []string{"reason"})
	for _, m := range []prometheus.Collector{b.stopped, b.reports} {
		if err := env.Metrics.Register(m); err != nil {
			return nil, fmt.Errorf("blocking metrics: %w", err)
		}
	}
	return b, nil
}

// Start implements plugins.Component.
func (*blocking) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*blocking) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (b *blocking) Register(r *processor.Registrar) {
	b.reg = r
	r.Feature(NS, NSReporting) // XEP-0191 §3.1, XEP-0377 §3
	r.IQ(NS, "blocklist", processor.Self, b.get)
	r.IQ(NS, "block", processor.Self, b.block)
	r.IQ(NS, "unblock", processor.Self, b.unblock)
	processor.On(r, processor.Outgoing, processor.First, b.outgoing)
	processor.On(r, processor.Incoming, processor.First, b.incoming)
	processor.On(r, processor.Asked, processor.First, b.incoming)
	processor.On(r, presence.Reaches, processor.First, b.reaches)
	processor.On(r, processor.AccountRemoved, processor.Normal, b.accountRemoved)
}

// get is XEP-0191 §3.2. Who asks gets pushes from then on.
func (b *blocking) get(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "the list is changed with block and unblock")
	}
	b.reg.Change(q.Session.Ref, func(s *sessions.State) { s.Blocking = true })
	l, err := b.lists.of(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "blocklist")
	for _, j := range l.sorted {
		out.Add(item(j))
	}
	return out, nil
}

func item(j jid.JID) *stanza.Element { return stanza.El(NS, "item").With("jid", j.String()) }

// block is XEP-0191 §3.3.
func (b *blocking) block(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	jids, err := b.addresses(q)
	if err != nil {
		return nil, err
	}
	if len(jids) == 0 {
		return nil, stanza.NewError(stanza.BadRequest, "whom?")
	}
	for _, j := range jids {
		if j.Bare() == q.Owner { // XEP-0191 §5, note
			return nil, stanza.NewError(stanza.NotAcceptable, "the account itself cannot be blocked")
		}
	}
	before, after, err := b.lists.add(ctx, q.Owner, jids, b.cfg.MaxItems)
	if err != nil {
		return nil, err
	}
	b.report(ctx, q)
	if err := b.hide(ctx, q.Owner, before, after); err != nil {
		return nil, err
	}
	b.push(ctx, q.Owner, "block", jids)
	return nil, nil
}

// unblock is XEP-0191 §3.4, and §3.5 when it is empty.
func (b *blocking) unblock(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	jids, err := b.addresses(q)
	if err != nil {
		return nil, err
	}
	if len(jids) == 0 && q.Query.Count() > 0 {
		return nil, stanza.NewError(stanza.BadRequest, "no item in it")
	}
	before, after, err := b.lists.remove(ctx, q.Owner, jids)
	if err != nil {
		return nil, err
	}
	b.push(ctx, q.Owner, "unblock", jids)
	return nil, b.show(ctx, q.Owner, before, after)
}

// addresses reads the items of a request, prepared (rule 34).
func (b *blocking) addresses(q *processor.IQ) ([]jid.JID, error) {
	if !q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "the list is read with blocklist")
	}
	var out []jid.JID
	for el := range q.Query.Elements() {
		if el.Name != (stanza.Name{Space: NS, Local: "item"}) {
			continue
		}
		if !el.Has("jid") {
			return nil, stanza.NewError(stanza.BadRequest, "an item without an address")
		}
		j, err := jid.Parse(el.Get("jid"))
		if err != nil {
			return nil, stanza.NewError(stanza.JIDMalformed, "not an address")
		}
		out = append(out, j)
	}
	return out, nil
}

// push tells the devices that have asked for the list (XEP-0191 §3.3).
func (b *blocking) push(ctx context.Context, owner jid.JID, what string, jids []jid.JID) {
	el := stanza.El(NS, what)
	for _, j := range jids {
		el.Add(item(j))
	}
	var out []*stanza.Stanza
	for _, e := range b.env.Sessions.Account(owner) {
		if e.Blocking {
			out = append(out, stanza.Make(stanza.IQ, stanza.TypeSet, owner, e.JID, newID(), el))
		}
	}
	b.reg.Emit(ctx, out...)
}

// outgoing stops what a client sends to somebody its account has blocked
// (rule 64, XEP-0191 §3.3).
func (b *blocking) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.To.IsZero() {
		return processor.Continue, nil
	}
	blocked, err := b.lists.Blocked(ctx, f.Session.JID.Bare(), f.To)
	if err != nil || !blocked {
		return processor.Continue, err
	}
	b.stopped.WithLabelValues("out").Inc()
	return processor.Stop, &stanza.Error{Type: stanza.Cancel, Condition: stanza.NotAcceptable, App: stanza.El(NSErrors, "blocked")}
}

// incoming stops what comes from somebody the account has blocked: to them it
// looks like an account that is offline (rule 64, XEP-0191 §3.3). Who blocks
// somebody has not lost the answers that the house itself gives.
func (b *blocking) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.From.IsZero() {
		return processor.Continue, nil
	}
	blocked, err := b.lists.Blocked(ctx, f.Account, f.From)
	if err != nil || !blocked {
		return processor.Continue, err
	}
	b.stopped.WithLabelValues("in").Inc()
	if f.Kind == stanza.Presence {
		return processor.Stop, nil
	}
	// What must not be answered is not: errors, results of an IQ (RFC 6120 §8.3.1).
	return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
}

func (b *blocking) accountRemoved(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	return processor.Continue, b.lists.forget(ctx, account)
}
