// Package bookmarks keeps an account's list of rooms: one item for each (XEP-0402),
// and the same list for clients that know older ways (XEP-0048).
//
// The items of the node urn:xmpp:bookmarks:1 are the truth. What older clients
// find in their private XML (XEP-0049) is made of them when it is asked for; what
// such a client stores there is compared with them, and only what differs is
// published or retracted. The node storage:bookmarks, of clients in between
// (XEP-0048 §3 with XEP-0223), cannot be made up when it is asked for: it is a copy
// that is brought up to date whenever bookmarks change, and before it is read.
// What has no place in an item, such as bookmarks of web pages, stays in the private
// XML.
package bookmarks

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/private"
	"parley/plugins/pubsub"
	"parley/processor"
)

// The namespaces, which are the names of the nodes as well: XEP-0402 §2, XEP-0048
// §2.
const (
	NS    = "urn:xmpp:bookmarks:1"
	NSOld = "storage:bookmarks"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "bookmarks",
	Doc:        "Keeps the list of rooms in step between clients old and new.",
	Requires:   []string{pubsub.Name, "private"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
}

// Config is the component's section.
type Config struct {
	MaxSize config.Size `yaml:"max_size" min:"4KiB" max:"192KiB" doc:"How large one account's bookmarks may be as older clients get them, all in one."`
}

func defaults() *Config { return &Config{MaxSize: 128 << 10} }

type component struct {
	cfg    Config
	env    plugins.Env
	nodes  *pubsub.PubSub
	stored *private.Store
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, conf plugins.Config) (plugins.Component, error) {
	c := &component{cfg: *defaults(), env: env}
	if err := conf.Decode(&c.cfg); err != nil {
		return nil, err
	}
	var err error
	if c.nodes, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name); err != nil {
		return nil, err
	}
	c.stored, err = plugins.Need[*private.Store](env, "private")
	return c, err
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	r.AccountFeature(NS+"#compat", NS+"#compat-pep") // XEP-0402 §6
	processor.On(r, pubsub.Defaults, processor.Normal, wellKnown)
	processor.On(r, pubsub.Publishing, processor.Normal, c.publishing)
	processor.On(r, pubsub.Published, processor.Normal, c.published)
	processor.On(r, pubsub.Retracted, processor.Normal, c.retracted)
	processor.On(r, pubsub.Deleted, processor.Normal, c.deleted)
	processor.On(r, pubsub.Retrieving, processor.Normal, c.retrieving)
	processor.On(r, private.Fetching, processor.Normal, c.fetching)
	processor.On(r, private.Storing, processor.Normal, c.storing)
}

// wellKnown is what the nodes are like (XEP-0402 §3.3, XEP-0223 §4): nobody's but
// the account's.
func wellKnown(_ context.Context, d *pubsub.Default) (processor.Verdict, error) {
	if !d.PEP() || d.Node != NS && d.Node != NSOld {
		return processor.Continue, nil
	}
	d.Settings.Access, d.Settings.Persist = pubsub.Whitelist, true
	if d.Node == NS {
		d.Settings.MaxItems, d.Settings.Last = pubsub.Max, pubsub.Never
	}
	return processor.Continue, nil
}

// publishing looks at what a client publishes to one of the nodes.
func (c *component) publishing(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if !p.Node.PEP() || p.Request == nil {
		return processor.Continue, nil
	}
	switch p.Node.Node {
	case NS:
		return processor.Continue, c.fits(ctx, p)
	case NSOld:
		return processor.Continue, c.replaced(ctx, p)
	}
	return processor.Continue, nil
}

// fits refuses what is no bookmark (XEP-0402 §2), and one too many.
func (c *component) fits(ctx context.Context, p *pubsub.Publication) error {
	all, err := c.list(ctx, p.Node.Service)
	if err != nil {
		return err
	}
	for _, it := range p.Items {
		b, ok := parse(it.ID, it.Payload)
		if !ok {
			return stanza.NewError(stanza.BadRequest, "a bookmark is a <conference/> in an item whose id is the room's address")
		}
		all.put(b)
	}
	return c.bounded(len(collate(nil, all).Bytes("")))
}

