package push

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/pubsub"
	"parley/processor"
)

// Bounds of what a client may enable.
const (
	maxNode    = 1024 // bytes
	maxOptions = 4096 // bytes
)

// enable is XEP-0357 §5.
func (p *push) enable(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "enabling is a request of type set")
	}
	t, err := named(q)
	if err != nil {
		return nil, err
	}
	if x := form.In(q.Query); x != nil {
		f, err := form.Submitted(x, pubsub.FormPublish)
		if err != nil {
			return nil, err
		}
		if t.options = f.Element().Bytes(stanza.NSClient); len(t.options) > maxOptions {
			return nil, stanza.NewError(stanza.PolicyViolation, "these publish-options are longer than 4096 bytes")
		}
	}
	if err := p.store.enable(ctx, t, p.cfg.MaxTargets); err != nil {
		return nil, err
	}
	p.changed(ctx, t.owner)
	return nil, nil
}

// disable is XEP-0357 §6.
func (p *push) disable(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "disabling is a request of type set")
	}
	t, err := named(q)
	if err != nil {
		return nil, err
	}
	if q.Query.Has("node") {
		err = p.store.disableNode(ctx, t)
	} else {
		err = p.store.disable(ctx, t.owner, t.service)
	}
	if err != nil {
		return nil, err
	}
	p.changed(ctx, t.owner)
	return nil, nil
}

// named is the target that a request is about.
func named(q *processor.IQ) (target, error) {
	service, err := jid.Parse(q.Query.Get("jid"))
	if err != nil {
		return target{}, stanza.NewError(stanza.BadRequest, "jid has to be the address of a push service")
	}
	t := target{owner: q.Owner, service: service, node: q.Query.Get("node")}
	if len(t.node) > maxNode {
		return target{}, stanza.NewError(stanza.BadRequest, "the node's name is longer than 1024 bytes")
	}
	return t, nil
}

// changed forgets on every node whether the account has enabled anything.
func (p *push) changed(ctx context.Context, account jid.JID) {
	p.enabled.Drop(account)
	p.env.Forget(ctx, topic, account.String())
}
