package archive

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/storage"
)

// days know on which days an archive has rows with somebody, so that a query
// with a contact of long ago does not read the index of everything since. A
// second index of the rows themselves would cost every message; this costs the
// first one of a day. A day with no row left is harmless.
type days struct {
	written *otter.Cache[dayKey, int64] // the last day that is surely in the table
}

type dayKey struct{ owner, peer int64 }

// writtenDays bounds what is remembered; what is not is written again.
const writtenDays = 200_000

var insertDay = storage.Stmt{
	Name:       "archive.day",
	SQL:        `INSERT INTO archive_day (owner, peer, day) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
	Idempotent: true,
}

// dayOf is the day of an id: they are microseconds.
func dayOf(id int64) int64 { return id / (24 * time.Hour).Microseconds() }

func newDays() (*days, error) {
	c, err := otter.New(&otter.Options[dayKey, int64]{MaximumSize: writtenDays})
	if err != nil {
		return nil, fmt.Errorf("archive days: %w", err)
	}
	return &days{c}, nil
}

// note adds the day to what is written with a row, unless it is there. It
// counts as there once it is committed: another session's row must not rely on
// a set that fails.
func (d *days) note(w writes, owner, peer, id int64) {
	key, day := dayKey{owner, peer}, dayOf(id)
	if last, ok := d.written.GetIfPresent(key); ok && last == day {
		return
	}
	w.Store(&insertDay, owner, peer, day)
	w.Settled(func(stored bool) {
		if stored {
			d.written.Set(key, day)
		}
	})
}

// span is ids, both exclusive; 0: no end.
type span struct{ after, before int64 }

// spans are the parts of the query's span that have rows with its contact, in
// the order of paging, days in a row as one; all of it when there is no
// contact, or rows are named. There are as many as a page can use up; rest is
// what lies behind them, nil when nothing does.
func (a *Archive) spans(ctx context.Context, o *owner, q *query, s span) (found []span, rest *span, err error) {
	if q.with.none() || len(q.ids) > 0 {
		return []span{s}, nil, nil
	}
	first, last := dayOf(s.after+1), int64(math.MaxInt64)
	if s.before > 0 {
		last = dayOf(s.before - 1)
	}
	sql := `SELECT day FROM archive_day WHERE owner = $1 AND peer = $2 AND day BETWEEN $3 AND $4 ORDER BY day LIMIT $5`
	if q.backward {
		sql = `SELECT day FROM archive_day WHERE owner = $1 AND peer = $2 AND day BETWEEN $3 AND $4 ORDER BY day DESC LIMIT $5`
	}
	some, err := storage.All(ctx, a.env.DB, func(r storage.Row) (day int64, err error) {
		err = r.Scan(&day)
		return day, err
	}, sql, o.id, q.with.peer, first, last, q.max+1)
	if err != nil {
		return nil, nil, fmt.Errorf("archive days: %w", err)
	}
	for _, day := range some {
		one := s.within(day)
		n := len(found)
		switch {
		case n > 0 && !q.backward && found[n-1].before-1 == one.after:
			found[n-1].before = one.before
		case n > 0 && q.backward && one.before-1 == found[n-1].after:
			found[n-1].after = one.after
		default:
			found = append(found, one)
		}
	}
	if len(some) > q.max { // there may be more
		end := found[len(found)-1]
		switch {
		case q.backward && end.after > s.after:
			rest = &span{s.after, end.after + 1}
		case !q.backward && (s.before == 0 || end.before < s.before):
			rest = &span{end.before - 1, s.before}
		}
	}
	return found, rest, nil
}

// within is a day's part of the span.
func (s span) within(day int64) span {
	length := (24 * time.Hour).Microseconds()
	one := span{max(day*length-1, s.after), (day + 1) * length}
	if s.before > 0 {
		one.before = min(one.before, s.before)
	}
	return one
}

// oldest is the archive's first row, 0 when it is empty.
func (a *Archive) oldest(ctx context.Context, owner int64) (int64, error) {
	var id *int64
	if err := a.env.DB.QueryRow(ctx, `SELECT MIN(id) FROM archive WHERE owner = $1`, owner).Scan(&id); err != nil {
		return 0, fmt.Errorf("archive expiry: %w", err)
	}
	if id == nil {
		return 0, nil
	}
	return *id, nil
}

// forgetDays drops the days before the archive's first row, which was another
// one before. Yesterday and today stay: sets that rely on them may be under way.
func (a *Archive) forgetDays(ctx context.Context, owner, was int64) error {
	oldest, err := a.oldest(ctx, owner)
	if err != nil {
		return err
	}
	before := dayOf(a.env.Clock.Now().UnixMicro()) - 1
	if oldest > 0 {
		before = min(before, dayOf(oldest))
	}
	if before <= dayOf(was) {
		return nil
	}
	if _, err := a.env.DB.Exec(ctx, `DELETE FROM archive_day WHERE owner = $1 AND day < $2`, owner, before); err != nil {
		return fmt.Errorf("archive expiry: %w", err)
	}
	return nil
}
