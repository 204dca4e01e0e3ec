package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/storage"
	"parley/storage/atrest"
)

func migrateCommand() *cobra.Command {
	var p place
	var dsn, file string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Copy the database from SQLite to an empty Postgres; the server must not run",
		Long: `Makes the tables in an empty Postgres database, copies every row, reads all of
them back and compares. No row is in Postgres before everything was right; the
SQLite database stays as it is. When the connection is lost while Postgres
commits, it says so: run it again, and it tells whether the rows are there.
Afterwards the configuration has to name the
new database.`,
		Example: `  parley migrate --config parley.yaml --to postgres://parley@db.example.org/parley
  parley migrate --config parley.yaml --to-file /etc/parley/dsn`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.load(cmd)
			if err != nil {
				return err
			}
			to := storage.Config{Driver: "postgres", DSN: dsn}
			if file != "" {
				raw, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				to.DSN = strings.TrimSpace(string(raw))
			}
			return s.migrate(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), to, file)
		},
	}
	p.common(cmd)
	cmd.Flags().StringVar(&dsn, "to", "", "connection string of the target, without a password: other users of this machine see it")
	cmd.Flags().StringVar(&file, "to-file", "", "file that holds the connection string")
	cmd.MarkFlagsOneRequired("to", "to-file")
	cmd.MarkFlagsMutuallyExclusive("to", "to-file")
	return cmd
}

func (s *setup) migrate(ctx context.Context, out, progress io.Writer, to storage.Config, file string) error {
	c := s.settings.StorageConfig()
	if c.Driver != "sqlite" {
		return errors.New("this installation is on Postgres already")
	}
	if _, err := os.Stat(c.Path); err != nil {
		return fmt.Errorf("no database to copy: %w", err)
	}
	if err := becomeOwner(s.settings.Data); err != nil {
		return err
	}
	if err := s.stopped(ctx); err != nil {
		return err
	}
	src, err := s.ready(ctx, c)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := s.ready(ctx, to)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer func() { _ = dst.Close() }()
	start := time.Now()
	see := &ticks{w: progress, next: start.Add(tickEvery)}
	tables, err := storage.Copy(ctx, src, dst, func(table string, rows int64, took time.Duration) {
		see.say("%s: %d rows, %.0f a second", table, rows, perSecond(rows, took))
	})
	switch {
	case errors.Is(err, storage.ErrCopied):
		_, _ = fmt.Fprintf(progress, "migrate: %v\nRun ANALYZE in Postgres: queries are slow without it.\n", err)
	case errors.Is(err, storage.ErrCopyUnknown):
		return fmt.Errorf("migrate: %w\nRun it again: when it says that a table is not empty, everything was copied, and the configuration can name Postgres", err)
	case err != nil:
		return fmt.Errorf("migrate: no row was written: %w", err)
	}
	if err := migrated(out, tables, time.Since(start), c.Path, file); err != nil {
		return err
	}
	keys, err := atrest.KeysIn(ctx, dst)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return needsKeys(out, keys)
}

// ready opens a database with every table up to date.
func (s *setup) ready(ctx context.Context, c storage.Config) (storage.DB, error) {
	db, err := storage.Open(ctx, c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	if err := plugins.Migrate(ctx, db, s.plugins); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func perSecond(rows int64, took time.Duration) float64 {
	return float64(rows) / max(took.Seconds(), 1e-6)
}

// migrated says what was copied and what comes next.
func migrated(w io.Writer, tables []storage.Copied, took time.Duration, path, file string) error {
	rows := [][]string{{"TABLE", "ROWS", "CHECKSUM", "ROWS/S"}}
	sum := int64(0)
	for _, t := range tables {
		sum += t.Rows
		rows = append(rows, []string{t.Table, strconv.FormatInt(t.Rows, 10), t.Checksum, fmt.Sprintf("%.0f", perSecond(t.Rows, t.Took))})
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	if abs, err := filepath.Abs(file); file != "" && err == nil {
		file = abs // in the configuration it would count from there
	}
	if file == "" {
		file = "FILE   # a file with the connection string, readable for the server alone"
	}
	_, err := fmt.Fprintf(w, `
%d rows copied and compared in %s. Now put this into the configuration, in the
place of driver and path, and start the server; what it says about encryption stays:

  storage:
    driver: postgres
    dsn_file: %s

%s was not changed: move it away once the server runs on Postgres.
`, sum, took.Round(time.Millisecond), file, path)
	return err
}
