// Package commands lets people run commands of the server from their clients
// (XEP-0050). Features offer them by the hook Offered; this is what they have in
// common: discovery, sessions, stages, errors.
//
//	execute → May they? → the first step's form, and a session that waits for it
//	        → the form filled in: checked, the next step's form, …
//	        → the last one's: the command runs, the session ends
//
// A session lives on the node that has its client's session, so that its steps
// meet, for a while, in a bounded table (sessions.go).
package commands

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/command"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router/sessions"
)

// Name is the plugin's name, for Requires.
const Name = "commands"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "People run commands of the server from their clients (XEP-0050).",
	Requires:   []string{"disco"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
}

// Config is the component's section.
type Config struct {
	TTL        time.Duration `yaml:"session_ttl" min:"10s" max:"24h" doc:"How long a command waits for the next step."`
	PerAccount int           `yaml:"sessions_per_account" min:"1" max:"100" doc:"Commands that an account may have begun at one time on one node; one more ends the oldest."`
	Sessions   int           `yaml:"sessions" min:"1" max:"1000000" doc:"Commands that may have begun at one time on one node; one more is refused."`
}

func defaults() *Config { return &Config{TTL: 10 * time.Minute, PerAccount: 5, Sessions: 10_000} }

// Offered fires whenever somebody asks for commands or runs one: features add
// theirs.
var Offered = processor.NewHook[*Offer]("commands-offered")

// Offer collects the commands for somebody.
type Offer struct {
	Asker
	list []offered
}

// Asker is who asks, a client of this server.
type Asker struct {
	Session *sessions.Entry
	Domain  jid.JID // the domain of ours that is asked
	Lang    string  // of the request; "": unknown
}

// Account is the asker's bare address.
func (a *Asker) Account() jid.JID { return a.Session.JID.Bare() }

type offered struct {
	*Command
	may bool
}

// Add adds commands; those that the asker may not run are not listed, and
// forbidden.
func (o *Offer) Add(may bool, list ...*Command) {
	for _, c := range list {
		o.list = append(o.list, offered{c, may})
	}
}

// Command is something to be done. It is never changed.
type Command struct {
	Node     string // XEP-0050 §3.3: unique
	Name     string // for people
	FormType string // of its forms; "": they have none
	Steps    []Step // what has to be known first, in order
	Run      func(context.Context, *Execution) (*Outcome, error)
}

// Step is one form.
type Step struct {
	Form func(context.Context, *Execution) (*form.Form, error)
	// Check returns why an answer is none; then the asker may send another one.
	// nil: Run knows.
	Check func(context.Context, *Execution, *form.Form) error
}

// Execution is one run of a command.
type Execution struct {
	Asker
	Answers []*form.Form // to the steps so far
}

// Last is the answer to the last step.
func (e *Execution) Last() *form.Form { return e.Answers[len(e.Answers)-1] }

// Outcome is what a command has to say: nil is nothing.
type Outcome struct {
	Note    string
	Payload []*stanza.Element
}

type component struct {
	cfg   Config
	reg   *processor.Registrar
	table *table
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	out := &component{cfg: *defaults()}
	if err := c.Decode(&out.cfg); err != nil {
		return nil, err
	}
	out.table = newTable(out.cfg, env.Clock)
	return out, nil
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	c.reg = r
	r.Feature(command.NS) // XEP-0050 §2.1
	r.IQ(command.NS, "command", processor.Host, c.command)
	processor.On(r, disco.Items, processor.Normal, c.items)
	processor.On(r, disco.Info, processor.Normal, c.info)
	processor.On(r, processor.Unbound, processor.Late, func(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
		c.table.left(e.Ref)
		return processor.Continue, nil
	})
}

// offers are the commands for a client of ours; nil for everybody else.
func (c *component) offers(ctx context.Context, a Asker) ([]offered, error) {
	if a.Session == nil || a.Session.Kind != sessions.Client {
		return nil, nil
	}
	o := &Offer{Asker: a}
	_, err := processor.Fire(ctx, c.reg, Offered, o)
	return o.list, err
}

func find(list []offered, node string) (offered, bool) {
	for _, o := range list {
		if o.Node == node {
			return o, true
		}
	}
	return offered{}, false
}

// items lists the commands (XEP-0050 §2.2).
func (c *component) items(ctx context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != command.NS {
		return processor.Continue, nil
	}
	list, err := c.offers(ctx, Asker{Session: a.Session, Domain: a.Owner})
	if err != nil {
		return processor.Continue, err
	}
	a.Known = true
	for _, o := range list {
		if o.may {
			a.Items = append(a.Items, disco.Item{JID: a.Owner, Node: o.Node, Name: o.Name})
		}
	}
	return processor.Continue, nil
}

// info tells of the list, or of one command (XEP-0050 §2.3).
func (c *component) info(ctx context.Context, a *disco.InfoAnswer) (processor.Verdict, error) {
	switch {
	case !a.Server() || a.Node == "":
		return processor.Continue, nil
	case a.Node == command.NS:
		a.Known = true
		a.AddIdentity(disco.Identity{Category: "automation", Type: "command-list", Name: "Commands"})
		a.AddFeature(command.NS)
		return processor.Continue, nil
	}
	list, err := c.offers(ctx, Asker{Session: a.Session, Domain: a.Owner})
	if err != nil {
		return processor.Continue, err
	}
	o, ok := find(list, a.Node)
	switch {
	case !ok:
		return processor.Continue, nil
	case !o.may:
		return processor.Continue, forbidden()
	}
	a.Known = true
	a.AddIdentity(disco.Identity{Category: "automation", Type: "command-node", Name: o.Name})
	a.AddFeature(command.NS, stanza.NSDataForms)
	return processor.Continue, nil
}

func forbidden() error { return stanza.NewError(stanza.Forbidden, "this command is not for you") }
