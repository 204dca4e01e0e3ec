// Package following shows who follows what, for those who want that to be known
// (XEP-0465, public subscriptions).
//
// Whoever subscribes with <public/> in the request is in a list of the node's
// public subscribers, which derives from the node, and, if it is an account here,
// in the list of what that account is publicly subscribed to. Both are nodes that
// the server alone writes. What is private stays so: a subscription without
// <public/> is in no list, and takes one that was there out of both.
package following

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/pubsub"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "following"

// Names of XEP-0465 §4.
const (
	NS              = "urn:xmpp:pps:0"
	nodeOwn         = "urn:xmpp:pps:subscriptions:0"
	nodeSubscribers = "urn:xmpp:pps:subscribers:0/"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Public subscriptions: who follows what, for those who want that to be known.",
	Requires:   []string{pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: newFollowing}},
}

type following struct {
	env    plugins.Env
	pubsub *pubsub.PubSub
}

var _ processor.Component = (*following)(nil)

func newFollowing(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	p, err := plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return &following{env, p}, err
}

// Start implements plugins.Component.
func (*following) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*following) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (f *following) Register(r *processor.Registrar) {
	r.AccountFeature(NS)
	processor.On(r, pubsub.Describing, processor.Normal, func(_ context.Context, d *pubsub.Description) (processor.Verdict, error) {
		if d.Node == nil { // XEP-0465 §6
			d.AddFeature(NS)
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Settling, processor.Normal, f.settle)
	processor.On(r, pubsub.Publishing, processor.Normal, func(_ context.Context, p *pubsub.Publication) (processor.Verdict, error) {
		return processor.Continue, refuse(p.Node, p.House)
	})
	processor.On(r, pubsub.Retracting, processor.Normal, func(_ context.Context, x *pubsub.Retraction) (processor.Verdict, error) {
		return processor.Continue, refuse(x.Node, x.House)
	})
	processor.On(r, pubsub.Deleting, processor.Normal, f.deleting)
	processor.On(r, pubsub.Joined, processor.Normal, f.joined)
	processor.On(r, processor.AccountRemoved, processor.Early, f.removed) // while the lists are there
}

// subscribers is the list of a node's public subscribers (XEP-0465 §4.4).
func subscribers(at pubsub.Address) pubsub.Address {
	return pubsub.Address{Service: at.Service, Node: nodeSubscribers + at.Node}
}

// own is the list of what an account is publicly subscribed to (XEP-0465 §4.2).
func own(account jid.JID) pubsub.Address { return pubsub.Address{Service: account, Node: nodeOwn} }

func special(node string) bool { return node == nodeOwn || strings.HasPrefix(node, nodeSubscribers) }

// refuse is XEP-0465 §5: the server alone writes the lists.
func refuse(n *pubsub.Node, house bool) error {
	if special(n.Node) && !house {
		return errOurs()
	}
	return nil
}

func errOurs() error {
	return stanza.NewError(stanza.Forbidden, "the server keeps the lists of public subscriptions")
}

// settle makes the lists what they are, and refuses to make them for anybody.
// Who may read the list of what an account follows is for it to say; it begins
// with its contacts.
func (f *following) settle(ctx context.Context, e *pubsub.Settlement) (processor.Verdict, error) {
	if e.Before != nil || !special(e.Node) {
		return processor.Continue, nil
	}
	if !e.House {
		return processor.Continue, errOurs()
	}
	s := e.Settings
	s.MaxItems, s.Last, s.Persist = pubsub.Max, pubsub.Never, true
	if of, ok := strings.CutPrefix(e.Node, nodeSubscribers); ok {
		n, err := f.pubsub.Node(ctx, pubsub.Address{Service: e.Service, Node: of})
		if err == nil && n == nil {
			err = stanza.NewError(stanza.ItemNotFound, "there is no such node to follow")
		}
		e.Base = n
		return processor.Continue, err
	}
	return processor.Continue, nil
}

// joined follows subscriptions (XEP-0465 §4.1, §4.3). What an owner of the node
// decides, and options, change nothing.
func (f *following) joined(ctx context.Context, j *pubsub.Joining) (processor.Verdict, error) {
	who := j.Subscription.JID.Bare()
	switch {
	case special(j.Node.Node):
		return processor.Continue, nil
	case j.Subscription.State == pubsub.NoneAnyMore:
		return processor.Continue, f.hide(ctx, j.Node.Address, who)
	case j.Request == nil:
		return processor.Continue, nil
	case j.Subscription.State == pubsub.Subscribed && j.Request.Child(NS, "public") != nil:
		return processor.Continue, f.show(ctx, j.Node, who)
	}
	return processor.Continue, f.hide(ctx, j.Node.Address, who)
}

// show enters a subscription in both lists.
func (f *following) show(ctx context.Context, n *pubsub.Node, who jid.JID) error {
	_, err := f.pubsub.Publish(ctx, subscribers(n.Address), n.Account, nil,
		pubsub.Entry{ID: who.String(), Payload: stanza.El(NS, "subscriber").With("jid", who.String())})
	if err != nil || !f.ours(who) {
		return err
	}
	_, err = f.pubsub.Publish(ctx, own(who), who, nil,
		pubsub.Entry{ID: entry(n.Address), Payload: stanza.El(NS, "subscription").With("node", n.Node).With("jid", n.Service.String())})
	return err
}

// hide takes a subscription out of both lists.
func (f *following) hide(ctx context.Context, at pubsub.Address, who jid.JID) error {
	err := f.pubsub.Retract(ctx, subscribers(at), at.Service, who.String())
	if f.ours(who) {
		err = errors.Join(err, f.pubsub.Retract(ctx, own(who), who, entry(at)))
	}
	return err
}

// ours reports whether an address is that of an account here.
func (f *following) ours(who jid.JID) bool { return who.Local() != "" && f.env.Local(who.Domain()) }

// entry is the id of a subscription in an account's list: the same for the same
// node.
func entry(at pubsub.Address) string {
	sum := sha256.Sum256([]byte(at.URI("")))
	return hex.EncodeToString(sum[:16])
}

// deleting refuses to delete the list of an account (XEP-0465 §5), and takes a
// node that is deleted out of the lists of its subscribers.
func (f *following) deleting(ctx context.Context, d *pubsub.Deletion) (processor.Verdict, error) {
	if err := refuse(d.Node, d.House); err != nil || special(d.Node.Node) {
		return processor.Continue, err
	}
	page, err := f.pubsub.Items(ctx, subscribers(d.Node.Address), pubsub.Query{})
	if err != nil {
		return processor.Continue, err
	}
	for _, it := range page.Items {
		who, err := jid.Parse(it.ID)
		if err != nil || !f.ours(who) {
			continue
		}
		if err := f.pubsub.Retract(ctx, own(who), who, entry(d.Node.Address)); err != nil {
			return processor.Continue, err
		}
	}
	return processor.Continue, nil
}

// removed takes an account that goes out of the lists of what it was subscribed
// to.
func (f *following) removed(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	page, err := f.pubsub.Items(ctx, own(account), pubsub.Query{})
	if err != nil {
		return processor.Continue, err
	}
	for _, it := range page.Items {
		if it.Payload == nil {
			continue
		}
		service, err := jid.Parse(it.Payload.Get("jid"))
		if err != nil {
			continue
		}
		at := pubsub.Address{Service: service, Node: it.Payload.Get("node")}
		if err := f.pubsub.Retract(ctx, subscribers(at), service, account.String()); err != nil {
			return processor.Continue, err
		}
	}
	return processor.Continue, nil
}
