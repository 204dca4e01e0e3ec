package pubsub

import (
	"context"
	"errors"
	"sync/atomic"

	"parley/parser/jid"
	"parley/plugins"
)

// PubSub is the contract: all services of the house, one value per Host. It is
// safe for concurrent use. Features get it in New and use it while the house
// runs, from hooks and handlers, with no lock held.
//
// What it does it does in the name of the house: access is not checked, the
// bounds and the hooks are those of everybody. At takes an account's bare JID as
// Service for PEP. Errors are *stanza.Error where a client could have made them.
type PubSub struct {
	env   plugins.Env
	store *store
	dir   *directory
	live  atomic.Pointer[component]
}

// ErrStopped says that the component is not running.
var ErrStopped = errors.New("pubsub is not running")

func newPubSub(env plugins.Env) (*PubSub, error) {
	p := &PubSub{env: env, store: newStore(env)}
	var err error
	p.dir, err = newDirectory(env, p.store)
	return p, err
}

// Node returns a node, or nil when there is none.
func (p *PubSub) Node(ctx context.Context, at Address) (*Node, error) { return p.dir.node(ctx, at) }

// Nodes returns all nodes of an account's own service, in the order of their
// names.
func (p *PubSub) Nodes(ctx context.Context, account jid.JID) ([]*Node, error) {
	return p.dir.nodes(ctx, account)
}

// Item returns an item, or nil when there is none, or no such node.
func (p *PubSub) Item(ctx context.Context, at Address, id string) (*Item, error) {
	page, err := p.Items(ctx, at, Query{IDs: []string{id}})
	if err != nil || len(page.Items) == 0 {
		return nil, err
	}
	return page.Items[0], nil
}

// Last returns the item that was published last, or nil when there is none.
func (p *PubSub) Last(ctx context.Context, at Address) (*Item, error) {
	page, err := p.Items(ctx, at, Query{Newest: 1})
	if err != nil || len(page.Items) == 0 {
		return nil, err
	}
	return page.Items[0], nil
}

// Items returns items of a node; without such a node, none. A Query without
// Newest, Limit and IDs gets the whole node, which may be as large as the
// account's limits allow.
func (p *PubSub) Items(ctx context.Context, at Address, q Query) (*Page, error) {
	n, err := p.dir.node(ctx, at)
	if err != nil || n == nil {
		return &Page{Index: -1}, err
	}
	return p.store.items(ctx, n, q)
}

// May reports whether somebody, of any JID, may retrieve items of the node: nil,
// or the *stanza.Error that they would get.
func (p *PubSub) May(ctx context.Context, n *Node, who jid.JID) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	return c.mayRead(ctx, n, who)
}

// Readable returns a node that somebody wants to read, as the service itself
// would let them. Errors: *stanza.Error; who may not know of the account hears what
// they would of one that does not exist.
func (p *PubSub) Readable(ctx context.Context, at Address, who jid.JID) (*Node, error) {
	c, err := p.running()
	if err != nil {
		return nil, err
	}
	stranger, err := c.stranger(ctx, at.Service, who)
	if err != nil {
		return nil, err
	}
	n, err := c.dir.node(ctx, at)
	if err == nil && n == nil {
		err = errNoNode()
	}
	if err == nil {
		err = c.mayRead(ctx, n, who)
	}
	if err != nil && stranger && hides(err) {
		err = errStranger()
	}
	return n, err
}

// MayPublish is May for publishing.
func (p *PubSub) MayPublish(ctx context.Context, n *Node, who jid.JID) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	_, err = c.mayPublish(ctx, n, who)
	return err
}

// Publish publishes items in the name of the account by, bare. A node that does
// not exist is created with its well-known settings (Defaults), which set, if not
// nil, changes. It returns the items' ids.
func (p *PubSub) Publish(ctx context.Context, at Address, by jid.JID, set func(*Settings), items ...Entry) (ids []string, err error) {
	c, err := p.running()
	if err != nil {
		return nil, err
	}
	return c.publish(ctx, &publishing{at: at, by: by, house: true, wish: func(_ context.Context, s *Settings) error {
		if set != nil {
			set(s)
		}
		return nil
	}, entries: items})
}

// Retract removes items in the name of the account by and tells subscribers.
// Ids that are not there are passed over; nothing happens without a node.
func (p *PubSub) Retract(ctx context.Context, at Address, by jid.JID, ids ...string) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	n, err := p.dir.node(ctx, at)
	if err != nil || n == nil || len(ids) == 0 {
		return err
	}
	return c.retract(ctx, n, &removal{by: by, house: true, ids: ids, notify: true, lenient: true})
}

// Create creates a node in the name of the account by, with its well-known
// settings, which set, if not nil, changes. Errors: conflict when it exists.
func (p *PubSub) Create(ctx context.Context, at Address, by jid.JID, set func(*Settings)) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	s, err := c.beginning(ctx, at, func(_ context.Context, s *Settings) error {
		if set != nil {
			set(s)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = c.create(ctx, &Settlement{Address: at, By: by, House: true, Settings: &s})
	return err
}

// Configure changes a node's settings in the name of the account by. Errors:
// item-not-found.
func (p *PubSub) Configure(ctx context.Context, at Address, by jid.JID, set func(*Settings)) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	n, err := p.dir.node(ctx, at)
	switch {
	case err != nil:
		return err
	case n == nil:
		return errNoNode()
	}
	s := n.Settings.clone()
	set(&s)
	return c.configure(ctx, n, &Settlement{Address: at, By: by, House: true, Settings: &s})
}

// Delete deletes a node in the name of the account by and tells subscribers;
// nothing happens without a node.
func (p *PubSub) Delete(ctx context.Context, at Address, by jid.JID) error {
	c, err := p.running()
	if err != nil {
		return err
	}
	n, err := p.dir.node(ctx, at)
	if err != nil || n == nil {
		return err
	}
	return c.remove(ctx, n, by, "", true)
}

// Subscriptions returns what an address, bare, has subscribed to at a service,
// with the names of the nodes.
func (p *PubSub) Subscriptions(ctx context.Context, service, bare jid.JID) (map[string][]Subscription, error) {
	list, err := p.store.subscriptionsOf(ctx, service, bare, "")
	out := map[string][]Subscription{}
	for _, s := range list {
		out[s.name] = append(out[s.name], s)
	}
	return out, err
}

// Subscribers returns the subscriptions of a node, pending ones included.
func (p *PubSub) Subscribers(ctx context.Context, n *Node) ([]Subscription, error) {
	return p.store.subscriptions(ctx, n)
}

func (p *PubSub) running() (*component, error) {
	if c := p.live.Load(); c != nil {
		return c, nil
	}
	return nil, ErrStopped
}
