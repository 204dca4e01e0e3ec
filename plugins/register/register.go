// Package register lets people make accounts from their clients, change their
// passwords and leave (XEP-0077). It is off until the configuration turns it
// on.
//
// The streamer's component answers before login, on streams that are encrypted
// or need not be: it names the fields, then makes the account after it has
// looked at the address (how many of late), the name (one script, not
// reserved, like nobody else's: reliability rows 11 and 25) and the password.
// Who shows the token of an invitation may also when others may not (invited.go,
// XEP-0445); all others may have to pass a challenge first (challenge.go). The
// processor's component serves those who have logged in.
package register

import (
	"context"
	"errors"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/config"
	"parley/plugins/invitations"
	"parley/processor"
	"parley/storage"
	"parley/stream"
)

const (
	ns        = "jabber:iq:register"
	nsFeature = "http://jabber.org/features/iq-register"
)

// Name is the plugin's name.
const Name = "register"

// Plugin provides registration.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "Registration in band (XEP-0077): new accounts, new passwords, leaving.",
	Requires: []string{accounts.Name, invitations.Name},
	Components: []plugins.Maker{
		{Server: stream.Name, Off: true, Defaults: signupDefaults(), New: newSignup},
		{Server: processor.Name, Off: true, Defaults: manageDefaults(), New: newManage},
	},
	Contract: func(plugins.Env) (any, error) { return &Door{}, nil },
}

// SignupRules are what may differ by domain.
type SignupRules struct {
	Open         bool   `yaml:"open" doc:"Anybody may make an account; otherwise those who are invited."`
	Challenge    bool   `yaml:"challenge" doc:"Who is not invited has to pass what the component captcha asks, when that one runs."`
	MinPassword  int    `yaml:"min_password" min:"1" max:"256" unit:"characters" doc:"Shortest password of a new account."`
	Instructions string `yaml:"instructions" max:"1000" doc:"What a client shows to somebody who registers."`
}

// SignupDomain is what is different at a domain.
type SignupDomain struct {
	Enabled bool `yaml:"enabled" doc:"Registration is offered there."`
	SignupRules
}

// SignupConfig is the section of the streamer's component.
type SignupConfig struct {
	SignupRules
	PerHour    int                           `yaml:"per_hour" min:"0" max:"1000000" doc:"Attempts to register that one address (IPv6: one /64) may make in an hour; 0: any number."`
	MaxName    int                           `yaml:"max_name" min:"1" max:"1023" unit:"characters" doc:"Longest name of a new account."`
	Forbidden  []string                      `yaml:"forbidden_names" doc:"Names that nobody may register, nor names that look like them."`
	Lookalikes bool                          `yaml:"refuse_lookalikes" doc:"Refuse names that look like an existing account's."`
	Domains    config.ByDomain[SignupDomain] `yaml:"domains" doc:"Domains where it is otherwise; enabled: false offers it at all others."`
}

func signupDefaults() *SignupConfig {
	return &SignupConfig{
		SignupRules: SignupRules{Open: true, Challenge: true, MinPassword: 8, Instructions: "Choose a name and a password."},
		PerHour:     5, MaxName: 64, Lookalikes: true,
		Forbidden: []string{"abuse", "admin", "administrator", "hostmaster", "info", "moderator", "noreply", "operator", "postmaster", "root", "security", "server", "support", "system", "webmaster", "xmpp"},
	}
}

// of is what counts at a domain.
func (c *SignupConfig) of(domain string) SignupDomain {
	return c.Domains.Of(domain, SignupDomain{true, c.SignupRules})
}

// Validate implements config.Validator.
func (c *SignupConfig) Validate() error {
	var errs []error
	for _, n := range c.Forbidden {
		if n == "" {
			errs = append(errs, config.Key("forbidden_names", "a name is empty"))
		}
	}
	return errors.Join(errs...)
}

// ManageRules are what may differ by domain.
type ManageRules struct {
	MinPassword int  `yaml:"min_password" min:"1" max:"256" unit:"characters" doc:"Shortest new password."`
	Password    bool `yaml:"change_password" doc:"People may change their passwords from their clients."`
	Remove      bool `yaml:"remove" doc:"People may delete their accounts from their clients."`
}

// ManageConfig is the section of the processor's component.
type ManageConfig struct {
	ManageRules
	Domains config.ByDomain[ManageRules] `yaml:"domains" doc:"Domains where it is otherwise."`
}

// of is what counts at a domain.
func (c *ManageConfig) of(domain string) ManageRules { return c.Domains.Of(domain, c.ManageRules) }

func manageDefaults() *ManageConfig {
	return &ManageConfig{ManageRules: ManageRules{MinPassword: 8, Password: true, Remove: true}}
}

// wire says an error of the accounts in the words of XEP-0077; others stay.
func wire(err error) error {
	for _, row := range []struct {
		is        error
		condition stanza.Condition
		text      string
	}{
		{accounts.ErrExists, stanza.Conflict, "the name is taken"},
		{accounts.ErrName, stanza.NotAcceptable, "the name is not acceptable"},
		{accounts.ErrPassword, stanza.NotAcceptable, "the password is not acceptable"},
		{accounts.ErrUnknown, stanza.RegistrationRequired, ""},
		{invitations.ErrUnknown, stanza.ItemNotFound, "the invitation is unknown, used up, or too old"},
		{accounts.ErrBusy, stanza.ResourceConstraint, "try again later"},
		{storage.ErrUnavailable, stanza.ResourceConstraint, "try again later"},
	} {
		if errors.Is(err, row.is) {
			return stanza.NewError(row.condition, row.text)
		}
	}
	return err
}

// text returns a field's content, and whether the field is there.
func text(q *stanza.Element, field string) (string, bool) {
	el := q.Child(ns, field)
	if el == nil {
		return "", false
	}
	return el.Text(), true
}

// still is a component without work of its own.
type still struct{}

// Start implements plugins.Component.
func (still) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (still) Stop(context.Context) error { return nil }
