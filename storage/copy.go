package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Copied is a table that was copied and compared.
type Copied struct {
	Table    string        `json:"table"`
	Rows     int64         `json:"rows"`
	Checksum string        `json:"checksum"` // of the rows in any order
	Took     time.Duration `json:"took"`     // copying and comparing
}

// Errors of Copy that do not mean that nothing was written; what is returned
// wraps them.
var (
	// ErrCopied: all rows are on the target; what came afterwards failed.
	ErrCopied = errors.New("every row was copied and compared, but what follows it failed")
	// ErrCopyUnknown: there was no answer to COMMIT. Either all rows are there or none.
	ErrCopyUnknown = errors.New("no answer to the commit: the target has all rows or none")
)

// copyReport is the number of rows between two reports.
const copyReport = 20_000

// Copy fills the Postgres to, whose tables have to be there and empty, with
// what is in the SQLite database from. It is all or nothing: one transaction
// on to, which commits after every table was read back and has the same rows
// (a checksum over typed values); meanwhile nobody can write to from. progress
// gets the rows of a table so far and the time since its start. After an error
// the target is empty, except after ErrCopied, with which the tables are
// returned, and perhaps after ErrCopyUnknown.
func Copy(ctx context.Context, from, to DB, progress func(table string, rows int64, took time.Duration)) ([]Copied, error) {
	dst, ok := to.(*pgDB)
	if !ok || from.Dialect() != SQLite {
		return nil, errors.New("copy: only from SQLite to Postgres")
	}
	conn, err := dst.patient(ctx)
	if err != nil {
		return nil, fmt.Errorf("copy: %w", pgError(err))
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var out []Copied
	committed := false
	err = from.Tx(ctx, func(src Tx) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return pgError(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		c := copier{src: src, tx: tx, progress: progress}
		if out, err = c.run(ctx); err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return uncommitted(err)
		}
		committed = true
		return nil
	})
	if !committed {
		return nil, fmt.Errorf("copy: %w", err)
	}
	if err == nil {
		_, err = conn.Exec(ctx, `ANALYZE`) // the planner knows nothing of the rows yet
	}
	if err != nil {
		return out, fmt.Errorf("copy: %w: %w", ErrCopied, pgError(err))
	}
	return out, nil
}

// uncommitted marks what a failed COMMIT leaves open: Postgres has said that it
// did nothing, or it never got that far, or nobody knows.
func uncommitted(err error) error {
	var pe *pgconn.PgError
	if errors.Is(err, pgx.ErrTxCommitRollback) || pgconn.SafeToRetry(err) || errors.As(err, &pe) && pe.SeverityUnlocalized == "ERROR" {
		return pgError(err)
	}
	return fmt.Errorf("%w: %w", ErrCopyUnknown, pgError(err))
}

// patient connects without the limits that keep a server's statements short.
func (d *pgDB) patient(ctx context.Context) (*pgx.Conn, error) {
	cfg := d.cfg.Copy()
	for _, limit := range []string{"idle_in_transaction_session_timeout", "statement_timeout"} {
		cfg.RuntimeParams[limit] = "0"
	}
	return pgx.ConnectConfig(ctx, cfg)
}

type copier struct {
	src      Tx
	tx       pgx.Tx
	progress func(table string, rows int64, took time.Duration)
}

