package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/prometheus/client_golang/prometheus"
)

// pgDB is Postgres: a pool for reads and transactions, and a connection of its
// own for group commits, whose statements are pipelined.
type pgDB struct {
	log     *slog.Logger
	metrics *metrics
	pool    *pgxpool.Pool
	cfg     *pgx.ConnConfig
	group   *committer

	closed   atomic.Bool
	patience time.Duration // how long an answer is waited for

	mu   sync.Mutex
	conn *pgx.Conn // the committer's; nil: to be opened
}

func openPostgres(ctx context.Context, c Config, log *slog.Logger, reg prometheus.Registerer) (DB, error) {
	pc, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, errors.New("dsn: not a Postgres connection string") // the cause would show the password
	}
	pc.MaxConns = int32(c.MaxConns)
	set := pc.ConnConfig.RuntimeParams
	set["application_name"] = "parley"
	set["synchronous_commit"] = "on"
	set["statement_timeout"] = ms(c.StatementTimeout)
	set["lock_timeout"] = ms(c.LockTimeout)
	set["idle_in_transaction_session_timeout"] = "1000" // a frozen node must not block its successor
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, pgError(err)
	}
	d := &pgDB{log: log, pool: pool, cfg: pc.ConnConfig.Copy(), patience: c.StatementTimeout + answerMargin}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		if broken(err) {
			return nil, fmt.Errorf("%w: no connection: %w", ErrUnavailable, err)
		}
		return nil, pgError(err)
	}
	d.metrics = newMetrics(reg)
	d.group = newCommitter(d, d.patience, d.metrics, log)
	return d, nil
}

