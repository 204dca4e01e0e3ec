// Package avatar lets people see one picture of somebody, whichever way they look
// for it: the nodes of XEP-0084, the photo in the vCard (XEP-0054, XEP-0153), or
// the hash in presence (XEP-0153). XEP-0398 says how the three go together.
//
// There is one picture of an account: what its node urn:xmpp:avatar:metadata names,
// or else the photo in its vCard. A photo that comes in a vCard is published, and
// taken out of what is stored; who asks for the vCard gets a photo in it when the
// nodes would show it to them (XEP-0398 §5.2, §7). So nothing is copied that could
// go out of step, and nobody gets to see by the vCard what the nodes hide.
//
// Presence of a client gets the picture's hash before anybody looks at it.
package avatar

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
	"parley/processor"
	"parley/storage/cache"
)

// The nodes, which are namespaces as well (XEP-0084 §3.1), what is announced
// (XEP-0398 §2), and the element in presence (XEP-0153 §3).
const (
	NodeData     = "urn:xmpp:avatar:data"
	NodeMetadata = "urn:xmpp:avatar:metadata"
	NS           = "urn:xmpp:pep-vcard-conversion:0"
	NSUpdate     = "vcard-temp:x:update"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "avatar",
	Doc:        "Shows one picture of everybody to clients old and new, in rooms, too.",
	Requires:   []string{pubsub.Name, "vcard"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
}

// Config is the component's section.
type Config struct {
	MaxSize config.Size `yaml:"max_size" min:"1KiB" max:"4MiB" doc:"Largest photo of a vCard that is published as the account's picture; larger ones stay in the vCard. A node's max_payload has to be a third larger."`
}

func defaults() *Config { return &Config{MaxSize: 176 << 10} }

// Bounds of what is remembered, for accounts whose clients send presence.
const (
	cachedHashes = 100_000
	cachedFor    = time.Minute // when another node's notice is lost
	topic        = "avatar"
)

type component struct {
	cfg    Config
	env    plugins.Env
	nodes  *pubsub.PubSub
	cards  *vcard.Cards
	hashes *cache.Cache[jid.JID, string] // by bare JID; "": no picture
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
	if c.cards, err = plugins.Need[*vcard.Cards](env, "vcard"); err != nil {
		return nil, err
	}
	o := plugins.CachedAccounts[string](env, topic, cachedFor)
	o.Size = cachedHashes
	c.hashes, err = cache.New(o)
	return c, err
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	r.AccountFeature(NS)
	processor.On(r, processor.Outgoing, processor.Early, c.outgoing)
	processor.On(r, vcard.Read, processor.Normal, c.shown)
	processor.On(r, vcard.Changed, processor.Normal, c.changed)
	processor.On(r, pubsub.Published, processor.Normal, c.published)
	forgets(r, c, pubsub.Publishing, func(p *pubsub.Publication) *pubsub.Node { return p.Node })
	forgets(r, c, pubsub.Retracted, func(e *pubsub.Retraction) *pubsub.Node { return e.Node })
	forgets(r, c, pubsub.Deleted, func(e *pubsub.Deletion) *pubsub.Node { return e.Node })
	forgets(r, c, pubsub.Configured, func(e *pubsub.Configuration) *pubsub.Node { return e.Node })
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		c.forget(ctx, account)
		return processor.Continue, nil
	})
}

// forgets looks again for a picture when something happens to one of its nodes. It
// does so before something is published, too: who hears of it may send presence at
// once.
func forgets[E any](r *processor.Registrar, c *component, h *processor.Hook[E], of func(E) *pubsub.Node) {
	processor.On(r, h, processor.Late, func(ctx context.Context, e E) (processor.Verdict, error) {
		if n := of(e); ours(n) {
			c.forget(ctx, n.Service)
		}
		return processor.Continue, nil
	})
}

func (c *component) forget(ctx context.Context, account jid.JID) {
	c.hashes.Drop(account)
	c.env.Forget(ctx, topic, account.String())
}

// ours reports whether it is one of the nodes of a picture.
func ours(n *pubsub.Node) bool {
	return n.PEP() && (n.Node == NodeData || n.Node == NodeMetadata)
}
