package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteDB is SQLite with one writer: WAL, synchronous=FULL, group commit. All
// writes take the lock of the one writing connection; reads go through a pool
// of connections that refuse to write. Checkpoints run on a connection of their
// own, outside the commit path.
type sqliteDB struct {
	path     string
	log      *slog.Logger
	metrics  *metrics
	readers  *sql.DB
	texts    sync.Map     // $n text → ?n text; bounded by the program's statements
	reading  sync.Map     // $n text → *sql.Stmt, compiled once on each reader that needs it
	compiled atomic.Int64 // of those
	group    *committer
	ticker   *checkpointer
	turn     chan struct{} // holds one token: whoever took it has the writer
	writer   *sql.DB
	conn     *sql.Conn // its only connection
	batch    *batchWriter
	closed   bool        // whoever has the writer may look
	closing  atomic.Bool // Close was called
}

// writerCache holds, at 32 MiB, the pages that keys end up on: with SQLite's
// 2 MiB every row reads its leaf of an index from the file again.
const writerCache = "cache_size(-32768)"

// networkFS are the file systems on which SQLite's locks do not hold.
var networkFS = map[int64]string{0x6969: "NFS", 0x517B: "SMB", 0xFF534D42: "CIFS", 0xFE534D42: "SMB2", 0x5346414F: "AFS", 0x01021997: "9P"}

func openSQLite(ctx context.Context, c Config, log *slog.Logger, reg prometheus.Registerer) (DB, error) {
	if err := os.MkdirAll(filepath.Dir(c.Path), 0o700); err != nil {
		return nil, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(c.Path), &st); err == nil {
		if name, bad := networkFS[int64(st.Type)&0xFFFFFFFF]; bad {
			return nil, fmt.Errorf("%s is on a network file system (%s), where SQLite loses data: use a local disk, or Postgres", c.Path, name)
		}
	}
	_, err := os.Stat(c.Path + "-wal")
	unclean := err == nil
	d := &sqliteDB{path: c.Path, log: log, turn: make(chan struct{}, 1)}
	if d.writer, err = sqlitePool(c, 1, "synchronous(full)", "wal_autocheckpoint(0)", fmt.Sprintf("journal_size_limit(%d)", c.WALPages*walPage), "foreign_keys(1)", writerCache); err != nil {
		return nil, err
	}
	if d.conn, err = d.writer.Conn(ctx); err != nil {
		return nil, errors.Join(sqliteError(err), d.writer.Close())
	}
	d.batch = &batchWriter{conn: d.conn, text: d.text, prepared: map[*Stmt]driver.Stmt{}}
	if unclean {
		if err := d.quickCheck(ctx); err != nil {
			return nil, errors.Join(err, d.writer.Close())
		}
	}
	if d.readers, err = sqlitePool(c, c.Readers, "query_only(1)"); err != nil {
		return nil, errors.Join(err, d.writer.Close())
	}
	d.metrics = newMetrics(reg)
	d.group = newCommitter(d, 0, d.metrics, log)
	d.ticker, err = newCheckpointer(c, d)
	return d, err
}

// sqlitePool opens a pool whose connections have the pragmas.
func sqlitePool(c Config, size int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{}
	for _, p := range append([]string{"journal_mode(wal)", fmt.Sprintf("busy_timeout(%d)", c.LockTimeout.Milliseconds())}, pragmas...) {
		q.Add("_pragma", p)
	}
	q.Set("_txlock", "immediate")
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(c.Path)+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// quickCheck looks for damage after a stop that was not clean.
func (d *sqliteDB) quickCheck(ctx context.Context) error {
	var verdict string
	if err := d.conn.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return fmt.Errorf("check after an unclean stop: %w", sqliteError(err))
	}
	if verdict != "ok" {
		return fmt.Errorf("%s is damaged (%s): restore a backup", d.path, verdict)
	}
	return nil
}

// Dialect implements DB.
func (d *sqliteDB) Dialect() Dialect { return SQLite }

var (
	dollar = regexp.MustCompile(`\$(\d+)`)
	// SQLite plans by the value of a bare LIMIT ?n, and so compiles the
	// statement again whenever that is bound; an expression it does not look into.
	bareLimit = regexp.MustCompile(`(?i)\b(LIMIT|OFFSET) (\?\d+)`)
)

// maxTexts bounds the translated statements; what is built at run time beyond
// it is translated each time.
const maxTexts = 4096

// text translates a statement: SQLite takes $1 for a name, ?1 for a number.
func (d *sqliteDB) text(s string) string {
	if t, ok := d.texts.Load(s); ok {
		return t.(string)
	}
	t := bareLimit.ReplaceAllString(dollar.ReplaceAllString(s, "?$1"), "$1 $2+0")
	n := 0
	d.texts.Range(func(any, any) bool { n++; return n < maxTexts })
	if n < maxTexts {
		d.texts.Store(s, t)
	}
	return t
}

// Query implements Querier.
func (d *sqliteDB) Query(ctx context.Context, s string, args ...any) (Rows, error) {
	st, err := d.read(ctx, s)
	if err != nil {
		return nil, sqliteError(err)
	}
	var rows *sql.Rows
	if st != nil {
		rows, err = st.QueryContext(ctx, args...)
	} else {
		rows, err = d.readers.QueryContext(ctx, d.text(s), args...)
	}
	if err != nil {
		return nil, sqliteError(err)
	}
	return &sqlRows{rows}, nil
}

// maxCompiled bounds the statements that stay compiled, some kilobytes each on
// each connection.
const maxCompiled = 512

