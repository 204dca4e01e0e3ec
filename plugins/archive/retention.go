package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"parley/parser/jid"
	"parley/processor"
	"parley/storage"
)

// Rows end in small steps, so that nobody waits for a large one.
const (
	expireStep  = 500
	expireWords = 3000 // of the index, taken out in one step, about
	ownersStep  = 200
	pruneQueue  = 64        // owners over their quota that wait; others are found at the next round
	goneFor     = time.Hour // how long after an account's end rows of it may still come in
)

// counts counts a row that was stored, and asks for the oldest ones to go when it
// is one too many.
func (p *part) counts(o *owner) {
	if p.cfg.Quota == 0 || o.rows.Add(1) <= int64(p.cfg.Quota) {
		return
	}
	select {
	case p.prune <- o:
	default:
	}
}

// expire removes what is too old or too much, until ctx is done. Only the
// oldest rows go, and none behind one that waits for its recipient: an archive
// has no holes (XEP-0313 §3.2).
func (p *part) expire(ctx context.Context) {
	round := make(chan struct{}, 1)
	defer p.every(p.cfg.Expiry, round)()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-round:
			err = errors.Join(p.expireAll(ctx), p.expireAges(ctx), p.sweep(ctx))
		case o := <-p.prune:
			err = p.fit(ctx, o)
		}
		if err != nil && ctx.Err() == nil {
			p.env.Log.Warn("old messages not removed", "err", err)
		}
	}
}

// every rings c again and again.
func (p *part) every(d time.Duration, c chan<- struct{}) (stop func()) {
	done := make(chan struct{})
	var arm func()
	arm = func() {
		p.env.Clock.AfterFunc(d, func() {
			select {
			case <-done:
				return
			case c <- struct{}{}:
			default:
			}
			arm()
		})
	}
	arm()
	return func() { close(done) }
}

// expireAll goes through all owners once.
func (p *part) expireAll(ctx context.Context) error {
	if p.ages.none() && p.cfg.Quota <= 0 {
		return nil
	}
	now := p.env.Clock.Now()
	for last := int64(0); ; {
		type named struct {
			id  int64
			jid string
		}
		some, err := storage.All(ctx, p.env.DB, func(s storage.Row) (n named, err error) {
			err = s.Scan(&n.id, &n.jid)
			return n, err
		}, `SELECT id, jid FROM archive_owner WHERE id > $1 ORDER BY id LIMIT $2`, last, ownersStep)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, n := range some {
			last = n.id
			if !p.env.Owns(n.jid) {
				continue
			}
			if err := p.expireOne(ctx, n.id, n.jid, p.ages.cutoff(n.jid, now)); err != nil {
				return err
			}
		}
	}
}

// expireOne removes what is below the cutoff, and what is beyond the quota then.
func (p *part) expireOne(ctx context.Context, id int64, name string, cutoff int64) error {
	var o *owner // what counts the rows: from before some of them go
	if at, err := jid.Parse(name); err == nil && p.cfg.Quota > 0 {
		if o, err = p.owners.find(ctx, at); err != nil {
			return err
		}
	}
	n, err := p.cut(ctx, id, cutoff, math.MaxInt64)
	if err != nil || o == nil {
		return err
	}
	o.rows.Add(-n)
	return p.fit(ctx, o)
}

// fit brings an archive back to its quota.
func (p *part) fit(ctx context.Context, o *owner) error {
	over := o.rows.Load() - int64(p.cfg.Quota)
	if p.cfg.Quota <= 0 || over <= 0 {
		return nil
	}
	if p.env.Notices != nil { // another node may have removed some, or counted them too
		if err := p.owners.tally(ctx, o); err != nil {
			return fmt.Errorf("archive quota: %w", err)
		}
		if over = o.rows.Load() - int64(p.cfg.Quota); over <= 0 {
			return nil
		}
	}
	n, err := p.cut(ctx, o.id, math.MaxInt64, over)
	o.rows.Add(-n)
	return err
}

// cut removes up to most rows below the id, oldest first, and returns how many.
func (p *part) cut(ctx context.Context, owner, below, most int64) (n int64, err error) {
	first, err := p.oldest(ctx, owner)
	if err != nil || first == 0 {
		return 0, err
	}
	defer func() {
		if n > 0 && err == nil {
			err = p.forgetDays(ctx, owner, first)
		}
	}()
	if below, err = p.free(ctx, owner, below); err != nil {
		return 0, err
	}
	for n < most && ctx.Err() == nil {
		step, err := p.cutStep(ctx, owner, below, min(expireStep, most-n))
		n += step
		p.metrics.expired.Add(float64(step))
		if err != nil || step == 0 {
			return n, err
		}
	}
	return n, ctx.Err()
}

