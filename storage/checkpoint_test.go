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

// A log that counts payload alone grows with every page that a small row
// touches, until there is no room for the checkpoint that would end it
// (reliability row 30).
func TestReliability30LogStaysSmall(t *testing.T) {
	const (
		bound = 8 << 20
		most  = bound + 4<<20 // one transaction more than the bound is a few hundred KiB
	)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "parley.db")
	db, err := storage.Open(ctx, storage.Config{Path: path, WALPages: bound / 4096}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.Migrate(ctx, "far", fstest.MapFS{"sqlite/0001_far.sql": {Data: []byte("-- +goose Up\nCREATE TABLE far (id blob PRIMARY KEY) WITHOUT ROWID;\n")}})
	if err != nil {
		t.Fatal(err)
	}
	insert := &storage.Stmt{Name: "far.insert", SQL: `INSERT INTO far (id) VALUES ($1)`}
	for range 2000 {
		var w storage.WriteSet
		for range 20 {
			var id [32]byte // each on a page of its own, as soon as there are enough
			_, _ = rand.Read(id[:])
			w.Add(insert, id[:])
		}
		if err := db.Commit(ctx, &w); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path + "-wal"); err != nil || st.Size() > most {
			t.Fatalf("the log has %d bytes: %v", st.Size(), err)
		}
	}
}
