package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/storage"
)

// The index of what messages say (XEP-0431) is built behind the commits: a message
// has many more words than rows, and nobody is to wait for them. archive_owner has
// up to where an archive is indexed, which is committed with the index's own rows:
// a stop or a crash costs nothing. What is newer is read through by who searches.
//
//	touch   a row is about to be stored
//	turn    of what was touched a while ago, the rows that must be there by now
//	round   the same for all archives: at the start, when it is the backfill of
//	        an archive that is older than its index, and now and then
//
// While messages are encrypted at rest the index has no words, only the ids that
// messages are retracted by and whom they are with.
const (
	indexEvery = commitLimit // a turn
	indexRows  = 100         // of a step
	indexPairs = 64          // of an insert
	indexOpen  = 100_000     // owners that wait for their turn; those beyond, for the round
	indexRetry = 5 * time.Second
	indexLog   = 10 * time.Second
)

// index are the owners that wait.
type index struct {
	mu   sync.Mutex
	ripe map[int64]struct{} // their turn comes
	new  map[int64]struct{} // and the next one
}

func newIndex() *index { return &index{new: map[int64]struct{}{}} }

// touch lets an owner have a turn when its row is there.
func (x *index) touch(owner int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.new) < indexOpen {
		x.new[owner] = struct{}{}
	}
}

// turn are the owners that were touched before the last one.
func (x *index) turn() map[int64]struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.ripe
	x.ripe, x.new = x.new, map[int64]struct{}{}
	return now
}

// searches reports whether what messages say can be searched.
func (a *Archive) searches() bool { return !a.env.AtRest.On() }

// keepIndex indexes until ctx is done.
func (p *part) keepIndex(ctx context.Context) {
	turn, round := make(chan struct{}, 1), make(chan struct{}, 1)
	defer p.every(indexEvery, turn)()
	defer p.every(p.cfg.Expiry, round)()
	round <- struct{}{}
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-turn:
			for id := range p.index.turn() {
				if _, err = p.indexOwner(ctx, id); err != nil {
					p.index.touch(id)
					break
				}
			}
		case <-round:
			if err = p.indexAll(ctx); err != nil {
				p.env.Clock.AfterFunc(indexRetry, func() {
					select {
					case round <- struct{}{}:
					default:
					}
				})
			}
		}
		if err != nil && ctx.Err() == nil {
			p.env.Log.Warn("archive not indexed; it goes on later", "err", err)
		}
	}
}

// behind are owners with rows that the index should have by then.
const behind = `SELECT id, jid FROM archive_owner o WHERE id > $1
	AND EXISTS (SELECT 1 FROM archive a WHERE a.owner = o.id AND a.id > o.indexed AND a.id <= $2) ORDER BY id LIMIT $3`

// indexAll goes through all owners once.
func (p *part) indexAll(ctx context.Context) error {
	if err := p.indexKind(ctx); err != nil {
		return err
	}
	rows, logged := 0, p.env.Clock.Now()
	for last := int64(0); ; {
		type named struct {
			id  int64
			jid string
		}
		some, err := storage.All(ctx, p.env.DB, func(s storage.Row) (n named, err error) {
			err = s.Scan(&n.id, &n.jid)
			return n, err
		}, behind, last, p.settledID(), ownersStep)
		if err != nil {
			return fmt.Errorf("archive index: %w", err)
		}
		for _, n := range some {
			last = n.id
			if !p.env.Owns(n.jid) {
				continue
			}
			done, err := p.indexOwner(ctx, n.id)
			rows += done
			if err != nil {
				return err
			}
			if now := p.env.Clock.Now(); now.Sub(logged) >= indexLog {
				logged = now
				p.env.Log.Info("the archive is being indexed", "rows", rows, "owner", n.id)
			}
		}
		if len(some) < ownersStep {
			if rows > indexRows {
				p.env.Log.Info("the archive is indexed", "rows", rows)
			}
			return nil
		}
	}
}

// settledID is up to where all rows are there.
func (a *Archive) settledID() int64 { return idAt(a.env.Clock.Now().Add(-commitLimit)) - 1 }

