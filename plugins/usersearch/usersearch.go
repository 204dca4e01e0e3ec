// Package usersearch lets people look for each other by name (XEP-0055), among
// those who want to be found.
//
// Each domain that is served has a directory, search.<domain>. What it shows of an
// account is out of the account's vCard of XEP-0054, which everybody can read who
// knows the address; vCards of the newer kind are in there as long as they are open.
//
//	a vCard is stored → index.go   … and what it is found by with it, in one commit
//	somebody searches → service.go  may they, and how much
//	                  → search.go   what they look for: fields, or a form
//	                  → page.go     who fits, wants to be found by them, is there
//	an account says   → choice.go   whether it is found: a command (XEP-0050)
//	the feature starts → catchup.go what was stored while it was not there
package usersearch

import (
	"context"
	"embed"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/blocking"
	"parley/plugins/commands"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/plugins/vcard"
	"parley/processor"
)

// NS is the namespace of XEP-0055 §7.1.
const NS = "jabber:iq:search"

//go:embed sql
var migrations embed.FS

// Plugin provides the directories.
var Plugin = plugins.Plugin{
	Name:       "usersearch",
	Doc:        "People find each other by name, those who want to be found.",
	Requires:   []string{accounts.Name, blocking.Name, commands.Name, "disco", "vcard"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newService}},
	Migrations: migrations,
}

// Config is the component's section.
type Config struct {
	HostPrefix string `yaml:"host_prefix" reload:"restart" doc:"The directories are at <host_prefix>.<domain>, for each domain."`
	Name       string `yaml:"name" doc:"Name of the directories, as people see it in service browsers."`
	Found      bool   `yaml:"found" doc:"Whether an account is found that has not said whether it wants to be."`
	Who        Who    `yaml:"who" enum:"domain,server,everybody" doc:"Who may search: accounts of the directory's domain, accounts of every domain served here, or accounts of other servers, too."`
	Results    int    `yaml:"max_results" min:"1" max:"200" doc:"Accounts in an answer. Clients that page (XEP-0059) get the next ones with another search."`
	PerHour    int    `yaml:"per_hour" min:"1" max:"100000" doc:"Searches that one account may make in an hour; another server has as many for all of its accounts."`
	Burst      int    `yaml:"burst" min:"1" max:"1000" doc:"How many of them in a row."`
}

// Who is who may search.
type Who string

// The values of Config.Who.
const (
	OwnDomain Who = "domain"
	OwnServer Who = "server"
	Everybody Who = "everybody"
)

func defaults() *Config {
	return &Config{HostPrefix: "search", Name: "User directory", Who: OwnDomain, Results: 30, PerHour: 120, Burst: 20}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.HostPrefix == "" || strings.ContainsAny(c.HostPrefix, "@/ ") {
		return config.Key("host_prefix", "%q is no label of a domain", c.HostPrefix)
	}
	return nil
}

// allowance is what one searcher may do.
func (c *Config) allowance() allowance {
	return allowance{time.Hour / time.Duration(c.PerHour), c.Burst}
}

// register is what is asked of the accounts.
type register interface {
	Exists(ctx context.Context, account jid.JID) (bool, error)
}

type service struct {
	env      plugins.Env
	cfg      Config
	store    store
	hosts    plugins.Services
	accounts register
	blocks   *blocking.Lists
	cards    *vcard.Cards
	m        *metrics
	leave    func() // ends taking part in what is stored
	back     plugins.Background
}

var _ processor.Component = (*service)(nil)

func newService(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	s := &service{env: env, cfg: *defaults(), store: store{env.DB}}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	var err error
	if s.hosts, err = env.Domains.Services(s.cfg.HostPrefix); err != nil {
		return nil, err
	}
	if s.accounts, err = plugins.Need[register](env, accounts.Name); err != nil {
		return nil, err
	}
	if s.blocks, err = plugins.Need[*blocking.Lists](env, blocking.Name); err != nil {
		return nil, err
	}
	if s.cards, err = plugins.Need[*vcard.Cards](env, "vcard"); err != nil {
		return nil, err
	}
	s.m, err = newMetrics(env.Metrics)
	return s, err
}

// Start implements plugins.Component.
func (s *service) Start(ctx context.Context) error {
	s.leave = s.cards.Beside(beside) // before it looks for what is missing
	s.back.Start(ctx, s.catchUp, s.expire)
	return nil
}

// Stop implements plugins.Component.
func (s *service) Stop(context.Context) error {
	s.back.Stop()
	if s.leave != nil {
		s.leave()
	}
	return nil
}

// Register implements processor.Component.
func (s *service) Register(r *processor.Registrar) {
	r.Owned(processor.Owned{Key: s.key, Handle: s.handle})
	processor.On(r, disco.Items, processor.Normal, s.listed)
	processor.On(r, commands.Offered, processor.Normal, s.offer)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, s.store.forget(ctx, account)
	})
}
