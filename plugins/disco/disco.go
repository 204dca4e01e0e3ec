// Package disco answers service discovery (XEP-0030, XEP-0128) for the server
// and on behalf of accounts, and keeps entity capabilities (XEP-0115).
//
//	disco#info, disco#items to a domain of ours   → features of all components + Info, Items hooks
//	the same to an account                        → only for those who may see its presence
//	stream features after login                   → <c/>, the server's own capabilities
//	presence with an unknown <c/>                 → ask that client, verify the hash, keep it
//
// Other features take part by Registrar.Feature and AccountFeature, and by the
// hooks Info and Items where they have more to say: identities, forms, nodes.
package disco

import (
	"context"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
	"parley/stream"
)

// Plugin provides the components and the contract *Caps.
var Plugin = plugins.Plugin{
	Name:     "disco",
	Doc:      "Tells clients and peers what this server and its accounts can do.",
	Requires: []string{roster.Name, presence.Name},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newDisco},
		{Server: stream.Name, Name: "caps", New: newAdvert},
	},
	Contract: func(env plugins.Env) (any, error) { return newCaps(env), nil },
}

// Config is the processor component's section.
type Config struct {
	Name     string   `yaml:"name" doc:"Name of the server's identity, as people see it in service browsers."`
	Services []string `yaml:"services" max:"100" doc:"Addresses of further services to list, for those that do not announce themselves."`
}

func defaults() *Config { return &Config{Name: "Parley"} }

// Question is what all disco requests have in common.
type Question struct {
	Asker   jid.JID         // who asks, as the stanza says
	Session *sessions.Entry // the asker's, when it is a local client
	Owner   jid.JID         // whom: a domain of ours, or an account's bare JID
	Node    string          // about which node; "" for the entity itself
	Own     bool            // the asker asks its own account
}

// Server reports whether the question is about a domain of ours, not about an
// account.
func (q *Question) Server() bool { return q.Owner.IsDomain() }

// InfoAnswer is a disco#info answer in the making. For a node, who knows it
// adds to the facts and sets Known; otherwise the asker is told that there is
// no such node.
type InfoAnswer struct {
	Question
	Facts
	Known bool
}

// Item is something that belongs to an entity (XEP-0030 §4.1).
type Item struct {
	JID  jid.JID
	Node string
	Name string
}

// ItemsAnswer is a disco#items answer in the making; Known as in InfoAnswer.
type ItemsAnswer struct {
	Question
	Items []Item
	Known bool
}

// Info and Items fire for each request that the house answers. Questions about
// accounts get here only from those who may see the account's presence
// (XEP-0030 §8). An error becomes the answer.
var (
	Info  = processor.NewHook[*InfoAnswer]("disco-info")
	Items = processor.NewHook[*ItemsAnswer]("disco-items")
)

// subscriptions is what disco asks of the roster. An account that does not
// exist has no subscribers.
type subscriptions interface {
	Subscription(ctx context.Context, owner, contact jid.JID) (roster.State, error)
}

type disco struct {
	env      plugins.Env
	cfg      Config
	services []jid.JID
	roster   subscriptions
	caps     *Caps
	reg      *processor.Registrar
	asker    asker
}

var _ processor.Component = (*disco)(nil)

func newDisco(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	d := &disco{env: env, cfg: *defaults()}
	if err := c.Decode(&d.cfg); err != nil {
		return nil, err
	}
	for _, s := range d.cfg.Services {
		at, err := jid.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("services: %w", err)
		}
		d.services = append(d.services, at)
	}
	var err error
	if d.caps, err = plugins.Need[*Caps](env, "disco"); err != nil {
		return nil, err
	}
	if d.roster, err = plugins.Need[subscriptions](env, roster.Name); err != nil {
		return nil, err
	}
	if err := d.asker.init(env, d.caps); err != nil {
		return nil, err
	}
	return d, nil
}

// Start implements plugins.Component.
func (d *disco) Start(ctx context.Context) error {
	d.asker.start(context.WithoutCancel(ctx))
	return nil
}

// Stop implements plugins.Component.
func (d *disco) Stop(context.Context) error {
	d.caps.server.CompareAndSwap(d, nil)
	d.asker.stop()
	return nil
}

