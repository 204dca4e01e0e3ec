package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/atrest"
)

// sealedItems are the payloads. Who published what when is not encrypted:
// queries go by it.
var sealedItems = atrest.Table{Name: "pubsub_item", Row: []string{"node", "seq"}, Content: "payload", KeyID: "key_id"}

const (
	// The node's row is changed first: who publishes to it at the same time waits,
	// or begins anew. seq never goes back, whatever the clock does.
	sqlTurn   = `UPDATE pubsub_node SET seq = CASE WHEN seq + $2 < $3 THEN $3 ELSE seq + $2 END WHERE id = $1 RETURNING seq, items, bytes`
	sqlCounts = `UPDATE pubsub_node SET newest = coalesce((SELECT max(seq) FROM pubsub_item WHERE node = $1), 0), items = $2, bytes = $3 WHERE id = $1`
	sqlOthers = `SELECT CAST(coalesce(sum(bytes), 0) AS bigint) FROM pubsub_node WHERE account = $1 AND id <> $2`
	sqlTake   = `DELETE FROM pubsub_item WHERE node = $1 AND id = $2 RETURNING publisher, born, born_at, size, seq, payload, key_id`
	sqlPut    = `INSERT INTO pubsub_item (node, seq, id, publisher, at, born, born_at, expires_at, size, payload, key_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`
	sqlOldest = `DELETE FROM pubsub_item WHERE node = $1 AND seq IN (SELECT seq FROM pubsub_item WHERE node = $1 ORDER BY seq LIMIT $2) RETURNING id, size`
	sqlPurge  = `DELETE FROM pubsub_item WHERE node = $1`
)

// write is what a transaction does to the items of a node.
type write struct {
	node   *Node
	fresh  bool // create it first
	items  []*Item
	by     jid.JID // who replaces items of others is refused, unless zero; bare
	rows   *Rows
	limits *Limits
	sum    *summing // nil: nothing else is to be written
	told   *turn    // once it is committed; to be left
}

// enter lets what was written be told in order.
func (s *store) enter(w *write) func() {
	return func() {
		w.told = s.lines.enter(w.node)
		if w.sum != nil {
			w.sum.told = s.lines.enter(w.sum.node)
		}
	}
}

// leave lets others tell, whatever has become of it.
func (w *write) leave() {
	w.told.leave()
	if w.sum != nil {
		w.sum.told.leave()
	}
}

// publish stores items and returns the ids of those that had to go for them.
func (s *store) publish(ctx context.Context, w *write) (gone []string, err error) {
	err = s.tx(ctx, w.node, func(tx storage.Tx) error {
		gone = nil
		if w.fresh {
			if err := s.create(ctx, tx, w.node, w.limits); err != nil {
				return err
			}
		}
		if w.node.Settings.Persist && len(w.items) > 0 {
			var err error
			if gone, err = s.put(ctx, tx, w); err != nil {
				return err
			}
		}
		return w.rows.write(ctx, tx)
	}, s.enter(w))
	return gone, err
}