func ms(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// Dialect implements DB.
func (d *pgDB) Dialect() Dialect { return Postgres }

// Query implements Querier. A connection that broke while it lay in the pool
// is replaced once.
func (d *pgDB) Query(ctx context.Context, s string, args ...any) (Rows, error) {
	ctx, cancel := bounded(ctx, d.patience)
	rows, err := d.query(ctx, s, args...)
	if lost(err) && ctx.Err() == nil {
		rows, err = d.query(ctx, s, args...)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	rows.cancel = cancel
	return rows, nil
}

// bounded bounds the wait for an answer: statement_timeout is the server's, and
// one that is frozen, or whose network is gone, keeps none (reliability row 31).
func bounded(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	if patience == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}

// query fetches the first row too: a broken connection shows there.
func (d *pgDB) query(ctx context.Context, s string, args ...any) (*pgRows, error) {
	if d.closed.Load() {
		return nil, ErrClosed
	}
	rows, err := d.pool.Query(ctx, s, args...)
	if err != nil {
		return nil, pgError(err)
	}
	r := &pgRows{Rows: rows}
	r.first = rows.Next()
	if err := rows.Err(); err != nil {
		rows.Close()
		return nil, pgError(err)
	}
	return r, nil
}

// QueryRow implements Querier.
func (d *pgDB) QueryRow(ctx context.Context, s string, args ...any) Row {
	return &lazyRow{ctx, d, s, args}
}

// Exec implements DB.
func (d *pgDB) Exec(ctx context.Context, s string, args ...any) (n int64, err error) {
	ctx, cancel := bounded(ctx, d.patience)
	defer cancel()
	err = d.again(ctx, func() error {
		tag, err := d.pool.Exec(ctx, s, args...)
		n = tag.RowsAffected()
		return pgError(err)
	})
	return n, err
}

// Tx implements DB.
func (d *pgDB) Tx(ctx context.Context, f func(Tx) error) error {
	return d.again(ctx, func() error { return d.once(ctx, f) })
}

func (d *pgDB) once(ctx context.Context, f func(Tx) error) error {
	tx, err := d.begin(ctx)
	if err != nil {
		return notCommitted(pgError(err))
	}
	defer func() {
		ctx, cancel := bounded(context.WithoutCancel(ctx), d.patience)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	if err := f(pgTx{tx, d.patience}); err != nil {
		if lost(err) {
			return notCommitted(err)
		}
		return err
	}
	ctx, cancel := bounded(ctx, d.patience)
	defer cancel()
	return pgError(tx.Commit(ctx))
}

func (d *pgDB) begin(ctx context.Context) (pgx.Tx, error) {
	ctx, cancel := bounded(ctx, d.patience)
	defer cancel()
	return d.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
}

// tries is how often a transaction is run that others got in the way of. Of two that
// begin again at the same moment one fails each time, so they wait for different times.
const (
	tries = 30
	pause = 5 * time.Millisecond // after the first one that failed, longer after each, at most ten times
)

// again repeats what surely was not committed: serialisation failures,
// deadlocks, connections lost before the commit. A database that is away is
// not asked for longer than one answer may take.
func (d *pgDB) again(ctx context.Context, f func() error) error {
	var err error
	began := time.Now()
	for i := range tries {
		if err = f(); err == nil || !errors.Is(err, errNotCommitted) && !conflicting(err) {
			return err
		}
		if lost(err) && time.Since(began) >= d.patience {
			return err
		}
		d.metrics.retries.Inc()
		wait, _ := rand.Int(rand.Reader, big.NewInt(int64(min(i+1, 10))*int64(pause))) // never fails (crypto/rand)
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Duration(wait.Int64())):
		}
	}
	return err
}

type pgTx struct {
	tx       pgx.Tx
	patience time.Duration // of each statement; 0: what it takes
}

func (t pgTx) Query(ctx context.Context, s string, args ...any) (Rows, error) {
	ctx, cancel := bounded(ctx, t.patience)
	rows, err := t.tx.Query(ctx, s, args...)
	if err != nil {
		cancel()
		return nil, pgError(err)
	}
	return &pgRows{Rows: rows, cancel: cancel}, nil
}

func (t pgTx) QueryRow(ctx context.Context, s string, args ...any) Row {
	return &lazyRow{ctx, t, s, args}
}

func (t pgTx) Exec(ctx context.Context, s string, args ...any) (int64, error) {
	ctx, cancel := bounded(ctx, t.patience)
	defer cancel()
	tag, err := t.tx.Exec(ctx, s, args...)
	return tag.RowsAffected(), pgError(err)
}

// Commit implements DB.
func (d *pgDB) Commit(ctx context.Context, w *WriteSet) error { return d.group.commit(ctx, w) }

// Fence implements Fencer.
func (d *pgDB) Fence(may func() bool) { d.group.may.Store(&may) }

// write implements engine. An attempt lasts until the oldest set has waited for
// long enough, but not too short for a database that is just coming back.
func (d *pgDB) write(sets []*submission) (failed int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), max(d.patience-time.Since(sets[0].since), answerMargin))
	defer cancel()
	if d.conn == nil || d.conn.IsClosed() {
		if d.conn, err = pgx.ConnectConfig(ctx, d.cfg); err != nil {
			d.conn = nil
			return -1, notCommitted(pgError(err))
		}
	}
	tx, err := d.conn.Begin(ctx)
	if err != nil {
		return -1, notCommitted(pgError(err))
	}
	if i, err := d.rows(ctx, tx, sets); err != nil {
		_ = tx.Rollback(ctx)
		switch {
		case lost(err):
			return -1, notCommitted(err)
		case conflicting(err):
			return -1, notCommitted(err)
		}
		return i, err
	}
	if err := tx.Commit(ctx); err != nil {
		if conflicting(err) {
			return -1, notCommitted(pgError(err))
		}
		return -1, fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	return -1, nil
}

