package avatar

import (
	"context"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
	"parley/processor"
)

// shown puts the picture into a vCard that somebody asks for (XEP-0398 §3.1).
func (c *component) shown(ctx context.Context, v *vcard.View) (processor.Verdict, error) {
	p, err := c.ofNodes(ctx, v.Owner)
	if err != nil || p == nil {
		return processor.Continue, err
	}
	card := without(v.Card)
	may, err := c.may(ctx, v.Owner, v.By)
	switch {
	case err != nil:
		return processor.Continue, err
	case may:
		photo := stanza.El(vcard.NS, "PHOTO")
		if p.mime != "" {
			photo.Add(stanza.El(vcard.NS, "TYPE").AddText(p.mime))
		}
		card.Add(photo.Add(stanza.El(vcard.NS, "BINVAL").AddText(p.text)))
	case v.Card == nil: // it is not to be seen that there is a picture
		return processor.Continue, nil
	}
	v.Card = card
	return processor.Continue, nil
}

// without is a vCard without a photo; card may be nil.
func without(card *stanza.Element) *stanza.Element {
	if card == nil {
		return stanza.El(vcard.NS, "vCard")
	}
	out := *card
	out.Nodes = slices.DeleteFunc(slices.Clone(card.Nodes), func(n stanza.Node) bool {
		return n.Elem != nil && n.Elem.Name == stanza.Name{Space: vcard.NS, Local: "PHOTO"}
	})
	return &out
}

// changed publishes the photo of a new vCard (XEP-0398 §3.2): the data first, then
// what there is to be said of it. A vCard without a photo, or with one that cannot
// be published, is the account's wish as well: the nodes have none then.
func (c *component) changed(ctx context.Context, ch *vcard.Change) (processor.Verdict, error) {
	defer c.forget(ctx, ch.Owner)
	p, info := c.photo(ch.Card)
	if p == nil {
		return processor.Continue, c.disable(ctx, ch.Owner)
	}
	was, err := c.ofNodes(ctx, ch.Owner)
	if err != nil {
		return processor.Continue, err
	}
	if was == nil || was.hash != p.hash {
		if err := c.publish(ctx, ch.Owner, p, info); err != nil {
			return processor.Continue, err
		}
	}
	return processor.Continue, c.cards.Set(ctx, ch.Owner, without(ch.Card))
}

// publish makes p the picture of the nodes. Nodes that are made for it are as open
// as the vCard was; those that are there stay as they are.
func (c *component) publish(ctx context.Context, account jid.JID, p *picture, info *stanza.Element) error {
	open := func(s *pubsub.Settings) { s.Access = pubsub.Open }
	data := pubsub.Entry{ID: p.hash, Payload: stanza.El(NodeData, "data").AddText(p.text)}
	if _, err := c.nodes.Publish(ctx, at(account, NodeData), account, open, data); err != nil {
		return err
	}
	meta := pubsub.Entry{ID: p.hash, Payload: stanza.El(NodeMetadata, "metadata").Add(info)}
	_, err := c.nodes.Publish(ctx, at(account, NodeMetadata), account, open, meta)
	return err
}

// disable takes the picture of the nodes away, if they have one (XEP-0084 §3.5).
func (c *component) disable(ctx context.Context, account jid.JID) error {
	info, err := c.info(ctx, account)
	if err != nil || info == nil {
		return err
	}
	_, err = c.nodes.Publish(ctx, at(account, NodeMetadata), account, nil, pubsub.Entry{Payload: stanza.El(NodeMetadata, "metadata")})
	return err
}

// published takes out of the stored vCard what a client's publication replaces, or
// takes away.
func (c *component) published(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if !p.Node.PEP() || p.Node.Node != NodeMetadata {
		return processor.Continue, nil
	}
	defer c.forget(ctx, p.Node.Service)
	if p.Request == nil {
		return processor.Continue, nil
	}
	card, err := c.cards.Get(ctx, p.Node.Service)
	if err != nil || card == nil || card.Child(vcard.NS, "PHOTO") == nil {
		return processor.Continue, err
	}
	if err := c.cards.Set(ctx, p.Node.Service, without(card)); err != nil {
		return processor.Continue, fmt.Errorf("avatar: %w", err)
	}
	return processor.Continue, nil
}
