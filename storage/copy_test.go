package storage_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// thing has every type, a number that counts up and values at the edges.
var thing = fstest.MapFS{
	"sqlite/0001_t.sql": {Data: []byte(`-- +goose Up
CREATE TABLE thing (id integer PRIMARY KEY AUTOINCREMENT, name text NOT NULL, data blob, flag boolean NOT NULL, at bigint NOT NULL);
-- +goose Down
DROP TABLE thing;`)},
	"postgres/0001_t.sql": {Data: []byte(`-- +goose Up
CREATE TABLE thing (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, data bytea, flag boolean NOT NULL, at bigint NOT NULL);
-- +goose Down
DROP TABLE thing;`)},
}

const addThing = `INSERT INTO thing (name, data, flag, at) VALUES ($1, $2, $3, $4)`

func things(t *testing.T, c storage.Config) storage.DB {
	t.Helper()
	db := storagetest.Open(t, c)
	if err := db.Migrate(t.Context(), "thing", thing); err != nil {
		t.Fatal(err)
	}
	return db
}

func put(t *testing.T, db storage.DB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func silent(string, int64, time.Duration) {}

func thingsIn(t *testing.T, db storage.DB) (n int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM thing`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCopy(t *testing.T) {
	from, to := things(t, storagetest.SQLite(t)), things(t, storagetest.Postgres(t))
	put(t, from, addThing, "ü\n\\N", []byte{0, 255}, true, int64(1)<<62)
	put(t, from, addThing, "", []byte{}, false, int64(-1)<<63)
	put(t, from, addThing, "null", nil, false, 0)
	for range 2 {
		put(t, from, addThing, "gone", nil, false, 0)
	}
	put(t, from, `DELETE FROM thing WHERE name = $1`, "gone")
	tables, err := storage.Copy(t.Context(), from, to, silent)
	if err != nil {
		t.Fatal(err)
	}
	if i := len(tables) - 1; tables[i].Table != "thing" || tables[i].Rows != 3 {
		t.Errorf("%+v", tables)
	}
	var name string
	var data []byte
	var flag bool
	var at int64
	if err := to.QueryRow(t.Context(), `SELECT name, data, flag, at FROM thing WHERE id = 1`).Scan(&name, &data, &flag, &at); err != nil || name != "ü\n\\N" || !bytes.Equal(data, []byte{0, 255}) || !flag || at != 1<<62 {
		t.Errorf("%q %x %v %d %v", name, data, flag, at, err)
	}
	var nulls int
	if err := to.QueryRow(t.Context(), `SELECT count(*) FROM thing WHERE data IS NULL`).Scan(&nulls); err != nil || nulls != 1 {
		t.Errorf("an empty value is not NULL: %d %v", nulls, err)
	}
	// Numbers 4 and 5 were given and are not given again.
	put(t, to, addThing, "next", nil, false, 0)
	var id int64
	if err := to.QueryRow(t.Context(), `SELECT id FROM thing WHERE name = $1`, "next").Scan(&id); err != nil || id != 6 {
		t.Errorf("next number: %d %v", id, err)
	}
	if _, err := storage.Copy(t.Context(), from, to, silent); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("a target with rows: %v", err)
	}
}

// What Postgres cannot hold ends the copy, and nothing of it stays.
func TestCopyIsAllOrNothing(t *testing.T) {
	for name, bad := range map[string][]any{
		"NUL":        {"a\x00b", nil, false, 0},
		"not UTF-8":  {[]byte("\xff"), nil, false, 0},
		"no boolean": {"x", nil, 7, 0},
		"no number":  {"x", nil, false, "many"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := things(t, storagetest.SQLite(t)), things(t, storagetest.Postgres(t))
			put(t, from, addThing, "good", nil, false, 0)
			put(t, from, addThing, bad...)
			if _, err := storage.Copy(t.Context(), from, to, silent); err == nil || !strings.Contains(err.Error(), "thing.") {
				t.Errorf("got %v", err)
			}
			if n := thingsIn(t, to); n != 0 {
				t.Errorf("%d rows stayed", n)
			}
		})
	}
}

// An error shows no text that somebody has stored.
func TestCopyShowsNoText(t *testing.T) {
	from, to := things(t, storagetest.SQLite(t)), things(t, storagetest.Postgres(t))
	put(t, from, addThing, "secret\x00", nil, false, 0)
	if _, err := storage.Copy(t.Context(), from, to, silent); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "7 bytes, and byte 7 is zero") {
		t.Errorf("got %v", err)
	}
}

// How a copy ends that fails at its end: the error says what is on the target.
func TestCopyFailsAtTheEnd(t *testing.T) {
	trigger := func(do string) []string {
		return []string{
			`CREATE FUNCTION at_the_end() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ` + do + `; RETURN NULL; END'`,
			`CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON thing DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_the_end()`,
		}
	}
	none := errors.New("none")
	for name, c := range map[string]struct {
		spoil []string
		from  func(storage.DB) storage.DB
		want  error // of ErrCopied and ErrCopyUnknown
		rows  int64
	}{
		"refused":   {spoil: trigger(`RAISE EXCEPTION ''no''`), want: none},
		"no answer": {spoil: trigger(`PERFORM pg_terminate_backend(pg_backend_pid())`), want: storage.ErrCopyUnknown},
		"no analysis": {spoil: []string{
			`CREATE FUNCTION sorted(x bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN IF current_query() = ''ANALYZE'' THEN RAISE EXCEPTION ''no''; END IF; RETURN x; END'`,
			`CREATE INDEX ON thing (sorted(at))`,
		}, want: storage.ErrCopied, rows: 3},
		"the source": {from: func(db storage.DB) storage.DB { return endless{db} }, want: storage.ErrCopied, rows: 3},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := things(t, storagetest.SQLite(t)), things(t, storagetest.Postgres(t))
			for range 3 {
				put(t, from, addThing, "x", nil, false, 0)
			}
			for _, sql := range c.spoil {
				put(t, to, sql)
			}
			if c.from != nil {
				from = c.from(from)
			}
			tables, err := storage.Copy(t.Context(), from, to, silent)
			if err == nil || errors.Is(err, storage.ErrCopied) != (c.want == storage.ErrCopied) || errors.Is(err, storage.ErrCopyUnknown) != (c.want == storage.ErrCopyUnknown) {
				t.Errorf("got %v", err)
			}
			if (len(tables) > 0) != (c.want == storage.ErrCopied) {
				t.Errorf("%d tables", len(tables))
			}
			if n := thingsIn(t, to); n != c.rows {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// endless is a database whose transactions do not end well.
type endless struct{ storage.DB }

func (e endless) Tx(ctx context.Context, f func(storage.Tx) error) error {
	if err := e.DB.Tx(ctx, f); err != nil {
		return err
	}
	return storage.ErrUnavailable
}

// A target that does not keep what it is given is found out.
func TestCopyCompares(t *testing.T) {
	from, to := things(t, storagetest.SQLite(t)), things(t, storagetest.Postgres(t))
	put(t, from, addThing, "x", nil, false, 0)
	put(t, to, `CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at = NEW.at + 1; RETURN NEW; END'`)
	put(t, to, `CREATE TRIGGER spoil BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION spoil()`)
	if _, err := storage.Copy(t.Context(), from, to, silent); err == nil || !strings.Contains(err.Error(), "differs") {
		t.Errorf("got %v", err)
	}
	if n := thingsIn(t, to); n != 0 {
		t.Errorf("%d rows stayed", n)
	}
}

func TestCopyWantsTheSameTables(t *testing.T) {
	from, to := things(t, storagetest.SQLite(t)), storagetest.Open(t, storagetest.Postgres(t))
	if _, err := storage.Copy(t.Context(), from, to, silent); err == nil || !strings.Contains(err.Error(), "no table thing") {
		t.Errorf("got %v", err)
	}
}

// Pairs are written in one transaction each: a copy of one moment has no half.
func TestBackupWhileWritesGoOn(t *testing.T) {
	c := storagetest.SQLite(t)
	db := things(t, c)
	put(t, db, addThing, "large", make([]byte, 8<<20), false, 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wrote, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for n := int64(0); ctx.Err() == nil; n++ {
			if err := db.Tx(context.WithoutCancel(ctx), func(tx storage.Tx) error {
				for _, name := range []string{"left", "right"} {
					if _, err := tx.Exec(context.WithoutCancel(ctx), addThing, name, nil, false, n); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				ended <- err
				return
			}
			select {
			case wrote <- struct{}{}:
			default:
			}
		}
		ended <- nil
	}()
	<-wrote
	to := filepath.Join(t.TempDir(), "copy")
	err := storage.BackupSQLite(t.Context(), c.Path, to, func(int, int) {
		// Two commits fall between every two steps: one may have been under way.
		<-wrote
		<-wrote
	})
	cancel()
	if err := errors.Join(err, <-ended); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.CheckSQLite(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to + "-wal"); err == nil {
		t.Error("the copy is more than one file")
	}
	copied := storagetest.Open(t, storage.Config{Path: to})
	var left, right, pairs int64
	if err := copied.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE name = 'left'), count(*) FILTER (WHERE name = 'right'), count(DISTINCT at) FROM thing WHERE name <> 'large'`).Scan(&left, &right, &pairs); err != nil {
		t.Fatal(err)
	}
	if left == 0 || left != right || left != pairs {
		t.Errorf("%d left, %d right, %d pairs", left, right, pairs)
	}
	if n := thingsIn(t, db); n <= left+right+1 {
		t.Errorf("nobody wrote meanwhile: %d rows, %d in the copy", n, left+right+1)
	}
}

func TestCheckSQLiteFindsDamage(t *testing.T) {
	c := storagetest.SQLite(t)
	db := things(t, c)
	put(t, db, addThing, "large", make([]byte, 1<<20), false, 0)
	to := filepath.Join(t.TempDir(), "copy")
	if err := storage.BackupSQLite(t.Context(), c.Path, to, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := bytes.Clone(good)
	for i := 4096; i < 10*4096; i++ {
		spoilt[i] = 0xA5
	}
	for name, raw := range map[string][]byte{"no database": []byte("hello, this is no database, though it is long enough to be looked at"), "cut": good[:len(good)/2], "spoilt": spoilt} {
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := storage.CheckSQLite(t.Context(), path); !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsedSQLite(t *testing.T) {
	c := storagetest.SQLite(t)
	db := things(t, c)
	put(t, db, addThing, "works", nil, false, 0)
	if used, err := storage.UsedSQLite(t.Context(), c.Path); err != nil || !used {
		t.Errorf("open: %v %v", used, err)
	}
	put(t, db, addThing, "still works", nil, false, 0)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if used, err := storage.UsedSQLite(t.Context(), c.Path); err != nil || used {
		t.Errorf("closed: %v %v", used, err)
	}
}
