package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/processor"
	"parley/storage"
)

// publishing is a demand to publish.
type publishing struct {
	at      Address
	by      jid.JID
	house   bool // a feature demands it: nobody is asked whether it may
	entries []Entry
	// wish changes the settings of a node that is created; to one that is there it
	// is a precondition, unless the house publishes (XEP-0060 §7.1.5). nil: none.
	wish    func(context.Context, *Settings) error
	request *stanza.Element
}

// onPublish is XEP-0060 §7.1.
func (c *component) onPublish(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	if r.at.Node == "" {
		return nil, errNodeRequired()
	}
	entries, err := c.entries(r.what)
	if err != nil {
		return nil, err
	}
	p := &publishing{at: r.at, by: r.From, entries: entries, request: r.pubsub}
	if el := r.pubsub.Child(NS, "publish-options"); el != nil {
		f, err := submitted(el, FormPublish)
		if err != nil {
			return nil, err
		}
		p.wish = func(ctx context.Context, s *Settings) error {
			t, err := c.table(ctx, r.at)
			if err != nil {
				return err
			}
			return apply(t, s, f)
		}
	}
	if n, err := c.dir.node(ctx, r.at); err == nil && n != nil && n.Affiliation(r.From).may(mayPublish) {
		r.stranger = false
	}
	ids, err := c.publish(ctx, p)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "publish").With("node", r.at.Node)
	for _, id := range ids {
		out.Add(stanza.El(NS, "item").With("id", id))
	}
	return stanza.El(NS, "pubsub").Add(out), nil
}

// submitted reads the form in an element, which has to be there.
func submitted(el *stanza.Element, formType string) (*form.Form, error) {
	x := form.In(el)
	if x == nil {
		return nil, stanza.NewError(stanza.BadRequest, "the form is missing")
	}
	return form.Submitted(x, formType)
}

// entries reads items that are to be published (XEP-0060 §7.1.1, §12.11).
func (c *component) entries(what *stanza.Element) ([]Entry, error) {
	var out []Entry
	for el := range what.Elements() {
		if el.Name != (stanza.Name{Space: NS, Local: "item"}) {
			return nil, stanza.NewError(stanza.BadRequest, "only items are published")
		}
		e := Entry{ID: el.Get("id"), Payload: el.First()}
		switch {
		case el.Count() > 1: // §7.1.3.6
			return nil, failure(stanza.BadRequest, "invalid-payload", "an item has one payload")
		case len(out) >= c.cfg.Batch:
			return nil, errLimit(fmt.Sprintf("a request has at most %d items (max_batch)", c.cfg.Batch))
		case len(e.ID) > int(c.cfg.ItemID):
			return nil, errLimit("the item's id is too long (max_item_id)")
		}
		out = append(out, e)
	}
	return out, nil
}

// raceTries is how often a demand begins anew when the node has come or gone
// meanwhile.
const raceTries = 3

// publish does what is demanded and returns the items' ids.
func (c *component) publish(ctx context.Context, p *publishing) (ids []string, err error) {
	for try := 1; ; try++ {
		n, w, err := c.prepare(ctx, p)
		if err != nil {
			return nil, err
		}
		ev := &Publication{Node: n, New: w.fresh, By: p.by, House: p.house, Items: w.items, Request: p.request}
		if _, err := processor.Fire(ctx, c.reg, Publishing, ev); err != nil {
			return nil, err
		}
		for _, it := range w.items {
			if err := c.measure(n, it); err != nil {
				return nil, err
			}
		}
		w.rows = &ev.Rows
		if w.sum, err = c.summing(ctx, n, ev.Sum); err != nil {
			return nil, err
		}
		gone, err := c.store.publish(ctx, w)
		defer w.leave()
		if w.fresh { // it may be committed whatever comes back
			c.dir.changed(ctx, p.at)
		}
		if err != nil {
			if try < raceTries && raced(err, w.fresh) {
				c.dir.changed(ctx, p.at)
				c.recount(ctx, w.sum)
				continue
			}
			return nil, err
		}
		c.announce(ctx, ev, gone, w.told)
		c.summed(ctx, w.sum, p.by)
		c.published(ctx, ev, gone)
		c.counted(ctx, w.sum, p.by)
		for _, it := range w.items {
			ids = append(ids, it.ID)
		}
		return ids, nil
	}
}

// raced reports whether the node has been made by somebody else, or deleted,
// since it was looked at.
func raced(err error, fresh bool) bool {
	var se *stanza.Error
	if errors.Is(err, storage.ErrConflict) {
		return true
	}
	return errors.As(err, &se) && se.App == nil && (fresh && se.Condition == stanza.Conflict || !fresh && se.Condition == stanza.ItemNotFound)
}

// prepare finds out whether and how.
func (c *component) prepare(ctx context.Context, p *publishing) (*Node, *write, error) {
	n, err := c.dir.node(ctx, p.at)
	if err != nil {
		return nil, nil, err
	}
	w := &write{fresh: n == nil, limits: &c.cfg.Limits}
	if w.fresh { // XEP-0060 §7.1.4
		n, err = c.autoCreated(ctx, p)
	} else {
		err = c.meets(ctx, n, p, w)
	}
	if err != nil {
		return nil, nil, err
	}
	w.node = n
	w.items, err = c.shape(n, p)
	return n, w, err
}

