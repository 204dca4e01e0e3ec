package pubsub

import (
	"context"
	"crypto/rand"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/processor"
)

// mayCreate reports whether somebody may create nodes at a service: the account
// whose it is; at the common ones, the accounts here.
func (c *component) mayCreate(at Address, who jid.JID) bool {
	if at.PEP() {
		return who.Bare() == at.Service
	}
	return who.Local() != "" && c.env.Local(who.Domain())
}

// defaultsOf are the settings of a node that nobody has said anything about.
func (c *component) defaultsOf(ctx context.Context, at Address) (Settings, error) {
	s := defaultSettings(at.PEP())
	_, err := processor.Fire(ctx, c.reg, Defaults, &Default{Address: at, Settings: &s})
	return s, err
}

// table are the fields of a node's configuration.
func (c *component) table(ctx context.Context, at Address) (form.Table[Settings], error) {
	f := &Form{Address: at, Table: fields(&c.cfg.Limits)}
	_, err := processor.Fire(ctx, c.reg, Fields, f)
	return f.Table, err
}

// sensible refuses what cannot be had at that service.
func sensible(at Address, s *Settings) error {
	if s.PurgeOffline && !at.PEP() {
		return stanza.NewError(stanza.NotAcceptable, "pubsub#purge_offline: is for nodes of accounts' own services")
	}
	return nil
}

// onCreate is XEP-0060 §8.1.
func (c *component) onCreate(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	if !c.mayCreate(r.at, r.From) {
		return nil, errForbidden()
	}
	instant := r.at.Node == ""
	if instant {
		r.at.Node = rand.Text()
	}
	s, err := c.defaultsOf(ctx, r.at)
	if err != nil {
		return nil, err
	}
	if el := r.pubsub.Child(NS, "configure"); el != nil { // §8.1.3
		if el.Has("node") {
			return nil, stanza.NewError(stanza.BadRequest, "the node is named once")
		}
		if form.In(el) != nil {
			if _, err := c.wished(ctx, r.at, el, &s); err != nil {
				return nil, err
			}
		}
	}
	if _, err := c.create(ctx, r.at, r.From, s); err != nil {
		return nil, err
	}
	if !instant {
		return nil, nil
	}
	return stanza.El(NS, "pubsub").Add(stanza.El(NS, "create").With("node", r.at.Node)), nil
}

// wished applies a submitted configuration; false: it was canceled.
func (c *component) wished(ctx context.Context, at Address, el *stanza.Element, s *Settings) (bool, error) {
	f, err := submitted(el, FormConfig)
	if err != nil {
		return false, err
	}
	if f.Kind == form.Cancel {
		return false, nil
	}
	t, err := c.table(ctx, at)
	if err != nil {
		return false, err
	}
	return true, apply(t, s, f)
}

// create makes a node. Errors: conflict when it exists, policy-violation.
func (c *component) create(ctx context.Context, at Address, by jid.JID, s Settings) (*Node, error) {
	if err := sensible(at, &s); err != nil {
		return nil, err
	}
	n := c.store.fresh(at, by, s)
	_, err := c.store.publish(ctx, &write{node: n, fresh: true, rows: &Rows{}, limits: &c.cfg.Limits})
	c.dir.changed(ctx, at) // it may be committed whatever comes back
	if err != nil {
		return nil, err
	}
	fire(ctx, c, Configured, &Configuration{Node: n, By: by})
	return n, nil
}

// onConfigure is XEP-0060 §8.2.
func (c *component) onConfigure(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	t, err := c.table(ctx, r.at)
	if err != nil {
		return nil, err
	}
	s := n.Settings.clone()
	x := t.Form(form.Empty, FormConfig, &s).Element()
	return stanza.El(NSOwner, "pubsub").Add(stanza.El(NSOwner, "configure").With("node", n.Node).Add(x)), nil
}

// onSetConfigure is XEP-0060 §8.2.4.
func (c *component) onSetConfigure(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	s := n.Settings.clone()
	ok, err := c.wished(ctx, r.at, r.what, &s)
	if err != nil || !ok { // §8.2.5: canceled
		return nil, err
	}
	return nil, c.configure(ctx, n, r.From, s)
}

// configure changes a node's settings and tells who wants to know.
func (c *component) configure(ctx context.Context, n *Node, by jid.JID, s Settings) error {
	if err := sensible(n.Address, &s); err != nil {
		return err
	}
	next := n.withSettings(s)
	err := c.store.configure(ctx, next)
	c.dir.changed(ctx, n.Address) // it may be committed whatever comes back
	if err != nil {
		return err
	}
	if s.NotifyConfig { // §8.2.5.3
		el := stanza.El(NSEvent, "configuration").With("node", n.Node)
		if s.Payloads {
			t, err := c.table(ctx, n.Address)
			if err != nil {
				return err
			}
			el.Add(t.Form(form.Result, FormConfig, &s).Element())
		}
		c.notify(ctx, next, el)
	}
	fire(ctx, c, Configured, &Configuration{Node: next, Before: &n.Settings, By: by})
	return nil
}

// onDefault is XEP-0060 §8.3; a node's name gets what a node of that name would
// be like.
func (c *component) onDefault(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	if !c.mayCreate(r.at, r.From) {
		return nil, errForbidden()
	}
	s, err := c.defaultsOf(ctx, r.at)
	if err != nil {
		return nil, err
	}
	t, err := c.table(ctx, r.at)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NSOwner, "default").WithOpt("node", r.at.Node).Add(t.Form(form.Empty, FormConfig, &s).Element())
	return stanza.El(NSOwner, "pubsub").Add(out), nil
}

// maxURI bounds where a node has gone.
const maxURI = 1024

// onDelete is XEP-0060 §8.4.
func (c *component) onDelete(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	uri := ""
	if el := r.what.Child(NSOwner, "redirect"); el != nil {
		if uri = el.Get("uri"); uri == "" || len(uri) > maxURI {
			return nil, stanza.NewError(stanza.BadRequest, fmt.Sprintf("redirect needs a uri of at most %d bytes", maxURI))
		}
	}
	return nil, c.remove(ctx, n, r.From, uri)
}

// remove deletes a node and tells who wants to know: who that is has to be found
// out before.
func (c *component) remove(ctx context.Context, n *Node, by jid.JID, uri string) error {
	var to audience
	if n.Settings.NotifyDelete {
		to = c.audience(ctx, n, true)
	}
	err := c.store.remove(ctx, n, uri, &c.cfg.Limits)
	c.dir.changed(ctx, n.Address) // it may be committed whatever comes back
	if err != nil {
		return err
	}
	el := stanza.El(NSEvent, "delete").With("node", n.Node)
	if uri != "" {
		el.Add(stanza.El(NSEvent, "redirect").With("uri", uri))
	}
	c.send(ctx, n, to, el)
	fire(ctx, c, Deleted, &Deletion{Node: n, By: by})
	return nil
}
