package archive

import (
	"context"
	"sync"
	"time"

	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
)

// Rows that a device has taken stop being pending a little later, many at
// once: a crash in between repeats messages with the same stanza-id (D2).
const (
	ackLinger = 100 * time.Millisecond
	ackRetry  = 5 * time.Second // after the database did not take them
	ackBatch  = 1000
	ackBound  = 100_000 // of rows that wait while the database does not answer; beyond, they stay pending
)

var deletePending = storage.Stmt{
	Name:       "archive.taken",
	SQL:        `DELETE FROM archive_pending WHERE owner = $1 AND id = $2`,
	Idempotent: true,
}

// acks collects them. Its lock is never held while the database is asked.
type acks struct {
	part *part
	wake chan struct{}

	mu    sync.Mutex
	taken map[int64]*ackSet // by owner
	n     int
	timer bool
	spare bool              // the database did not take the last ones: it is not asked before ackRetry
	busy  map[int64]*ackSet // being written now
}

type ackSet struct {
	owner *owner
	ids   map[int64]struct{}
}

func newAcks(p *part) *acks {
	return &acks{part: p, wake: make(chan struct{}, 1), taken: map[int64]*ackSet{}}
}

func (a *acks) add(o *owner, ids ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.taken[o.id]
	if set == nil {
		set = &ackSet{o, make(map[int64]struct{}, len(ids))}
		a.taken[o.id] = set
	}
	for _, id := range ids {
		if a.n >= ackBound {
			break
		}
		if _, twice := set.ids[id]; !twice {
			set.ids[id] = struct{}{}
			a.n++
		}
	}
	switch {
	case a.n >= ackBatch && !a.spare:
		a.kick()
	case !a.timer:
		a.timer = true
		after := ackLinger
		if a.spare {
			after = ackRetry
		}
		a.part.env.Clock.AfterFunc(after, a.kick)
	}
}

func (a *acks) kick() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// has reports whether a row that may still be in the table has been taken.
func (a *acks) has(o *owner, id int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, all := range [...]map[int64]*ackSet{a.taken, a.busy} {
		if set := all[o.id]; set != nil {
			if _, ok := set.ids[id]; ok {
				return true
			}
		}
	}
	return false
}

// run writes until ctx is done, and what is left then.
func (a *acks) run(ctx context.Context) {
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
		}
		// The end of the component does not cut off what is being written.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
		a.flush(limited)
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// flush writes everything that has been collected, of all owners together: one
// commit for each of them would fall behind (performance: rows per commit).
func (a *acks) flush(ctx context.Context) {
	a.mu.Lock()
	a.busy, a.taken, a.n, a.timer, a.spare = a.taken, map[int64]*ackSet{}, 0, false, false
	a.mu.Unlock()
	var sets []*ackSet
	rows := 0
	for _, set := range a.busy {
		sets = append(sets, set)
		if rows += len(set.ids); rows >= ackBatch {
			a.write(ctx, sets)
			sets, rows = nil, 0
		}
	}
	a.write(ctx, sets)
	a.mu.Lock()
	a.busy = nil
	a.mu.Unlock()
}

// write deletes the rows of several owners in one set; what the database does
// not take stays pending.
func (a *acks) write(ctx context.Context, sets []*ackSet) {
	var w storage.WriteSet
	for _, set := range sets {
		for id := range set.ids {
			w.Add(&deletePending, set.owner.id, id)
		}
	}
	if err := a.part.env.DB.Commit(ctx, &w); err != nil {
		a.part.env.Log.Warn("delivered messages not marked; they stay pending for now", "accounts", len(sets), "rows", w.Len(), "err", err)
		for _, set := range sets {
			a.again(set)
		}
		return
	}
	i := 0
	for _, set := range sets {
		n := int64(0)
		for range set.ids {
			n += w.Affected(i)
			i++
		}
		set.owner.pending.Add(-n)
		a.part.metrics.freed.Add(float64(n))
	}
}

// again puts back what could not be written.
func (a *acks) again(set *ackSet) {
	ids := make([]int64, 0, len(set.ids))
	for id := range set.ids {
		ids = append(ids, id)
	}
	a.mu.Lock()
	a.spare = true
	a.mu.Unlock()
	a.add(set.owner, ids...)
}

// acked is the Acked hook: a device of the account has these rows.
func (p *part) acked(ctx context.Context, e processor.Rows) (processor.Verdict, error) {
	o, err := p.owners.get(ctx, e.Session.JID.Bare())
	if err != nil {
		return processor.Continue, err
	}
	p.acks.add(o, e.IDs...)
	p.replays.acked(e.Session, e.IDs)
	return processor.Continue, nil
}

// unbound drops what is kept for a session.
func (p *part) unbound(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
	p.replays.forget(e.Ref)
	return processor.Continue, nil
}
