// Package contact tells how to reach the people behind the server (XEP-0157):
// addresses by role, in the server's disco#info.
package contact

import (
	"context"
	"errors"
	"net/url"

	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/processor"
)

// formType is the form the addresses go into (XEP-0157 §3).
const formType = "http://jabber.org/network/serverinfo"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "contact",
	Doc:        "Tells people and peers how to reach those who run this server.",
	Requires:   []string{"disco"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: &Config{}, New: newContact}},
}

// Config is the component's section: addresses as URIs, xmpp:, mailto: or
// https:.
type Config struct {
	Abuse    []string `yaml:"abuse" max:"20" doc:"URIs for reports of abuse: mailto:abuse@example.org, xmpp:admin@example.org, https://…"`
	Admin    []string `yaml:"admin" max:"20" doc:"URIs of the administrators."`
	Feedback []string `yaml:"feedback" max:"20" doc:"URIs for praise and complaints."`
	Sales    []string `yaml:"sales" max:"20" doc:"URIs for those who want to buy."`
	Security []string `yaml:"security" max:"20" doc:"URIs for reports of vulnerabilities."`
	Status   []string `yaml:"status" max:"20" doc:"URIs that show whether the service works."`
	Support  []string `yaml:"support" max:"20" doc:"URIs for those who need help."`
}

// fields are the roles with their names on the wire (XEP-0157 §7.1), in the
// alphabet's order.
func (c *Config) fields() []disco.Field {
	all := []disco.Field{
		{Var: "abuse-addresses", Values: c.Abuse},
		{Var: "admin-addresses", Values: c.Admin},
		{Var: "feedback-addresses", Values: c.Feedback},
		{Var: "sales-addresses", Values: c.Sales},
		{Var: "security-addresses", Values: c.Security},
		{Var: "status-addresses", Values: c.Status},
		{Var: "support-addresses", Values: c.Support},
	}
	out := make([]disco.Field, 0, len(all))
	for _, f := range all {
		if len(f.Values) > 0 {
			f.Type = "list-multi"
			out = append(out, f)
		}
	}
	return out
}

// Validate implements config.Validator: addresses are URIs (XEP-0157 §3).
func (c *Config) Validate() error {
	keys := map[string][]string{"abuse": c.Abuse, "admin": c.Admin, "feedback": c.Feedback, "sales": c.Sales, "security": c.Security, "status": c.Status, "support": c.Support}
	var errs []error
	for key, list := range keys {
		for _, v := range list {
			if u, err := url.Parse(v); err != nil || !u.IsAbs() {
				errs = append(errs, config.Key(key, "%q is not a URI; write mailto:, xmpp: or https: before it", v))
			}
		}
	}
	return errors.Join(errs...)
}

type contact struct{ fields []disco.Field }

var _ processor.Component = (*contact)(nil)

func newContact(_ plugins.Env, c plugins.Config) (plugins.Component, error) {
	var cfg Config
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	return &contact{cfg.fields()}, nil
}

// Start implements plugins.Component.
func (*contact) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*contact) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *contact) Register(r *processor.Registrar) {
	processor.On(r, disco.Info, processor.Normal, c.describe)
}

// describe is XEP-0157 §3.
func (c *contact) describe(_ context.Context, a *disco.InfoAnswer) (processor.Verdict, error) {
	if a.Server() && a.Node == "" && len(c.fields) > 0 {
		a.AddForm(disco.Form{Type: formType, Fields: c.fields})
	}
	return processor.Continue, nil
}
