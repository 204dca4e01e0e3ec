// Package rostergroups lets an administrator define groups of accounts whose members
// have each other in their rosters, subscribed both ways, without anybody asking.
//
// There is no XEP for it: rosters, versions and presence are those of RFC 6121, which
// *roster.Rosters composes of what people have made and what this feature gives.
//
//	the tables        → directory, in the memory of every node
//	roster.Shared     → Of(owner): what the groups give to an account (directory.go)
//	a change          → tables, every node's directory, then roster pushes and presence
//	                    for those who are there (groups.go)
//	account made, removed → it joins or leaves the groups of everybody, and its own
//	parley group, /v1/groups (door.go); commands for clients (commands.go)
package rostergroups

import (
	"context"
	"embed"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/commands"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "rostergroups"

//go:embed sql
var migrations embed.FS

// Plugin provides the components and the contract *Groups.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Groups of accounts that an administrator puts into rosters.",
	Requires: []string{accounts.Name, admin.Name, admincommands.Name, commands.Name, presence.Name, roster.Name},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newPart},
		{Server: admin.Name, New: newDoor},
	},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newGroups(env), nil },
}

// Config is the section of the processor's component.
type Config struct {
	Groups   int `yaml:"max_groups" min:"1" max:"10000" doc:"Groups of one domain."`
	Members  int `yaml:"max_members" min:"2" max:"100000" doc:"Members of one group. Of a domain with more accounts, groups of everybody have the first ones by address, and as many see groups that everybody is to see."`
	Contacts int `yaml:"max_contacts" min:"2" max:"100000" doc:"Contacts that groups may put into one roster; a change that would put more there is refused."`
}

func defaults() *Config { return &Config{Groups: 200, Members: 2000, Contacts: 5000} }

// people is what is asked of the accounts.
type people interface {
	Exists(ctx context.Context, bare jid.JID) (bool, error)
	List(ctx context.Context, domain string, after jid.JID, limit int) ([]accounts.Account, error)
}

// part works in the processor.
type part struct {
	env     plugins.Env
	cfg     Config
	groups  *Groups
	people  people
	rosters *roster.Rosters
	roles   *admincommands.Roles
	reg     atomic.Pointer[processor.Registrar]
	list    []*commands.Command
	work    plugins.Background
	unwatch func()
}

var _ processor.Component = (*part)(nil)

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &part{env: env, cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	var err error
	if p.groups, err = plugins.Need[*Groups](env, Name); err != nil {
		return nil, err
	}
	if p.people, err = plugins.Need[people](env, accounts.Name); err != nil {
		return nil, err
	}
	if p.rosters, err = plugins.Need[*roster.Rosters](env, roster.Name); err != nil {
		return nil, err
	}
	if p.roles, err = plugins.Need[*admincommands.Roles](env, admincommands.Name); err != nil {
		return nil, err
	}
	p.list = p.commands()
	m := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_roster_groups", Help: "Groups that administrators have put into rosters."}, func() float64 { return float64(len(p.groups.now().groups)) })
	if err := env.Metrics.Register(m); err != nil {
		return nil, fmt.Errorf("rostergroups metrics: %w", err)
	}
	return p, nil
}

// Start implements plugins.Component: rosters are whole before the first stanza.
func (p *part) Start(ctx context.Context) error {
	old := p.groups.part.Swap(p) // from here on, what other nodes tell is heard
	if _, _, err := p.groups.reload(ctx, p); err != nil {
		p.groups.part.CompareAndSwap(p, old)
		return err
	}
	p.rosters.Share(p.groups)
	p.unwatch = p.env.Domains.Watch(func(_, _ []string) { p.groups.doubt() })
	p.work.Start(ctx, p.tend)
	return nil
}

// Stop implements plugins.Component.
func (p *part) Stop(context.Context) error {
	if p.unwatch != nil {
		p.unwatch()
	}
	p.work.Stop()
	if p.groups.part.CompareAndSwap(p, nil) { // nobody has come in its place
		p.rosters.Share(nil)
	}
	return nil
}

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg.Store(r)
	processor.On(r, commands.Offered, processor.Normal, p.offer)
	processor.On(r, processor.AccountCreated, processor.Normal, func(ctx context.Context, j jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.groups.came(ctx, p, j)
	})
	// Before presence ends the subscriptions that are the account's own.
	processor.On(r, processor.AccountRemoved, processor.Early, func(ctx context.Context, j jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.groups.removed(ctx, p, j)
	})
}

const (
	// lookEvery is how often it is looked for changes that this node has not been told of.
	lookEvery = time.Minute
	// readEvery is how often the accounts of domains are read again all the same.
	readEvery = 10 * time.Minute
)

// tend reads again what may have changed unheard, and tells clients.
func (p *part) tend(ctx context.Context) {
	read := p.env.Clock.Now()
	for {
		doubt := false
		tick := make(chan struct{})
		stop := p.env.Clock.AfterFunc(lookEvery, func() { close(tick) })
		select {
		case <-ctx.Done():
			stop()
			return
		case <-p.groups.doubts:
			stop()
			doubt = true
		case <-tick:
		}
		now := p.env.Clock.Now()
		stale, err := p.groups.stale(ctx)
		if err == nil && (doubt || stale || now.Sub(read) >= readEvery) {
			var before, after *directory
			if before, after, err = p.groups.reload(ctx, p); err == nil {
				read = now
				if before != after {
					p.groups.follow(ctx, p, before, after, nil)
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			p.env.Log.Error("roster groups not read; trying again", "err", err)
		}
	}
}
