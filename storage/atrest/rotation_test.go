package atrest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/storage"
	"parley/storage/storagetest"
)

// quick is a clock on which nobody waits: what is due later is due now, unless
// it is stopped.
type quick struct{ stopped atomic.Bool }

func (*quick) Now() time.Time { return time.Unix(0, 0) }

func (q *quick) AfterFunc(_ time.Duration, f func()) func() bool {
	if !q.stopped.Load() {
		go f()
	}
	return func() bool { return true }
}

const letterRows = 3*stepRows + 17

// office is a database with letters, and what is logged.
type office struct {
	*Rotation
	db  storage.DB
	log bytes.Buffer
}

func newOffice(t *testing.T, db storage.DB) *office {
	t.Helper()
	if _, err := db.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS letters (owner bigint NOT NULL, id bigint NOT NULL, body bytea, key_id bigint NOT NULL DEFAULT 0, PRIMARY KEY (owner, id))`); err != nil {
		t.Fatal(err)
	}
	o := &office{db: db}
	var err error
	o.Rotation, err = NewRotation(Options{DB: db, Tables: []Table{letters}, Clock: &quick{}, Log: slog.New(slog.NewTextHandler(&o.log, nil)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func text(owner, id int) string { return fmt.Sprintf("dear %d, this is %d", owner, id) }

func (o *office) fill(t *testing.T) {
	t.Helper()
	var w storage.WriteSet
	insert := storage.Stmt{Name: "test.insert", SQL: `INSERT INTO letters (owner, id, body, key_id) VALUES ($1, $2, $3, $4)`}
	for i := range letterRows {
		owner := i % 3
		body, id := o.Vault.Seal(&letters, []byte(text(owner, i)), int64(owner), int64(i))
		w.Add(&insert, owner, i, body, id)
	}
	w.Add(&insert, 3, 0, nil, 0) // a row without content
	if err := o.db.Commit(t.Context(), &w); err != nil {
		t.Fatal(err)
	}
}

// keys counts the rows of each key, and sees that all of them open.
func (o *office) keys(t *testing.T) string {
	t.Helper()
	type row struct {
		owner, id, key int64
		body           []byte
	}
	all, err := storage.All(t.Context(), o.db, func(s storage.Row) (r row, err error) {
		err = s.Scan(&r.owner, &r.id, &r.key, &r.body)
		return r, err
	}, `SELECT owner, id, key_id, body FROM letters WHERE body IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	count := map[int64]int{}
	for _, r := range all {
		want := text(int(r.owner), int(r.id))
		if got, err := o.Vault.Open(&letters, r.key, r.body, r.owner, r.id); err != nil || string(got) != want {
			t.Fatalf("%d %d: %q, %v", r.owner, r.id, got, err)
		}
		if plain := bytes.Contains(r.body, []byte(want)); plain != (r.key == 0) {
			t.Fatalf("key %d is stored as %q", r.key, r.body)
		}
		count[r.key]++
	}
	return fmt.Sprint(count)
}

func (o *office) adopt(t *testing.T, on bool, ids ...int) {
	t.Helper()
	if err := o.Adopt(t.Context(), ring(t, ids...), on); err != nil {
		t.Fatal(err)
	}
}

func all(key int) string { return fmt.Sprintf("map[%d:%d]", key, letterRows) }

// booked is which keys the book says rows may need.
func (o *office) booked(t *testing.T) string {
	t.Helper()
	ids, err := KeysIn(t.Context(), o.db)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(ids)
}

// Switched on, rotated, switched off: rows follow, and each key can go when
// they have.
func TestRotation(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		o := newOffice(t, db)
		if err := o.Adopt(t.Context(), nil, true); err != nil {
			t.Fatal(err)
		}
		o.fill(t)
		for _, step := range []struct {
			on   bool
			ring []int
			want int
		}{{true, []int{1}, 1}, {true, []int{2, 1}, 2}, {true, []int{1, 2}, 1}, {true, []int{3, 1, 2}, 3}, {false, []int{3}, 0}} {
			before := o.keys(t)
			o.adopt(t, step.on, step.ring...)
			if got := o.keys(t); got != before {
				t.Errorf("%v: %s before the rows follow, %s then", step.ring, before, got)
			}
			if o.Vault.Current() != int64(step.want) {
				t.Errorf("%v: key %d is in force", step.ring, o.Vault.Current())
			}
			if err := o.pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := o.keys(t); got != all(step.want) {
				t.Errorf("%v: %s", step.ring, got)
			}
			want := fmt.Sprintf("[%d]", step.want)
			if step.want == 0 {
				want = "[]"
			}
			if got := o.booked(t); got != want {
				t.Errorf("%v: booked are %s", step.ring, got)
			}
		}
		if err := o.Adopt(t.Context(), nil, true); err != nil {
			t.Errorf("without keys after the end: %v", err)
		}
		if strings.Contains(o.log.String(), "dear") || strings.Contains(o.log.String(), secret(1)) {
			t.Error("secrets are logged")
		}
	})
}

