// Package storagetest runs a test on each database: SQLite in the test's
// directory, and a real Postgres in a schema of the test's own.
//
// The Postgres is the one that PARLEY_TEST_POSTGRES names (a connection
// string; `.ci/testpg start DIR` starts one and prints it). Without it the
// subtest is skipped and says so; in CI it fails.
package storagetest

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"parley/storage"
)

// Variable names the environment variable with the Postgres for tests.
const Variable = "PARLEY_TEST_POSTGRES"

// Each runs f as a subtest on each database.
func Each(t *testing.T, f func(t *testing.T, db storage.DB)) {
	t.Helper()
	EachConfig(t, func(t *testing.T, c storage.Config) { f(t, Open(t, c)) })
}

// EachConfig is Each for tests that open the database themselves.
func EachConfig(t *testing.T, f func(t *testing.T, c storage.Config)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Postgres(t)) })
}

// SQLite returns the configuration of a new database.
func SQLite(t testing.TB) storage.Config {
	return storage.Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "parley.db")}
}

// Postgres returns the configuration of a new schema, which goes with the test.
func Postgres(t testing.TB) storage.Config {
	t.Helper()
	dsn := os.Getenv(Variable)
	if dsn == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set: .ci/testpg start DIR prints it", Variable)
		}
		t.Skipf("no Postgres: set %s to what .ci/testpg start DIR prints", Variable)
	}
	schema := "t" + strings.ToLower(rand.Text())
	admin(t, dsn, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { admin(t, dsn, "DROP SCHEMA "+schema+" CASCADE") })
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("%s: not a URL", Variable)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return storage.Config{Driver: "postgres", DSN: u.String(), MaxConns: 8}
}

func admin(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("%s: %v", Variable, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Open opens a database that is closed with the test.
func Open(t testing.TB, c storage.Config) storage.DB {
	t.Helper()
	db, err := storage.Open(context.Background(), c, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}
