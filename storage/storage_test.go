package storage_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"parley/storage"
	"parley/storage/storagetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("PARLEY_TEST_WRITER"); path != "" {
		writer(path)
	}
	goleak.VerifyTestMain(m)
}

var (
	insert     = &storage.Stmt{Name: "ledger.insert", SQL: `INSERT INTO ledger (id, body) VALUES ($1, $2)`}
	insertOnce = &storage.Stmt{Name: "ledger.once", SQL: `INSERT INTO ledger (id, body) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, Idempotent: true}
	updateOne  = &storage.Stmt{Name: "ledger.update", SQL: `UPDATE ledger SET body = $2 WHERE id = $1`, Must: true}
)

func ledger(version ...int) fstest.MapFS {
	m := fstest.MapFS{}
	for _, v := range version {
		text := "-- +goose Up\nCREATE TABLE ledger (id bigint NOT NULL PRIMARY KEY, body text NOT NULL);\n"
		if v > 1 {
			text = "-- +goose Up\nALTER TABLE ledger ADD COLUMN extra text;\n"
		}
		for _, d := range []string{"sqlite", "postgres"} {
			m[fmt.Sprintf("%s/%04d_x.sql", d, v)] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return m
}

func migrated(t *testing.T, db storage.DB) {
	t.Helper()
	if err := db.Migrate(context.Background(), "ledger", ledger(1)); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db storage.DB, where string) (n int) {
	t.Helper()
	if err := db.QueryRow(context.Background(), `SELECT count(*) FROM ledger WHERE `+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestReadWrite(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		migrated(t, db)
		if n, err := db.Exec(ctx, insert.SQL, 1, "one"); err != nil || n != 1 {
			t.Fatalf("%d rows, %v", n, err)
		}
		if _, err := db.Exec(ctx, insert.SQL, 1, "again"); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("got %v, want ErrConflict", err)
		}
		var body string
		if err := db.QueryRow(ctx, `SELECT body FROM ledger WHERE id = $1`, 2).Scan(&body); !errors.Is(err, storage.ErrNoRows) {
			t.Errorf("got %v, want ErrNoRows", err)
		}
		boom := errors.New("boom")
		err := db.Tx(ctx, func(tx storage.Tx) error {
			if _, err := tx.Exec(ctx, insert.SQL, 3, "three"); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) || count(t, db, "id = 3") != 0 {
			t.Errorf("a failed transaction left rows behind (%v)", err)
		}
		err = db.Tx(ctx, func(tx storage.Tx) error {
			return tx.QueryRow(ctx, `INSERT INTO ledger (id, body) VALUES ($1, $2) RETURNING body`, 4, "four").Scan(&body)
		})
		if err != nil || body != "four" {
			t.Errorf("RETURNING gave %q, %v", body, err)
		}
		if err := db.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Two hundred submitters share commits, and each row is there once.
func TestGroupCommit(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		reg := prometheus.NewRegistry()
		db, err := storage.Open(context.Background(), c, slog.New(slog.NewTextHandler(io.Discard, nil)), reg)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		migrated(t, db)
		const submitters, each = 200, 20
		var wg sync.WaitGroup
		for s := range submitters {
			wg.Go(func() {
				for i := range each {
					var w storage.WriteSet
					w.Add(insert, s*each+i, "x")
					if err := db.Commit(context.Background(), &w); err != nil {
						t.Error(err)
					}
					if w.Affected(0) != 1 {
						t.Error("no row affected")
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, db, "true"); n != submitters*each {
			t.Errorf("%d rows, want %d", n, submitters*each)
		}
		if got := rowsPerCommit(t, reg); got < submitters/4 {
			t.Errorf("%.1f rows per commit of %d submitters, want a quarter of them at least", got, submitters)
		}
	})
}

func rowsPerCommit(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "parley_storage_commit_rows" {
			h := f.GetMetric()[0].GetHistogram()
			return h.GetSampleSum() / float64(h.GetSampleCount())
		}
	}
	t.Fatal("the metric is missing")
	return 0
}

// A set that cannot be committed costs its own submitter, no stranger.
func TestStrangersNeverPay(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		migrated(t, db)
		if _, err := db.Exec(context.Background(), insert.SQL, 0, "taken"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for s := range 100 {
			wg.Go(func() {
				var w storage.WriteSet
				w.Add(insert, 1000+s, "mine")
				guilty := s%10 == 0
				if guilty {
					w.Add(insert, 0, "taken already")
				}
				err := db.Commit(context.Background(), &w)
				if guilty != errors.Is(err, storage.ErrConflict) {
					t.Errorf("submitter %d: %v", s, err)
				}
			})
		}
		wg.Wait()
		if n := count(t, db, "id >= 1000"); n != 90 {
			t.Errorf("%d rows of strangers, want 90", n)
		}
		var w storage.WriteSet
		w.Add(insertOnce, 0, "taken")
		w.Add(updateOne, 77, "nobody")
		if err := db.Commit(context.Background(), &w); !errors.Is(err, storage.ErrStale) {
			t.Errorf("got %v, want ErrStale", err)
		}
	})
}

func TestTooNewIsRefused(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		if err := db.Migrate(ctx, "ledger", ledger(1, 2)); err != nil {
			t.Fatal(err)
		}
		if err := db.Migrate(ctx, "ledger", ledger(1)); !errors.Is(err, storage.ErrTooNew) {
			t.Errorf("got %v, want ErrTooNew", err)
		}
	})
}

func TestSecretIsMadeOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		a, err := storage.Secret(context.Background(), db, "s", 32)
		if err != nil {
			t.Fatal(err)
		}
		b, err := storage.Secret(context.Background(), db, "s", 32)
		if err != nil || string(a) != string(b) || len(a) != 32 {
			t.Errorf("%x, %x, %v", a, b, err)
		}
	})
}

func TestClosedIsUnavailable(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		db := storagetest.Open(t, c)
		migrated(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		var w storage.WriteSet
		w.Add(insert, 1, "x")
		if err := db.Commit(context.Background(), &w); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Commit: %v", err)
		}
		if _, err := db.Exec(context.Background(), insert.SQL, 1, "x"); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Exec: %v", err)
		}
		if err := db.Tx(context.Background(), func(storage.Tx) error { return nil }); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Tx: %v", err)
		}
	})
}

// Who waits for the writer waits as long as its context lets it.
func TestWaitingForTheWriterEnds(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	err := db.Tx(context.Background(), func(storage.Tx) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err := db.Exec(ctx, `DELETE FROM parley_meta WHERE key = $1`, "x")
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// One set that waits for a lock in vain costs nobody else.
func TestPostgresLockTimeoutIsTheGuiltyOnes(t *testing.T) {
	c := storagetest.Postgres(t)
	c.LockTimeout = 50 * time.Millisecond
	db := storagetest.Open(t, c)
	migrated(t, db)
	ctx := context.Background()
	if _, err := db.Exec(ctx, insert.SQL, 0, "locked"); err != nil {
		t.Fatal(err)
	}
	err := db.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, updateOne.SQL, 0, "held"); err != nil {
			return err
		}
		var wg sync.WaitGroup
		for s := range 20 {
			wg.Go(func() {
				var w storage.WriteSet
				w.Add(insert, 100+s, "mine")
				if s == 10 {
					w.Add(updateOne, 0, "blocked")
				}
				if err := db.Commit(ctx, &w); (err != nil) != (s == 10) {
					t.Errorf("submitter %d: %v", s, err)
				}
			})
		}
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A transaction that the database has ended because this process had no time for it is
// run once more: nothing of it was committed.
func TestPostgresIdleTransactionRunsAgain(t *testing.T) {
	c := storagetest.Postgres(t)
	db, other := storagetest.Open(t, c), storagetest.Open(t, c)
	migrated(t, db)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	runs := 0
	err := db.Tx(ctx, func(tx storage.Tx) error {
		runs++
		var pid int
		if err := tx.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		if runs == 1 {
			if _, err := tx.Exec(ctx, `SET LOCAL idle_in_transaction_session_timeout = 1`); err != nil {
				return err
			}
			for there := 1; there > 0; {
				if err := other.QueryRow(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE pid = $1`, pid).Scan(&there); err != nil {
					return err
				}
			}
		}
		_, err := tx.Exec(ctx, insert.SQL, 0, "once")
		return err
	})
	if err != nil || runs != 2 {
		t.Errorf("after %d runs: %v", runs, err)
	}
}