func (p *part) cutStep(ctx context.Context, owner, below, rows int64) (int64, error) {
	some, err := p.storedAll(ctx, p.env.DB, owner, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND id < $2 ORDER BY id LIMIT $3`, owner, below, rows)
	if err != nil {
		return 0, fmt.Errorf("archive expiry: %w", err)
	}
	if len(some) == 0 {
		return 0, nil
	}
	var w storage.WriteSet
	end := int64(0)
	for _, m := range some {
		if w.Len() >= expireWords {
			break
		}
		if m.st != nil {
			for _, t := range terms(m.st, m.peer, p.searches()) {
				w.Add(&deleteWord, owner, t, m.id)
			}
		}
		end = m.id
	}
	w.Add(&deleteRows, owner, end)
	if err := p.env.DB.Commit(ctx, &w); err != nil {
		return 0, fmt.Errorf("archive expiry: %w", err)
	}
	return w.Affected(w.Len() - 1), nil
}

var deleteRows = storage.Stmt{Name: "archive.expire", SQL: `DELETE FROM archive WHERE owner = $1 AND id <= $2`, Idempotent: true}

// What is written when an archive is forgotten.
var forgotten = [...]storage.Stmt{
	{Name: "archive.forget.owner", SQL: `DELETE FROM archive_owner WHERE id = $1`, Idempotent: true},
	{Name: "archive.forget.rules", SQL: `DELETE FROM archive_rule WHERE owner = $1`, Idempotent: true},
	{Name: "archive.forget.ages", SQL: `DELETE FROM archive_age WHERE owner = $1`, Idempotent: true},
	{Name: "archive.forget.pending", SQL: `DELETE FROM archive_pending WHERE owner = $1`, Idempotent: true},
}

var insertGone = storage.Stmt{Name: "archive.gone", SQL: `INSERT INTO archive_gone (owner, at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, Idempotent: true}

// forget lets an archive end: at once for everybody who asks, the rows a little
// later. Whoever gets the name next begins with an empty one. What is remembered
// of it is to be forgotten after the commit (changed).
func (a *Archive) forget(owner int64, store func(*storage.Stmt, ...any)) {
	for i := range forgotten {
		store(&forgotten[i], owner)
	}
	store(&insertGone, owner, a.env.Clock.Now().UnixMicro())
}

// removed forgets an account.
func (p *part) removed(ctx context.Context, bare jid.JID) (processor.Verdict, error) {
	var id int64
	err := p.env.DB.QueryRow(ctx, `SELECT id FROM archive_owner WHERE jid = $1`, bare.String()).Scan(&id)
	if err == nil {
		var w storage.WriteSet
		p.forget(id, w.Add)
		err = p.env.DB.Commit(ctx, &w)
	} else if errors.Is(err, storage.ErrNoRows) {
		err = nil
	}
	p.changed(ctx, bare)
	if err != nil {
		return processor.Continue, fmt.Errorf("archive of %s: %w", bare, err)
	}
	return processor.Continue, nil
}

// sweep removes the rows of accounts that are gone.
func (p *part) sweep(ctx context.Context) error {
	gone, err := storage.All(ctx, p.env.DB, func(s storage.Row) (g [2]int64, err error) {
		err = s.Scan(&g[0], &g[1])
		return g, err
	}, `SELECT owner, at FROM archive_gone ORDER BY owner LIMIT $1`, ownersStep)
	if err != nil {
		return fmt.Errorf("archive sweep: %w", err)
	}
	for _, g := range gone {
		if _, err := p.env.DB.Exec(ctx, `DELETE FROM archive_pending WHERE owner = $1`, g[0]); err != nil {
			return fmt.Errorf("archive sweep: %w", err)
		}
		if _, err := p.cut(ctx, g[0], math.MaxInt64, math.MaxInt64); err != nil {
			return err
		}
		if p.env.Clock.Now().Sub(time.UnixMicro(g[1])) < goneFor {
			continue
		}
		for _, sql := range [...]string{`DELETE FROM archive_day WHERE owner = $1`, `DELETE FROM archive_word WHERE owner = $1`, `DELETE FROM archive_gone WHERE owner = $1`} {
			if _, err := p.env.DB.Exec(ctx, sql, g[0]); err != nil {
				return fmt.Errorf("archive sweep: %w", err)
			}
		}
	}
	return nil
}