// bounded refuses bookmarks that have too many bytes.
func (c *component) bounded(n int) error {
	if n <= int(c.cfg.MaxSize) {
		return nil
	}
	return stanza.NewError(stanza.PolicyViolation, fmt.Sprintf("the bookmarks have %d bytes and may have %d (max_size)", n, int64(c.cfg.MaxSize)))
}

// replaced takes over a whole list (XEP-0402 §5.3.2). In a node that is new it adds
// to what there is: its client has not seen that.
func (c *component) replaced(ctx context.Context, p *pubsub.Publication) error {
	last := p.Items[len(p.Items)-1]
	if last.Payload == nil || last.Payload.Name != (stanza.Name{Space: NSOld, Local: "storage"}) {
		return stanza.NewError(stanza.BadRequest, "bookmarks are in <storage/>")
	}
	if err := c.bounded(len(last.Payload.Bytes(""))); err != nil {
		return err
	}
	rest, want := split(last.Payload)
	if err := c.apply(ctx, p.Node.Service, want, !p.New); err != nil {
		return err
	}
	if err := c.keep(ctx, p.Node.Service, rest); err != nil {
		return err
	}
	all, err := c.list(ctx, p.Node.Service)
	if err == nil {
		last.Payload = collate(rest, all)
	}
	return err
}

// published, retracted and deleted bring the copy up to date.
func (c *component) published(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if p.Request == nil {
		return processor.Continue, nil
	}
	return c.changed(ctx, p.Node)
}

func (c *component) retracted(ctx context.Context, r *pubsub.Retraction) (processor.Verdict, error) {
	if !r.By.IsFull() { // the house, or pushed out by what is published
		return processor.Continue, nil
	}
	return c.changed(ctx, r.Node)
}

func (c *component) deleted(ctx context.Context, d *pubsub.Deletion) (processor.Verdict, error) {
	return c.changed(ctx, d.Node)
}

func (c *component) changed(ctx context.Context, n *pubsub.Node) (processor.Verdict, error) {
	if !n.PEP() || n.Node != NS {
		return processor.Continue, nil
	}
	return processor.Continue, c.mirror(ctx, n.Service)
}

// retrieving brings the copy up to date before it is read: whoever did so last may
// have been stopped halfway.
func (c *component) retrieving(ctx context.Context, r *pubsub.Retrieval) (processor.Verdict, error) {
	if !r.Node.PEP() || r.Node.Node != NSOld {
		return processor.Continue, nil
	}
	return processor.Continue, c.mirror(ctx, r.Node.Service)
}

// name is what older clients keep their bookmarks under.
var name = stanza.Name{Space: NSOld, Local: "storage"}

// fetching makes what an older client gets. Bookmarks that have been there before
// this feature was become items.
func (c *component) fetching(ctx context.Context, a *private.Access) (processor.Verdict, error) {
	if a.Name != name {
		return processor.Continue, nil
	}
	rest, old := splitAll(a.Data)
	if len(old) > 0 {
		if err := c.apply(ctx, a.Owner, old, false); err != nil {
			return processor.Continue, err
		}
		if err := c.keep(ctx, a.Owner, rest); err != nil {
			return processor.Continue, err
		}
		if err := c.mirror(ctx, a.Owner); err != nil {
			return processor.Continue, err
		}
	}
	all, err := c.list(ctx, a.Owner)
	if err == nil && (a.Data != nil || len(all) > 0) {
		a.Data = collate(rest, all).Bytes(private.NS)
	}
	return processor.Continue, err
}

// storing takes over what an older client stores (XEP-0402 §5.3.2).
func (c *component) storing(ctx context.Context, a *private.Access) (processor.Verdict, error) {
	if a.Name != name {
		return processor.Continue, nil
	}
	if err := c.bounded(len(a.Data)); err != nil {
		return processor.Continue, err
	}
	rest, want := splitAll(a.Data)
	if err := c.apply(ctx, a.Owner, want, true); err != nil {
		return processor.Continue, err
	}
	if err := c.keep(ctx, a.Owner, rest); err != nil {
		return processor.Continue, err
	}
	a.Data = collate(rest, nil).Bytes(private.NS)
	return processor.Continue, c.mirror(ctx, a.Owner)
}

// own is the address of one of an account's nodes.
func own(account jid.JID, node string) pubsub.Address {
	return pubsub.Address{Service: account, Node: node}
}
