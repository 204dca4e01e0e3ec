package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
)

// pageBytes ends a page before its time: a client must have room for what one
// query brings.
const pageBytes = 512 << 10

// busy counts the queries that accounts have under way (reliability row 17).
type busy struct {
	limit int
	mu    sync.Mutex
	now   map[jid.JID]int
}

func (b *busy) enter(who jid.JID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now[who] >= b.limit {
		return false
	}
	if b.now == nil {
		b.now = map[jid.JID]int{}
	}
	b.now[who]++
	return true
}

func (b *busy) leave(who jid.JID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now[who]--; b.now[who] == 0 {
		delete(b.now, who)
	}
}

// query answers XEP-0313 §4: the form to a get, a page to a set.
func (p *part) query(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if answer, named, err := p.nodeAsked(ctx, q); named {
		return answer, err
	}
	if !q.Own() { // one answer for accounts that exist and that do not (RFC 6121 §8.1)
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	if !q.Set() {
		return form(), nil
	}
	if !p.busy.enter(q.Owner) {
		p.metrics.queries.WithLabelValues("refused").Inc()
		return nil, stanza.NewError(stanza.ResourceConstraint, "too many queries at the same time")
	}
	defer p.busy.leave(q.Owner)
	fin, err := p.answer(ctx, q)
	var refusal *stanza.Error
	switch {
	case err == nil:
		p.metrics.queries.WithLabelValues("ok").Inc()
	case errors.As(err, &refusal):
		p.metrics.queries.WithLabelValues("refused").Inc()
	default:
		p.metrics.queries.WithLabelValues("failed").Inc()
	}
	return fin, err
}

func (p *part) answer(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	o, err := p.owners.get(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	want, err := p.parseQuery(q.Query)
	if err != nil {
		return nil, err
	}
	start := p.env.Clock.Now()
	page, err := p.read(ctx, o, want)
	if err != nil {
		return nil, err
	}
	p.metrics.seconds.Observe(p.env.Clock.Now().Sub(start).Seconds())
	order := page.rows
	if want.flip { // §4.3.4: another order, the same page
		order = slices.Clone(order)
		slices.Reverse(order)
	}
	batch := make([]*channel.Envelope, 0, len(order))
	for _, row := range order {
		if row.raw == nil {
			continue
		}
		batch = append(batch, p.result(q, want, row))
	}
	p.reg.Route(ctx, batch...)
	p.fetched(ctx, q.Session, o, page.rows)
	return p.fin(page), nil
}

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

func (p *part) readIn(ctx context.Context, o *owner, q *query) (*page, error) {
	if err := p.exist(ctx, o, q.known); err != nil {
		return nil, err
	}
	pg := &page{complete: true}
	for todo := (&span{q.after, q.before}); todo != nil && pg.complete; {
		some, rest, err := p.spans(ctx, o, q, *todo)
		if err != nil {
			return nil, err
		}
		for _, s := range some {
			if err := p.scan(ctx, o, q, s, pg); err != nil {
				return nil, fmt.Errorf("archive query: %w", err)
			}
			if !pg.complete {
				break
			}
		}
		todo = rest
	}
	if q.backward {
		slices.Reverse(pg.rows)
	}
	return pg, nil
}

// scan adds what a span has to the page, in the order of paging, until it is full.
func (p *part) scan(ctx context.Context, o *owner, q *query, s span, pg *page) error {
	sql, args := q.sql(o, s, q.max+1-len(pg.rows))
	rows, err := p.env.DB.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if len(pg.rows) >= q.max || pg.bytes >= pageBytes {
			pg.complete = false
			break
		}
		r, err := p.message(o, rows)
		if err != nil {
			return err
		}
		pg.rows = append(pg.rows, r)
		pg.bytes += len(r.raw)
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
	if !q.with.IsZero() {
		arg(" AND peer = ", peerKey(q.with.Bare()))
		arg(" AND contact = ", q.with.Bare().String())
		if q.with.IsFull() {
			arg(" AND resource = ", q.with.Resource())
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
func (p *part) exist(ctx context.Context, o *owner, ids []int64) error {
	distinct := slices.Clone(ids)
	slices.Sort(distinct)
	for _, id := range slices.Compact(distinct) {
		var n int
		if err := p.env.DB.QueryRow(ctx, `SELECT COUNT(*) FROM archive WHERE owner = $1 AND id = $2`, o.id, id).Scan(&n); err != nil {
			return fmt.Errorf("archive query: %w", err)
		}
		if n == 0 {
			return errNotFound()
		}
	}
	return nil
}

// result is one message of a page (§4.2): the stored bytes between fixed ones.
// It takes the road of the answer that follows, so that it arrives before it.
func (p *part) result(q *processor.IQ, want *query, r row) *channel.Envelope {
	result := stanza.El(NS, "result").WithOpt("queryid", want.queryID).With("id", p.mask.Encode(r.id)).
		Add(stanza.El(stanza.NSForward, "forwarded").
			Add(stanza.El(stanza.NSDelay, "delay").With("stamp", timeOf(r.id).Format(stampLayout))).
			AddRaw(r.raw))
	st := stanza.Make(stanza.Message, "", q.Owner, q.From, "", result)
	to := &stanza.Stanza{Kind: stanza.Message, From: q.To, To: q.From}
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: to, Replay: true, Solicited: true, Private: true}
}

// fetched counts pending messages of the page as taken, unless the device's
// priority is negative: such a one never consumes (design: Pending).
func (p *part) fetched(ctx context.Context, s *sessions.Entry, o *owner, rows []row) {
	if len(rows) == 0 || s.Available && s.Priority < 0 {
		return
	}
	ids, err := storage.All(ctx, p.env.DB, func(s storage.Row) (id int64, err error) {
		err = s.Scan(&id)
		return id, err
	}, `SELECT id FROM archive_pending WHERE owner = $1 AND id BETWEEN $2 AND $3 ORDER BY id LIMIT $4`,
		o.id, rows[0].id, rows[len(rows)-1].id, p.cfg.MaxPending)
	if err != nil {
		p.env.Log.Warn("fetched messages stay pending", "owner", o.jid.String(), "err", err)
		return
	}
	ids = slices.DeleteFunc(ids, func(id int64) bool {
		_, ok := slices.BinarySearchFunc(rows, id, func(r row, id int64) int { return int(min(max(r.id-id, -1), 1)) })
		return !ok
	})
	if len(ids) > 0 {
		p.acks.add(o, ids...)
	}
}

// fin ends the results (§4.3): what a client needs to ask for the next page.
func (p *part) fin(pg *page) *stanza.Element {
	set := stanza.El(nsRSM, "set")
	if n := len(pg.rows); n > 0 {
		set.Add(
			stanza.El(nsRSM, "first").AddText(p.mask.Encode(pg.rows[0].id)),
			stanza.El(nsRSM, "last").AddText(p.mask.Encode(pg.rows[n-1].id)),
		)
	}
	fin := stanza.El(NS, "fin").Add(set)
	if pg.complete {
		fin.With("complete", "true")
	}
	return fin
}

// metadata is §5: where the archive begins and ends.
func (p *part) metadata(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Own() {
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	if q.Set() {
		return nil, badRequest("metadata is asked for with get")
	}
	o, err := p.owners.get(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	return p.ends(ctx, o)
}

// ends is <metadata/>.
func (a *Archive) ends(ctx context.Context, o *owner) (*stanza.Element, error) {
	el := stanza.El(NS, "metadata")
	for _, end := range [...]struct{ name, sql string }{
		{"start", `SELECT id FROM archive WHERE owner = $1 ORDER BY id LIMIT 1`},
		{"end", `SELECT id FROM archive WHERE owner = $1 ORDER BY id DESC LIMIT 1`},
	} {
		var id int64
		err := a.env.DB.QueryRow(ctx, end.sql, o.id).Scan(&id)
		if errors.Is(err, storage.ErrNoRows) {
			return el, nil
		}
		if err != nil {
			return nil, fmt.Errorf("archive metadata: %w", err)
		}
		el.Add(stanza.El(NS, end.name).With("id", a.mask.Encode(id)).With("timestamp", timeOf(id).Format(stampLayout)))
	}
	return el, nil
}
