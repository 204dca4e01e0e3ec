// Package strangers is what accounts accept from people whom they do not know.
//
// A stranger is who is not in the account's roster and to whom the account has
// not turned of its own accord: who is written to, asked for presence, or joined,
// may answer. Servers and services, addresses without a local part, are none.
//
//	what a client sends  → Outgoing, Early: whom it is for is no stranger any more
//	what comes for it    → Incoming, Early: allowed, counted, or refused
//
// What is refused must not tell that the account exists (spec/xmpp.md, Security
// lessons: user enumeration; RFC 6121 §8.5.1). So it meets what an account that is
// not there would say: a message service-unavailable, a subscription request
// silence. Only a stranger of whom messages were taken hears that there were too
// many of them: policy-violation (RFC 6120 §8.3.3.12).
package strangers

import (
	"context"
	"embed"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/commands"
	"parley/plugins/message/kinds"
	"parley/plugins/roster"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "strangers"

//go:embed sql
var migrations embed.FS

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Lets accounts say what they accept from people whom they do not know.",
	Requires:   []string{roster.Name, commands.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newGuard}},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newPeople(env) },
}

// Config is the component's section.
type Config struct {
	Messages      Rule `yaml:"messages" doc:"Messages of strangers."`
	Subscriptions Rule `yaml:"subscriptions" doc:"Their requests to see somebody's presence."`
	Invitations   Rule `yaml:"invitations" doc:"Their invitations to rooms."`
	Known         int  `yaml:"max_known" min:"10" max:"100000" doc:"To how many people outside its contacts an account may have turned of its own accord so that they are no strangers; beyond it those of longest ago are again."`
}

// Rule is what an account accepts that has not said anything else.
type Rule struct {
	Policy  Policy `yaml:"policy" enum:"allow,limit,refuse" doc:"What becomes of them, unless the account wants something else."`
	PerOne  int    `yaml:"per_stranger" min:"1" max:"1000000" doc:"With limit: how many of one stranger an account takes in an hour."`
	Overall int    `yaml:"per_account" min:"1" max:"1000000" doc:"With limit: how many of all strangers together an account takes in an hour."`
}

func defaults() *Config {
	return &Config{
		Messages:      Rule{Allow, 1000, 10_000}, // bots and services write to people who never answer
		Subscriptions: Rule{Limit, 60, 1000},
		Invitations:   Rule{Limit, 60, 1000},
		Known:         1000,
	}
}

// Policy is what becomes of something.
type Policy string

// The policies.
const (
	Default Policy = ""
	Allow   Policy = "allow"
	Limit   Policy = "limit"
	Refuse  Policy = "refuse"
)

// What strangers want.
type what string

const (
	messages      what = "messages"
	subscriptions what = "subscriptions"
	invitations   what = "invitations"
)

func (c *Config) rule(w what) *Rule {
	switch w {
	case subscriptions:
		return &c.Subscriptions
	case invitations:
		return &c.Invitations
	}
	return &c.Messages
}

// contacts is what is asked of the roster.
type contacts interface {
	Contacts(ctx context.Context, owner jid.JID) (*roster.Snapshot, error)
}

type guard struct {
	env    plugins.Env
	cfg    Config
	people *people
	roster contacts
	counts *counts
	met    *prometheus.CounterVec
}

var _ processor.Component = (*guard)(nil)

func newGuard(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	g := &guard{env: env, cfg: *defaults(), counts: newCounts(env)}
	if err := c.Decode(&g.cfg); err != nil {
		return nil, err
	}
	var err error
	if g.people, err = plugins.Need[*people](env, Name); err != nil {
		return nil, err
	}
	if g.roster, err = plugins.Need[contacts](env, roster.Name); err != nil {
		return nil, err
	}
	g.met = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_strangers_total", Help: "What strangers have sent to accounts: messages, subscriptions, invitations; taken, limited, refused."}, []string{"what", "outcome"})
	if err := env.Metrics.Register(g.met); err != nil {
		return nil, fmt.Errorf("strangers metrics: %w", err)
	}
	return g, nil
}

// Start implements plugins.Component.
func (*guard) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*guard) Stop(context.Context) error { return nil }

// Register implements processor.Component. Accounts that do not exist, and those who are
// blocked, have been dealt with before (First); so have requests with a token (XEP-0379).
func (g *guard) Register(r *processor.Registrar) {
	processor.On(r, processor.Outgoing, processor.Early, g.outgoing)
	processor.On(r, processor.Incoming, processor.Early, g.incoming)
	processor.On(r, commands.Offered, processor.Normal, g.offer)
	processor.On(r, roster.Removed, processor.Normal, func(ctx context.Context, x *roster.Removal) (processor.Verdict, error) {
		return processor.Continue, g.people.forgetOne(ctx, x.Owner, x.Contact)
	})
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		if err := g.counts.forget(ctx, account); err != nil {
			return processor.Continue, err
		}
		return processor.Continue, g.people.forget(ctx, account)
	})
}

// outgoing notes to whom an account turns.
func (g *guard) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	owner, contact := f.Session.JID.Bare(), f.To.Bare()
	if contact.Local() == "" || contact == owner || !turns(f.Stanza) {
		return processor.Continue, nil
	}
	p, err := g.people.of(ctx, owner)
	if err != nil || p.knows(contact) {
		return processor.Continue, err
	}
	if known, err := g.contact(ctx, owner, contact); err != nil || known {
		return processor.Continue, err
	}
	return processor.Continue, g.people.meet(ctx, owner, contact, g.cfg.Known)
}

