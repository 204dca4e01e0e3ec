package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"parley/parser/stanza"
	"parley/storage"
)

// pageBytes ends a page before its time: a client must have room for what one
// query brings.
const pageBytes = 512 << 10

type row struct {
	id  int64
	raw []byte // complete, in jabber:client; nil: it is lost
}

// page is a part of a result set, the oldest row first.
type page struct {
	rows     []row
	bytes    int
	complete bool // nothing is left in the direction of paging
}

func (p *part) read(ctx context.Context, o *owner, q *query) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	pg, err := p.readIn(ctx, o, q)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, stanza.NewError(stanza.ResourceConstraint, "the query takes too long: ask for less")
	}
	return pg, err
}

func (a *Archive) readIn(ctx context.Context, o *owner, q *query) (*page, error) {
	if err := a.exist(ctx, o, q.known); err != nil {
		return nil, err
	}
	pg := &page{complete: true}
	fill := a.fill
	if q.text != nil {
		fill = a.search
	}
	if err := fill(ctx, o, q, pg); err != nil {
		return nil, fmt.Errorf("archive query: %w", err)
	}
	if q.backward {
		slices.Reverse(pg.rows)
	}
	return pg, nil
}

// fill adds the rows of the query to the page, in the order of paging, until it is
// full.
func (a *Archive) fill(ctx context.Context, o *owner, q *query, pg *page) error {
	for todo := (&span{q.after, q.before}); todo != nil && pg.complete; {
		some, rest, err := a.spans(ctx, o, q, *todo)
		if err != nil {
			return err
		}
		for _, s := range some {
			err := a.each(ctx, o, q, s, q.max+1-len(pg.rows), func(r row) bool { return pg.add(q, r) })
			if err != nil || !pg.complete {
				return err
			}
		}
		todo = rest
	}
	return nil
}

// add reports whether there was room.
func (pg *page) add(q *query, r row) bool {
	if len(pg.rows) >= q.max || pg.bytes >= pageBytes {
		pg.complete = false
		return false
	}
	pg.rows = append(pg.rows, r)
	pg.bytes += len(r.raw)
	return true
}

// each calls f with the rows of a span that the query's filters let through, at
// most limit, in the order of paging, until it returns false.
func (a *Archive) each(ctx context.Context, o *owner, q *query, s span, limit int, f func(row) (more bool)) error {
	sql, args := q.sql(o, s, limit)
	rows, err := a.env.DB.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := a.message(o, rows)
		if err != nil {
			return err
		}
		if !f(r) {
			break
		}
	}
	return rows.Err()
}

// message reads "id, peer, key_id, stanza" of an archive.
func (a *Archive) message(o *owner, s storage.Row) (r row, err error) {
	var peer, key int64
	if err := s.Scan(&r.id, &peer, &key, &r.raw); err != nil {
		return r, err
	}
	r.raw, err = a.opened(&sealedRows, key, r.raw, o.id, r.id, peer)
	return r, err
}

// one reads a row; item-not-found.
func (a *Archive) one(ctx context.Context, o *owner, id int64) (row, error) {
	r, err := a.message(o, a.env.DB.QueryRow(ctx, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND id = $2`, o.id, id))
	switch {
	case errors.Is(err, storage.ErrNoRows), err == nil && r.raw == nil:
		return r, errNotFound()
	case err != nil:
		return r, fmt.Errorf("archive of %s: %w", o.jid, err)
	}
	return r, nil
}

// sql is the statement for a span of the query: fixed pieces, every value an
// argument (security: SQL injection through paging fields). Asked for one row
// more than the page has room for, it tells whether the page is the last.
func (q *query) sql(o *owner, s span, limit int) (string, []any) {
	var b strings.Builder
	args := []any{o.id}
	arg := func(piece string, v any) {
		args = append(args, v)
		fmt.Fprintf(&b, "%s$%d", piece, len(args))
	}
	b.WriteString("SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1")
	listed := len(q.ids) > 0 // then both bounds are there: fewer texts
	if s.after > 0 || listed {
		arg(" AND id > ", s.after)
	}
	switch {
	case s.before > 0:
		arg(" AND id < ", s.before)
	case listed:
		arg(" AND id < ", int64(math.MaxInt64))
	}
	for i := range padded(len(q.ids)) {
		arg([...]string{" AND id IN (", ", "}[min(i, 1)], q.ids[min(i, len(q.ids)-1)])
	}
	if listed {
		b.WriteString(")")
	}
	if !q.with.none() {
		arg(" AND peer = ", q.with.peer)
		arg(" AND contact = ", q.with.bare)
		if q.with.resource != "" {
			arg(" AND resource = ", q.with.resource)
		}
	}
	b.WriteString(" ORDER BY id")
	if q.backward {
		b.WriteString(" DESC")
	}
	arg(" LIMIT ", limit)
	return b.String(), args
}

// padded is how many arguments a list of n gets, the last one again and again: a
// text for each n would use up the statements that a database keeps compiled.
func padded(n int) int {
	if n == 0 {
		return 0
	}
	return 1 << bits.Len(uint(n-1)) //nolint:gosec // a length
}

// exist checks the rows a client has named (§4.1.3, §4.3.2).
func (a *Archive) exist(ctx context.Context, o *owner, ids []int64) error {
	distinct := slices.Clone(ids)
	slices.Sort(distinct)
	for _, id := range slices.Compact(distinct) {
		var n int
		if err := a.env.DB.QueryRow(ctx, `SELECT COUNT(*) FROM archive WHERE owner = $1 AND id = $2`, o.id, id).Scan(&n); err != nil {
			return fmt.Errorf("archive query: %w", err)
		}
		if n == 0 {
			return errNotFound()
		}
	}
	return nil
}
