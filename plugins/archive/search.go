package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"parley/parser/stanza"
	"parley/storage"
)

// nsText is that of XEP-0431; its field has the name in Clark notation.
const nsText = "urn:xmpp:fulltext:0"

// What a search reads at a time.
const (
	listLeast = 16  // of a posting list; more when all of it was of use
	listMost  = 512 //
	matchRows = 50  // rows that are looked at together
	tailRows  = 200 // of what the index does not have yet
	tailMost  = 5000
)

// errIndexing: what is not in the index is too much to be read through.
func errIndexing() error {
	return stanza.NewError(stanza.ResourceConstraint, "the archive is still being indexed: ask again later, or for less")
}

// Postings in both directions: from one on, not beyond another.
const (
	listDown = `SELECT id FROM archive_word WHERE owner = $1 AND word = $2 AND id <= $3 AND id > $4 ORDER BY id DESC LIMIT $5`
	listUp   = `SELECT id FROM archive_word WHERE owner = $1 AND word = $2 AND id >= $3 AND id < $4 ORDER BY id LIMIT $5`
)

// places are where a term is, read piece by piece in the direction of paging.
type places struct {
	term int64
	ids  []int64 // what was read and may still be of use
	all  bool    // nothing is behind it
	step int     // how much was read
	hits int     // and of use
}

// lists are the places that several terms share. It goes from one to the next by
// the list that is furthest: what it reads grows with the rarest term, and with
// how often the others change places, not with the archive.
type lists struct {
	db       storage.Querier
	owner    int64
	backward bool
	end      int64 // exclusive
	at       int64 // where the next place may be, inclusive
	each     []*places
}

func (a *Archive) lists(db storage.Querier, owner int64, terms []int64, s span, backward bool) *lists {
	if s.before == 0 {
		s.before = math.MaxInt64
	}
	l := &lists{db: db, owner: owner, backward: backward, end: s.before, at: s.after + 1}
	if backward {
		l.end, l.at = s.after, s.before-1
	}
	for _, t := range terms {
		l.each = append(l.each, &places{term: t})
	}
	return l
}

// beyond reports whether a place lies behind another one in the direction of paging.
func (l *lists) beyond(id, other int64) bool { return id > other != l.backward && id != other }

// next is the next place that all terms share; false: there is none.
func (l *lists) next(ctx context.Context) (int64, bool, error) {
	for {
		same := true
		for _, one := range l.each {
			id, ok, err := l.seek(ctx, one)
			if err != nil || !ok {
				return 0, false, err
			}
			if id != l.at {
				l.at, same = id, false
			}
		}
		if !same {
			continue
		}
		found := l.at
		if l.backward {
			l.at--
		} else {
			l.at++
		}
		return found, len(l.each) > 0, nil
	}
}

// seek is the term's first place from at on.
func (l *lists) seek(ctx context.Context, one *places) (int64, bool, error) {
	for {
		i := sort.Search(len(one.ids), func(i int) bool { return !l.beyond(l.at, one.ids[i]) })
		if one.ids = one.ids[i:]; len(one.ids) > 0 {
			one.hits++
			return one.ids[0], true, nil
		}
		if one.all || l.at == l.end || l.beyond(l.at, l.end) {
			return 0, false, nil
		}
		if one.hits > one.step/2 {
			one.step = min(one.step*2, listMost)
		} else {
			one.step = listLeast
		}
		sql := listUp
		if l.backward {
			sql = listDown
		}
		ids, err := storage.All(ctx, l.db, func(r storage.Row) (id int64, err error) {
			err = r.Scan(&id)
			return id, err
		}, sql, l.owner, one.term, l.at, l.end, one.step)
		if err != nil {
			return 0, false, fmt.Errorf("archive index: %w", err)
		}
		one.ids, one.all, one.hits = ids, len(ids) < one.step, 0
	}
}

// indexedTo is up to where the index has all rows of an owner.
func (a *Archive) indexedTo(ctx context.Context, o *owner) (id int64, err error) {
	err = a.env.DB.QueryRow(ctx, `SELECT indexed FROM archive_owner WHERE id = $1`, o.id).Scan(&id)
	if errors.Is(err, storage.ErrNoRows) { // it was forgotten
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("archive index: %w", err)
	}
	return id, nil
}

// search adds to the page the rows that have the text: those that the index has
// by its lists, the newest ones, which it has not yet, one by one.
func (a *Archive) search(ctx context.Context, o *owner, q *query, pg *page) error {
	matches := func(r row) (more bool) {
		st, err := stanza.Parse(r.raw, stanza.NSClient, a.jids)
		return err != nil || !q.text.in(st) || pg.add(q, r)
	}
	s := span{q.after, q.before}
	if len(q.ids) > 0 {
		return a.each(ctx, o, q, s, len(q.ids), matches)
	}
	to, err := a.indexedTo(ctx, o)
	if err != nil {
		return err
	}
	index, tail := s, span{max(s.after, to), s.before}
	if s.before == 0 || s.before > to+1 {
		index.before = to + 1
	}
	parts := []func() error{
		func() error { return a.searchIndex(ctx, o, q, index, pg, matches) },
		func() error { return a.searchTail(ctx, o, q, tail, pg, matches) },
	}
	if q.backward {
		slices.Reverse(parts)
	}
	for _, part := range parts {
		if err := part(); err != nil || !pg.complete {
			return err
		}
	}
	return nil
}

func (a *Archive) searchIndex(ctx context.Context, o *owner, q *query, s span, pg *page, matches func(row) bool) error {
	if len(q.text.terms) == 0 || s.before <= s.after+1 {
		return nil
	}
	terms := q.text.terms
	if !q.with.none() {
		terms = append(slices.Clone(terms), contactTerm(q.with.peer))
	}
	l := a.lists(a.env.DB, o.id, terms, s, q.backward)
	for pg.complete {
		some := *q // its other filters, and the rows' order
		some.ids = nil
		most := min(q.max+1-len(pg.rows), matchRows)
		for len(some.ids) < most {
			id, ok, err := l.next(ctx)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			some.ids = append(some.ids, id)
		}
		if len(some.ids) == 0 {
			return nil
		}
		if err := a.each(ctx, o, &some, s, len(some.ids), matches); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) searchTail(ctx context.Context, o *owner, q *query, s span, pg *page, matches func(row) bool) error {
	for seen := 0; pg.complete; {
		n := 0
		err := a.each(ctx, o, q, s, tailRows, func(r row) bool {
			n++
			if q.backward {
				s.before = r.id
			} else {
				s.after = r.id
			}
			return matches(r)
		})
		if err != nil || n < tailRows {
			return err
		}
		if seen += n; seen >= tailMost && pg.complete {
			return errIndexing()
		}
	}
	return nil
}