// indexKind begins anew when messages are encrypted now and were not, or the other
// way: words must not stay.
func (p *part) indexKind(ctx context.Context) error {
	words := p.searches()
	var has bool
	err := p.env.DB.QueryRow(ctx, `SELECT words FROM archive_index WHERE id = 1`).Scan(&has)
	switch {
	case err == nil && has == words:
		return nil
	case err != nil && !errors.Is(err, storage.ErrNoRows):
		return fmt.Errorf("archive index: %w", err)
	}
	clear := map[storage.Dialect]string{storage.SQLite: `DELETE FROM archive_word`, storage.Postgres: `TRUNCATE archive_word`}
	if _, err := p.env.DB.Exec(ctx, clear[p.env.DB.Dialect()]); err != nil {
		return fmt.Errorf("archive index: %w", err)
	}
	var w storage.WriteSet
	w.Add(&indexAnew)
	w.Add(&indexSays, words)
	if err := p.env.DB.Commit(ctx, &w); err != nil {
		return fmt.Errorf("archive index: %w", err)
	}
	return nil
}

var (
	indexAnew = storage.Stmt{Name: "archive.index.anew", SQL: `UPDATE archive_owner SET indexed = 0 WHERE indexed > 0`, Idempotent: true}
	indexSays = storage.Stmt{Name: "archive.index.kind", SQL: `INSERT INTO archive_index (id, words) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET words = excluded.words`, Idempotent: true}
)

// indexOwner indexes the rows of an owner that must be there by now, and returns
// how many.
func (p *part) indexOwner(ctx context.Context, owner int64) (rows int, err error) {
	for {
		start := p.env.Clock.Now()
		n, err := p.indexStep(ctx, owner)
		rows += n
		p.metrics.indexed.Add(float64(n))
		if err != nil || n < indexRows {
			return rows, err
		}
		if !p.rest(ctx, p.env.Clock.Now().Sub(start)) { // others wait for the same disk
			return rows, ctx.Err()
		}
	}
}

// rest is false when ctx is done before it is over.
func (p *part) rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	over := make(chan struct{})
	stop := p.env.Clock.AfterFunc(d, func() { close(over) })
	select {
	case <-over:
		return true
	case <-ctx.Done():
		stop()
		return false
	}
}

// indexStep indexes the next rows, and applies the retractions among them that were
// not applied when they were stored.
func (p *part) indexStep(ctx context.Context, owner int64) (n int, err error) {
	err = p.env.DB.Tx(ctx, func(tx storage.Tx) error {
		rows, err := p.storedAll(ctx, tx, owner, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND id > (SELECT indexed FROM archive_owner WHERE id = $1) AND id <= $2 ORDER BY id LIMIT $3`,
			owner, p.settledID(), indexRows)
		n = len(rows)
		if err != nil || n == 0 {
			return err
		}
		var postings [][2]int64
		for _, r := range rows {
			if r.st == nil {
				continue
			}
			for _, t := range terms(r.st, r.peer, p.searches()) {
				postings = append(postings, [2]int64{t, r.id})
			}
		}
		if err := insertWords(ctx, tx, owner, postings); err != nil {
			return err
		}
		for _, r := range rows {
			if r.st == nil || retracts(r.st) == "" {
				continue
			}
			if err := p.retractIn(ctx, tx, owner, &r); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE archive_owner SET indexed = $2 WHERE id = $1`, owner, rows[n-1].id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("archive index: %w", err)
	}
	return n, nil
}

// retractIn is retract within a transaction.
func (a *Archive) retractIn(ctx context.Context, tx storage.Tx, owner int64, by *stored) error {
	var w []func() error
	if _, err := a.retract(ctx, tx, owner, by, func(s *storage.Stmt, args ...any) {
		w = append(w, func() error { _, err := tx.Exec(ctx, s.SQL, args...); return err })
	}); err != nil {
		return err
	}
	for _, do := range w {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// termsOf are a stored row's; none when it is damaged.
func (a *Archive) termsOf(raw []byte, peer int64) []int64 {
	st, err := stanza.Parse(raw, stanza.NSClient, a.jids)
	if err != nil {
		return nil
	}
	return terms(st, peer, a.searches())
}

// insertWords writes many at a time, always as many: one text, the last one again
// and again.
func insertWords(ctx context.Context, tx storage.Tx, owner int64, postings [][2]int64) error {
	sql := insertWordsSQL()
	for len(postings) > 0 {
		args := []any{owner}
		for i := range indexPairs {
			x := postings[min(i, len(postings)-1)]
			args = append(args, x[0], x[1])
		}
		if _, err := tx.Exec(ctx, sql, args...); err != nil {
			return err
		}
		postings = postings[min(indexPairs, len(postings)):]
	}
	return nil
}

func insertWordsSQL() string {
	var b strings.Builder
	b.WriteString("INSERT INTO archive_word (owner, word, id) VALUES ")
	for i := range indexPairs {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "($1, $%d, $%d)", 2*i+2, 2*i+3)
	}
	b.WriteString(" ON CONFLICT DO NOTHING")
	return b.String()
}
