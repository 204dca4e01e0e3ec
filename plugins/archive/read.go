package archive

import (
	"context"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// What other features read of archives.

// Message is a row of an archive.
type Message struct {
	ID     int64          // later ones have higher ids
	Stanza *stanza.Stanza // as it is stored
}

// Range is a part of an archive.
type Range struct {
	After, Before int64   // ids, exclusive; Before 0: to the end
	With          jid.JID // bare: with this contact alone; zero: with anybody
	Backward      bool    // the newest first
	Limit         int     // rows
}

// Read returns messages of the archive of a bare address; none when it has no
// archive. Those that are damaged are left out. more: there are rows beyond the
// limit; last is the one that was read last, 0 for none.
func (a *Archive) Read(ctx context.Context, bare jid.JID, r Range) (found []Message, last int64, more bool, err error) {
	o, err := a.owners.find(ctx, bare)
	if err != nil || o == nil {
		return nil, 0, false, err
	}
	q := &query{backward: r.Backward}
	if !r.With.IsZero() {
		q.with = contactParty(r.With)
	}
	found, last, n, err := a.rows(ctx, o, q, span{r.After, r.Before}, r.Limit)
	return found, last, n == r.Limit, err
}

// Get returns those of the rows, at most 1,000, that are there, in their order.
func (a *Archive) Get(ctx context.Context, bare jid.JID, ids []int64) ([]Message, error) {
	o, err := a.owners.find(ctx, bare)
	if err != nil || o == nil || len(ids) == 0 {
		return nil, err
	}
	lowest, highest := slices.Min(ids), slices.Max(ids)
	found, _, _, err := a.rows(ctx, o, &query{ids: ids}, span{lowest - 1, highest + 1}, len(ids))
	return found, err
}

func (a *Archive) rows(ctx context.Context, o *owner, q *query, s span, limit int) (found []Message, last int64, n int, err error) {
	sql, args := q.sql(a.env.DB.Dialect(), o, s, limit)
	rows, err := a.env.DB.Query(ctx, sql, args...)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("archive of %s: %w", o.jid, err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := a.message(o, rows)
		if err != nil {
			return nil, 0, n, fmt.Errorf("archive of %s: %w", o.jid, err)
		}
		last = r.id
		n++
		if st, err := stanza.Parse(r.raw, stanza.NSClient, a.jids); err == nil {
			found = append(found, Message{r.id, st})
		}
	}
	return found, last, n, rows.Err()
}

// Ends are the ids of an archive's first row and of the nth one from its end, or
// of the first when there are not so many; 0 when it is empty.
func (a *Archive) Ends(ctx context.Context, bare jid.JID, n int) (first, nth int64, err error) {
	o, err := a.owners.find(ctx, bare)
	if err != nil || o == nil {
		return 0, 0, err
	}
	var begin, edge *int64
	err = a.env.DB.QueryRow(ctx, `SELECT (SELECT id FROM archive WHERE owner = $1 ORDER BY id LIMIT 1), (SELECT id FROM archive WHERE owner = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, o.id, n-1).Scan(&begin, &edge)
	if err != nil {
		return 0, 0, fmt.Errorf("archive of %s: %w", bare, err)
	}
	switch {
	case begin == nil:
		return 0, 0, nil
	case edge == nil:
		return *begin, *begin, nil
	}
	return *begin, *edge, nil
}

// Settled is an id up to which every row that there will ever be is there: one is
// committed a while after its id was given.
func (a *Archive) Settled() int64 { return a.settledID() }

// EncodeID is an id as clients see it (XEP-0359 §3).
func (a *Archive) EncodeID(id int64) string { return a.mask.Encode(id) }

// DecodeID reads an id that a client names; false: there is no such one.
func (a *Archive) DecodeID(s string) (int64, bool) { return a.mask.Decode(s) }

// Keeps reports whether messages are archived: one component does it, unless it
// stores only what waits.
func (a *Archive) Keeps() bool { return a.open.Load() > 0 }

// Result shows a message, in jabber:client, as a query does (XEP-0313 §4.2).
func (a *Archive) Result(queryID string, id int64, message []byte) *stanza.Element {
	return a.resultOf(queryID, row{id, message})
}

func (a *Archive) resultOf(queryID string, r row) *stanza.Element {
	return stanza.El(NS, "result").WithOpt("queryid", queryID).With("id", a.mask.Encode(r.id)).
		Add(stanza.El(stanza.NSForward, "forwarded").
			Add(stanza.El(stanza.NSDelay, "delay").With("stamp", timeOf(r.id).Format(stampLayout))).
			AddRaw(r.raw))
}
