package archive

import (
	"context"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// ids gives ids that never go back, not even over a crash with a clock that
// was set back meanwhile (reliability row 29): the mark in the database is
// ahead of every id in it. Who takes an id beyond the mark raises it in the
// commit that stores the message, so an id is never there without its mark.
//
// Of several nodes each has a mark of its own, and waits for its clock to pass
// it: ids that run ahead of another node's would order what somebody sends from
// there before what they sent here (D3).
type ids struct {
	*storage.IDs
	mark    int64        // the number of this node's mark
	durable atomic.Int64 // the mark in the database, as far as we know
}

// waitForMark is how long a node waits for its clock. One that is further behind
// was set back.
const waitForMark = 10 * time.Second

// markAhead is how far the mark is raised at a time: one row more every so many
// microseconds, and how far ids may be ahead of the clock after a crash.
const markAhead = int64(2 * time.Second / time.Microsecond)

var raiseMark = storage.Stmt{
	Name:       "archive.mark",
	SQL:        `INSERT INTO archive_mark (id, mark) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET mark = excluded.mark WHERE archive_mark.mark < excluded.mark`,
	Idempotent: true,
}

func newIDs(ctx context.Context, db storage.DB, now func() time.Time, node int) (*ids, error) {
	if node < 0 {
		mark, err := reached(ctx, db)
		if err != nil {
			return nil, err
		}
		return idsFrom(now, node, onlyMark, mark), nil
	}
	own := int64(node) + firstNodeMark
	mark, err := markOf(ctx, db, onlyMark, own)
	if err != nil {
		return nil, err
	}
	if ahead := time.UnixMicro(mark).Sub(now()); ahead > 0 {
		t := time.NewTimer(min(ahead, waitForMark))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return idsFrom(now, node, own, mark), nil
}

// The numbers of marks: that of a node that is alone, and those of several.
const (
	onlyMark      = int64(1)
	firstNodeMark = int64(2)
)

func idsFrom(now func() time.Time, node int, number, mark int64) *ids {
	g := &ids{IDs: storage.NewIDs(now, node, mark), mark: number}
	g.durable.Store(mark)
	return g
}

// take returns an id for a row that is stored with w.
func (g *ids) take(w writes) int64 {
	id := g.Next()
	g.cover(w, id)
	return id
}

// cover raises the mark beyond an id that is stored with w.
func (g *ids) cover(w writes, id int64) {
	if id <= g.durable.Load() {
		return
	}
	mark := id + markAhead
	w.Store(&raiseMark, g.mark, mark)
	w.Settled(func(stored bool) {
		for old := g.durable.Load(); stored && old < mark && !g.durable.CompareAndSwap(old, mark); {
			old = g.durable.Load()
		}
	})
}

// timeOf is the moment an id was given (storage.IDs).
func timeOf(id int64) time.Time { return time.UnixMicro(id).UTC() }

// stampLayout is XEP-0082 §3.2, as fine as ids are: a client that filters by a
// stamp it was told finds the message.
const stampLayout = "2006-01-02T15:04:05.000000Z"

// maskKey is the bytes of the key that hides the order of ids.
const maskKey = 32

// stanzaID is the element that tells an account's devices where a message is
// archived (XEP-0313 §3.5, XEP-0359 §3).
func (a *Archive) stanzaID(o *owner, id int64) *stanza.Element {
	return stanza.El(stanza.NSStanzaID, "stanza-id").With("by", o.jid.String()).With("id", a.mask.Encode(id))
}

// claims reports whether a child is a stanza-id in the name of by.
func claims(st *stanza.Stanza, c stanza.Child, by jid.JID) bool {
	if c.Name != (stanza.Name{Space: stanza.NSStanzaID, Local: "stanza-id"}) {
		return false
	}
	el := st.Element(c)
	if el == nil {
		return true
	}
	who, err := jid.Parse(el.Get("by"))
	return err == nil && who == by
}

// idAt is the lowest id of a moment.
func idAt(t time.Time) int64 { return storage.FirstID(t) }
