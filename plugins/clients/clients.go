// Package clients tells people which clients have access to their account, and takes it
// away (XEP-0494).
//
// A client that names itself when it logs in (XEP-0388 §2.3) is noted in memory and soon
// written down; one that does not is known while it is connected. Who has logged in with
// the password keeps access until the password is changed (§3.2).
//
//	login            → memory → table
//	<list/>          → table, tokens (XEP-0484), sessions
//	<revoke/>        → tokens go, sessions end
package clients

import (
	"context"
	"embed"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/processor"
	"parley/stream"
)

const (
	// Name is the plugin's name in configurations.
	Name = "clients"
	// NS is the namespace of XEP-0494 §3.
	NS = "urn:xmpp:cam:0"
)

//go:embed sql
var migrations embed.FS

// Plugin provides both components.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Tells people which clients have access to their account, and takes it away.",
	Requires: []string{accounts.Name},
	Components: []plugins.Maker{
		{Server: stream.Name, New: newWatch},
		{Server: processor.Name, Defaults: defaults(), New: newComponent},
	},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newLog(env), nil },
}

// Config is the section of the processor's component.
type Config struct {
	Keep time.Duration `yaml:"keep" min:"1h" doc:"How long it is remembered that a client has logged in, after its last login. One that still has access, and is not shown any more, shows up at its next login."`
}

func defaults() *Config { return &Config{Keep: 90 * 24 * time.Hour} }

// watch notes who logs in; it works in the streamer.
type watch struct {
	log  *log
	work plugins.Background
}

var _ stream.Component = (*watch)(nil)

func newWatch(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	l, err := plugins.Need[*log](env, Name)
	return &watch{log: l}, err
}

// Register implements stream.Component.
func (w *watch) Register(r *stream.Registrar) { r.LoggedIn(w.log.note) }

// Start implements plugins.Component.
func (w *watch) Start(ctx context.Context) error {
	w.work.Start(ctx, w.log.tend)
	return nil
}

// Stop implements plugins.Component: what is noted is written.
func (w *watch) Stop(ctx context.Context) error {
	w.work.Stop()
	return w.log.write(ctx)
}

// access is what is asked of the accounts.
type access interface {
	PasswordSince(ctx context.Context, account jid.JID) (time.Time, error)
	TokenHolders(ctx context.Context, account jid.JID) (map[string]bool, error)
	RevokeTokens(ctx context.Context, account jid.JID, client string) error
}

// component answers people; it works in the processor.
type component struct {
	env      plugins.Env
	cfg      Config
	log      *log
	accounts access
	house    *processor.Registrar
	work     plugins.Background
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &component{env: env, cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	var err error
	if p.log, err = plugins.Need[*log](env, Name); err != nil {
		return nil, err
	}
	p.accounts, err = plugins.Need[access](env, accounts.Name)
	return p, err
}

// Start implements plugins.Component.
func (p *component) Start(ctx context.Context) error {
	p.work.Start(ctx, p.sweep)
	return nil
}

// Stop implements plugins.Component.
func (p *component) Stop(context.Context) error {
	p.work.Stop()
	return nil
}

// Register implements processor.Component.
func (p *component) Register(r *processor.Registrar) {
	p.house = r
	r.AccountFeature(NS)
	r.IQ(NS, "list", processor.Self, p.list)
	r.IQ(NS, "revoke", processor.Self, p.revoke)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.log.forgetAll(ctx, account)
	})
}

// sweepEvery is how often clients are forgotten that have not been seen for long.
const sweepEvery = time.Hour

func (p *component) sweep(ctx context.Context) {
	for plugins.Pause(ctx, p.env.Clock, sweepEvery) {
		if !p.env.Owns(Name) {
			continue
		}
		if err := p.log.forgetBefore(ctx, p.env.Clock.Now().Add(-p.cfg.Keep)); err != nil && ctx.Err() == nil {
			p.env.Log.Warn("clients that were not seen for long are forgotten later", "err", err)
		}
	}
}
