// Package admincommands lets administrators run the server from their clients: the
// commands of XEP-0133.
//
//	commands.Offered → who asks is an administrator of the domain → the table (table.go)
//	users.go         accounts: made, changed, looked at, ended
//	counts.go        how many there are, and which
//	lists.go         whom of other servers the accounts may talk to
//	announce.go      announcements, in batches, whatever restarts meanwhile
//	motd.go          the message of the day, and the welcome
//	halt.go          restart and shutdown
//
// Administrators of the server are named in the configuration. They make others
// administrators of a domain, who may do what concerns that domain, but not to
// administrators of the server, nor make more of themselves (roles.go).
package admincommands

import (
	"context"
	"embed"
	"errors"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/commands"
	"parley/plugins/config"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name.
const Name = "admincommands"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Administrators run the server from their clients (XEP-0133): accounts, lists, announcements.",
	Requires:   []string{accounts.Name, commands.Name, presence.Name, roster.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return &Roles{store: store{env.DB}}, nil },
}

// Config is the component's section.
type Config struct {
	Admins []string `yaml:"admins" max:"100" doc:"Accounts that administer the whole server, like romeo@example.org. Make the accounts first: whoever has the name has the power."`
	Pace   int      `yaml:"announce_per_second" min:"10" max:"100000" doc:"How many accounts an announcement reaches in a second."`
}

func defaults() *Config { return &Config{Pace: 500} }

// Validate implements config.Validator.
func (c *Config) Validate() error {
	var errs []error
	for _, a := range c.Admins {
		if j, err := jid.Parse(a); err != nil || !j.IsBare() || j.Local() == "" {
			errs = append(errs, config.Key("admins", "%q is not the address of an account, NAME@DOMAIN", a))
		}
	}
	return errors.Join(errs...)
}

type component struct {
	env      plugins.Env
	cfg      Config
	reg      *processor.Registrar
	accounts *accounts.Accounts
	rosters  *roster.Rosters
	store    store
	policies *policies
	roles    *Roles
	whole    map[jid.JID]bool    // who administers the server
	domain   []*commands.Command // for every administrator
	server   []*commands.Command // for those of the server
	caller   *caller
	halting  halting
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a := &component{env: env, cfg: *defaults(), store: store{env.DB}, whole: map[jid.JID]bool{}}
	if err := c.Decode(&a.cfg); err != nil {
		return nil, err
	}
	for _, text := range a.cfg.Admins {
		j, err := jid.Parse(text)
		if err != nil {
			return nil, err
		}
		a.whole[j] = true
	}
	var err error
	if a.accounts, err = plugins.Need[*accounts.Accounts](env, accounts.Name); err != nil {
		return nil, err
	}
	if a.rosters, err = plugins.Need[*roster.Rosters](env, roster.Name); err != nil {
		return nil, err
	}
	if a.roles, err = plugins.Need[*Roles](env, Name); err != nil {
		return nil, err
	}
	if a.policies, err = newPolicies(env, a.store); err != nil {
		return nil, err
	}
	a.caller = newCaller(a)
	env.OnForget(topicHalt, func(again string) { env.Halt(again == "true") })
	for _, t := range a.table() {
		if t.server {
			a.server = append(a.server, t.command())
		} else {
			a.domain = append(a.domain, t.command())
		}
	}
	return a, nil
}

// Start implements plugins.Component.
func (a *component) Start(ctx context.Context) error {
	for j := range a.whole {
		if ok, err := a.accounts.Exists(ctx, j); err == nil && !ok && a.env.Local(j.Domain()) {
			a.env.Log.Warn("an administrator has no account: make it before somebody else does", "account", j.String())
		}
	}
	a.roles.whole.Store(&a.whole)
	a.caller.start()
	return nil
}

// Stop implements plugins.Component.
func (a *component) Stop(context.Context) error {
	a.halting.cancel()
	a.caller.stop()
	return nil
}

// Register implements processor.Component.
func (a *component) Register(r *processor.Registrar) {
	a.reg = r
	processor.On(r, commands.Offered, processor.Normal, a.offer)
	processor.On(r, presence.Became, processor.Late, a.arrived)
	processor.On(r, processor.Outgoing, processor.First, a.outgoing)
	processor.On(r, processor.Incoming, processor.First, a.incoming)
	processor.On(r, processor.Asked, processor.First, a.incoming)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, j jid.JID) (processor.Verdict, error) {
		return processor.Continue, a.store.forget(ctx, j) // whoever gets the name next is no administrator
	})
	a.caller.ready()
}

// offer is asked at every step of a command: who is no administrator any more stops
// there.
func (a *component) offer(ctx context.Context, o *commands.Offer) (processor.Verdict, error) {
	is, err := a.roles.of(ctx, o.Account(), o.Domain)
	if err != nil {
		return processor.Continue, err
	}
	o.Add(is >= ofDomain, a.domain...)
	o.Add(is >= ofServer, a.server...)
	return processor.Continue, nil
}

// limit bounds one pass of work that nobody waits for.
const limit = time.Minute
