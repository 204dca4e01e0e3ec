package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed sql
var metaMigrations embed.FS

// migrate runs a feature's migrations on an open connection pool; each feature
// has a version table of its own.
func migrate(ctx context.Context, db *sql.DB, d Dialect, feature string, fsys fs.FS, opts ...goose.ProviderOption) error {
	files, err := migrationsOf(fsys, d)
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", feature, err)
	}
	kind := database.DialectSQLite3
	if d == Postgres {
		kind = database.DialectPostgres
	}
	store, err := database.NewStore(kind, "goose_"+feature)
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", feature, err)
	}
	p, err := goose.NewProvider("", db, files, append(opts, goose.WithStore(store), goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", feature, err)
	}
	// A database that a newer release has migrated is not touched (reliability
	// row 37).
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", feature, err)
	}
	known := int64(0)
	for _, s := range p.ListSources() {
		known = max(known, s.Version)
	}
	if have > known {
		return fmt.Errorf("%w: %s is at version %d, this release knows %d; start the newer release or restore a backup", ErrTooNew, feature, have, known)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrations of %s: %w", feature, err)
	}
	return nil
}

func migrationsOf(fsys fs.FS, d Dialect) (fs.FS, error) {
	for _, dir := range []string{d.String(), "sql/" + d.String()} {
		sub, err := fs.Sub(fsys, dir)
		if err != nil {
			return nil, err
		}
		if found, _ := fs.Glob(sub, "*.sql"); len(found) > 0 {
			return sub, nil
		}
	}
	return nil, errors.New("no files for " + d.String())
}