// Register implements processor.Component.
func (d *disco) Register(r *processor.Registrar) {
	d.reg, d.asker.reg = r, r
	r.Feature(stanza.NSDiscoInfo, stanza.NSDiscoItem, NSCaps) // XEP-0030 §3.1, XEP-0115 §7
	r.AccountFeature(stanza.NSDiscoInfo, stanza.NSDiscoItem)
	r.IQ(stanza.NSDiscoInfo, "query", processor.Host|processor.Self|processor.Account, d.info)
	r.IQ(stanza.NSDiscoItem, "query", processor.Host|processor.Self|processor.Account, d.items)
	processor.On(r, presence.Became, processor.Last, d.announced)
	processor.On(r, processor.Incoming, processor.Last, d.remote)
	d.caps.server.Store(d)
}

// info is XEP-0030 §3.
func (d *disco) info(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "service discovery is of type get")
	}
	a := &InfoAnswer{Question: question(q)}
	if trusted, err := d.trusted(ctx, &a.Question); err != nil || !trusted {
		if err == nil { // rule 65, XEP-0030 §8: as for an account that does not exist
			err = stanza.NewError(stanza.ServiceUnavailable, "")
		}
		return nil, err
	}
	asked := a.Node
	if a.Server() && asked == d.capsNode(ctx, a.Owner) { // XEP-0115 §6.2
		a.Node = ""
	}
	if err := d.describe(ctx, a); err != nil {
		return nil, err
	}
	if !a.Known {
		return nil, noNode()
	}
	return a.Element(asked), nil
}

// describe collects the facts that the answer needs.
func (d *disco) describe(ctx context.Context, a *InfoAnswer) error {
	if a.Node == "" {
		a.Known = true
		d.basics(a)
	}
	_, err := processor.Fire(ctx, d.reg, Info, a)
	return err
}

// basics are what is known without asking anybody: identities of the registry
// (XEP-0030 §10.2.1) and the features that components have announced.
func (d *disco) basics(a *InfoAnswer) {
	if a.Server() {
		a.AddIdentity(Identity{Category: "server", Type: "im", Name: d.cfg.Name})
		a.Features = slices.Clone(d.reg.Features(processor.Host))
		return
	}
	a.AddIdentity(Identity{Category: "account", Type: "registered"})
	a.Features = slices.Clone(d.reg.Features(processor.Account))
}

// items is XEP-0030 §4. The resources of an account are never listed: who may
// see them sees their presence.
func (d *disco) items(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "service discovery is of type get")
	}
	a := &ItemsAnswer{Question: question(q)}
	out := stanza.El(stanza.NSDiscoItem, "query").WithOpt("node", a.Node)
	if trusted, err := d.trusted(ctx, &a.Question); err != nil || !trusted {
		return out, err // rule 65, XEP-0030 §8: empty, as for an account that does not exist
	}
	if a.Node == "" {
		a.Known = true
		if a.Server() {
			for _, s := range d.services {
				a.Items = append(a.Items, Item{JID: s})
			}
		}
	}
	if _, err := processor.Fire(ctx, d.reg, Items, a); err != nil {
		return nil, err
	}
	if !a.Known {
		return nil, noNode()
	}
	for _, i := range a.Items {
		out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", i.JID.String()).WithOpt("node", i.Node).WithOpt("name", i.Name))
	}
	return out, nil
}

// noNode is XEP-0030 §7.
func noNode() error { return stanza.NewError(stanza.ItemNotFound, "no such node") }

func question(q *processor.IQ) Question {
	return Question{Asker: q.From, Session: q.Session, Owner: q.Owner, Node: q.Query.Get("node"), Own: q.Own()}
}

// trusted reports whether the asker may know about the account: its owner, and
// those who get its presence (XEP-0030 §8).
func (d *disco) trusted(ctx context.Context, q *Question) (bool, error) {
	if q.Server() || q.Own || q.Asker.IsDomain() && d.env.Local(q.Asker.Domain()) {
		return true, nil
	}
	st, err := d.roster.Subscription(ctx, q.Owner, q.Asker.Bare())
	return st.From(), err
}