// read compiles a statement for the readers; nil: there are too many.
func (d *sqliteDB) read(ctx context.Context, s string) (*sql.Stmt, error) {
	if st, ok := d.reading.Load(s); ok {
		return st.(*sql.Stmt), nil
	}
	if d.compiled.Load() >= maxCompiled {
		return nil, nil
	}
	st, err := d.readers.PrepareContext(ctx, d.text(s))
	if err != nil {
		return nil, err
	}
	if first, twice := d.reading.LoadOrStore(s, st); twice {
		return first.(*sql.Stmt), st.Close()
	}
	d.compiled.Add(1)
	return st, nil
}

// QueryRow implements Querier.
func (d *sqliteDB) QueryRow(ctx context.Context, s string, args ...any) Row {
	return &lazyRow{ctx, d, s, args}
}

// Exec implements DB.
func (d *sqliteDB) Exec(ctx context.Context, s string, args ...any) (n int64, err error) {
	err = d.Tx(ctx, func(tx Tx) error {
		n, err = tx.Exec(ctx, s, args...)
		return err
	})
	return n, err
}

// Tx implements DB.
func (d *sqliteDB) Tx(ctx context.Context, f func(Tx) error) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.release()
	full := d.ticker.room() // what only reads, as a copy to a larger disk does, goes on
	// With ctx database/sql would roll back by itself, a little later, in the
	// middle of the next transaction; statements have their own ctx and fail.
	tx, err := d.conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return sqliteError(err)
	}
	defer func() { _ = tx.Rollback() }() // when f fails, or panics; else it is over
	if err = f(&sqliteTx{d, tx, full}); err == nil {
		err = sqliteError(tx.Commit())
	}
	if err != nil {
		d.ticker.failed(err)
		return err
	}
	d.ticker.grown()
	return nil
}

// take waits for the writer, as long as ctx lets it.
func (d *sqliteDB) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("storage: waiting for the writer: %w", err)
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("storage: waiting for the writer: %w", ctx.Err())
	}
	if d.closed {
		d.release()
		return ErrClosed
	}
	return nil
}

func (d *sqliteDB) release() { <-d.turn }

type sqliteTx struct {
	d    *sqliteDB
	tx   *sql.Tx
	full error // why nothing can be written
}

func (t *sqliteTx) Query(ctx context.Context, s string, args ...any) (Rows, error) {
	rows, err := t.tx.QueryContext(ctx, t.d.text(s), args...)
	if err != nil {
		return nil, sqliteError(err)
	}
	return &sqlRows{rows}, nil
}

func (t *sqliteTx) QueryRow(ctx context.Context, s string, args ...any) Row {
	return &lazyRow{ctx, t, s, args}
}

func (t *sqliteTx) Exec(ctx context.Context, s string, args ...any) (int64, error) {
	if t.full != nil {
		return 0, t.full
	}
	res, err := t.tx.ExecContext(ctx, t.d.text(s), args...)
	if err != nil {
		return 0, sqliteError(err)
	}
	return res.RowsAffected()
}

// Commit implements DB.
func (d *sqliteDB) Commit(ctx context.Context, w *WriteSet) error { return d.group.commit(ctx, w) }

// write implements engine.
func (d *sqliteDB) write(sets []*submission) (failed int, err error) {
	if err := d.take(context.Background()); err != nil {
		return -1, err
	}
	defer d.release()
	if err := d.ticker.room(); err != nil {
		return -1, err
	}
	if failed, err = d.batch.write(sets); err != nil {
		d.ticker.failed(err)
		return failed, err
	}
	d.ticker.grown()
	return -1, nil
}

// Migrate implements DB.
func (d *sqliteDB) Migrate(ctx context.Context, feature string, fsys fs.FS) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.release()
	own, err := sqlitePool(Config{Path: d.path, LockTimeout: 5 * time.Second}, 1, "synchronous(full)", "foreign_keys(1)")
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, own, SQLite, feature, fsys), own.Close())
}

// Ping implements DB.
func (d *sqliteDB) Ping(ctx context.Context) error {
	var one int
	if err := d.QueryRow(ctx, `SELECT 1`).Scan(&one); err != nil {
		return err
	}
	_, err := d.Exec(ctx, `UPDATE parley_meta SET value = value WHERE key = $1`, "ping")
	return err
}

// Close implements DB.
func (d *sqliteDB) Close() error {
	if !d.closing.CompareAndSwap(false, true) {
		return nil
	}
	d.group.close()
	d.ticker.close()
	d.turn <- struct{}{}
	defer d.release()
	d.closed = true
	d.metrics.close()
	// The last connection that closes folds the log into the database, if no
	// statement holds it open.
	return errors.Join(d.readers.Close(), d.batch.close(), d.conn.Close(), d.writer.Close())
}

// sqlRows adapts database/sql.
type sqlRows struct{ *sql.Rows }

// Close implements Rows.
func (r *sqlRows) Close() { _ = r.Rows.Close() }

// Err implements Rows.
func (r *sqlRows) Err() error { return sqliteError(r.Rows.Err()) }

// Scan implements Row.
func (r *sqlRows) Scan(dest ...any) error { return sqliteError(r.Rows.Scan(dest...)) }

// sqliteError wraps the sentinel that an error of SQLite stands for.
func sqliteError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoRows
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		if strings.Contains(err.Error(), "database is closed") || errors.Is(err, sql.ErrConnDone) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		return err
	}
	switch se.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	switch se.Code() & 0xFF {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