func (c *copier) run(ctx context.Context) ([]Copied, error) {
	tables, err := c.agreed(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Copied, 0, len(tables))
	for _, t := range tables {
		start := time.Now()
		sent, err := c.send(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		got, err := c.read(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("read %s back: %w", t.name, err)
		}
		if !sent.equal(got) {
			return nil, fmt.Errorf("%s differs after copying: %d rows (%s) sent, %d (%s) there", t.name, sent.rows, sent.text(), got.rows, got.text())
		}
		if err := c.sequences(ctx, t); err != nil {
			return nil, fmt.Errorf("sequences of %s: %w", t.name, err)
		}
		out = append(out, Copied{Table: t.name, Rows: sent.rows, Checksum: sent.text(), Took: time.Since(start)})
	}
	return out, nil
}

// agreed returns the tables, which must be the same on both sides, and empty
// and out of others' reach on the target.
func (c *copier) agreed(ctx context.Context) ([]table, error) {
	from, err := tablesOf(ctx, c.src, SQLite)
	if err != nil {
		return nil, err
	}
	to, err := tablesOf(ctx, pgTx{tx: c.tx}, Postgres)
	if err != nil {
		return nil, err
	}
	there := map[string]table{}
	for _, t := range to {
		there[t.name] = t
		if _, err := c.tx.Exec(ctx, `LOCK TABLE `+quoted(t.name)+` IN EXCLUSIVE MODE`); err != nil {
			return nil, pgError(err)
		}
		var rows bool
		if err := c.tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM `+quoted(t.name)+`)`).Scan(&rows); err != nil {
			return nil, pgError(err)
		}
		if rows {
			return nil, fmt.Errorf("%w: the target's table %s is not empty", ErrConflict, t.name)
		}
	}
	for _, t := range from {
		o, ok := there[t.name]
		if !ok {
			return nil, fmt.Errorf("the target has no table %s", t.name)
		}
		if !slices.Equal(t.columns, o.columns) {
			return nil, fmt.Errorf("table %s has other columns on the target: %s there, %s here", t.name, strings.Join(o.names(), ", "), strings.Join(t.names(), ", "))
		}
	}
	return from, nil
}

// send streams a table.
func (c *copier) send(ctx context.Context, t table) (*digest, error) {
	rows, err := c.src.Query(ctx, t.all())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	s := &sending{rows: rows, table: t, start: time.Now(), progress: c.progress}
	if _, err := c.tx.CopyFrom(ctx, pgx.Identifier{t.name}, t.names(), s); err != nil {
		return nil, pgError(err)
	}
	c.progress(t.name, s.digest.rows, time.Since(s.start))
	return &s.digest, nil
}

// sending is the rows on their way.
type sending struct {
	rows     Rows
	table    table
	values   []any
	err      error
	digest   digest
	start    time.Time
	progress func(table string, rows int64, took time.Duration)
}

var _ pgx.CopyFromSource = (*sending)(nil)

// Next implements pgx.CopyFromSource.
func (s *sending) Next() bool {
	if s.err != nil || !s.rows.Next() {
		return false
	}
	s.values = make([]any, len(s.table.columns))
	into := make([]any, len(s.values))
	for i := range s.values {
		into[i] = &s.values[i]
	}
	if s.err = s.rows.Scan(into...); s.err == nil {
		s.err = s.table.typed(s.values)
	}
	if s.err != nil {
		return false
	}
	s.digest.add(s.values)
	if s.digest.rows%copyReport == 0 {
		s.progress(s.table.name, s.digest.rows, time.Since(s.start))
	}
	return true
}

// Values implements pgx.CopyFromSource.
func (s *sending) Values() ([]any, error) { return s.values, nil }

// Err implements pgx.CopyFromSource.
func (s *sending) Err() error { return errors.Join(s.err, s.rows.Err()) }

// read takes the checksum of what the target holds.
func (c *copier) read(ctx context.Context, t table) (*digest, error) {
	rows, err := c.tx.Query(ctx, t.all())
	if err != nil {
		return nil, pgError(err)
	}
	defer rows.Close()
	d := &digest{}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return nil, pgError(err)
		}
		if err := t.typed(values); err != nil {
			return nil, err
		}
		d.add(values)
	}
	return d, pgError(rows.Err())
}

// sequences continue after the highest number that was ever given: SQLite
// remembers it for AUTOINCREMENT (https://sqlite.org/autoinc.html).
func (c *copier) sequences(ctx context.Context, t table) error {
	for _, col := range t.columns {
		if col.kind != integerColumn {
			continue
		}
		var seq *string
		if err := c.tx.QueryRow(ctx, `SELECT pg_get_serial_sequence($1, $2)`, quoted(t.name), col.name).Scan(&seq); err != nil {
			return pgError(err)
		}
		if seq == nil {
			continue
		}
		var highest int64
		if err := c.src.QueryRow(ctx, `SELECT max(coalesce((SELECT max(`+quoted(col.name)+`) FROM `+quoted(t.name)+`), 0),
			coalesce((SELECT seq FROM sqlite_sequence WHERE name = $1), 0))`, t.name).Scan(&highest); err != nil {
			return err
		}
		if highest > 0 {
			if _, err := c.tx.Exec(ctx, `SELECT setval($1::text::regclass, $2)`, *seq, highest); err != nil {
				return pgError(err)
			}
		}
	}
	return nil
}
