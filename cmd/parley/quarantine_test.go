package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"parley/storage"
)

func TestQuarantineCommands(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if out := must(t, "quarantine", "list", "--data", data); !strings.HasPrefix(out, "ID ") { // the house is made
		t.Fatal(out)
	}
	db, err := storage.Open(context.Background(), storage.Config{Driver: "sqlite", Path: filepath.Join(data, "parley.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(t.Context(), `INSERT INTO quarantine (id, sender, account, pending, reason, tries, stanza) VALUES (1700000000000000, 'mallory@localhost', '', 0, 'index out of range', 3, $1)`, []byte("<message id='p'/>"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir)
	if out := must(t, "quarantine", "list", "--data", s.data); !strings.Contains(out, "mallory@localhost") || strings.Contains(out, "<message") {
		t.Error(out)
	}
	if out := must(t, "quarantine", "show", "1700000000000000", "--data", s.data); !strings.Contains(out, `\u003cmessage id='p'/\u003e`) {
		t.Error(out)
	}
	must(t, "quarantine", "drop", "1700000000000000", "--data", s.data)
	if out := must(t, "quarantine", "list", "--data", s.data, "--json"); strings.TrimSpace(out) != "[]" {
		t.Error(out)
	}
}
