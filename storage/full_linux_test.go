package storage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"parley/storage"
	"parley/storage/storagetest"
)

// A disk that was full is freed, again and again: what is freed must not all go into
// the log, which then could not be folded in, and the database would stay full for ever
// (reliability row 30).
func TestReliability30FreedAgain(t *testing.T) {
	ctx := context.Background()
	dir := storagetest.SmallDisk(t, 32)
	db, err := storage.Open(ctx, storage.Config{Path: filepath.Join(dir, "parley.db")}, slog.New(slog.DiscardHandler), nil) // its log may take twice the disk
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.Migrate(ctx, "far", fstest.MapFS{"sqlite/0001_far.sql": {Data: []byte("-- +goose Up\nCREATE TABLE far (id blob PRIMARY KEY) WITHOUT ROWID;\n")}})
	if err != nil {
		t.Fatal(err)
	}
	insert := &storage.Stmt{Name: "far.insert", SQL: `INSERT INTO far (id) VALUES ($1)`}
	stored := 0
	add := func() error {
		var w storage.WriteSet
		for range 20 {
			var id [32]byte // each on a page of its own, as soon as there are enough
			_, _ = rand.Read(id[:])
			w.Add(insert, id[:])
		}
		err := db.Commit(ctx, &w)
		if err == nil {
			stored += 20
		}
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	for round := range 8 {
		for range 100 {
			if err := add(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if err := storagetest.Fill(ballast); err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; {
			err = add()
		}
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Fatal(err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		recovers(t, add)
	}
	var n int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM far`).Scan(&n); err != nil || n != stored {
		t.Errorf("%d rows are there of %d that were stored: %v", n, stored, err)
	}
}
