// Package presence tells people who is there, and manages who may know.
//
// Specs: RFC 6121 §3 (subscriptions), §4 (presence), §8.5 (presence to local
// accounts), XEP-0115 §4 (what clients announce of themselves), XEP-0203 §4
// (when presence was sent).
//
// Flow: a client's presence without 'to' changes its session's state, goes to
// its subscribers and to the account's other sessions, and, when it is the
// first, brings it theirs. Presence of contacts that live here is read from
// the registry; servers elsewhere are probed. Presence with 'to' goes its way
// and is remembered, so that whoever got it learns of the session's end.
// Subscription stanzas ask the roster feature what they do; their other half
// arrives at the contact like anybody's, so that local and remote contacts are
// one code.
//
// Read on: own.go (a client's own presence), fanout.go, directed.go, probe.go,
// subscription.go.
package presence

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
)

// Name is the plugin's name, for Requires and plugins.Need.
const Name = "presence"

// Plugin provides presence. Its contract is *Directed.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Shows contacts who is available, and lets users grant and ask for that.",
	Requires:   []string{roster.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
	Contract:   func(plugins.Env) (any, error) { return newDirected(), nil },
}

var (
	// Became fires when a session's own presence has changed and those who may
	// know have been told: it became available, changed something, or left.
	Became = processor.NewHook[*Transition]("presence-became")
	// Reaches fires before presence of one of our sessions goes to contacts:
	// broadcasts, answers to probes, what a new subscriber or a new session
	// gets to see. Hooks take out of To whom it must not reach.
	Reaches = processor.NewHook[*Audience]("presence-reaches")
)

// Transition is the event of Became.
type Transition struct {
	Session *sessions.Entry // as it is now; not bound any more when its stream has ended
	Before  sessions.State  // as it was
	Stanza  *stanza.Stanza  // what was broadcast; 'from' is the full JID, no 'to'
}

// Arrived reports whether the session was not available before (RFC 6121 §4.2).
func (t *Transition) Arrived() bool { return t.Session.Available && !t.Before.Available }

// Left reports whether the session was available before (RFC 6121 §4.5).
func (t *Transition) Left() bool { return !t.Session.Available && t.Before.Available }

// Receives reports whether messages to the account reach the session from now
// on and did not before (RFC 6121 §8.5.2.1.1): pending ones are due.
func (t *Transition) Receives() bool {
	return t.Session.Receives() && !(t.Before.Available && t.Before.Priority >= 0)
}

// Audience is the event of Reaches.
type Audience struct {
	From jid.JID   // the full JID whose presence it is
	To   []jid.JID // who will get it; hooks may delete elements
}

// Config is the component's section.
type Config struct {
	Directed int         `yaml:"max_directed" min:"10" doc:"Addresses outside its contacts that one session may send presence to at the same time, chat rooms included. Further ones are refused."`
	Size     config.Size `yaml:"max_size" min:"10000" doc:"Largest presence that is broadcast; a larger one is refused."`
}

func defaults() *Config { return &Config{Directed: 500, Size: 16 << 10} }

// component works in the processor.
type component struct {
	env      plugins.Env
	cfg      Config
	rosters  *roster.Rosters
	directed *Directed
	began    time.Time
	late     late
	house    *processor.Registrar
	sent     *prometheus.CounterVec
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &component{env: env, cfg: *defaults(), began: env.Clock.Now()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	var err error
	if p.rosters, err = plugins.Need[*roster.Rosters](env, roster.Name); err != nil {
		return nil, err
	}
	if p.directed, err = plugins.Need[*Directed](env, Name); err != nil {
		return nil, err
	}
	env.OnForget(plugins.Missed, p.missed)
	p.sent = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_presence_sent_total", Help: "Presence sent to contacts, by what caused it."}, []string{"cause"})
	return p, env.Metrics.Register(p.sent)
}

// Start implements plugins.Component.
func (c *component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (c *component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	c.house = r
	processor.On(r, processor.Outgoing, processor.Normal, c.outgoing)
	processor.On(r, processor.Incoming, processor.Normal, c.incoming)
	processor.On(r, processor.Bound, processor.Normal, c.restored)
	processor.On(r, processor.Unbound, processor.Normal, c.unbound)
	processor.On(r, processor.Resumed, processor.Normal, c.resumed)
	processor.On(r, processor.AccountRemoved, processor.Normal, c.accountRemoved)
	processor.On(r, roster.Removed, processor.Normal, c.removed)
	processor.On(r, roster.Reshared, processor.Normal, c.reshared)
}

// outgoing is what a client's presence means to its own account. Types that
// RFC 6121 §4.7.1 does not know are refused.
func (c *component) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence {
		return processor.Continue, nil
	}
	if action, ok := roster.ActionOf(f.Type); ok {
		return processor.Stop, c.manage(ctx, f, action)
	}
	own := f.To.IsZero()
	switch f.Type {
	case "":
		if own {
			return processor.Continue, c.available(ctx, f)
		}
		return processor.Continue, c.direct(ctx, f)
	case stanza.TypeUnavailable:
		if own {
			return processor.Continue, c.unavailable(ctx, f)
		}
		c.directed.remove(f.Session.JID, f.To) // §4.6.1
		return processor.Continue, nil
	case stanza.TypeProbe, stanza.TypeError:
		return processor.Continue, nil
	}
	return processor.Stop, stanza.NewError(stanza.BadRequest, "unknown type of presence")
}

// incoming is what anybody's presence means to a local account.
func (c *component) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence {
		return processor.Continue, nil
	}
	if action, ok := roster.ActionOf(f.Type); ok {
		return processor.Stop, c.managed(ctx, f, action)
	}
	switch f.Type {
	case stanza.TypeProbe:
		return processor.Stop, c.probed(ctx, f)
	case stanza.TypeUnavailable: // §4.6.1: it needs no farewell any more
		for _, s := range c.env.Sessions.Account(f.Account) {
			if f.To.IsBare() || f.To == s.JID {
				c.directed.remove(s.JID, f.From)
			}
		}
	}
	return processor.Continue, nil
}