// cutDB ends a pass after some commits, as a crash would.
type cutDB struct {
	storage.DB
	left int
}

var errCut = errors.New("the power is gone")

func (c *cutDB) Commit(ctx context.Context, w *storage.WriteSet) error {
	if c.left--; c.left < 0 {
		return errCut
	}
	return c.DB.Commit(ctx, w)
}

// What was rewritten before a crash is not looked at again.
func TestRotationResumes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		o := newOffice(t, db)
		o.fill(t)
		o.adopt(t, true, 1)
		o.Rotation.db = &cutDB{db, 2}
		if err := o.pass(t.Context()); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if got, want := o.keys(t), fmt.Sprintf("map[0:%d 1:%d]", letterRows-2*stepRows, 2*stepRows); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := o.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) {
			t.Errorf("key 1: %v", err)
		}
		again := newOffice(t, db)
		again.adopt(t, true, 1)
		if err := again.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := again.keys(t); got != all(1) || again.now().Rows != letterRows-2*stepRows {
			t.Errorf("%s, %d rows after the crash", got, again.now().Rows)
		}
		if !strings.Contains(again.log.String(), "resumed=true") {
			t.Error(again.log.String())
		}
	})
}

// A key that comes into force in the middle of a pass: the pass ends, and one
// for the new key begins.
func TestRotationOvertaken(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	o := newOffice(t, db)
	o.fill(t)
	o.adopt(t, true, 1)
	o.Rotation.db = &cutDB{db, 1}
	if err := o.pass(t.Context()); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	p := &pass{Rotation: o.Rotation, target: 1}
	o.Rotation.db = db
	o.adopt(t, true, 2, 1)
	if err := p.table(t.Context(), o.tables[0], nil); !errors.Is(err, errOvertaken) {
		t.Errorf("the old pass goes on: %v", err)
	}
	if got := o.booked(t); got != "[1 2]" {
		t.Errorf("booked are %s", got)
	}
	if err := o.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) || !strings.Contains(err.Error(), "250 rows of letters") {
		t.Errorf("key 1: %v", err)
	}
	if err := o.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.keys(t); got != all(2) {
		t.Error(got)
	}
	for id, want := range map[int64]error{1: nil, 2: ErrNeeded, 3: ErrNoKey} {
		if err := o.Retirable(t.Context(), id); !errors.Is(err, want) {
			t.Errorf("key %d: %v", id, err)
		}
	}
}

