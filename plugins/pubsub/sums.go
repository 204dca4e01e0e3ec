package pubsub

import (
	"context"
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// Sum is an item of another node that tells something of all items of a node,
// such as how many there are of which kind. It is written in the transaction that
// changes them, so that it is true whenever somebody looks.
type Sum struct {
	Node string          // of the same service; made when it is not there
	ID   string          // of the item
	Set  func(*Settings) // what the node is like when it is made
	Base *Node           // what it derives from then
	// Count returns what the item's payload is after a change: an item was (nil:
	// there was none) and is (nil: it is gone) of these payloads. sum is the payload
	// so far, nil when there is none; it must not be changed. nil: the item goes. It
	// may be called several times for one change.
	Count func(sum, was, is *stanza.Element) *stanza.Element
}

// change is what happens to one item.
type change struct{ was, is *stanza.Element }

// summing is a Sum on its way into the transaction.
type summing struct {
	*Sum
	node   *Node
	fresh  bool // it is created
	limits *Limits
	item   *Item // what became of it; nil: it is gone, or as it was
	gone   bool
	told   *turn // as in write
}

// summing finds the node that a Sum is for.
func (c *component) summing(ctx context.Context, of *Node, sum *Sum) (*summing, error) {
	if sum == nil {
		return nil, nil
	}
	at := Address{of.Service, sum.Node}
	m := &summing{Sum: sum, limits: &c.cfg.Limits}
	var err error
	if m.node, err = c.dir.node(ctx, at); err != nil {
		return nil, err
	}
	if m.fresh = m.node == nil; m.fresh {
		s := defaultSettings(at.PEP())
		sum.Set(&s)
		m.node = c.store.fresh(at, of.Account, s).derive(sum.Base)
	}
	return m, nil
}

// recount forgets what was known of the node of a Sum.
func (c *component) recount(ctx context.Context, m *summing) {
	if m != nil {
		c.dir.changed(ctx, m.node.Address)
	}
}

// note appends what happens to an item, old before.
func (m *summing) note(s *store, to []change, n *Node, old *taken, is *stanza.Element) ([]change, error) {
	if m == nil {
		return to, nil
	}
	ch := change{is: is}
	if old != nil && old.payload != nil {
		raw, err := s.env.AtRest.Open(&sealedItems, old.key, old.payload, n.id, old.seq)
		if err != nil {
			return nil, err
		}
		if ch.was, err = stanza.ParseElement(raw, ""); err != nil {
			return nil, err
		}
	}
	return append(to, ch), nil
}

// sum writes the item, inside the transaction.
func (s *store) sum(ctx context.Context, tx storage.Tx, m *summing, changes []change) error {
	if m == nil || len(changes) == 0 {
		return nil
	}
	m.item, m.gone = nil, false
	if m.fresh {
		err := s.create(ctx, tx, m.node, m.limits)
		var se *stanza.Error
		if errors.As(err, &se) && se.Condition == stanza.Conflict { // somebody else has just made it
			return storage.ErrConflict
		}
		if err != nil {
			return err
		}
	}
	var sum *stanza.Element
	found, _, err := s.readIn(ctx, tx, m.node.id, 0, sqlByID, m.node.id, s.now(), m.ID)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		sum = found[0].Payload
	}
	for _, ch := range changes {
		sum = m.Count(sum, ch.was, ch.is)
	}
	if sum == nil {
		m.gone = len(found) > 0
		return s.drop(ctx, tx, m.node, m.ID)
	}
	it := &Item{ID: m.ID, Publisher: m.node.Service, Payload: sum}
	it.size = len(it.bytes())
	m.item = it
	_, err = s.put(ctx, tx, &write{node: m.node, items: []*Item{it}, limits: m.limits})
	return err
}

// drop removes an item, inside the transaction, if it is there.
func (s *store) drop(ctx context.Context, tx storage.Tx, n *Node, id string) error {
	var seq, count, bytes int64
	err := tx.QueryRow(ctx, sqlTurn, n.id, int64(0), int64(0)).Scan(&seq, &count, &bytes)
	if errors.Is(err, storage.ErrNoRows) {
		return errNoNode()
	}
	if err != nil {
		return err
	}
	old, err := take(ctx, tx, n.id, id)
	if err != nil || old == nil {
		return err
	}
	_, err = tx.Exec(ctx, sqlCounts, n.id, count-1, bytes-old.size)
	return err
}

// summed tells who wants to know what became of a Sum, in turn.
func (c *component) summed(ctx context.Context, m *summing, by jid.JID) {
	if m == nil {
		return
	}
	if m.fresh {
		c.dir.changed(ctx, m.node.Address)
	}
	switch {
	case m.item != nil:
		c.announce(ctx, m.publication(by), nil, m.told)
	case m.gone:
		m.told.tell(ctx, c.env.Clock, func() {
			if m.node.Settings.NotifyRetract {
				c.notify(ctx, m.node, retracts(m.node, []string{m.ID}))
			}
		})
	}
}

// counted is published for a Sum.
func (c *component) counted(ctx context.Context, m *summing, by jid.JID) {
	switch {
	case m == nil:
	case m.item != nil:
		c.published(ctx, m.publication(by), nil)
	case m.gone:
		fire(ctx, c, Retracted, &Retraction{Node: m.node, By: by, House: true, IDs: []string{m.ID}})
	}
}

func (m *summing) publication(by jid.JID) *Publication {
	return &Publication{Node: m.node, New: m.fresh, By: by, House: true, Items: []*Item{m.item}}
}
