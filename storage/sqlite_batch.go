package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// batchWriter executes the committer's statements on the writing connection,
// below database/sql, which compiles a statement anew for each transaction
// that it is used in. Whoever calls it has the writer.
type batchWriter struct {
	conn     *sql.Conn
	text     func(string) string
	prepared map[*Stmt]driver.Stmt // the program's: their number is bounded
	ends     [3]driver.Stmt
	args     []driver.NamedValue
}

// What begins and ends a transaction.
const (
	begin = iota
	commit
	rollback
)

var endTexts = [...]string{begin: "BEGIN IMMEDIATE", commit: "COMMIT", rollback: "ROLLBACK"}

// write is one transaction.
func (b *batchWriter) write(sets []*submission) (failed int, err error) {
	failed = -1
	err = b.conn.Raw(func(c any) error {
		on, ok := c.(driver.Conn)
		if !ok {
			return fmt.Errorf("storage: %T is no driver's connection", c)
		}
		if err := b.end(on, begin); err != nil {
			return err
		}
		for i, s := range sets {
			if err := b.rows(on, s.set); err != nil {
				failed = i
				return b.undo(on, err)
			}
		}
		if err := b.end(on, commit); err != nil {
			return b.undo(on, err)
		}
		return nil
	})
	return failed, err
}

// undo ends the transaction unless SQLite has done so itself, as it does when
// the disk is full.
func (b *batchWriter) undo(on driver.Conn, err error) error {
	_ = b.end(on, rollback)
	return err
}

func (b *batchWriter) rows(on driver.Conn, w *WriteSet) error {
	w.affected = w.affected[:0]
	for _, r := range w.rows {
		n, err := b.row(on, r.stmt, w.values(r))
		if err != nil {
			return fmt.Errorf("%s: %w", r.stmt.Name, err)
		}
		w.affected = append(w.affected, n)
	}
	return nil
}

func (b *batchWriter) row(on driver.Conn, s *Stmt, values []any) (int64, error) {
	st, ok := b.prepared[s]
	if !ok {
		var err error
		if st, err = on.Prepare(b.text(s.SQL)); err != nil {
			return 0, sqliteError(err)
		}
		b.prepared[s] = st
	}
	b.args = b.args[:0]
	for i, v := range values {
		v, err := driver.DefaultParameterConverter.ConvertValue(v)
		if err != nil {
			return 0, fmt.Errorf("argument %d: %w", i+1, err)
		}
		b.args = append(b.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	defer clear(b.args) // bodies of messages
	res, err := exec(st, b.args)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 && s.Must {
		err = ErrStale
	}
	return n, err
}

func (b *batchWriter) end(on driver.Conn, which int) error {
	if b.ends[which] == nil {
		st, err := on.Prepare(endTexts[which])
		if err != nil {
			return sqliteError(err)
		}
		b.ends[which] = st
	}
	_, err := exec(b.ends[which], nil)
	return err
}

// exec has no deadline: what was accepted is carried through.
func exec(st driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
	x, ok := st.(driver.StmtExecContext)
	if !ok {
		return nil, fmt.Errorf("storage: %T executes nothing", st)
	}
	res, err := x.ExecContext(context.Background(), args)
	return res, sqliteError(err)
}

// close gives the statements back.
func (b *batchWriter) close() error {
	return b.conn.Raw(func(any) (err error) {
		for _, st := range b.prepared {
			err = errors.Join(err, st.Close())
		}
		for _, st := range b.ends {
			if st != nil {
				err = errors.Join(err, st.Close())
			}
		}
		return err
	})
}