// The goroutine does it by itself, and its end is the end of the work.
func TestRotationRuns(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	o := newOffice(t, db)
	o.fill(t)
	o.adopt(t, true, 1)
	o.Start(t.Context())
	until := func(key int) {
		t.Helper()
		for {
			b, err := readBook(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			if b.rows.Target == int64(key) && !b.rows.Open {
				break
			}
		}
		if got := o.keys(t); got != all(key) {
			t.Error(got)
		}
	}
	until(1)
	o.adopt(t, true, 2, 1)
	until(2)
	o.Stop()
	s, err := o.Status(t.Context())
	if err != nil || s.Current != 2 || !s.On || fmt.Sprint(s.File) != "[2 1]" || fmt.Sprint(s.Tables) != fmt.Sprintf("[{letters map[2:%d]}]", letterRows) || s.Job.State != Done {
		t.Errorf("%+v, %v", s, err)
	}
}

// held is a clock whose timers wait.
type held struct {
	quick
	due []func()
}

func (h *held) AfterFunc(_ time.Duration, f func()) func() bool {
	h.due = append(h.due, f)
	return func() bool { return true }
}

// What was sealed before a change gets its time to reach the database, however
// often the keys file is read meanwhile.
func TestRotationSettles(t *testing.T) {
	o := newOffice(t, storagetest.Open(t, storagetest.SQLite(t)))
	clock := &held{}
	o.Rotation.clock, o.started = clock, true
	for _, keys := range [][]int{{1}, {1}, {2, 1}, {2, 1}} { // `parley keys new`, then a reload
		o.adopt(t, true, keys...)
		if len(o.wake) != 0 {
			t.Errorf("with keys %v rows are looked for at once", keys)
		}
	}
	for i, f := range clock.due {
		f()
		if last := i == len(clock.due)-1; len(o.wake) == 1 != last {
			t.Errorf("after timer %d of %d: %d", i+1, len(clock.due), len(o.wake))
		}
	}
	if len(clock.due) != 2 {
		t.Errorf("%d timers for two changes", len(clock.due))
	}
}

// Rows must not be without their key: not at the start, not by a reload.
func TestMissingKey(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		o := newOffice(t, db)
		o.adopt(t, true, 1)
		o.fill(t)
		if err := o.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		other, _, err := parse("test", []byte("1 "+secret(9)))
		if err != nil {
			t.Fatal(err)
		}
		rows := fmt.Sprintf("%d rows of letters", letterRows)
		for want, ring := range map[string]*Ring{
			"key 1 is not in the keys file": ring(t, 2),
			"keys_file is not set":          nil,
			"key 1 is not the one":          other,
		} {
			for name, r := range map[string]*office{"reload": o, "start": newOffice(t, db)} {
				err := r.Adopt(t.Context(), ring, true)
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), rows) {
					t.Errorf("%s: %v, want %q and %q", name, err, want, rows)
				}
			}
		}
		if o.keys(t) != all(1) || o.Vault.Current() != 1 {
			t.Error("what was refused is in force")
		}
		if _, err := db.Exec(t.Context(), `DELETE FROM letters`); err != nil {
			t.Fatal(err)
		}
		if err := o.Adopt(t.Context(), other, true); err != nil {
			t.Errorf("no row needs it: %v", err)
		}
		if b, err := readBook(t.Context(), db); err != nil || !bytes.Equal(b.keys[1], other.keys[0].check) {
			t.Errorf("the other key 1 is not booked: %v", err)
		}
	})
}

// A row that does not open keeps its key, and the key stays needed.
func TestDamagedRow(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	o := newOffice(t, db)
	o.adopt(t, true, 1)
	o.fill(t)
	if _, err := db.Exec(t.Context(), `UPDATE letters SET body = (SELECT body FROM letters WHERE owner = 0 AND id = 0) WHERE owner = 2 AND id = 5`); err != nil {
		t.Fatal(err)
	}
	o.adopt(t, true, 2, 1)
	if err := o.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := o.now(); j.State != Stuck || j.Damaged != 1 || j.Rows != letterRows-1 {
		t.Errorf("%+v", j)
	}
	if err := o.Retirable(t.Context(), 1); !errors.Is(err, ErrNeeded) || !strings.Contains(err.Error(), "1 rows of letters") {
		t.Error(err)
	}
	if !strings.Contains(o.log.String(), "letters [2 5]") {
		t.Errorf("the row is not named: %s", o.log.String())
	}
	if _, err := db.Exec(t.Context(), `DELETE FROM letters WHERE owner = 2 AND id = 5`); err != nil {
		t.Fatal(err)
	}
	if err := o.pass(t.Context()); err != nil || o.booked(t) != "[2]" {
		t.Errorf("booked are %s, %v", o.booked(t), err)
	}
}

// A grep over the database's files finds a text that was stored plain, and none
// that was sealed, be it from the beginning or later.
func TestDatabaseFilesHoldNoText(t *testing.T) {
	for name, c := range map[string]struct{ before, after, found bool }{
		"off": {false, false, true}, "on": {true, true, false}, "switched on": {false, true, false},
	} {
		conf := storagetest.SQLite(t)
		db := storagetest.Open(t, conf)
		o := newOffice(t, db)
		o.adopt(t, c.before, 1)
		o.fill(t)
		o.adopt(t, c.after, 1)
		if err := o.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil { // the write-ahead log is folded in
			t.Fatal(err)
		}
		raw, err := os.ReadFile(conf.Path)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for i := range letterRows {
			found = found || bytes.Contains(raw, []byte(text(i%3, i)))
		}
		if found != c.found {
			t.Errorf("%s: text in the file: %v", name, found)
		}
	}
}

// While a server runs, its log is looked at as well.
func TestLogHoldsNoText(t *testing.T) {
	for _, on := range []bool{false, true} {
		conf := storagetest.SQLite(t)
		o := newOffice(t, storagetest.Open(t, conf))
		o.adopt(t, on, 1)
		o.fill(t)
		found := false
		for _, suffix := range []string{"", "-wal"} {
			raw, err := os.ReadFile(conf.Path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(raw, []byte(text(1, 100)))
		}
		if found == on {
			t.Errorf("encryption %v: the text is in the files: %v", on, found)
		}
	}
}
