package storage_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"parley/storage"
)

// far is a database whose rows lie on pages of their own, as soon as there are enough:
// its log grows with every page that a small row touches.
type far struct {
	storage.DB
	path string
	rows int // that were stored
}

func openFar(t *testing.T, dir string, walPages int) *far {
	t.Helper()
	f := &far{path: filepath.Join(dir, "parley.db")}
	var err error
	if f.DB, err = storage.Open(t.Context(), storage.Config{Path: f.path, WALPages: walPages}, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	err = f.Migrate(t.Context(), "far", fstest.MapFS{"sqlite/0001_far.sql": {Data: []byte("-- +goose Up\nCREATE TABLE far (id blob PRIMARY KEY) WITHOUT ROWID;\n")}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var insertFar = &storage.Stmt{Name: "far.insert", SQL: `INSERT INTO far (id) VALUES ($1)`}

// add commits twenty rows.
func (f *far) add() error {
	const n = 20
	var w storage.WriteSet
	for range n {
		var id [32]byte
		_, _ = rand.Read(id[:])
		w.Add(insertFar, id[:])
	}
	err := f.Commit(context.Background(), &w)
	if err == nil {
		f.rows += n
	}
	return err
}

// A log that counts payload alone grows with every page that a small row
// touches, until there is no room for the checkpoint that would end it
// (reliability row 30).
func TestReliability30LogStaysSmall(t *testing.T) {
	const (
		bound = 8 << 20
		most  = bound + 4<<20 // one transaction more than the bound is a few hundred KiB
	)
	f := openFar(t, t.TempDir(), bound/4096)
	for range 2000 {
		if err := f.add(); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(f.path + "-wal"); err != nil || st.Size() > most {
			t.Fatalf("the log has %d bytes: %v", st.Size(), err)
		}
	}
}
