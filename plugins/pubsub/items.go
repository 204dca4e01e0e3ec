package pubsub

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/atrest"
)

const (
	columns = `seq, id, publisher, at, born_at, expires_at, size, payload, key_id`

	sqlByID    = `SELECT ` + columns + ` FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2) AND id = $3`
	sqlSeqOf   = `SELECT seq, born FROM pubsub_item WHERE node = $1 AND id = $2`
	sqlCount   = `SELECT count(*) FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2)`
	sqlNewests = `SELECT n.id, i.seq, i.id, i.publisher, i.at, i.born_at, i.expires_at, i.size, i.payload, i.key_id FROM pubsub_node n JOIN pubsub_item i ON i.node = n.id AND i.seq = n.newest
		WHERE n.service = $1 AND (i.expires_at = 0 OR i.expires_at > $2)`
)

// ordered are the texts for one order: what a request says goes into none of
// them (security: injection through paging fields).
type ordered struct{ up, down, before string }

var (
	bySeq  = orderedBy("seq")
	byBorn = orderedBy("born")
)

func orderedBy(column string) ordered {
	where := ` FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2) AND ` + column
	page := `SELECT ` + columns + where + ` > $3 AND ` + column + ` < $4 ORDER BY ` + column
	return ordered{up: page + ` LIMIT $5`, down: page + ` DESC LIMIT $5`, before: `SELECT count(*)` + where + ` < $3`}
}

// items answers a query. Errors: item-not-found for an id to go on from that is
// not there (XEP-0059 §2.2); ids that are asked for and are not there are left out
// (XEP-0060 §6.5.9.12).
func (s *store) items(ctx context.Context, n *Node, q Query) (*Page, error) {
	page, err := s.page(ctx, n, q, 0)
	if err != nil {
		return nil, fmt.Errorf("items of node %s of %s: %w", n.Node, n.Service, err)
	}
	return page, nil
}

// page is items, of at most limit bytes of payload if that is not 0: one item
// always fits.
func (s *store) page(ctx context.Context, n *Node, q Query, limit int) (*Page, error) {
	now := s.env.Clock.Now().UnixMicro()
	page := &Page{Index: -1, Count: -1}
	if len(q.IDs) > 0 {
		var err error
		page.Items, err = s.named(ctx, n, q.IDs, now, limit)
		return page, err
	}
	if q.CountOnly {
		return page, s.env.DB.QueryRow(ctx, sqlCount, n.id, now).Scan(&page.Count)
	}
	order := bySeq
	if q.ByCreated {
		order = byBorn
	}
	from, to, err := s.between(ctx, n, q)
	if err != nil {
		return nil, err
	}
	most, text, down := int64(Max), order.up, q.Backward || q.Newest > 0
	if q.Limit > 0 {
		most = int64(q.Limit)
	}
	if q.Newest > 0 {
		most = min(most, int64(q.Newest))
	}
	if down {
		text = order.down
	}
	if page.Items, err = s.read(ctx, n.id, limit, text, n.id, now, from, to, most); err != nil {
		return nil, err
	}
	if down {
		slices.Reverse(page.Items)
	}
	if q.Limit == 0 {
		return page, nil
	}
	if err := s.env.DB.QueryRow(ctx, sqlCount, n.id, now).Scan(&page.Count); err != nil {
		return nil, err
	}
	if len(page.Items) == 0 {
		return page, nil
	}
	first, err := s.place(ctx, n, page.Items[0].ID, q.ByCreated)
	if err != nil {
		return nil, err
	}
	return page, s.env.DB.QueryRow(ctx, order.before, n.id, now, first).Scan(&page.Index)
}

// between are the places that a page lies between, both left out.
func (s *store) between(ctx context.Context, n *Node, q Query) (from, to int64, err error) {
	to = math.MaxInt64
	if q.After != "" {
		if from, err = s.place(ctx, n, q.After, q.ByCreated); err != nil {
			return 0, 0, err
		}
	}
	if q.Before != "" {
		to, err = s.place(ctx, n, q.Before, q.ByCreated)
	}
	return from, to, err
}

// place is where an item is in the order.
func (s *store) place(ctx context.Context, n *Node, id string, byCreated bool) (int64, error) {
	var seq, born int64
	err := s.env.DB.QueryRow(ctx, sqlSeqOf, n.id, id).Scan(&seq, &born)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return 0, errNoItem()
	case byCreated:
		return born, err
	}
	return seq, err
}

