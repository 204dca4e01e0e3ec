// Package invitations lets people invite others: to be their contact, and to have an
// account here (XEP-0401, XEP-0379, XEP-0445).
//
//	commands.Offered → urn:xmpp:invite#invite, #create-account, and one to revoke (invite.go)
//	<presence type='subscribe'><preauth token/></presence> → both are contacts (accept.go)
//	registration with a token → plugins/register asks *Tokens, and both are contacts
//	GET /invite/TOKEN        → the landing page (page.go)
//
// A token is 130 bits of crypto/rand. The database has its SHA-256 alone, by which it
// is found: what is looked up is no secret, so nothing can be learned from how long
// that takes. It is good once, for a while, until it is revoked; it is never logged.
package invitations

import (
	"context"
	"embed"
	"errors"
	"net/url"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/commands"
	"parley/plugins/config"
	"parley/plugins/roster"
	"parley/processor"
	"parley/storage"
	"parley/stream"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name.
const Name = "invitations"

// Plugin provides the components and the contract *Tokens.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "People invite others: to be a contact, and to have an account here (XEP-0401).",
	Requires: []string{accounts.Name, admin.Name, admincommands.Name, commands.Name, roster.Name},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newInviter},
		{Server: stream.Name, New: newPage},
		{Server: admin.Name, New: newRoutes},
	},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newTokens(env), nil },
	// One that was used or revoked since must not come back to life (reliability row 40).
	Restored: func(ctx context.Context, tx storage.Tx, _ int64) error {
		_, err := tx.Exec(ctx, `DELETE FROM invitation`)
		return err
	},
}

// Config is the section of the processor's component.
type Config struct {
	TTL        time.Duration `yaml:"ttl" min:"1m" max:"8760h" doc:"How long an invitation is good."`
	PerAccount int           `yaml:"per_account" min:"0" max:"10000" doc:"Invitations that an account may have open at one time; 0: nobody but administrators invites."`
	Register   bool          `yaml:"register" doc:"Whoever is invited as a contact may make an account here, if the streamer's register is enabled."`
	PublicURL  string        `yaml:"public_url" doc:"Where people reach the HTTPS door, like https://chat.example.org: landing pages are below it, at /invite/. Empty: invitations have none."`
}

func defaults() *Config { return &Config{TTL: 7 * 24 * time.Hour, PerAccount: 10, Register: true} }

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
		return config.Key("public_url", "%q is not the URL of an HTTPS server", c.PublicURL)
	}
	return nil
}

// inviter is the processor's component.
type inviter struct {
	env     plugins.Env
	cfg     Config
	tokens  *Tokens
	roles   *admincommands.Roles
	rosters *roster.Rosters
	reg     *processor.Registrar
	list    []*commands.Command // for everybody
	admins  []*commands.Command
}

var _ processor.Component = (*inviter)(nil)

func newInviter(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	i := &inviter{env: env, cfg: *defaults()}
	if err := c.Decode(&i.cfg); err != nil {
		return nil, err
	}
	var err error
	if i.tokens, err = plugins.Need[*Tokens](env, Name); err != nil {
		return nil, err
	}
	if i.roles, err = plugins.Need[*admincommands.Roles](env, admincommands.Name); err != nil {
		return nil, err
	}
	if i.rosters, err = plugins.Need[*roster.Rosters](env, roster.Name); err != nil {
		return nil, err
	}
	i.list = []*commands.Command{i.inviteCommand(), i.revokeCommand()}
	i.admins = []*commands.Command{i.accountCommand()}
	return i, nil
}

// Start implements plugins.Component.
func (*inviter) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (i *inviter) Stop(context.Context) error {
	i.tokens.inviter.CompareAndSwap(i, nil)
	return nil
}

// Register implements processor.Component.
func (i *inviter) Register(r *processor.Registrar) {
	i.reg = r
	processor.On(r, commands.Offered, processor.Normal, i.offer)
	processor.On(r, processor.Incoming, processor.Early, i.incoming)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, j jid.JID) (processor.Verdict, error) {
		return processor.Continue, i.tokens.store.forget(ctx, j)
	})
	i.tokens.inviter.Store(i)
}

func (i *inviter) offer(ctx context.Context, o *commands.Offer) (processor.Verdict, error) {
	is, err := i.roles.Administers(ctx, o.Account(), o.Domain)
	if err != nil {
		return processor.Continue, err
	}
	own := o.Account().Domain() == o.Domain.Domain()
	o.Add(own && (is || i.cfg.PerAccount > 0), i.list...)
	o.Add(is, i.admins...)
	return processor.Continue, nil
}

// landing is the address of an invitation's page; "": there is none.
func (c *Config) landing(token string) string {
	if c.PublicURL == "" {
		return ""
	}
	return strings.TrimSuffix(c.PublicURL, "/") + pagePath + token
}

// Errors of *Tokens.
var (
	ErrUnknown = errors.New("no such invitation, or it is used up, revoked or too old")
	ErrMany    = errors.New("the account has as many open invitations as it may")
)