// turns reports whether a stanza shows that its sender wants something of whom it is
// for. What clients say of themselves, receipts and typing, does not.
func turns(st *stanza.Stanza) bool {
	switch st.Kind {
	case stanza.Message:
		k := kinds.Of(st)
		return k.Says() || k.Type != stanza.TypeError && k.Has(kinds.Call|kinds.Reaction)
	case stanza.Presence:
		return st.Type == "" || st.Type == stanza.TypeSubscribe || st.Type == stanza.TypeSubscribed
	}
	return false
}

// contact reports whether somebody is in the account's roster, or gets its presence.
func (g *guard) contact(ctx context.Context, owner, other jid.JID) (bool, error) {
	s, err := g.roster.Contacts(ctx, owner)
	if err != nil {
		return false, err
	}
	_, here := s.Item(other)
	return here || s.State(other).From(), nil
}

// wanted is what a stanza wants of an account, and who wants it, bare; false: nothing
// that is limited.
func (g *guard) wanted(f *processor.Flow) (w what, by jid.JID, ok bool) {
	by = f.From.Bare()
	if by.Local() == "" || by == f.Account {
		return w, by, false
	}
	if f.Kind == stanza.Presence {
		return subscriptions, by, f.Type == stanza.TypeSubscribe
	}
	if f.Kind != stanza.Message {
		return w, by, false
	}
	k := kinds.Of(f.Stanza)
	switch {
	case k.Type == stanza.TypeError || k.Type == stanza.TypeGroupchat:
		return w, by, false
	case k.Has(kinds.Invite):
		by = g.inviter(f.Stanza)
		return invitations, by, by != f.Account
	case f.Has(nsEvent, "event") && !k.Says(): // somebody has subscribed to a node (XEP-0060 §7.1.2)
		return w, by, false
	}
	return messages, by, true
}

// inviter is who invites, bare: whom a room names (XEP-0045 §7.8.2) when it is one of this
// server's, which knows; else the room itself.
func (g *guard) inviter(st *stanza.Stanza) jid.JID {
	room := st.From.Bare()
	x := st.Child(kinds.NSMUCUser, "x")
	if x == nil {
		return room
	}
	invite := x.Child(kinds.NSMUCUser, "invite")
	if invite == nil {
		return room
	}
	by, err := jid.Parse(invite.Get("from"))
	if err != nil || by.Local() == "" {
		return room
	}
	if g.env.Domains.Serve(room.Domain()) {
		return by.Bare()
	}
	return room
}

const nsEvent = "http://jabber.org/protocol/pubsub#event"

// incoming decides what becomes of what a stranger sends.
func (g *guard) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	w, by, ok := g.wanted(f)
	if !ok {
		return processor.Continue, nil
	}
	p, err := g.people.of(ctx, f.Account)
	if err != nil {
		return processor.Stop, err
	}
	rule := g.cfg.rule(w)
	policy := p.wishes.policy(w, rule.Policy)
	if policy == Allow || p.knows(by) || p.knows(f.From.Bare()) {
		return processor.Continue, nil
	}
	for _, one := range []jid.JID{by, f.From.Bare()} {
		if known, err := g.contact(ctx, f.Account, one); err != nil || known {
			return processor.Continue, err
		}
	}
	if policy == Refuse {
		return g.refuse(f, w, "refused", nil)
	}
	return g.limit(ctx, f, w, by, rule)
}

// limit counts. What is all together too much meets what an account that is not there
// would say; who has sent too much alone has had answers already.
func (g *guard) limit(ctx context.Context, f *processor.Flow, w what, by jid.JID, rule *Rule) (processor.Verdict, error) {
	one, all := key{f.Account, by, w}, key{f.Account, jid.JID{}, w}
	tooMany := &stanza.Error{Type: stanza.Wait, Condition: stanza.PolicyViolation, Text: "too many in an hour, and no answer yet"}
	switch {
	case g.counts.spent(one):
		return g.refuse(f, w, "limited", tooMany)
	case f.Kind == stanza.Message && kinds.Of(f.Stanza).Fleeting(): // typing goes with what is typed
		return processor.Continue, nil
	}
	for _, k := range []struct {
		key
		most    int
		refusal *stanza.Error
	}{{all, rule.Overall, nil}, {one, rule.PerOne, tooMany}} {
		ok, err := g.counts.take(ctx, k.key, k.most)
		if err != nil {
			return processor.Stop, err
		}
		if !ok {
			return g.refuse(f, w, "limited", k.refusal)
		}
	}
	g.met.WithLabelValues(string(w), "taken").Inc()
	return processor.Continue, nil
}

// refuse answers in the place of the account; why is nil when it must look as if there
// was none.
func (g *guard) refuse(f *processor.Flow, w what, outcome string, why *stanza.Error) (processor.Verdict, error) {
	g.met.WithLabelValues(string(w), outcome).Inc()
	switch {
	case f.Kind == stanza.Presence: // RFC 6121 §8.5.1
		return processor.Stop, nil
	case why != nil:
		return processor.Stop, why
	}
	return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
}