// named are the items of those ids, each once, as far as their payloads together
// have at most limit bytes, if that is not 0; one always fits.
func (s *store) named(ctx context.Context, n *Node, ids []string, now int64, limit int) (out []*Item, err error) {
	asked, size := map[string]bool{}, 0
	for _, id := range ids {
		if asked[id] {
			continue
		}
		asked[id] = true
		found, err := s.read(ctx, n.id, 0, sqlByID, n.id, now, id)
		if err != nil {
			return nil, err
		}
		for _, it := range found {
			if size += it.size; limit > 0 && size > limit && len(out) > 0 {
				return out, nil
			}
			out = append(out, it)
		}
	}
	return out, nil
}

// read reads items of a node until their payloads have more than limit bytes,
// if that is not 0.
func (s *store) read(ctx context.Context, node int64, limit int, text string, args ...any) ([]*Item, error) {
	out, _, err := s.readIn(ctx, s.env.DB, node, limit, text, args...)
	return out, err
}

// readIn is read inside a transaction, or not; cut: there are more items.
func (s *store) readIn(ctx context.Context, q storage.Querier, node int64, limit int, text string, args ...any) (out []*Item, cut bool, err error) {
	rows, err := q.Query(ctx, text, args...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		it, err := s.scan(rows, node)
		if err != nil {
			return nil, false, err
		}
		if size += it.size; limit > 0 && size > limit && len(out) > 0 {
			return out, true, nil
		}
		out = append(out, it)
	}
	return out, false, rows.Err()
}

// scan reads the columns, with what stands before them. A payload that is
// damaged is lost, the others of a page are not.
func (s *store) scan(r storage.Row, node int64, before ...any) (*Item, error) {
	it := &Item{}
	var by string
	var at, born, key int64
	var payload []byte
	if err := r.Scan(append(before, &it.seq, &it.ID, &by, &at, &born, &it.expires, &it.size, &payload, &key)...); err != nil {
		return nil, err
	}
	it.At, it.Created = time.UnixMicro(at).UTC(), time.UnixMicro(born).UTC()
	if err := parseInto(&it.Publisher, by); err != nil {
		return nil, err
	}
	if len(before) > 0 {
		node = *before[0].(*int64) //nolint:forcetypeassert // the only one there is
	}
	raw, err := s.env.AtRest.Open(&sealedItems, key, payload, node, it.seq)
	switch {
	case errors.Is(err, atrest.ErrDamaged):
		s.env.Log.Error("a published item is lost", "err", err)
		return it, nil
	case err != nil:
		return nil, err
	case raw == nil:
		return it, nil
	}
	it.Payload, err = stanza.ParseElement(raw, "")
	return it, err
}

// newest returns the last items of the nodes of a service, by the nodes' ids.
func (s *store) newest(ctx context.Context, service jid.JID) (map[int64]*Item, error) {
	rows, err := s.env.DB.Query(ctx, sqlNewests, service.String(), s.env.Clock.Now().UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("last items of %s: %w", service, err)
	}
	defer rows.Close()
	out := map[int64]*Item{}
	for rows.Next() {
		var node int64
		it, err := s.scan(rows, 0, &node)
		if err != nil {
			return nil, fmt.Errorf("last items of %s: %w", service, err)
		}
		out[node] = it
	}
	return out, rows.Err()
}

const (
	sqlIDs         = `SELECT id FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2) ORDER BY seq DESC LIMIT $3`
	sqlPublishedBy = `SELECT id FROM pubsub_item WHERE node = $1 AND publisher = $2`
)

// ids are those of the newest items, the newest last.
func (s *store) ids(ctx context.Context, n *Node, limit int) ([]string, error) {
	out, err := storage.All(ctx, s.env.DB, scanID, sqlIDs, n.id, s.now(), limit)
	if err != nil {
		return nil, fmt.Errorf("items of node %s of %s: %w", n.Node, n.Service, err)
	}
	slices.Reverse(out)
	return out, nil
}

func scanID(r storage.Row) (id string, err error) {
	err = r.Scan(&id)
	return id, err
}

// publishedBy are the ids of what exactly that address has published.
func (s *store) publishedBy(ctx context.Context, n *Node, who jid.JID) ([]string, error) {
	ids, err := storage.All(ctx, s.env.DB, scanID, sqlPublishedBy, n.id, who.String())
	if err != nil {
		return nil, fmt.Errorf("items of %s at node %s: %w", who, n.Node, err)
	}
	return ids, nil
}
