package archive

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/stanza"
	"parley/processor"
	"parley/storage"
)

// identify gives the message its id in the owner's archive; known tells that
// it is there already, because the client sends it a second time: after a
// failed resumption it cannot know what arrived (rule: duplicate detection).
func (p *part) identify(ctx context.Context, o *owner, f *processor.Flow) (id int64, known bool, err error) {
	key, ok := p.resent.key(o, f.Stanza)
	if !ok {
		return p.ids.take(f), false, nil
	}
	if err := p.recall(ctx, o); err != nil {
		return 0, false, err
	}
	if id, ok := p.resent.seen.GetIfPresent(key); ok {
		// What was noted may not have been committed, or be delivered and gone.
		stored, err := p.stored(ctx, o, id)
		if err != nil || stored {
			p.metrics.resent.Inc()
			return id, stored, err
		}
	}
	id = p.ids.take(f)
	p.resent.seen.Set(key, id)
	return id, false, nil
}

func (p *part) stored(ctx context.Context, o *owner, id int64) (bool, error) {
	var n int
	err := p.env.DB.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM archive WHERE owner = $1 AND id = $2) + (SELECT COUNT(*) FROM archive_pending WHERE owner = $1 AND id = $2)`, o.id, id).Scan(&n)
	return n > 0, err
}

// How much of an archive is looked at for messages that are sent again after
// the server has died: what its clients had not seen acknowledged is the last
// that was stored.
const (
	recallRows = 500
	recallSpan = 5 * time.Minute // longer than any acknowledgement is late
)

// recall fills, once for each archive, the memory of what was stored before
// this process began: clients cannot know what of that arrived, and send it
// again (D2: what comes twice has the same stanza-id).
func (p *part) recall(ctx context.Context, o *owner) error {
	if o.recalled.Load() || p.env.Clock.Now().Sub(timeOf(p.began)) > resentWindow {
		return nil
	}
	o.recalling.Lock()
	defer o.recalling.Unlock()
	if o.recalled.Load() {
		return nil
	}
	rows, err := storage.All(ctx, p.env.DB, func(s storage.Row) (row, error) { return p.message(o, s) },
		`SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND id < $2 AND id > (SELECT MAX(id) FROM archive WHERE owner = $1 AND id < $2) - $3 ORDER BY id DESC LIMIT $4`,
		o.id, p.began, recallSpan.Microseconds(), recallRows)
	if err != nil {
		return fmt.Errorf("archive of %s: %w", o.jid, err)
	}
	for _, r := range rows {
		st, err := stanza.Parse(r.raw, stanza.NSClient, nil)
		if err != nil {
			continue // nobody can send that again
		}
		if key, ok := p.resent.key(o, st); ok {
			p.resent.seen.SetIfAbsent(key, r.id) // the newest first: it is the one that counts
		}
	}
	o.recalled.Store(true)
	return nil
}

// resent remembers, for a day, under which id a message with an origin-id was
// stored. An origin-id counts for its sender only (XEP-0359 §6). It is bounded;
// what this process did not store itself it finds by recall.
type resent struct {
	seen *otter.Cache[resentKey, int64]
	seed [2]maphash.Seed
}

type resentKey [2]uint64

const (
	resentEntries = 200_000
	resentWindow  = 24 * time.Hour
)

func newResent() (*resent, error) {
	c, err := otter.New(&otter.Options[resentKey, int64]{
		MaximumSize:      resentEntries,
		ExpiryCalculator: otter.ExpiryWriting[resentKey, int64](resentWindow),
	})
	if err != nil {
		return nil, err
	}
	return &resent{seen: c, seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}, nil
}

func (r *resent) key(o *owner, st *stanza.Stanza) (k resentKey, ok bool) {
	el := st.Child(stanza.NSStanzaID, "origin-id")
	if el == nil || el.Get("id") == "" {
		return k, false
	}
	for i := range k {
		var h maphash.Hash
		h.SetSeed(r.seed[i])
		for _, s := range [...]string{o.jid.String(), st.From.Bare().String(), st.To.Bare().String(), el.Get("id")} {
			_, _ = h.WriteString(s)
			_ = h.WriteByte(0)
		}
		k[i] = h.Sum64()
	}
	return k, true
}
