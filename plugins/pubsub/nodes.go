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
func (c *component) defaultsOf(ctx context.Context, at Address, typ string) (Settings, error) {
	s := defaultSettings(at.PEP())
	_, err := processor.Fire(ctx, c.reg, Defaults, &Default{Address: at, Type: typ, Settings: &s})
	return s, err
}

// beginning are the settings of a node that is created: as its name and its type
// have it, then as wish has it, if that is not nil.
func (c *component) beginning(ctx context.Context, at Address, wish func(context.Context, *Settings) error) (Settings, error) {
	s, err := c.defaultsOf(ctx, at, "")
	if err != nil || wish == nil {
		return s, err
	}
	was := s.Type
	if err := wish(ctx, &s); err != nil || s.Type == was || s.Type == "" {
		return s, err
	}
	typed, err := c.defaultsOf(ctx, at, s.Type)
	if err != nil {
		return s, err
	}
	return typed, wish(ctx, &typed)
}

// table are the fields of a node's configuration.
func (c *component) table(ctx context.Context, at Address) (form.Table[Settings], error) {
	f := &Form{Address: at, Table: append(fields(&c.cfg.Limits), relations()...)}
	_, err := processor.Fire(ctx, c.reg, Fields, f)
	return f.Table, err
}

// settle lets features say what a node is like, and refuses what cannot be had
// at that service, and who may not create it (XEP-0060 §7.1.3.3, §8.1.2).
func (c *component) settle(ctx context.Context, e *Settlement) error {
	_, err := processor.Fire(ctx, c.reg, Settling, e)
	if e.Before == nil && !e.House && e.Base == nil && !c.mayCreate(e.Address, e.By) {
		return errNoNode()
	}
	if err != nil {
		return err
	}
	if e.Settings.PurgeOffline && !e.PEP() {
		return stanza.NewError(stanza.NotAcceptable, "pubsub#purge_offline: is for nodes of accounts' own services")
	}
	return c.relate(ctx, e)
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
	var wish func(context.Context, *Settings) error
	if el := r.pubsub.Child(NS, "configure"); el != nil { // §8.1.3
		if el.Has("node") {
			return nil, stanza.NewError(stanza.BadRequest, "the node is named once")
		}
		if form.In(el) != nil {
			wish = func(ctx context.Context, s *Settings) error {
				_, err := c.wished(ctx, r.at, el, s)
				return err
			}
		}
	}
	s, err := c.beginning(ctx, r.at, wish)
	if err != nil {
		return nil, err
	}
	if _, err := c.create(ctx, &Settlement{Address: r.at, By: r.From, Settings: &s}); err != nil {
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
func (c *component) create(ctx context.Context, e *Settlement) (*Node, error) {
	if err := c.settle(ctx, e); err != nil {
		return nil, err
	}
	at, by := e.Address, e.By
	n := c.store.fresh(at, by, *e.Settings).derive(e.Base)
	w := &write{node: n, fresh: true, rows: &Rows{}, limits: &c.cfg.Limits}
	_, err := c.store.publish(ctx, w)
	w.leave()
	c.dir.changed(ctx, at) // it may be committed whatever comes back
	if err != nil {
		return nil, err
	}
	fire(ctx, c, Configured, &Configuration{Node: n, By: by})
	return n, nil
}

// onConfigure is XEP-0060 §8.2.
func (c *component) onConfigure(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	n, err := c.effective(ctx, n)
	if err != nil {
		return nil, err
	}
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
	return nil, c.configure(ctx, n, &Settlement{Address: n.Address, By: r.From, Settings: &s})
}

// configure changes a node's settings and tells who wants to know.
func (c *component) configure(ctx context.Context, n *Node, e *Settlement) error {
	e.Before = &n.Settings
	if err := c.settle(ctx, e); err != nil {
		return err
	}
	by, s := e.By, *e.Settings
	next := n.withSettings(s)
	moving, err := c.followers(ctx, next)
	if err != nil {
		return err
	}
	told, err := c.store.configure(ctx, append(moving, next)...)
	defer told.leave()
	c.dir.changed(ctx, n.Address) // it may be committed whatever comes back
	for _, m := range moving {
		c.dir.changed(ctx, m.Address)
	}
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
		told.tell(ctx, c.env.Clock, func() { c.notify(ctx, next, el) })
	}
	told.leave()
	fire(ctx, c, Configured, &Configuration{Node: next, Before: &n.Settings, By: by})
	return nil
}

// onDefault is XEP-0060 §8.3; a node's name gets what a node of that name would
// be like.
func (c *component) onDefault(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	if !c.mayCreate(r.at, r.From) {
		return nil, errForbidden()
	}
	s, err := c.defaultsOf(ctx, r.at, "")
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
	if n.Base != "" { // XEP-0465 §5
		return nil, stanza.NewError(stanza.Forbidden, "the node goes with "+n.Base)
	}
	return nil, c.remove(ctx, n, r.From, uri, false)
}

// remove deletes a node and tells who wants to know: who that is has to be found
// out before.
func (c *component) remove(ctx context.Context, n *Node, by jid.JID, uri string, house bool) error {
	if _, err := processor.Fire(ctx, c.reg, Deleting, &Deletion{Node: n, By: by, House: house}); err != nil {
		return err
	}
	var to audience
	if n.Settings.NotifyDelete {
		to = c.audience(ctx, n, true)
	}
	branch, err := c.branch(ctx, n)
	if err != nil {
		return err
	}
	others := make([]audience, len(branch))
	for i, m := range branch {
		if _, err := processor.Fire(ctx, c.reg, Deleting, &Deletion{Node: m, By: by, House: true}); err != nil {
			return err
		}
		if m.Settings.NotifyDelete {
			others[i] = c.audience(ctx, m, true)
		}
	}
	told, err := c.store.remove(ctx, n, uri, &c.cfg.Limits, branch...)
	defer func() {
		for _, t := range told {
			t.leave()
		}
	}()
	c.dir.changed(ctx, n.Address) // it may be committed whatever comes back
	for _, m := range branch {
		c.dir.changed(ctx, m.Address)
	}
	if err != nil {
		return err
	}
	el := stanza.El(NSEvent, "delete").With("node", n.Node)
	if uri != "" {
		el.Add(stanza.El(NSEvent, "redirect").With("uri", uri))
	}
	told[len(branch)].tell(ctx, c.env.Clock, func() { c.send(ctx, n, to, el) })
	for i, m := range branch {
		told[i].tell(ctx, c.env.Clock, func() { c.send(ctx, m, others[i], stanza.El(NSEvent, "delete").With("node", m.Node)) })
	}
	fire(ctx, c, Deleted, &Deletion{Node: n, By: by, House: house})
	for _, m := range branch {
		fire(ctx, c, Deleted, &Deletion{Node: m, By: by, House: true})
	}
	return nil
}
