package pubsub

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/processor"
)

// removal is a demand to remove items.
type removal struct {
	by      jid.JID
	house   bool    // a feature demands it
	own     jid.JID // bare: only what they have published; zero: anything
	ids     []string
	notify  bool
	lenient bool // what is not there is no error
}

// onRetract is XEP-0060 §7.2.
func (c *component) onRetract(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	d := &removal{by: r.From}
	if !n.Affiliation(r.From).may(mayRemove) {
		if _, err := c.mayPublish(ctx, n, r.From); err != nil { // §7.2.3.1: one's own
			return nil, err
		}
		d.own = r.From.Bare()
	}
	if !n.Settings.Persist {
		return nil, unsupported("persistent-items")
	}
	for el := range r.what.Elements() {
		id := el.Get("id")
		switch {
		case el.Name != (stanza.Name{Space: NS, Local: "item"}) || id == "":
			return nil, errItemRequired()
		case len(d.ids) >= c.cfg.Batch:
			return nil, errLimit(fmt.Sprintf("a request has at most %d items (max_batch)", c.cfg.Batch))
		}
		d.ids = append(d.ids, id)
	}
	if len(d.ids) == 0 {
		return nil, errItemRequired()
	}
	d.notify, _ = form.ParseFlag(r.what.Get("notify"))
	return nil, c.retract(ctx, n, d)
}

// retract removes items and tells who wants to know.
func (c *component) retract(ctx context.Context, n *Node, d *removal) error {
	ev := &Retraction{Node: n, By: d.by, House: d.house, IDs: d.ids}
	if _, err := processor.Fire(ctx, c.reg, Retracting, ev); err != nil {
		return err
	}
	sum, err := c.summing(ctx, n, ev.Sum)
	if err != nil {
		return err
	}
	w := &write{node: n, by: d.own, rows: &ev.Rows, limits: &c.cfg.Limits, sum: sum}
	gone, err := c.store.retract(ctx, w, d.ids, d.lenient)
	defer w.leave()
	if err != nil || len(gone) == 0 {
		return err
	}
	w.told.tell(ctx, c.env.Clock, func() {
		if d.notify || n.Settings.NotifyRetract { // §7.2.2.1
			c.notify(ctx, n, retracts(n, gone))
		}
	})
	c.summed(ctx, sum, d.by)
	fire(ctx, c, Retracted, &Retraction{Node: n, By: d.by, House: d.house, IDs: gone})
	c.counted(ctx, sum, d.by)
	return nil
}

// retracts is what subscribers see of items that are gone (XEP-0060 §7.2.2.1).
func retracts(n *Node, ids []string) *stanza.Element {
	el := stanza.El(NSEvent, "items").With("node", n.Node)
	for _, id := range ids {
		el.Add(stanza.El(NSEvent, "retract").With("id", id))
	}
	return el
}

// onPurge is XEP-0060 §8.5.
func (c *component) onPurge(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	switch {
	case !n.Affiliation(r.From).may(mayRemove): // §4.1
		return nil, errForbidden()
	case !n.Settings.Persist:
		return nil, unsupported("persistent-items")
	}
	ev := &Retraction{Node: n, By: r.From, All: true}
	if _, err := processor.Fire(ctx, c.reg, Retracting, ev); err != nil {
		return nil, err
	}
	w := &write{node: n, rows: &ev.Rows}
	if err := c.store.purge(ctx, w); err != nil {
		return nil, err
	}
	w.told.tell(ctx, c.env.Clock, func() {
		if n.Settings.NotifyRetract {
			c.notify(ctx, n, stanza.El(NSEvent, "purge").With("node", n.Node))
		}
	})
	fire(ctx, c, Retracted, &Retraction{Node: n, By: r.From, All: true})
	return nil, nil
}
