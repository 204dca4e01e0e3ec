// Package storage is the one way to the database: SQLite (embedded, the
// default) or Postgres behind one interface.
//
// Reads go through a pool. Writes that many sessions make at once are typed
// rows in a WriteSet; the committer puts the sets of all sessions that are
// runnable into one transaction, so that five hundred senders share one fsync
// (design: "Storage, promises, scale"). Everything that reads and writes in one
// step is a Tx. A feature keeps its SQL in its own folder: this package holds
// only the table parley_meta.
//
// The same SQL text runs on both databases: placeholders are $1, $2, …; use
// bigint, text, boolean, blob/bytea and unix microseconds, ON CONFLICT and
// RETURNING.
//
// Read on: writeset.go (what is written), committer.go (how sets become
// transactions), sqlite.go and postgres.go (the two databases), migrate.go.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Dialect says which database a DB is, for the few places where the SQL differs.
type Dialect uint8

// The databases.
const (
	SQLite Dialect = iota
	Postgres
)

// String is the name used in the configuration and for migration folders.
func (d Dialect) String() string {
	if d == Postgres {
		return "postgres"
	}
	return "sqlite"
}

// Errors a caller can act on; what a method returns wraps one of them when it applies.
var (
	// ErrNoRows: Row.Scan found nothing.
	ErrNoRows = errors.New("no rows")
	// ErrConflict: a unique or primary key is already taken.
	ErrConflict = errors.New("already exists")
	// ErrStale: a Stmt with Must changed no row; its set was not written.
	ErrStale = errors.New("no row matched")
	// ErrUnavailable: the database cannot do it now (disk full, connection
	// lost, read-only, pool exhausted, lock not obtained). Nothing that was
	// acknowledged is lost; the same call may work later. Answer
	// resource-constraint or a temporary failure.
	ErrUnavailable = errors.New("database unavailable")
	// ErrClosed: the DB was closed. It is an ErrUnavailable too.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnavailable)
	// ErrTooNew: the database was migrated by a newer release.
	ErrTooNew = errors.New("database schema is newer than this release")
)

// Row is one result row. Scan takes pointers as database/sql does.
type Row interface {
	Scan(dest ...any) error
}

// Rows is a result; Close it in every case, and look at Err after Next returned false.
type Rows interface {
	Row
	Next() bool
	Err() error
	Close()
}

// Querier reads. Arguments: nil, bool, integers, float64, string, []byte.
type Querier interface {
	// Query reads only: on SQLite its connections refuse to write, on Postgres
	// it may be repeated after a lost connection.
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
	// QueryRow runs when Scan is called; Scan returns ErrNoRows when there is none.
	QueryRow(ctx context.Context, sql string, args ...any) Row
}

// Tx is a serialisable transaction. Its Query may write (INSERT … RETURNING);
// close its Rows before the next statement.
type Tx interface {
	Querier
	// Exec returns the number of rows affected.
	Exec(ctx context.Context, sql string, args ...any) (int64, error)
}

// DB is an open database. All methods may be called from many goroutines.
type DB interface {
	Dialect() Dialect
	Querier
	// Exec writes one statement; it is durable when Exec returns. It returns
	// the number of rows affected.
	Exec(ctx context.Context, sql string, args ...any) (int64, error)
	// Tx runs f in a transaction that commits when f returns nil. f may run
	// several times (Postgres: serialisation failure, deadlock, connection
	// lost before the commit), so it must have no other effect. On SQLite it
	// holds the only writer: keep it short, and never call Exec, Commit, Tx
	// or Migrate of the DB inside f.
	Tx(ctx context.Context, f func(Tx) error) error
	// Commit writes the set, all or nothing, together with everybody else's;
	// nil means durable. ctx counts until the set is accepted; from then on it
	// is carried through. A nil or empty set is a no-op. The set may be reused
	// after Commit returned.
	Commit(ctx context.Context, w *WriteSet) error
	// Migrate brings a feature's tables up to date. fsys holds
	// sqlite/NNNN_name.sql and postgres/NNNN_name.sql in goose's format, at its
	// root or below "sql". Errors wrap ErrTooNew when the database knows a later version.
	Migrate(ctx context.Context, feature string, fsys fs.FS) error
	// Ping says whether the database answers reads and writes.
	Ping(ctx context.Context) error
	// Close finishes what was accepted, then closes. Later calls return ErrClosed.
	Close() error
}

// Config chooses and tunes the database.
type Config struct {
	Driver string `yaml:"driver" doc:"sqlite (default) or postgres"`
	Path   string `yaml:"path" doc:"SQLite: database file, on a local disk; default: parley.db in the data directory"`
	DSN    string `yaml:"dsn" secret:"true" doc:"Postgres: connection string, postgres://user@host/database"`

	Readers  int `yaml:"readers" doc:"SQLite: connections for reading; default 4"`
	MaxConns int `yaml:"max_conns" doc:"Postgres: connections of the pool; the committer has one more; default 16"`

	StatementTimeout time.Duration `yaml:"statement_timeout" doc:"Postgres: longest statement; default 10s"`
	LockTimeout      time.Duration `yaml:"lock_timeout" doc:"longest wait for a lock or for a connection of the pool; default 5s"`
	WALPages         int           `yaml:"wal_pages" doc:"SQLite: write-ahead log size, in pages of 4 KiB, from which on writers wait for a checkpoint, less where the disk has little room; default 16384 (64 MiB)"`
}

// withDefaults fills what the file left out and rejects contradictions.
func (c Config) withDefaults() (Config, error) {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Readers, 4)
	def(&c.MaxConns, 16)
	def(&c.WALPages, 16384)
	if c.StatementTimeout <= 0 {
		c.StatementTimeout = 10 * time.Second
	}
	if c.LockTimeout <= 0 {
		c.LockTimeout = 5 * time.Second
	}
	switch c.Driver {
	case "", "sqlite":
		c.Driver = "sqlite"
		if c.Path == "" {
			return c, errors.New("storage: path is missing")
		}
		if c.DSN != "" {
			return c, errors.New("storage: dsn is for driver postgres, this is sqlite")
		}
		return c, nil
	case "postgres":
		if c.DSN == "" {
			return c, errors.New("storage: postgres needs a dsn")
		}
		return c, nil
	}
	return c, fmt.Errorf("storage: unknown driver %q (sqlite or postgres)", c.Driver)
}

// Validate reports what Open would refuse without touching the database.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

// String never shows the connection string: it may hold a password.
func (c Config) String() string {
	if c.Driver == "postgres" {
		return "postgres"
	}
	return "sqlite " + c.Path
}

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Open opens the database that c names and prepares parley_meta. ctx bounds the
// opening alone. reg may be nil.
func Open(ctx context.Context, c Config, log *slog.Logger, reg prometheus.Registerer) (DB, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	open := openSQLite
	if c.Driver == "postgres" {
		open = openPostgres
	}
	db, err := open(ctx, c, log, reg)
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", c, err)
	}
	if err := db.Migrate(ctx, "storage", metaMigrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// lazyRow is the QueryRow of every Querier: it queries when scanned, so that a
// row nobody scans holds no connection.
type lazyRow struct {
	ctx  context.Context
	q    Querier
	sql  string
	args []any
}

func (r *lazyRow) Scan(dest ...any) error {
	rows, err := r.q.Query(r.ctx, r.sql, r.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return ErrNoRows
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	for rows.Next() { // lets a RETURNING of many rows finish
	}
	return rows.Err()
}

// All reads every row of a query with scan, in order.
func All[T any](ctx context.Context, q Querier, scan func(Row) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		t, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}