func (d *pgDB) rows(ctx context.Context, tx pgx.Tx, sets []*submission) (failed int, err error) {
	batch := &pgx.Batch{}
	for _, s := range sets {
		for _, r := range s.set.rows {
			batch.Queue(r.stmt.SQL, s.set.values(r)...)
		}
	}
	results := tx.SendBatch(ctx, batch)
	defer func() { err = errors.Join(err, closeError(err, results.Close())) }()
	for i, s := range sets {
		s.set.affected = s.set.affected[:0]
		for _, r := range s.set.rows {
			tag, err := results.Exec()
			if err != nil {
				return i, fmt.Errorf("%s: %w", r.stmt.Name, pgError(err))
			}
			n := tag.RowsAffected()
			if n == 0 && r.stmt.Must {
				return i, fmt.Errorf("%s: %w", r.stmt.Name, ErrStale)
			}
			s.set.affected = append(s.set.affected, n)
		}
	}
	return -1, nil
}

// closeError leaves out what closing says again.
func closeError(before, closing error) error {
	if before != nil {
		return nil
	}
	return pgError(closing)
}

// How often a node that starts asks whether it is its turn (seconds), and how many
// times: after an outage all of them start at once.
const (
	turnEvery = 1
	turnTries = 300
)

// Migrate implements DB; nodes that start together take turns.
func (d *pgDB) Migrate(ctx context.Context, feature string, fsys fs.FS) error {
	cfg := d.cfg.Copy()
	delete(cfg.RuntimeParams, "idle_in_transaction_session_timeout")
	delete(cfg.RuntimeParams, "lock_timeout")
	delete(cfg.RuntimeParams, "statement_timeout") // a large table takes what it takes
	db := stdlib.OpenDB(*cfg)
	turns, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(turnEvery, turnTries))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return errors.Join(migrate(ctx, db, Postgres, feature, fsys, goose.WithSessionLocker(turns)), db.Close())
}

// Ping implements DB.
func (d *pgDB) Ping(ctx context.Context) error {
	_, err := d.Exec(ctx, `UPDATE parley_meta SET value = value WHERE key = $1`, "ping")
	return err
}

// Close implements DB.
func (d *pgDB) Close() error {
	if !d.closed.CompareAndSwap(false, true) {
		return nil
	}
	d.group.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close(context.Background())
		d.conn = nil
	}
	d.pool.Close()
	d.metrics.close()
	return nil
}

type pgRows struct {
	pgx.Rows
	first  bool // the first row is fetched already
	cancel context.CancelFunc
}

// Close implements Rows.
func (r *pgRows) Close() {
	r.Rows.Close()
	r.cancel()
}

// Next implements Rows.
func (r *pgRows) Next() bool {
	if r.first {
		r.first = false
		return true
	}
	return r.Rows.Next()
}

// Err implements Rows.
func (r *pgRows) Err() error { return pgError(r.Rows.Err()) }

// Scan implements Row.
func (r *pgRows) Scan(dest ...any) error { return pgError(r.Rows.Scan(dest...)) }

// errLost is an ErrUnavailable whose connection is gone.
var errLost = fmt.Errorf("%w: connection lost", ErrUnavailable)

// answerMargin is what an answer gets beyond the longest statement.
const answerMargin = time.Second

func notCommitted(err error) error { return fmt.Errorf("%w: %w", errNotCommitted, err) }

// lost reports whether the connection broke.
func lost(err error) bool { return errors.Is(err, errLost) }

// conflicting reports whether concurrent transactions got in each other's way, or the
// database has given one up because this process had no time for it.
func conflicting(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "40001" || pe.Code == "40P01" || pe.Code == "25P03")
}

// broken reports whether the server gave no answer.
func broken(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) || errors.As(err, &connect) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err) || strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "closed pool")
}

// pgError wraps the sentinel that an error of Postgres stands for.
func pgError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		return err
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoRows
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		if broken(err) {
			return fmt.Errorf("%w: %w", errLost, err)
		}
		return err
	}
	switch {
	case pe.Code == "23505":
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case pe.Code == "57014", pe.Code == "55P03", pe.Code == "25006": // timeouts, read-only
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case len(pe.Code) == 5 && (pe.Code[:2] == "08" || pe.Code[:2] == "57"):
		return fmt.Errorf("%w: %w", errLost, err)
	case len(pe.Code) == 5 && pe.Code[:2] == "53": // out of disk, memory, connections
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
