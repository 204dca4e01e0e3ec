package main

import (
	"log/slog"
	"path/filepath"
	"testing"

	"parley/plugins"
	"parley/plugins/all"
	"parley/storage"
)

// Reliability row 40: features renew their own tables. What was counted, used
// up or revoked since the backup does not come back to life.
func TestReliability40Restored(t *testing.T) {
	db, err := storage.Open(t.Context(), storage.Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "x.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := plugins.Migrate(t.Context(), db, all.Plugins()); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone) VALUES (1, x'01', 'romeo@localhost', 1, 7, 1, 0, x'01', 0)`,
		`INSERT INTO archive_mark (id, mark) VALUES (1, 5)`,
		`INSERT INTO roster_versions (owner, ver, floor) VALUES ('romeo@localhost', 5, 1)`,
	} {
		if _, err := db.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	const reached = int64(1000)
	s := &restoring{setup: &setup{plugins: all.Plugins()}, m: &manifest{}}
	err = db.Tx(t.Context(), func(tx storage.Tx) error { return s.restored(t.Context(), tx, reached) })
	if err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string]int64{
		`SELECT COUNT(*) FROM resumption`:    0,
		`SELECT mark FROM archive_mark`:      reached,
		`SELECT ver FROM roster_versions`:    reached,
		`SELECT floor FROM roster_versions`:  reached,
		`SELECT COUNT(*) FROM account_token`: 0,
	} {
		var got int64
		if err := db.QueryRow(t.Context(), q).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %d, want %d (%v)", q, got, want, err)
		}
	}
}
