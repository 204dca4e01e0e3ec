// Package privilege lets external components act for accounts, as far as the
// operator has granted it (XEP-0356 0.4).
//
//	a component connects        → it is told what it may do, and who is there
//	<privilege/> to the server  → the forwarded message goes out as its account's
//	<privileged_iq/> to account → the request goes out as its account's, the answer back
//	roster requests, pushes     → the roster feature asks whether they are granted
//	presence                    → goes to the component as well
//
// What a component is not granted is refused with <forbidden/>. What the account
// has blocked stays blocked, and whatever its own client could not do nobody does
// in its name.
package privilege

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/component"
)

// NS is the namespace of XEP-0356.
const NS = "urn:xmpp:privilege:2"

// Name is the plugin's name.
const Name = "privilege"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Lets external components act for accounts, as far as that is granted (XEP-0356).",
	Requires:   []string{"component", accounts.Name, roster.Name, presence.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: newPart}},
}

// people is what is used of the accounts.
type people interface {
	Exists(ctx context.Context, bare jid.JID) (bool, error)
}

// rosters is what is used of the rosters.
type rosters interface {
	Subscription(ctx context.Context, owner, contact jid.JID) (roster.State, error)
	Watch(roster.Watch)
}

// maxAsking is how many requests of one component may wait for their answers.
const maxAsking = 2000

type part struct {
	env        plugins.Env
	components *component.Directory
	people     people
	rosters    rosters
	seen       *seen
	reg        *processor.Registrar
	asking     *component.Shares // requests in accounts' names, by component

	ctx   context.Context //nolint:containedctx // until Stop
	stop  context.CancelFunc
	shows sync.WaitGroup // showAll, one for each component that comes
}

var _ processor.Component = (*part)(nil)

func newPart(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	p := &part{env: env, asking: component.NewShares(maxAsking)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	var err error
	if p.components, err = plugins.Need[*component.Directory](env, "component"); err != nil {
		return nil, err
	}
	if p.people, err = plugins.Need[people](env, accounts.Name); err != nil {
		return nil, err
	}
	if p.rosters, err = plugins.Need[rosters](env, roster.Name); err != nil {
		return nil, err
	}
	p.seen, err = newSeen()
	return p, err
}

// Start implements plugins.Component.
func (p *part) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (p *part) Stop(context.Context) error {
	p.rosters.Watch(nil)
	p.stop()
	p.shows.Wait()
	return nil
}

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	p.rosters.Watch(p.pushes)
	processor.On(r, processor.Bound, processor.Late, p.connected)
	processor.On(r, processor.ToServer, processor.Normal, p.message)
	r.IQ(NS, "privileged_iq", processor.Host|processor.Self|processor.Account, p.request)
	processor.On(r, roster.Entrusted, processor.Normal, p.entrusted)
	processor.On(r, presence.Became, processor.Last, p.became)
	processor.On(r, processor.Incoming, processor.Late, p.shown)
}

// of are the privileges of who has sent something; nobody's, if it is not a
// component.
func (p *part) of(s *sessions.Entry) component.Privileges {
	if s == nil || s.Kind != sessions.Component {
		return component.Privileges{}
	}
	return p.components.Grants(s.JID.Domain()).Privileges
}

// managed reports whether the address is an account of ours, which exists.
func (p *part) managed(ctx context.Context, at jid.JID) (bool, error) {
	if at.Local() == "" || !at.IsBare() || !p.env.Local(at.Domain()) {
		return false, nil
	}
	return p.people.Exists(ctx, at)
}

// connected tells a component what it may do (§4.2), and who is there (§8 rule
// 1). It gets both behind the answer to its handshake.
func (p *part) connected(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Kind != sessions.Component {
		return processor.Continue, nil
	}
	g := p.components.Grants(e.JID.Domain()).Privileges
	if perms := advert(&g); perms != nil {
		for _, domain := range p.env.Domains.List() {
			p.reg.Emit(ctx, stanza.Make(stanza.Message, "", jid.MustParse(domain), e.JID, rand.Text(), perms))
		}
	}
	p.seen.forget(e.JID.Domain())
	if sees(&g) {
		p.shows.Go(func() { p.showAll(p.ctx, e) })
	}
	return processor.Continue, nil
}

// advert is what a component is told; nil: it has no privileges.
func advert(g *component.Privileges) *stanza.Element {
	out := stanza.El(NS, "privilege")
	perm := func(access, typ string) *stanza.Element {
		el := stanza.El(NS, "perm").With("access", access).WithOpt("type", typ)
		out.Add(el)
		return el
	}
	if granted(string(g.Roster)) {
		el := perm("roster", string(g.Roster))
		if g.NoPush {
			el.With("push", "false")
		}
	}
	if granted(g.Message) {
		perm("message", g.Message)
	}
	if granted(g.Presence) {
		perm("presence", g.Presence)
	}
	var iq *stanza.Element
	for _, ns := range slices.Sorted(maps.Keys(g.IQ)) {
		if !granted(string(g.IQ[ns])) {
			continue
		}
		if iq == nil {
			iq = perm("iq", "")
		}
		iq.Add(stanza.El(NS, "namespace").With("ns", ns).With("type", string(g.IQ[ns])))
	}
	if out.Count() == 0 {
		return nil
	}
	return out
}

func granted(value string) bool { return value != "" && value != string(component.None) }

// entrusted lets components at rosters (§4.3).
func (p *part) entrusted(ctx context.Context, q *processor.IQ) (processor.Verdict, error) {
	g := p.of(q.Session)
	if !g.Roster.Allows(q.Type) {
		return processor.Continue, nil
	}
	if ok, err := p.managed(ctx, q.Owner); err != nil || !ok {
		return processor.Continue, err
	}
	return processor.Stop, nil
}

// pushes are roster pushes for components (§4.4).
func (p *part) pushes(owner jid.JID, item *stanza.Element) []*channel.Envelope {
	domains := p.components.Granted(func(g *component.Grants) bool { return g.Privileges.Pushes() })
	var out []*channel.Envelope
	for _, domain := range domains {
		if p.components.Here(domain) {
			push := stanza.El(stanza.NSRoster, "query").Add(item)
			out = append(out, route(stanza.Make(stanza.IQ, stanza.TypeSet, owner, jid.MustParse(domain), rand.Text(), push)))
		}
	}
	return out
}

func route(st *stanza.Stanza) *channel.Envelope {
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st}
}
