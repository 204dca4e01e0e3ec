package bookmarks

import (
	"bytes"
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/private"
	"parley/plugins/pubsub"
)

// list returns an account's bookmarks.
func (c *component) list(ctx context.Context, account jid.JID) (list, error) {
	page, err := c.nodes.Items(ctx, own(account, NS), pubsub.Query{})
	if err != nil {
		return nil, fmt.Errorf("bookmarks: %w", err)
	}
	var all list
	for _, it := range page.Items {
		if b, ok := parse(it.ID, it.Payload); ok {
			all.put(b)
		}
	}
	return all, nil
}

// apply changes the items that differ from what an older client wants. whole: the
// rooms that it does not name go; otherwise those are added alone that there are
// not yet.
func (c *component) apply(ctx context.Context, account jid.JID, want list, whole bool) error {
	have, err := c.list(ctx, account)
	if err != nil {
		return err
	}
	var changed []pubsub.Entry
	for _, b := range want {
		at, found := have.find(b.room)
		switch {
		case !found:
			changed = append(changed, pubsub.Entry{ID: b.room.String(), Payload: newer(b.payload, nil)})
		case whole && !same(b.payload, have[at].payload):
			changed = append(changed, pubsub.Entry{ID: have[at].id, Payload: newer(b.payload, have[at].payload)})
		}
	}
	var gone []string
	for _, b := range have {
		if _, wanted := want.find(b.room); whole && !wanted {
			gone = append(gone, b.id)
		}
	}
	if len(changed) > 0 {
		if _, err := c.nodes.Publish(ctx, own(account, NS), account, nil, changed...); err != nil {
			return err
		}
	}
	return c.nodes.Retract(ctx, own(account, NS), account, gone...)
}

// keep stores what is in no item.
func (c *component) keep(ctx context.Context, account jid.JID, rest []*stanza.Element) error {
	return c.stored.Put(ctx, account, private.Item{Name: name, Data: collate(rest, nil).Bytes(private.NS)})
}

// mirrorTries bounds how often the copy is made again because bookmarks have
// changed meanwhile.
const mirrorTries = 8

// mirror brings the copy up to date. It reads once more what it has written: of
// several that do so at the same time, on whatever nodes of a cluster, the last one
// sees what all have changed.
func (c *component) mirror(ctx context.Context, account jid.JID) error {
	for range mirrorTries {
		data, err := c.stored.Get(ctx, account, name)
		if err != nil {
			return err
		}
		rest, _ := splitAll(data)
		all, err := c.list(ctx, account)
		if err != nil {
			return err
		}
		want := collate(rest, all)
		last, err := c.nodes.Last(ctx, own(account, NSOld))
		switch {
		case err != nil:
			return fmt.Errorf("bookmarks: %w", err)
		case last == nil && want.Count() == 0:
			return nil
		case last != nil && last.Payload != nil && bytes.Equal(last.Payload.Bytes(""), want.Bytes("")):
			return nil
		}
		if _, err := c.nodes.Publish(ctx, own(account, NSOld), account, nil, pubsub.Entry{ID: "current", Payload: want}); err != nil {
			return err
		}
	}
	return nil
}