// put stores the items.
func (s *store) put(ctx context.Context, tx storage.Tx, w *write) (gone []string, err error) {
	n, now := w.node, s.env.Clock.Now().UnixMicro()
	var seq, count, bytes int64
	err = tx.QueryRow(ctx, sqlTurn, n.id, int64(len(w.items)), now).Scan(&seq, &count, &bytes)
	if errors.Is(err, storage.ErrNoRows) { // it has just been deleted
		return nil, errNoNode()
	}
	if err != nil {
		return nil, err
	}
	before := bytes
	var changes []change
	seq -= int64(len(w.items)) - 1
	for i, it := range w.items {
		it.seq, it.At, it.Created, it.expires = seq+int64(i), time.UnixMicro(now).UTC(), time.UnixMicro(now).UTC(), 0
		born := it.seq
		if life := n.Settings.lifetime(); life > 0 {
			it.expires = now + life
		}
		old, err := take(ctx, tx, n.id, it.ID)
		switch {
		case err != nil:
			return nil, err
		case old != nil && !w.by.IsZero() && old.publisher.Bare() != w.by:
			return nil, errForbidden()
		case old != nil:
			born, it.Created = old.born, time.UnixMicro(old.bornAt).UTC()
			count, bytes = count-1, bytes-old.size
		}
		if changes, err = w.sum.note(s, changes, n, old, it.Payload); err != nil {
			return nil, err
		}
		payload, key := s.env.AtRest.Seal(&sealedItems, it.bytes(), n.id, it.seq)
		if _, err := tx.Exec(ctx, sqlPut, n.id, it.seq, it.ID, it.Publisher.String(), now, born, it.Created.UnixMicro(), it.expires, it.size, payload, key); err != nil {
			return nil, err
		}
		count, bytes = count+1, bytes+int64(it.size)
	}
	if over := count - int64(min(n.Settings.MaxItems, w.limits.Items)); over > 0 {
		if n.Settings.Full == RejectNew {
			return nil, failure(stanza.Conflict, "node-full", fmt.Sprintf("the node has %d items, which is as many as it may have (max_items)", count-int64(len(w.items))))
		}
		var freed int64
		if gone, freed, err = oldest(ctx, tx, n.id, over); err != nil {
			return nil, err
		}
		count, bytes = count-over, bytes-freed
	}
	if bytes > before {
		var others int64
		if err := tx.QueryRow(ctx, sqlOthers, n.Account.String(), n.id).Scan(&others); err != nil {
			return nil, err
		}
		if others+bytes > int64(w.limits.Total) {
			return nil, errLimit(fmt.Sprintf("the account would have %d bytes in its nodes and may have %d (max_total_size)", others+bytes, int64(w.limits.Total)))
		}
	}
	if _, err := tx.Exec(ctx, sqlCounts, n.id, count, bytes); err != nil {
		return nil, err
	}
	return gone, s.sum(ctx, tx, w.sum, changes)
}

// bytes is the payload as it is stored; nil: none.
func (it *Item) bytes() []byte {
	if it.Payload == nil {
		return nil
	}
	return it.Payload.Bytes("")
}

// taken is what is to be known of an item that goes.
type taken struct {
	publisher               jid.JID
	born, bornAt, size, seq int64
	payload                 []byte // sealed
	key                     int64
}

// take removes an item; nil: there is none.
func take(ctx context.Context, tx storage.Tx, node int64, id string) (*taken, error) {
	var t taken
	var by string
	err := tx.QueryRow(ctx, sqlTake, node, id).Scan(&by, &t.born, &t.bornAt, &t.size, &t.seq, &t.payload, &t.key)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &t, parseInto(&t.publisher, by)
}

// oldest removes the n oldest items.
func oldest(ctx context.Context, tx storage.Tx, node, n int64) (ids []string, freed int64, err error) {
	rows, err := tx.Query(ctx, sqlOldest, node, n)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var size int64
		if err := rows.Scan(&id, &size); err != nil {
			return nil, 0, err
		}
		ids, freed = append(ids, id), freed+size
	}
	return ids, freed, rows.Err()
}

// retract removes items: w.by, bare, if not zero, its own alone. Those
// that are not there are an error, unless lenient; gone are those that were.
func (s *store) retract(ctx context.Context, w *write, ids []string, lenient bool) (gone []string, err error) {
	n := w.node
	err = s.tx(ctx, n, func(tx storage.Tx) error {
		gone = nil
		var changes []change
		var seq, count, bytes int64
		err := tx.QueryRow(ctx, sqlTurn, n.id, int64(0), int64(0)).Scan(&seq, &count, &bytes)
		if errors.Is(err, storage.ErrNoRows) {
			return errNoNode()
		}
		if err != nil {
			return err
		}
		for _, id := range ids {
			old, err := take(ctx, tx, n.id, id)
			switch {
			case err != nil:
				return err
			case old == nil && lenient:
				continue
			case old == nil:
				return errNoItem()
			case !w.by.IsZero() && old.publisher.Bare() != w.by:
				return errForbidden()
			}
			if changes, err = w.sum.note(s, changes, n, old, nil); err != nil {
				return err
			}
			gone, count, bytes = append(gone, id), count-1, bytes-old.size
		}
		if _, err := tx.Exec(ctx, sqlCounts, n.id, count, bytes); err != nil {
			return err
		}
		if err := s.sum(ctx, tx, w.sum, changes); err != nil {
			return err
		}
		return w.rows.write(ctx, tx)
	}, s.enter(w))
	return gone, err
}

// purge removes all items.
func (s *store) purge(ctx context.Context, w *write) error {
	n := w.node
	return s.tx(ctx, n, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlPurge, n.id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, sqlCounts, n.id, int64(0), int64(0)); err != nil {
			return err
		}
		return w.rows.write(ctx, tx)
	}, s.enter(w))
}
