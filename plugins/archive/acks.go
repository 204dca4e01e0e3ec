package archive

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
)

// Rows that a device has taken stop being pending a little later, many at
// once: a crash in between repeats messages with the same stanza-id (D2).
const (
	ackLinger  = 100 * time.Millisecond
	ackRetry   = 5 * time.Second // after the database did not take them
	ackBatch   = 1000            // rows of a set
	ackWriters = 8               // sets under way
	ackBound   = 100_000         // of rows that wait while the database does not answer; beyond, they stay pending
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

// settle adds to taken which of the rows, read since taken was asked for, have
// been taken, and returns when those are out of the table: a replay passes them
// over, and if a crash made them pending again the next one would bring them
// behind newer ones (D3).
func (a *acks) settle(ctx context.Context, o *owner, taken map[int64]struct{}, rows []row) error {
	maps.Copy(taken, a.of(o))
	var marks []mark
	for _, r := range rows {
		if _, ok := taken[r.id]; ok {
			marks = append(marks, mark{o, r.id})
		}
	}
	_, err := a.writeAll(ctx, marks) // the flush that has them too finds nothing
	return err
}

// of returns the rows of an owner that have been taken and may still be in the
// table. What is asked before the table is read and again after covers what is
// deleted in between.
func (a *acks) of(o *owner) map[int64]struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := map[int64]struct{}{}
	for _, all := range [...]map[int64]*ackSet{a.taken, a.busy} {
		if set := all[o.id]; set != nil {
			maps.Copy(ids, set.ids)
		}
	}
	return ids
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

// mark is one row that a device has taken.
type mark struct {
	owner *owner
	id    int64
}

// flush writes everything that has been collected, of all owners together.
// Several sets are under way at once: one after the other each would wait for
// its turn behind everybody's messages, so that more is delivered than marked
// (performance: rows per commit).
func (a *acks) flush(ctx context.Context) {
	a.mu.Lock()
	a.busy, a.taken, a.n, a.timer, a.spare = a.taken, map[int64]*ackSet{}, 0, false, false
	busy := a.busy
	a.mu.Unlock()
	var marks []mark
	for _, set := range busy {
		for id := range set.ids {
			marks = append(marks, mark{set.owner, id})
		}
	}
	if failed, err := a.writeAll(ctx, marks); err != nil {
		a.part.env.Log.Warn("delivered messages not marked; they stay pending for now", "rows", len(failed), "err", err)
		a.again(failed)
	}
	a.mu.Lock()
	a.busy = nil
	a.mu.Unlock()
}

// writeAll returns what the database does not take: it stays pending.
func (a *acks) writeAll(ctx context.Context, marks []mark) (failed []mark, err error) {
	var (
		mu      sync.Mutex
		writers sync.WaitGroup
		turns   = make(chan struct{}, ackWriters)
	)
	for some := range slices.Chunk(marks, ackBatch) {
		turns <- struct{}{}
		writers.Go(func() {
			defer func() { <-turns }()
			if e := a.write(ctx, some); e != nil {
				mu.Lock()
				failed, err = append(failed, some...), e
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	return failed, err
}

// write deletes the rows in one set.
func (a *acks) write(ctx context.Context, marks []mark) error {
	var w storage.WriteSet
	for _, m := range marks {
		w.Add(&deletePending, m.owner.id, m.id)
	}
	if err := a.part.env.DB.Commit(ctx, &w); err != nil {
		return err
	}
	freed := int64(0)
	for i, m := range marks {
		n := w.Affected(i)
		m.owner.pending.Add(-n)
		freed += n
	}
	a.part.metrics.freed.Add(float64(freed))
	return nil
}

// again puts back what could not be written.
func (a *acks) again(marks []mark) {
	a.mu.Lock()
	a.spare = true
	a.mu.Unlock()
	for _, m := range marks {
		a.add(m.owner, m.id)
	}
}

// acked is the Acked hook: a device of the account has these rows. Its replay goes
// on even if they cannot be marked now: nobody tells twice.
func (p *part) acked(ctx context.Context, e processor.Rows) (processor.Verdict, error) {
	o, err := p.owners.get(ctx, e.Session.JID.Bare())
	if err == nil {
		p.acks.add(o, e.IDs...)
	}
	p.replays.acked(e.Session, e.IDs)
	return processor.Continue, err
}

// unbound drops what is kept for a session.
func (p *part) unbound(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
	p.replays.forget(e.Ref)
	return processor.Continue, nil
}

// handOn writes down what the account's sessions have taken: its next session
// may be on another node.
func (p *part) handOn(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if p.env.Notices == nil || e.Kind != sessions.Client || e.Node != p.env.Node { // what it has taken elsewhere is known there
		return processor.Continue, nil
	}
	o, err := p.owners.get(ctx, e.JID.Bare())
	if err != nil {
		return processor.Continue, err
	}
	var marks []mark
	for id := range p.acks.of(o) {
		marks = append(marks, mark{o, id})
	}
	_, err = p.acks.writeAll(ctx, marks) // what fails is written by the next flush
	return processor.Continue, err
}
