// Package delegation lets external components answer IQ namespaces in the place
// of the server and of its accounts (XEP-0355 0.5, admin mode).
//
//	a component connects       → it is told what it answers, and asked what it can do
//	a request of its namespace → goes to it in <delegation><forwarded/>, nobody else sees it
//	its answer                 → is checked, and sent on as the server's
//	disco#info                 → what the component can do, instead of what the house could
//
// A component that is away, silent or wrong is <service-unavailable/> to who asks;
// the house's own handler does not step in, for the two would not have the same
// data (§4.3). Requests do not wait for each other (§9, 3).
package delegation

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/component"
)

// NS is the namespace of XEP-0355.
const NS = component.NSDelegation

// Name is the plugin's name.
const Name = "delegation"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Lets external components answer IQ namespaces in the server's place (XEP-0355).",
	Requires:   []string{"component", accounts.Name, "disco"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newPart}},
	Contract:   func(env plugins.Env) (any, error) { return newNested(env), nil },
}

// Config is the component's section.
type Config struct {
	Pending int `yaml:"max_pending" min:"1" max:"50000" doc:"Delegated requests that may wait for the answers of one component at the same time, a tenth of them of one account, or of one other server; further ones are refused until some are answered."`
}

func defaults() *Config { return &Config{Pending: 2000} }

// people is what is used of the accounts.
type people interface {
	Exists(ctx context.Context, bare jid.JID) (bool, error)
}

type part struct {
	env        plugins.Env
	cfg        Config
	components *component.Directory
	people     people
	nested     *nested
	reg        *processor.Registrar
	pending    *component.Shares // by component
	asking     *component.Shares // by account, or server elsewhere
}

var _ processor.Component = (*part)(nil)

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &part{env: env, cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	p.pending, p.asking = component.NewShares(p.cfg.Pending), component.NewShares(p.cfg.Pending/10)
	var err error
	if p.components, err = plugins.Need[*component.Directory](env, "component"); err != nil {
		return nil, err
	}
	if p.people, err = plugins.Need[people](env, accounts.Name); err != nil {
		return nil, err
	}
	p.nested, err = plugins.Need[*nested](env, Name)
	return p, err
}

// Start implements plugins.Component.
func (p *part) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (p *part) Stop(context.Context) error {
	p.nested.part.CompareAndSwap(p, nil)
	return nil
}

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	p.nested.part.Store(p)
	r.Feature(NS) // §7.1
	processor.On(r, processor.Bound, processor.Late, p.connected)
	// A client's own account is answered in Outgoing by some features.
	processor.On(r, processor.Outgoing, processor.Early, p.own)
	processor.On(r, processor.Requested, processor.Normal, p.divert)
	processor.On(r, disco.Info, processor.Last, p.info)
}

// connected tells a component what it answers (§4.2), and asks it what to say
// of it (§9, 2).
func (p *part) connected(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Kind != sessions.Component {
		return processor.Continue, nil
	}
	g := p.components.Grants(e.JID.Domain())
	if len(g.Delegations) == 0 {
		return processor.Continue, nil
	}
	out := stanza.El(NS, "delegation")
	for _, ns := range slices.Sorted(maps.Keys(g.Delegations)) {
		el := stanza.El(NS, "delegated").With("namespace", ns)
		for _, a := range g.Delegations[ns].Attributes {
			el.Add(stanza.El(NS, "attribute").With("name", a))
		}
		out.Add(el)
	}
	for _, domain := range p.env.Domains.List() {
		p.reg.Emit(ctx, stanza.Make(stanza.Message, "", jid.MustParse(domain), e.JID, rand.Text(), out))
	}
	p.env.Forget(ctx, topic, e.JID.Domain())
	p.nested.refresh(ctx, e.JID.Domain())
	return processor.Continue, nil
}

// own diverts what clients ask their own account.
func (p *part) own(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.IQ || f.Type != stanza.TypeGet && f.Type != stanza.TypeSet {
		return processor.Continue, nil
	}
	if !f.To.IsZero() && f.To != f.Session.JID.Bare() {
		return processor.Continue, nil
	}
	return p.divert(ctx, f)
}

// divert is §4.3. The request is to a domain of ours or to a bare address there.
func (p *part) divert(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if len(f.Children) != 1 {
		return processor.Continue, nil
	}
	domain, how := p.components.Delegate(f.Children[0].Name.Space)
	if domain == "" || f.From.Domain() == domain { // §4.3.1: what it asks itself the house answers
		return processor.Continue, nil
	}
	if payload := f.Payload(); payload == nil || slices.ContainsFunc(how.Attributes, func(a string) bool { return !payload.Has(a) }) {
		return processor.Continue, nil
	}
	owner := f.To
	if owner.IsZero() {
		owner = f.From.Bare()
	}
	if owner.Local() != "" {
		if ok, err := p.people.Exists(ctx, owner); err != nil || !ok {
			return processor.Continue, err // as the house has it
		}
	}
	asker := f.From.Bare().String()
	if !p.env.Local(f.From.Domain()) {
		asker = f.From.Domain()
	}
	if !p.asking.Take(asker) {
		return processor.Stop, stanza.NewError(stanza.ResourceConstraint, "too many of your requests wait for the component")
	}
	if !p.pending.Take(domain) {
		p.asking.Give(asker)
		return processor.Stop, stanza.NewError(stanza.ResourceConstraint, "too many requests wait for the component")
	}
	p.forward(ctx, f, owner.Host(), jid.MustParse(domain), func() { p.asking.Give(asker); p.pending.Give(domain) })
	return processor.Stop, nil
}

// forward asks the component, and the asker hears what becomes of it. done is called
// when that is so.
func (p *part) forward(ctx context.Context, f *processor.Flow, host, to jid.JID, done func()) {
	edits := f.StampForwarded()
	ask := stanza.El(NS, "delegation").Add(stanza.El(stanza.NSForward, "forwarded").AddRaw(edits.Render(nil, f.Raw)))
	question := stanza.Make(stanza.IQ, f.Type, f.From, f.To, f.ID)
	late := context.WithoutCancel(ctx)
	p.reg.Ask(ctx, stanza.Make(stanza.IQ, stanza.TypeSet, host, to, p.reg.AskID(), ask), func(st *stanza.Stanza, err error) {
		done()
		var reply *stanza.Stanza
		if err == nil {
			reply, err = answered(question, st)
		}
		if err != nil { // §4.3, N.B. 1 and 2
			p.env.Log.Warn("delegated request not answered", "component", to.String(), "from", question.From.String(), "err", err)
			reply = question.ErrorReply(stanza.NewError(stanza.ServiceUnavailable, ""))
		}
		if reply.To.IsBare() && p.env.Local(reply.To.Domain()) { // it was asked in an account's name
			p.reg.Submit(late, reply)
			return
		}
		p.reg.Route(late, &channel.Envelope{Kind: channel.Route, Raw: reply.Raw, Stanza: reply, Solicited: true})
	})
}
