package atrest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/storage"
)

// Rows are rewritten in the order of their primary keys, a few at a time, with
// rests in between that are longer than the work: senders wait for the same
// disk. How far it is is committed with the rows, so a stop or a crash in the
// middle costs nothing.
const (
	stepRows  = 250
	stepBytes = 1 << 20
	restTimes = 3 // as long as the step took
	restLeast = 5 * time.Millisecond
	retry     = time.Minute // after the database did not answer
	logEvery  = 10 * time.Second
	logRows   = 20 // damaged rows that one pass names
)

// sealed is a Table with its statements.
type sealed struct {
	Table
	update             storage.Stmt
	sqlSome, sqlCount  string
	sqlEnd, sqlEndFrom string
	sqlRows            [4]string // from the start or not (1), to the end or not (2)
}

// saveProgress fails when another server has written to the book since.
var saveProgress = storage.Stmt{Name: "atrest.progress", SQL: sqlSave, Idempotent: true, Must: true}

func newSealed(t Table) *sealed {
	cols, n := strings.Join(t.Row, ", "), len(t.Row)
	values := func(from int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("$%d", from+i))
		}
		return "(" + strings.Join(out, ", ") + ")"
	}
	s := &sealed{
		Table:    t,
		sqlSome:  fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM %s WHERE %s = $1 LIMIT $2) AS needing`, t.Name, t.KeyID),
		sqlCount: fmt.Sprintf(`SELECT %s, COUNT(*) FROM %s WHERE %s IS NOT NULL GROUP BY %s`, t.KeyID, t.Name, t.Content, t.KeyID),
		sqlEnd:   fmt.Sprintf(`SELECT %s FROM %s ORDER BY %s LIMIT 1 OFFSET %d`, cols, t.Name, cols, stepRows-1),
		sqlEndFrom: fmt.Sprintf(`SELECT %s FROM %s WHERE (%s) > %s ORDER BY %s LIMIT 1 OFFSET %d`,
			cols, t.Name, cols, values(1), cols, stepRows-1),
		// Plain values; whoever changed the row meanwhile wins.
		update: storage.Stmt{Name: "atrest.rewrite", Idempotent: true, SQL: fmt.Sprintf(
			`UPDATE %s SET %s = $1, %s = $2 WHERE %s = $3 AND (%s) = %s`, t.Name, t.Content, t.KeyID, t.KeyID, cols, values(4))},
	}
	for i := range s.sqlRows {
		q := fmt.Sprintf(`SELECT %s, %s, %s FROM %s WHERE %s <> $1 AND %s IS NOT NULL`, cols, t.KeyID, t.Content, t.Name, t.KeyID, t.Content)
		arg := 2
		if i&1 != 0 {
			q += fmt.Sprintf(` AND (%s) > %s`, cols, values(arg))
			arg += n
		}
		if i&2 != 0 {
			q += fmt.Sprintf(` AND (%s) <= %s`, cols, values(arg))
		}
		s.sqlRows[i] = q + " ORDER BY " + cols
	}
	return s
}

// run rewrites whenever it is woken, until ctx is done.
func (r *Rotation) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		err := r.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errOvertaken): // whoever overtook goes on, or is gone by then
			r.set(func(j *Job) { j.State = Waiting })
			r.clock.AfterFunc(retry, r.kick)
		case err != nil:
			r.log.Warn("rows not brought to the encryption key in force; another try follows", "err", err)
			r.set(func(j *Job) { j.State = Stuck })
			r.clock.AfterFunc(retry, r.kick)
		}
	}
}

func (r *Rotation) set(f func(*Job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.job)
}

// pass goes over all tables, from where the last one ended, until a whole round
// finds no row of another key: servers that read the keys file later, or never,
// have written some behind its back.
func (r *Rotation) pass(ctx context.Context) error {
	b, err := readBook(ctx, r.db)
	if err != nil {
		return err
	}
	target := r.Vault.Current()
	switch {
	case b.rows.Target != target:
		return errOvertaken
	case !b.rows.Open:
		return nil
	}
	p := &pass{Rotation: r, target: target, book: b, begun: r.clock.Now(), damaged: b.rows.Damaged}
	p.logged = p.begun
	r.set(func(j *Job) { *j = Job{State: Working} })
	r.metrics.working.Set(1)
	defer r.metrics.working.Set(0)
	r.log.Info("rows are brought to the encryption key in force", "key", target, "resumed", b.rows.Table != "")
	from := max(slices.IndexFunc(r.tables, func(t *sealed) bool { return t.Name == b.rows.Table }), 0)
	after := b.rows.After
	for whole := after == nil; ; whole = true {
		before := p.rows
		for _, t := range r.tables[from:] {
			if err := p.table(ctx, t, after); err != nil {
				return err
			}
			after = nil
		}
		if p.damaged > 0 || whole && p.rows == before {
			return p.end(ctx)
		}
		from = 0
	}
}

// pass is one of them.
type pass struct {
	*Rotation
	target        int64
	book          book // as this pass has left it
	begun, logged time.Time
	rows, damaged int64
}

func (p *pass) table(ctx context.Context, t *sealed, after []int64) error {
	p.set(func(j *Job) { j.Table = t.Name })
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := p.clock.Now()
		next, err := p.step(ctx, t, after)
		if err != nil {
			return fmt.Errorf("rewrite %s: %w", t.Name, err)
		}
		if next == nil {
			return nil
		}
		after = next
		now := p.clock.Now()
		if now.Sub(p.logged) >= logEvery {
			p.logged = now
			p.log.Info("rows are brought to the encryption key in force", "key", p.target, "table", t.Name, "rows", p.rows)
		}
		if !p.rest(ctx, max(restTimes*now.Sub(start), restLeast)) {
			return ctx.Err()
		}
	}
}

// rest is false when ctx is done before it is over.
func (p *pass) rest(ctx context.Context, d time.Duration) bool {
	over := make(chan struct{})
	stop := p.clock.AfterFunc(d, func() { close(over) })
	select {
	case <-over:
		return true
	case <-ctx.Done():
		stop()
		return false
	}
}

// step rewrites what is among the next rows; next is the last that was looked
// at, nil at the end of the table.
func (p *pass) step(ctx context.Context, t *sealed, after []int64) (next []int64, err error) {
	found, next, err := p.look(ctx, t, after)
	if err != nil || len(found) == 0 {
		return next, err
	}
	var w storage.WriteSet
	for _, f := range found {
		if stored, ok := p.renew(t, f); ok {
			w.Add(&t.update, append([]any{stored, p.target, f.key}, anys(f.at)...)...)
		}
	}
	n := int64(w.Len())
	now := progress{Target: p.target, Open: true, Opened: p.book.rows.Opened, Table: t.Name, After: found[len(found)-1].at, Damaged: p.damaged}.encode()
	w.Add(&saveProgress, now, bookRows, p.book.text)
	if err := p.whileInForce(func() error { return p.db.Commit(ctx, &w) }); err != nil {
		if errors.Is(err, storage.ErrStale) {
			err = errOvertaken
		}
		return nil, err
	}
	p.book.text = now
	p.rows += n
	p.metrics.rewritten.Add(float64(n))
	p.set(func(j *Job) { j.Rows, j.Damaged = p.rows, p.damaged })
	return next, nil
}

// look returns the rows of other keys among the next ones, and the last row that
// it looked at; nil: those were the last.
func (p *pass) look(ctx context.Context, t *sealed, after []int64) (out []found, next []int64, err error) {
	if next, err = p.window(ctx, t, after); err != nil {
		return nil, nil, err
	}
	out, cut, err := p.read(ctx, t, after, next)
	if cut {
		next = out[len(out)-1].at
	}
	return out, next, err
}

// whileInForce keeps the book from being overwritten by a pass whose key is
// not in force any more.
func (p *pass) whileInForce(f func() error) error {
	p.change.Lock()
	defer p.change.Unlock()
	if p.Vault.Current() != p.target {
		return errOvertaken
	}
	return f()
}

// window is the row that ends a step; nil: there are fewer left.
func (p *pass) window(ctx context.Context, t *sealed, after []int64) ([]int64, error) {
	sql := t.sqlEnd
	if after != nil {
		sql = t.sqlEndFrom
	}
	end := make([]int64, len(t.Row))
	err := p.db.QueryRow(ctx, sql, anys(after)...).Scan(pointers(end)...)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	return end, err
}

// found is a row of another key.
type found struct {
	at     []int64
	key    int64
	stored []byte
}

// read returns them; cut says that there are more up to the end than a step takes.
func (p *pass) read(ctx context.Context, t *sealed, after, end []int64) (out []found, cut bool, err error) {
	args, which := []any{p.target}, 0
	if after != nil {
		args, which = append(args, anys(after)...), which|1
	}
	if end != nil {
		args, which = append(args, anys(end)...), which|2
	}
	rows, err := p.db.Query(ctx, t.sqlRows[which], args...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		if size >= stepBytes {
			return out, true, nil
		}
		f := found{at: make([]int64, len(t.Row))}
		if err := rows.Scan(append(pointers(f.at), &f.key, &f.stored)...); err != nil {
			return nil, false, err
		}
		out, size = append(out, f), size+len(f.stored)
	}
	return out, false, rows.Err()
}

// renew seals a row with the key in force; false when it does not open.
func (p *pass) renew(t *sealed, f found) ([]byte, bool) {
	plain, err := p.Vault.Open(&t.Table, f.key, f.stored, f.at...)
	if err != nil {
		if p.damaged++; p.damaged <= logRows {
			p.log.Error("row cannot be opened, and keeps its key", "err", err)
		}
		return nil, false
	}
	if p.target == 0 {
		return plain, true
	}
	k := p.Vault.load().find(p.target)
	if k == nil { // overtaken; the commit will say so
		return nil, false
	}
	return k.sealRow(&t.Table, plain, f.at), true
}

func (p *pass) end(ctx context.Context) error {
	p.metrics.damaged.Set(float64(p.damaged))
	if p.damaged > 0 {
		p.set(func(j *Job) { j.State = Stuck })
		p.log.Error("rows keep their old encryption key because they cannot be opened", "key", p.target, "rows", p.damaged)
		return p.whileInForce(func() error { // from the beginning, the next time
			n, err := p.db.Exec(ctx, sqlSave, progress{Target: p.target, Open: true, Opened: p.book.rows.Opened}.encode(), bookRows, p.book.text)
			if err == nil && n == 0 {
				err = errOvertaken
			}
			return err
		})
	}
	if err := p.whileInForce(func() error { return p.Rotation.close(ctx, p.book) }); err != nil {
		return err
	}
	p.set(func(j *Job) { j.State, j.Table = Done, "" })
	p.log.Info("every row is of the encryption key in force", "key", p.target, "rows", p.rows, "took", p.clock.Now().Sub(p.begun))
	return nil
}

func anys(v []int64) []any {
	out := make([]any, len(v))
	for i, x := range v {
		out[i] = x
	}
	return out
}

func pointers(v []int64) []any {
	out := make([]any, len(v))
	for i := range v {
		out[i] = &v[i]
	}
	return out
}
