package pubsub

import (
	"context"
	"fmt"
	"strconv"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/processor"
)

// nsOrder is XEP-0413 §3.
const nsOrder = "urn:xmpp:order-by:1"

// onItems is XEP-0060 §6.5. Items are in the order of publication, the newest
// last; without a page asked for, the newest ones are what fits.
func (c *component) onItems(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	if err := c.mayRead(ctx, n, r.From); err != nil {
		return nil, err
	}
	if !n.Settings.Persist {
		return nil, unsupported("persistent-items")
	}
	q, desc, err := c.query(r)
	if err != nil {
		return nil, err
	}
	if _, err := processor.Fire(ctx, c.reg, Retrieving, &Retrieval{Node: n, By: r.From, Request: r.pubsub, Query: q}); err != nil {
		return nil, err
	}
	page, err := c.store.page(ctx, n, *q, int(c.cfg.PageSize))
	if err != nil {
		return nil, err
	}
	items := stanza.El(NS, "items").With("node", n.Node)
	for i := range page.Items {
		if desc {
			i = len(page.Items) - 1 - i
		}
		items.Add(n.show(NS, page.Items[i], true))
	}
	out := stanza.El(NS, "pubsub").Add(items)
	cut := page.Count > len(page.Items) && (q.Newest == 0 || q.Newest > len(page.Items))
	if len(q.IDs) == 0 && (cut || r.pubsub.Child(rsm.NS, "set") != nil) { // §6.5.4
		p := rsm.Page{Index: page.Index, Count: page.Count}
		if k := len(page.Items); k > 0 {
			p.First, p.Last = page.Items[0].ID, page.Items[k-1].ID
		}
		if desc {
			p.First, p.Last = p.Last, p.First
			p.Index = page.Count - page.Index - len(page.Items)
		}
		out.Add(p.Element())
	}
	return out, nil
}

// query reads what is asked for. desc: the newest first (XEP-0413), and pages go
// that way, too.
func (c *component) query(r *request) (q *Query, desc bool, err error) {
	q = &Query{Limit: c.cfg.Page}
	for el := range r.what.Elements() {
		id := el.Get("id")
		if el.Name != (stanza.Name{Space: NS, Local: "item"}) || id == "" {
			return nil, false, stanza.NewError(stanza.BadRequest, "items are asked for by their ids")
		}
		if len(q.IDs) >= c.cfg.Page {
			return nil, false, errLimit(fmt.Sprintf("a request names at most %d items (max_page)", c.cfg.Page))
		}
		q.IDs = append(q.IDs, id)
	}
	if s := r.what.Get("max_items"); s != "" { // §6.5.7
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return nil, false, stanza.NewError(stanza.BadRequest, "max_items is a number from 1")
		}
		q.Newest = int(n)
	}
	if order := r.pubsub.Child(nsOrder, "order"); order != nil {
		by := order.Get("by")
		if by != "creation" && by != "modification" {
			return nil, false, stanza.NewError(stanza.FeatureNotImplemented, "items are ordered by creation or modification")
		}
		q.ByCreated = by == "creation"
		desc, _ = form.ParseFlag(order.Get("desc"))
	}
	page, err := rsm.Parse(r.pubsub)
	if err != nil {
		return nil, false, err
	}
	if page == nil {
		q.Backward = true // as many of the newest as fit
		return q, desc, nil
	}
	q.Limit, q.After, q.Before, q.Backward = page.Limit(c.cfg.Page), page.After, page.Before, page.Backward
	if desc {
		q.After, q.Before, q.Backward = page.Before, page.After, !page.Backward
	}
	if q.Limit == 0 { // only the count (XEP-0059 §2.7)
		q.CountOnly = true
	}
	return q, desc, nil
}
