package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
)

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

// ask is a request to an archive; access was checked.
type ask struct {
	*stanza.Stanza // the IQ
	query          *stanza.Element
	of             jid.JID                 // whose archive, bare
	with           func(jid.JID) party     // what the addresses in it are
	show           func(raw []byte) []byte // makes a message what this asker may see of it; nil: as it is
	read           func(*owner, []row)     // hears what the page was; nil: nobody does
}

// query answers XEP-0313 §4 for accounts.
func (p *part) query(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if answer, named, err := p.nodeAsked(ctx, q); named {
		return answer, err
	}
	if !q.Own() { // one answer for accounts that exist and that do not (RFC 6121 §8.1)
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	return p.asked(ctx, &ask{
		Stanza: q.Stanza, query: q.Query, of: q.Owner, with: contactParty,
		read: func(o *owner, rows []row) { p.fetched(ctx, q.Session, o, rows) },
	})
}

// asked answers XEP-0313 §4: the form to a get, a page to a set.
func (p *part) asked(ctx context.Context, q *ask) (*stanza.Element, error) {
	if q.Type == stanza.TypeGet {
		return p.form(), nil
	}
	who := q.From.Bare()
	if !p.busy.enter(who) {
		p.metrics.queries.WithLabelValues("refused").Inc()
		return nil, stanza.NewError(stanza.ResourceConstraint, "too many queries at the same time")
	}
	defer p.busy.leave(who)
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

func (p *part) answer(ctx context.Context, q *ask) (*stanza.Element, error) {
	o, err := p.owners.get(ctx, q.of)
	if err != nil {
		return nil, err
	}
	want, err := p.parseQuery(q.query, q.with)
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
	if want.flip != want.desc { // §4.3.4: another order, the same page
		order = slices.Clone(order)
		slices.Reverse(order)
	}
	batch := make([]*channel.Envelope, 0, len(order))
	for _, row := range order {
		if row.raw == nil {
			continue
		}
		if q.show != nil {
			if row.raw = q.show(row.raw); row.raw == nil {
				continue
			}
		}
		batch = append(batch, p.result(q, want, row))
	}
	p.reg.Route(ctx, batch...)
	if q.read != nil {
		q.read(o, page.rows)
	}
	return p.fin(page, want.desc), nil
}

// result is one message of a page (§4.2): the stored bytes between fixed ones.
// It takes the road of the answer that follows, so that it arrives before it.
func (p *part) result(q *ask, want *query, r row) *channel.Envelope {
	st := stanza.Make(stanza.Message, "", q.of, q.From, "", p.resultOf(want.queryID, r))
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
func (a *Archive) fin(pg *page, desc bool) *stanza.Element {
	at := rsm.Page{Index: -1, Count: -1}
	if n := len(pg.rows); n > 0 {
		at.First, at.Last = a.mask.Encode(pg.rows[0].id), a.mask.Encode(pg.rows[n-1].id)
		if desc {
			at.First, at.Last = at.Last, at.First
		}
	}
	fin := stanza.El(NS, "fin").Add(at.Element())
	if pg.complete {
		fin.With("complete", "true")
	}
	return fin
}

// ownMetadata is metadata of an account.
func (p *part) ownMetadata(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Own() {
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	o, err := p.owners.get(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	return p.metadata(ctx, q.Stanza, o)
}

// metadata is §5: where the archive begins and ends.
func (a *Archive) metadata(ctx context.Context, q *stanza.Stanza, o *owner) (*stanza.Element, error) {
	if q.Type != stanza.TypeGet {
		return nil, badRequest("metadata is asked for with get")
	}
	return a.ends(ctx, o)
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
