// Package extdisco tells people's clients which services outside of XMPP they may
// use: the STUN and TURN servers for calls (XEP-0215).
//
//	<services/>      every service, or those of one type, with credentials where they need some
//	<credentials/>   fresh credentials for one service
//	a changed list   is pushed to the sessions of this node that have asked (push.go)
//
// A service with a shared secret gets credentials that end by themselves: the name
// is a time and the account, the password a MAC of it, which the service can check
// without asking anybody (credentials.go). Nobody but people of this server hears of
// any service: relays cost money.
package extdisco

import (
	"context"
	"sync/atomic"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
)

// NS is the namespace of XEP-0215 §2.
const NS = "urn:xmpp:extdisco:2"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "extdisco",
	Doc:        "Tells clients the STUN and TURN servers for calls, with credentials that end by themselves (XEP-0215).",
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newDirectory}},
}

// directory answers for the domains of this server.
type directory struct {
	env   plugins.Env
	cfg   atomic.Pointer[Config]
	reg   *processor.Registrar
	asked asked
	push  pusher
}

var (
	_ processor.Component  = (*directory)(nil)
	_ plugins.Reconfigurer = (*directory)(nil)
)

func newDirectory(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg := defaults()
	if err := c.Decode(cfg); err != nil {
		return nil, err
	}
	d := &directory{env: env}
	d.cfg.Store(cfg)
	return d, nil
}

// Start implements plugins.Component.
func (*directory) Start(context.Context) error { return nil }

// Stop implements plugins.Component: a push that is under way ends.
func (d *directory) Stop(context.Context) error {
	d.push.stop()
	return nil
}

// Register implements processor.Component.
func (d *directory) Register(r *processor.Registrar) {
	d.reg = r
	r.Feature(NS) // XEP-0215 §5
	r.IQ(NS, "services", processor.Host, d.services)
	r.IQ(NS, "credentials", processor.Host, d.credentials)
	processor.On(r, processor.Unbound, processor.Late, func(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
		d.asked.forget(e.Ref)
		return processor.Continue, nil
	})
}

// Reconfigure implements plugins.Reconfigurer: whoever has asked hears what is new.
func (d *directory) Reconfigure(_ context.Context, c plugins.Config) error {
	cfg := defaults()
	if err := c.Decode(cfg); err != nil {
		return err
	}
	if changes := compare(d.cfg.Swap(cfg), cfg); len(changes) > 0 {
		d.tell(changes)
	}
	return nil
}

// check returns why the request is not answered.
func check(q *processor.IQ) error {
	switch {
	case q.Session == nil || q.Session.Kind != sessions.Client: // XEP-0215 §2
		return stanza.NewError(stanza.Forbidden, "these services are for people of this server")
	case q.Set():
		return stanza.NewError(stanza.BadRequest, "services are asked for with a get")
	}
	return nil
}

// services is XEP-0215 §3.1 and §3.2.
func (d *directory) services(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if err := check(q); err != nil {
		return nil, err
	}
	typ := Type(q.Query.Get("type"))
	cfg := d.cfg.Load()
	out := stanza.El(NS, "services").WithOpt("type", string(typ))
	if typ == "" || typ.known() {
		d.asked.add(q.Session.Ref, typ)
	}
	for _, s := range cfg.list() {
		if typ == "" || s.Type == typ {
			out.Add(s.element(d.grant(cfg, s, q.Session.JID)))
		}
	}
	return out, nil
}

// credentials is XEP-0215 §3.3.
func (d *directory) credentials(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if err := check(q); err != nil {
		return nil, err
	}
	wanted := q.Query.Child(NS, "service")
	if wanted == nil || q.Query.Count() != 1 || !wanted.Has("host") || !wanted.Has("type") {
		return nil, stanza.NewError(stanza.BadRequest, "name one service by its host and type")
	}
	cfg := d.cfg.Load()
	out := stanza.El(NS, "credentials")
	for _, s := range cfg.list() {
		if s.restricted() && s.matches(wanted) {
			out.Add(s.element(d.grant(cfg, s, q.Session.JID)))
		}
	}
	if out.Count() == 0 {
		return nil, stanza.NewError(stanza.ItemNotFound, "there is no such service with credentials")
	}
	return out, nil
}
