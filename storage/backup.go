package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrDamaged: a file is not a database, or not a whole one.
var ErrDamaged = errors.New("database is damaged")

// backupPages are copied between two looks at the context.
const backupPages = 1024

// source is what the driver's connections can do (https://sqlite.org/backup.html).
type source interface {
	NewBackup(to string) (*sqlite.Backup, error)
}

// BackupSQLite copies the database file from, which a server may be using, into
// the new file to: the state of one moment, synced. progress gets pages. It is
// one read transaction, so writes go on, but the write-ahead log cannot be cut
// back before it ends. What it leaves at to after an error is of no use.
func BackupSQLite(ctx context.Context, from, to string, progress func(done, total int)) error {
	db, err := sqliteFile(from, "query_only(1)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("backup of %s: %w", from, damage(err))
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return fmt.Errorf("backup of %s: %w", from, damage(err))
	}
	// The first read takes the snapshot: without one the copy would start again
	// whenever somebody writes (https://sqlite.org/c3ref/backup_finish.html).
	var n int
	err = conn.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&n)
	if err == nil {
		err = conn.Raw(func(driver any) error { return copyPages(ctx, driver, to, progress) })
	}
	_, _ = conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
	if err != nil {
		return fmt.Errorf("backup of %s: %w", from, damage(err))
	}
	return settleFile(ctx, to)
}

func copyPages(ctx context.Context, driver any, to string, progress func(done, total int)) error {
	src, ok := driver.(source)
	if !ok {
		return errors.New("this driver makes no backups")
	}
	b, err := src.NewBackup(sqliteURI(to, "journal_mode(off)", "synchronous(off)"))
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		if err = ctx.Err(); err != nil {
			break
		}
		if more, err = b.Step(backupPages); err == nil {
			progress(b.PageCount()-b.Remaining(), b.PageCount())
		}
	}
	return errors.Join(err, b.Finish())
}

// settleFile makes a copied database one file, without a log beside it, and
// waits until the disk has it.
func settleFile(ctx context.Context, path string) error {
	db, err := sqliteFile(path, "synchronous(full)")
	if err != nil {
		return err
	}
	var mode string
	err = db.QueryRowContext(ctx, `PRAGMA journal_mode = delete`).Scan(&mode)
	if err = errors.Join(damage(err), db.Close()); err != nil {
		return fmt.Errorf("settle %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// TableRows is how many rows a table has.
type TableRows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

// CheckSQLite looks a database file over (PRAGMA quick_check) and counts the
// rows of every table of a feature. Errors wrap ErrDamaged when it is none, or
// not whole.
func CheckSQLite(ctx context.Context, path string) ([]TableRows, error) {
	db, err := sqliteFile(path, "query_only(1)")
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return nil, fmt.Errorf("check of %s: %w", path, damage(err))
	}
	if verdict != "ok" {
		return nil, fmt.Errorf("check of %s: %w: %s", path, ErrDamaged, verdict)
	}
	tables, err := tablesOf(ctx, plainQuerier{db}, SQLite)
	if err != nil {
		return nil, fmt.Errorf("check of %s: %w", path, damage(err))
	}
	out := make([]TableRows, 0, len(tables))
	for _, t := range tables {
		r := TableRows{Table: t.name}
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM `+quoted(t.name)).Scan(&r.Rows); err != nil {
			return nil, fmt.Errorf("check of %s: %w", path, damage(err))
		}
		out = append(out, r)
	}
	return out, nil
}

// UsedSQLite reports whether another process, or this one, has the database
// file in use; when nobody has, its write-ahead log is folded into it. A
// damaged file is in nobody's use.
func UsedSQLite(ctx context.Context, path string) (bool, error) {
	db, err := sqliteFile(path, "locking_mode(exclusive)")
	if err != nil {
		return false, err
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err == nil {
		defer func() { _ = conn.Close() }()
		// With the write-ahead log whoever has read the file once keeps a
		// shared lock on it, even when idle (https://sqlite.org/wal.html#noshm).
		if _, err = conn.ExecContext(ctx, `BEGIN EXCLUSIVE`); err == nil {
			_, err = conn.ExecContext(ctx, `ROLLBACK`)
		}
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		return se.Code()&0xFF == sqlite3.SQLITE_BUSY || se.Code()&0xFF == sqlite3.SQLITE_LOCKED, nil
	}
	return false, err
}

// VacuumSQLite writes a database file anew that nobody uses: nothing of what was
// deleted or replaced is left in it. It needs free space for the database twice.
func VacuumSQLite(ctx context.Context, path string) error {
	db, err := sqliteFile(path, "locking_mode(exclusive)")
	if err != nil {
		return err
	}
	if _, err = db.ExecContext(ctx, `VACUUM`); err == nil {
		_, err = db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	return errors.Join(sqliteError(err), db.Close())
}

// sqliteFile opens a database file that has to be there, as it is.
func sqliteFile(path string, pragmas ...string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", sqliteURI(path, append(pragmas, "busy_timeout(5000)")...))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func sqliteURI(path string, pragmas ...string) string {
	return "file:" + url.PathEscape(path) + "?" + url.Values{"_pragma": pragmas}.Encode()
}

// damage marks what SQLite says about files that are no databases.
func damage(err error) error {
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xFF {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return sqliteError(err)
}

// plainQuerier reads a database without its DB; for statements that number
// their placeholders ?1.
type plainQuerier struct{ db *sql.DB }

func (q plainQuerier) Query(ctx context.Context, s string, args ...any) (Rows, error) {
	rows, err := q.db.QueryContext(ctx, dollar.ReplaceAllString(s, "?$1"), args...)
	if err != nil {
		return nil, err
	}
	return &sqlRows{rows}, nil
}

func (q plainQuerier) QueryRow(ctx context.Context, s string, args ...any) Row {
	return &lazyRow{ctx, q, s, args}
}
