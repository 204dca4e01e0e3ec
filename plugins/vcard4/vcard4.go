// Package vcard4 keeps vCards in the format of vCard 4 (XEP-0292), in step with
// the older ones of XEP-0054.
//
// A vCard is the item of the node urn:xmpp:vcard4; whoever may read the node gets
// it also by an IQ request for <vcard/>. When one of the two formats changes, what
// has changed is converted to the other (mapping.go), and what the other one has and
// the first one cannot say stays. Only a node that is open is converted: older
// vCards can be read by everybody. Pictures are those of the avatar feature.
package vcard4

import (
	"context"
	"errors"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
	"parley/processor"
)

// The namespace of RFC 6351 §5, and the nodes of XEP-0292 §4.1 and §5.2.
const (
	NS           = "urn:ietf:params:xml:ns:vcard-4.0"
	Node         = "urn:xmpp:vcard4"
	NodeContacts = "urn:xmpp:contacts"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "vcard4",
	Doc:        "Keeps visiting cards of the newer kind in step with the older ones.",
	Requires:   []string{pubsub.Name, "vcard"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
}

// Config is the component's section.
type Config struct {
	MaxSize config.Size `yaml:"max_size" min:"1KiB" max:"4MiB" doc:"Largest vCard."`
}

func defaults() *Config { return &Config{MaxSize: 128 << 10} }

type component struct {
	cfg   Config
	nodes *pubsub.PubSub
	cards *vcard.Cards
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, conf plugins.Config) (plugins.Component, error) {
	c := &component{cfg: *defaults()}
	if err := conf.Decode(&c.cfg); err != nil {
		return nil, err
	}
	var err error
	if c.nodes, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name); err != nil {
		return nil, err
	}
	c.cards, err = plugins.Need[*vcard.Cards](env, "vcard")
	return c, err
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	r.Feature(NS) // XEP-0292 §7
	r.AccountFeature(NS)
	r.IQ(NS, "vcard", processor.Self|processor.Account, c.answer)
	processor.On(r, pubsub.Defaults, processor.Normal, wellKnown)
	processor.On(r, pubsub.Publishing, processor.Normal, c.publishing)
	processor.On(r, pubsub.Published, processor.Normal, c.published)
	processor.On(r, vcard.Changed, processor.Normal, c.changed)
}

// wellKnown is what the nodes are like: public data (XEP-0222 §4) of which is told
// that it has changed and no more (XEP-0292 §4.2.2), and private (XEP-0292 §5.2,
// XEP-0223 §4).
func wellKnown(_ context.Context, d *pubsub.Default) (processor.Verdict, error) {
	s := d.Settings
	switch {
	case !d.PEP():
	case d.Node == Node:
		s.Access, s.Persist, s.Last, s.Payloads = pubsub.Open, true, pubsub.Never, false
	case d.Node == NodeContacts:
		s.Access, s.Persist, s.MaxItems, s.Last = pubsub.Whitelist, true, pubsub.Max, pubsub.Never
	}
	return processor.Continue, nil
}

// answer is the request of XEP-0292 §6 for an account.
func (c *component) answer(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	switch {
	case q.Set() && !q.Own():
		return nil, stanza.NewError(stanza.Forbidden, "")
	case q.Set():
		if _, err := c.nodes.Publish(ctx, at(q.Owner), q.Owner, nil, pubsub.Entry{ID: itemID, Payload: q.Query}); err != nil {
			return nil, err
		}
		return nil, c.convert(ctx, q.Owner, q.Query)
	}
	missing := stanza.NewError(stanza.ServiceUnavailable, "") // as of an account that does not exist (rule 35)
	if q.Own() {
		missing = stanza.NewError(stanza.ItemNotFound, "")
	}
	n, err := c.nodes.Node(ctx, at(q.Owner))
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, missing
	}
	var refused *stanza.Error
	if err := c.nodes.May(ctx, n, q.From); errors.As(err, &refused) {
		return nil, missing
	} else if err != nil {
		return nil, err
	}
	card, err := c.card(ctx, q.Owner)
	if err == nil && card == nil {
		return nil, missing
	}
	return card, err
}

// itemID is the id of what the house publishes.
const itemID = "current"

// card is the account's vCard; nil: it has none.
func (c *component) card(ctx context.Context, account jid.JID) (*stanza.Element, error) {
	last, err := c.nodes.Last(ctx, at(account))
	if err != nil {
		return nil, fmt.Errorf("vCard: %w", err)
	}
	if last == nil {
		return nil, nil
	}
	return last.Payload, nil
}

// publishing refuses what is no vCard, and one that is too large.
func (c *component) publishing(_ context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if !p.Node.PEP() || p.Node.Node != Node {
		return processor.Continue, nil
	}
	for _, it := range p.Items {
		switch {
		case it.Payload == nil || it.Payload.Name != root:
			return processor.Stop, stanza.NewError(stanza.BadRequest, "a vCard is a <vcard/> (XEP-0292)")
		case len(it.Payload.Bytes("")) > int(c.cfg.MaxSize):
			return processor.Stop, stanza.NewError(stanza.PolicyViolation, fmt.Sprintf("a vCard may have %d bytes (max_size)", int64(c.cfg.MaxSize)))
		}
	}
	return processor.Continue, nil
}

// published converts what a client has published.
func (c *component) published(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if !p.Node.PEP() || p.Node.Node != Node || p.Request == nil || len(p.Items) == 0 {
		return processor.Continue, nil
	}
	return processor.Continue, c.convert(ctx, p.Node.Service, p.Items[len(p.Items)-1].Payload)
}

// convert brings the older vCard in step, if everybody may see the newer one.
func (c *component) convert(ctx context.Context, account jid.JID, card *stanza.Element) error {
	n, err := c.nodes.Node(ctx, at(account))
	if err != nil || n == nil || n.Settings.Access != pubsub.Open {
		return err
	}
	have, err := c.cards.Get(ctx, account)
	if err != nil {
		return err
	}
	want := merge(toTemp, card, have)
	if have == nil && want.Count() == 0 {
		return nil
	}
	return c.cards.Set(ctx, account, want)
}

// changed brings the newer vCard in step with an older one.
func (c *component) changed(ctx context.Context, ch *vcard.Change) (processor.Verdict, error) {
	have, err := c.card(ctx, ch.Owner)
	if err != nil {
		return processor.Continue, err
	}
	want := merge(fromTemp, ch.Card, have)
	if want.Child(NS, "fn") == nil { // RFC 6350 §6.2.1: it must be there
		want.Add(stanza.El(NS, "fn").Add(stanza.El(NS, "text")))
	}
	if have != nil && string(have.Bytes("")) == string(want.Bytes("")) {
		return processor.Continue, nil
	}
	_, err = c.nodes.Publish(ctx, at(ch.Owner), ch.Owner, nil, pubsub.Entry{ID: itemID, Payload: want})
	return processor.Continue, err
}

func at(account jid.JID) pubsub.Address { return pubsub.Address{Service: account, Node: Node} }