// What is promised is written through: the settings, asked of the database.
func TestSQLiteIsDurable(t *testing.T) {
	c := storagetest.SQLite(t)
	db := storagetest.Open(t, c)
	migrated(t, db)
	err := db.Tx(context.Background(), func(tx storage.Tx) error {
		var mode string
		var sync int
		if err := tx.QueryRow(context.Background(), `PRAGMA synchronous`).Scan(&sync); err != nil {
			return err
		}
		if err := tx.QueryRow(context.Background(), `PRAGMA journal_mode`).Scan(&mode); err != nil {
			return err
		}
		if sync != 2 || mode != "wal" {
			t.Errorf("synchronous=%d journal_mode=%s, want 2 (FULL) and wal", sync, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Query(context.Background(), `DELETE FROM ledger RETURNING id`); err == nil {
		t.Error("a reader can write")
	}
}

// A clean stop leaves one file: everything is in the database.
func TestSQLiteCloseFoldsTheLog(t *testing.T) {
	c := storagetest.SQLite(t)
	db := storagetest.Open(t, c)
	migrated(t, db)
	var w storage.WriteSet
	w.Add(insert, 1, "x")
	if err := db.Commit(context.Background(), &w); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, "true"); n != 1 {
		t.Fatalf("%d rows", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(c.Path + suffix); err == nil {
			t.Errorf("%s is left behind", suffix)
		}
	}
}

// writer is the child of TestReliability32Kill9: it commits numbers and says
// which are durable.
func writer(path string) {
	db, err := storage.Open(context.Background(), storage.Config{Driver: "sqlite", Path: path}, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if err := db.Migrate(context.Background(), "ledger", ledger(1)); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		var w storage.WriteSet
		w.Add(insert, i, strings.Repeat("x", 500))
		if err := db.Commit(context.Background(), &w); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

// kill -9 of the process: every acknowledged row is there afterwards.
func TestReliability32Kill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PARLEY_TEST_WRITER="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(lines.Text())
		}
		if acked = n; n == 300 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	db := storagetest.Open(t, storage.Config{Driver: "sqlite", Path: path})
	if n := count(t, db, fmt.Sprintf("id <= %d", acked)); n != acked+1 {
		t.Errorf("%d of %d acknowledged rows are there", n, acked+1)
	}
}

// A full disk: nothing acknowledged is lost, errors say what it is, and
// writing goes on by itself when there is room again.
func TestReliability30DiskFull(t *testing.T) {
	dir := storagetest.SmallDisk(t, 2)
	db, err := storage.Open(context.Background(), storage.Config{Driver: "sqlite", Path: filepath.Join(dir, "parley.db")}, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	migrated(t, db)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	commit := func(i int) error {
		var w storage.WriteSet
		w.Add(insert, i, strings.Repeat("x", 8<<10))
		return db.Commit(context.Background(), &w)
	}
	acked, full := 0, false
	for i := range 1000 {
		if err := commit(i); err != nil {
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
			full = true
			break
		}
		acked++
	}
	if !full {
		t.Fatal("the disk never filled up")
	}
	if n := count(t, db, "true"); n != acked {
		t.Errorf("%d rows, %d were acknowledged", n, acked)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := commit(5000); err != nil {
		t.Errorf("does not recover: %v", err)
	}
}

func TestIDsNeverGoBack(t *testing.T) {
	now := time.Unix(1000, 0)
	g := storage.NewIDs(func() time.Time { return now }, -1, 0)
	last := g.Next()
	for range 10 {
		now = now.Add(-time.Hour)
		if id := g.Next(); id <= last {
			t.Fatalf("%d after %d", id, last)
		} else {
			last = id
		}
	}
	if id := storage.NewIDs(func() time.Time { return now }, -1, last+5).Next(); id <= last+5 {
		t.Errorf("%d is not above what the database knows", id)
	}
}

// No two nodes give the same id, however many they give at a time.
func TestIDsOfNodesDiffer(t *testing.T) {
	now := time.Unix(1000, 12345)
	given := map[int64]int{}
	for node := range storage.NodeSlots {
		g := storage.NewIDs(func() time.Time { return now }, node, 999_000_003)
		for range 100 {
			id := g.Next()
			if other, twice := given[id]; twice {
				t.Fatalf("nodes %d and %d gave the id %d", other, node, id)
			}
			given[id] = node
		}
	}
}

func TestMask(t *testing.T) {
	m, err := storage.NewMask([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := m.Encode(1), m.Encode(2)
	if a == b || len(a) != 26 {
		t.Fatalf("%s, %s", a, b)
	}
	if id, ok := m.Decode(a); !ok || id != 1 {
		t.Errorf("%d, %v", id, ok)
	}
	for _, bad := range []string{"", "x", a + "a", strings.ToUpper(a), a[:25] + "z", "' OR 1=1 --aaaaaaaaaaaaaaa"} {
		if _, ok := m.Decode(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestDamagedFileIsNotOpened(t *testing.T) {
	c := storagetest.SQLite(t)
	if err := os.WriteFile(c.Path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := storage.Open(context.Background(), c, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err == nil {
		_ = db.Close()
		t.Error("opened")
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 100, 500} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			db, err := storage.Open(context.Background(), storage.Config{Driver: "sqlite", Path: filepath.Join(b.TempDir(), "b.db")}, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if err := db.Migrate(context.Background(), "ledger", ledger(1)); err != nil {
				b.Fatal(err)
			}
			body := strings.Repeat("x", 400)
			var next sync.Mutex
			id := 0
			var wg sync.WaitGroup
			b.ResetTimer()
			for s := range n {
				wg.Go(func() {
					for i := s; i < b.N; i += n {
						next.Lock()
						id++
						mine := id
						next.Unlock()
						var w storage.WriteSet
						w.Add(insert, mine, body)
						if err := db.Commit(context.Background(), &w); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
