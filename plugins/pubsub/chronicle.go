package pubsub

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Chronicle asks for a node's items as for an archive: in the order of
// publication, by places in it, which stay what they are when the items there are
// gone or published again elsewhere.
type Chronicle struct {
	After, Before int64     // places, exclusive; 0: from the beginning, to the end
	Start, End    time.Time // of publication, inclusive; zero: any
	Places        []int64   // these alone, if there are any
	Limit         int       // of the page; from 1
	Size          int       // of the page, in bytes of payloads: one item always fits; 0: any
	Backward      bool      // the page at the end
}

var chronicle = chronicles("ORDER BY seq LIMIT $7", "ORDER BY seq DESC LIMIT $7")

const sqlPlace = `SELECT ` + columns + ` FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2) AND seq = $3`

func chronicles(up, down string) ordered {
	text := `SELECT ` + columns + ` FROM pubsub_item WHERE node = $1 AND (expires_at = 0 OR expires_at > $2) AND seq > $3 AND seq < $4 AND at >= $5 AND at <= $6 `
	return ordered{up: text + up, down: text + down}
}

// Chronicle reads items, the oldest first, or those of Places in the order of
// these, each once; complete: there is nothing beyond the page in the direction
// that it goes.
func (p *PubSub) Chronicle(ctx context.Context, n *Node, q Chronicle) (items []*Item, complete bool, err error) {
	items, complete, err = p.store.chronicle(ctx, n, q)
	if err != nil {
		return nil, false, fmt.Errorf("items of node %s of %s: %w", n.Node, n.Service, err)
	}
	return items, complete, nil
}

func (s *store) chronicle(ctx context.Context, n *Node, q Chronicle) (out []*Item, complete bool, err error) {
	if len(q.Places) > 0 {
		return s.places(ctx, n, q)
	}
	before, from, to, text := int64(math.MaxInt64), int64(0), int64(math.MaxInt64), chronicle.up
	if q.Before > 0 {
		before = q.Before
	}
	if !q.Start.IsZero() {
		from = q.Start.UnixMicro()
	}
	if !q.End.IsZero() {
		to = q.End.UnixMicro()
	}
	if q.Backward {
		text = chronicle.down
	}
	out, cut, err := s.readIn(ctx, s.env.DB, n.id, q.Size, text, n.id, s.now(), q.After, before, from, to, int64(q.Limit)+1)
	if err != nil {
		return nil, false, err
	}
	if len(out) > q.Limit {
		out, cut = out[:q.Limit], true
	}
	if q.Backward {
		slices.Reverse(out)
	}
	return out, !cut, nil
}

// places reads what is at the places, as far as it fits.
func (s *store) places(ctx context.Context, n *Node, q Chronicle) (out []*Item, complete bool, err error) {
	size, asked := 0, map[int64]bool{}
	for _, place := range q.Places {
		if asked[place] {
			continue
		}
		asked[place] = true
		found, err := s.read(ctx, n.id, 0, sqlPlace, n.id, s.now(), place)
		if err != nil {
			return nil, false, err
		}
		for _, it := range found {
			if size += it.size; q.Size > 0 && size > q.Size && len(out) > 0 {
				return out, false, nil
			}
			out = append(out, it)
		}
	}
	return out, true, nil
}

// Place is where the item is in the order of publication: from 1, ascending, never
// given twice.
func (it *Item) Place() int64 { return it.seq }

// Event is what subscribers have been sent of an item, as a message to nobody.
func (n *Node) Event(it *Item) *stanza.Stanza {
	typ := string(n.Settings.Message)
	if typ == stanza.TypeNormal {
		typ = ""
	}
	items := stanza.El(NSEvent, "items").With("node", n.Node).Add(n.show(NSEvent, it, n.Settings.Payloads))
	return stanza.Make(stanza.Message, typ, n.Service, jid.JID{}, "", stanza.El(NSEvent, "event").Add(items))
}
