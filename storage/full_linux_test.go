package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// The log of these tests may take twice the disk.
const anyLog = 0

// fill leaves no room, and adds until that is noticed; it returns the file that takes it.
func (f *far) fill(t *testing.T) (ballast string) {
	t.Helper()
	ballast = filepath.Join(filepath.Dir(f.path), "ballast")
	if err := storagetest.Fill(ballast); err != nil {
		t.Fatal(err)
	}
	f.refused(t)
	return ballast
}

// refused adds until there is no room.
func (f *far) refused(t *testing.T) {
	t.Helper()
	var err error
	for err == nil {
		err = f.add()
	}
	if !errors.Is(err, storage.ErrUnavailable) {
		t.Fatal(err)
	}
}

// adds stores so many times twenty rows.
func (f *far) adds(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := f.add(); err != nil {
			t.Fatal(err)
		}
	}
}

// whole checks that what was stored is there.
func (f *far) whole(t *testing.T) {
	t.Helper()
	var n int
	if err := f.QueryRow(t.Context(), `SELECT count(*) FROM far`).Scan(&n); err != nil || n != f.rows {
		t.Errorf("%d rows are there of %d that were stored: %v", n, f.rows, err)
	}
}

func free(t *testing.T, ballast string) {
	t.Helper()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
}

// A disk that was full is freed, again and again: what is freed must not all go into
// the log, which then could not be folded in, and the database would stay full for ever
// (reliability row 30).
func TestReliability30FreedAgain(t *testing.T) {
	f := openFar(t, storagetest.SmallDisk(t, 32), anyLog)
	for range 8 {
		f.adds(t, 100)
		free(t, f.fill(t))
		f.adds(t, 1)
	}
	f.whole(t)
}

// The same while somebody reads, a backup for one, so that nothing can be folded in:
// writing goes on as long as the database has room for the log, no longer, and again when
// the reader has gone (reliability row 30).
func TestReliability30FreedWhileRead(t *testing.T) {
	f := openFar(t, storagetest.SmallDisk(t, 32), anyLog)
	f.adds(t, 100)
	rows, err := f.Query(t.Context(), `SELECT id FROM far`)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	free(t, f.fill(t))
	f.adds(t, 1)
	f.refused(t)
	if st, err := os.Stat(f.path + "-wal"); err != nil || st.Size() > 24<<20 {
		t.Errorf("the log has %d bytes of the disk's 32 MiB: %v", st.Size(), err)
	}
	rows.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for err = f.add(); err != nil; err = f.add() { // nothing says that a reader has gone
		if ctx.Err() != nil {
			t.Fatalf("still full: %v", err)
		}
	}
	f.whole(t)
}

// Whoever only reads a full disk is not refused: that is how one copies it to a larger
// one.
func TestReliability30FullIsRead(t *testing.T) {
	ctx := t.Context()
	f := openFar(t, storagetest.SmallDisk(t, 8), anyLog)
	f.fill(t)
	n := 0
	if err := f.Tx(ctx, func(tx storage.Tx) error { return tx.QueryRow(ctx, `SELECT count(*) FROM far`).Scan(&n) }); err != nil || n != f.rows {
		t.Errorf("%d rows are read of %d: %v", n, f.rows, err)
	}
	if _, err := f.Exec(ctx, `DELETE FROM far`); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a full disk takes it: %v", err)
	}
}
