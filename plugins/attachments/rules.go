package attachments

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/pubsub"
	"parley/processor"
)

// settle is XEP-0470 §4.3 and §4.4: nodes of attachments come with the first
// attachment, for an item that is there, and nobody makes or changes them
// otherwise. What the publisher wishes they were like does not count.
func (a *attachments) settle(ctx context.Context, e *pubsub.Settlement) (processor.Verdict, error) {
	if !isAttached(e.Node) && !isSummary(e.Node) {
		return processor.Continue, nil
	}
	if e.Before != nil {
		e.Settings.Access, e.Settings.Groups, e.Settings.Publish = e.Before.Access, e.Before.Groups, e.Before.Publish
		return processor.Continue, nil
	}
	if !e.Published || isSummary(e.Node) {
		return processor.Continue, stanza.NewError(stanza.NotAllowed, "nodes of attachments are made by the first attachment")
	}
	of, item, err := target(e.Address)
	if err != nil {
		return processor.Continue, err
	}
	n, err := a.pubsub.Node(ctx, of)
	if err != nil {
		return processor.Continue, err
	}
	if n == nil || n.Base != "" {
		return processor.Continue, stanza.NewError(stanza.ItemNotFound, "there is no such node to attach something to")
	}
	e.Base = n
	if err := a.may(ctx, n, e.By); err != nil {
		return processor.Continue, err
	}
	it, err := a.pubsub.Item(ctx, of, item)
	if err == nil && it == nil {
		err = stanza.NewError(stanza.ItemNotFound, "there is no such item to attach something to")
	}
	*e.Settings = pubsub.DefaultSettings(e.PEP())
	a.like(e.Settings, n)
	if a.cfg.From == Readers {
		e.Settings.Publish = pubsub.Anybody // who may read
	}
	return processor.Continue, err
}

// like is what nodes that derive from another have of it (XEP-0470 §4.3): its
// models, by being derived.
func (a *attachments) like(s *pubsub.Settings, n *pubsub.Node) {
	s.Access, s.Groups, s.Publish = n.Settings.Access, n.Settings.Groups, pubsub.AsBase
	s.MaxItems, s.MaxPayload, s.Last = pubsub.Max, int(a.cfg.Size), pubsub.Never
}

// may reports whether somebody may attach something to items of the node.
func (a *attachments) may(ctx context.Context, n *pubsub.Node, who jid.JID) error {
	if a.cfg.From == Readers {
		return a.pubsub.May(ctx, n, who)
	}
	return a.pubsub.MayPublish(ctx, n, who)
}

func errSummary() error {
	return stanza.NewError(stanza.Forbidden, "the server keeps the summary of attachments")
}

// publishing is XEP-0470 §4.5 and §4.6.
func (a *attachments) publishing(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	switch {
	case isSummary(p.Node.Node) && !p.House:
		return processor.Continue, errSummary()
	case !isAttached(p.Node.Node):
		return processor.Continue, nil
	}
	n, sum, err := a.sum(ctx, p.Node)
	if err != nil {
		return processor.Continue, err
	}
	if !p.House {
		if err := a.may(ctx, n, p.By); err != nil {
			return processor.Continue, err
		}
	}
	own := p.By.Bare().String()
	for _, it := range p.Items {
		switch {
		case it.ID != own:
			return processor.Continue, stanza.NewError(stanza.BadRequest, "the id of what somebody attaches is their bare address")
		case it.Payload == nil || it.Payload.Name != (stanza.Name{Space: NS, Local: "attachments"}):
			return processor.Continue, stanza.NewError(stanza.BadRequest, "what is attached is in <attachments xmlns='"+NS+"'/>")
		case len(it.Payload.Bytes("")) > int(a.cfg.Size):
			return processor.Continue, stanza.NewError(stanza.NotAcceptable, fmt.Sprintf("attachments of one person have at most %d bytes (max_size)", a.cfg.Size))
		}
	}
	p.Sum = sum
	return processor.Continue, nil
}

// sum is the summary of the item that a node of attachments is for, and the node
// of that one.
func (a *attachments) sum(ctx context.Context, attached *pubsub.Node) (*pubsub.Node, *pubsub.Sum, error) {
	of, item, err := target(attached.Address)
	if err != nil {
		return nil, nil, err
	}
	n, err := a.pubsub.Node(ctx, of)
	if err != nil {
		return nil, nil, err
	}
	if n == nil {
		return nil, nil, stanza.NewError(stanza.ItemNotFound, "")
	}
	return n, &pubsub.Sum{
		Node: summary(of).Node, ID: item, Base: n, Count: count,
		Set: func(s *pubsub.Settings) {
			a.like(s, n)
			s.Publish, s.MaxPayload = pubsub.Publishers, pubsub.Max
		},
	}, nil
}

// retracting is XEP-0470 §4.1.1: somebody takes back all they have attached.
func (a *attachments) retracting(ctx context.Context, r *pubsub.Retraction) (_ processor.Verdict, err error) {
	switch {
	case isSummary(r.Node.Node) && !r.House:
		err = errSummary()
	case isAttached(r.Node.Node) && !r.All:
		_, r.Sum, err = a.sum(ctx, r.Node)
	}
	return processor.Continue, err
}

// retracted lets attachments go with their item, and their summary with all of
// them.
func (a *attachments) retracted(ctx context.Context, r *pubsub.Retraction) (processor.Verdict, error) {
	switch {
	case isSummary(r.Node.Node):
		return processor.Continue, nil
	case isAttached(r.Node.Node):
		if !r.All {
			return processor.Continue, nil
		}
		of, item, err := target(r.Node.Address)
		if err == nil {
			err = a.pubsub.Retract(ctx, summary(of), r.Node.Account, item)
		}
		return processor.Continue, err
	}
	sums, err := a.pubsub.Node(ctx, summary(r.Node.Address))
	if err != nil || sums == nil {
		return processor.Continue, err
	}
	ids := r.IDs
	if r.All {
		page, err := a.pubsub.Items(ctx, sums.Address, pubsub.Query{})
		if err != nil {
			return processor.Continue, err
		}
		for _, it := range page.Items {
			ids = append(ids, it.ID)
		}
	}
	for _, id := range ids {
		if err := a.pubsub.Delete(ctx, attached(r.Node.Address, id), r.Node.Account); err != nil {
			return processor.Continue, err
		}
	}
	return processor.Continue, a.pubsub.Retract(ctx, sums.Address, r.Node.Account, ids...)
}