// autoCreated is the node that publishing will create.
func (c *component) autoCreated(ctx context.Context, p *publishing) (*Node, error) {
	s, err := c.beginning(ctx, p.at, p.wish)
	if err != nil {
		return nil, err
	}
	e := &Settlement{Address: p.at, By: p.by, House: p.house, Published: true, Settings: &s}
	if err := c.settle(ctx, e); err != nil {
		return nil, err
	}
	return c.store.fresh(p.at, p.by, s).derive(e.Base), nil
}

// meets checks what is asked of a node that exists.
func (c *component) meets(ctx context.Context, n *Node, p *publishing, w *write) error {
	if p.house {
		return nil
	}
	own, err := c.mayPublish(ctx, n, p.by)
	if err != nil {
		return err
	}
	if own {
		w.by = p.by.Bare()
	}
	if p.wish == nil || n.Base != "" { // XEP-0470 §4.3: what derives is as its base wants it
		return nil
	}
	s := n.Settings.clone()
	if err := p.wish(ctx, &s); err != nil {
		return err
	}
	if !s.equal(n.Settings) { // rule 66
		return failure(stanza.Conflict, "precondition-not-met", "the node is configured otherwise")
	}
	return nil
}

// shape makes items of what is published, if the node takes such (XEP-0060
// §7.1.3.6, §7.1.3.7, §12.11).
func (c *component) shape(n *Node, p *publishing) ([]*Item, error) {
	s := &n.Settings
	switch {
	case len(p.entries) == 0 && s.Persist:
		return nil, errItemRequired()
	case len(p.entries) > 0 && !s.Persist && !s.Payloads:
		return nil, failure(stanza.BadRequest, "item-forbidden", "")
	case len(p.entries) == 0 && s.Payloads:
		return nil, failure(stanza.BadRequest, "payload-required", "")
	case s.Persist && len(p.entries) > min(s.MaxItems, c.cfg.Items):
		return nil, failure(stanza.NotAllowed, "max-items-exceeded", fmt.Sprintf("the node has at most %d items (max_items)", min(s.MaxItems, c.cfg.Items)))
	}
	var out []*Item
	seen := map[string]bool{}
	for _, e := range p.entries {
		if e.ID == "" {
			e.ID = rand.Text()
		}
		switch {
		case e.Payload == nil && s.Payloads:
			return nil, failure(stanza.BadRequest, "payload-required", "")
		case seen[e.ID]:
			return nil, stanza.NewError(stanza.BadRequest, "the same id twice")
		}
		seen[e.ID] = true
		now := c.env.Clock.Now().UTC()
		it := &Item{ID: e.ID, Publisher: p.by, Payload: e.Payload, At: now, Created: now}
		if err := c.measure(n, it); err != nil { // before any hook looks at it
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

// measure checks the payload's size (XEP-0060 §7.1.3.5).
func (c *component) measure(n *Node, it *Item) error {
	it.size = len(it.bytes())
	if most := min(n.Settings.MaxPayload, int(c.cfg.Payload)); it.size > most {
		return failure(stanza.NotAcceptable, "payload-too-big", fmt.Sprintf("the payload has %d bytes and may have %d (max_payload)", it.size, most))
	}
	return nil
}

// announce tells who wants to know, in turn.
func (c *component) announce(ctx context.Context, ev *Publication, gone []string, told *turn) {
	n := ev.Node
	items := stanza.El(NSEvent, "items").With("node", n.Node)
	for _, it := range ev.Items {
		items.Add(n.show(NSEvent, it, n.Settings.Payloads))
	}
	told.tell(ctx, c.env.Clock, func() {
		c.notify(ctx, n, items)
		if len(gone) > 0 && n.Settings.Full == RetractOldest && n.Settings.NotifyRetract && n.Settings.MaxItems > 1 { // what replaces the only one says enough
			c.notify(ctx, n, retracts(n, gone))
		}
	})
}

// published tells features, when nobody waits for what they do: they may publish
// themselves.
func (c *component) published(ctx context.Context, ev *Publication, gone []string) {
	if ev.New {
		fire(ctx, c, Configured, &Configuration{Node: ev.Node, By: ev.By})
	}
	fire(ctx, c, Published, ev)
	if len(gone) > 0 {
		fire(ctx, c, Retracted, &Retraction{Node: ev.Node, IDs: gone})
	}
}

// show is <item/>, of NS or NSEvent.
func (n *Node) show(ns string, it *Item, payload bool) *stanza.Element {
	el := stanza.El(ns, "item").With("id", it.ID)
	switch n.Settings.ItemRepl { // XEP-0060 §12.17
	case ReplyPublisher:
		el.With("publisher", it.Publisher.Bare().String()) // which device is for who gets presence (§14.4)
	case ReplyOwner:
		el.With("publisher", n.Account.String())
	}
	if payload {
		el.Add(it.Payload)
	}
	return el
}

// fire tells features of what has happened.
func fire[E any](ctx context.Context, c *component, h *processor.Hook[E], e E) {
	if _, err := processor.Fire(ctx, c.reg, h, e); err != nil {
		c.env.Log.Error("pubsub hook failed", "err", err)
	}
}
