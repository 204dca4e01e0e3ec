package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/admin/client"
	"parley/storage"
)

func restoreCommand() *cobra.Command {
	var p place
	var force bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put back what `parley backup` wrote; the server must not run",
		Long: `Verifies FILE, then puts its database, certificates and files into the data
directory. What is there is replaced only with --force; the database is kept
under another name. Clients log in anew with their passwords and fetch their
rosters again; what happened since the backup is gone.

The configuration that was backed up is written into the data directory under the
name restored-NAME; the one that is in force is not touched.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := p.load(cmd)
			if err != nil {
				return err
			}
			return s.restore(cmd.Context(), cmd.OutOrStdout(), args[0], force)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace what is in the data directory")
	return cmd
}

func (s *setup) restore(ctx context.Context, out io.Writer, file string, force bool) error {
	c := s.settings.StorageConfig()
	if c.Driver == "postgres" {
		return fmt.Errorf("this installation is on Postgres: stop the servers, then\n\n  pg_restore --clean --if-exists --dbname='%s' FILE\n\nwith its password in a file that PGPASSFILE names (docs/operate.md says more)", withoutPassword(c.DSN))
	}
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if err := errors.Join(becomeOwner(s.settings.Data), prepareData(s.settings.Data)); err != nil {
		return err
	}
	if err := s.stopped(ctx); err != nil {
		return err
	}
	if !force {
		for _, name := range []string{c.Path, c.Path + "-wal"} {
			if _, err := os.Lstat(name); err == nil {
				return fmt.Errorf("%s is there: --force replaces it", name)
			}
		}
	}
	tmp, err := os.MkdirTemp(s.settings.Data, ".parley-restore-*")
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	m, err := unbundle(from, tmp)
	if err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	r := &restoring{setup: s, m: m, tmp: tmp, database: c.Path, force: force}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	if r.kept != "" {
		_, _ = fmt.Fprintf(out, "the database that was there: %s\n", r.kept)
	}
	if err := m.print(out, c.Path); err != nil {
		return err
	}
	if err := needsKeys(out, m.Keys); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the state of %s is back; clients log in with their passwords\n", m.Created.Local().Format(time.DateTime))
	return err
}

// stopped makes sure that nobody uses the installation.
func (s *setup) stopped(ctx context.Context) error {
	_, err := client.Open(ctx, s.settings.Data)
	switch {
	case err == nil:
		return fmt.Errorf("a server runs on %s: stop it first", s.settings.Data)
	case !errors.Is(err, client.ErrNotRunning):
		return err
	}
	path := s.settings.StorageConfig().Path
	used, err := storage.UsedSQLite(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if used {
		return fmt.Errorf("%s is in use: stop the server first", path)
	}
	return err
}

// restoring is a bundle that was unpacked into tmp.
type restoring struct {
	*setup
	m        *manifest
	tmp      string
	database string
	force    bool
	kept     string // the database that was replaced
}

func (r *restoring) run(ctx context.Context) error {
	db := filepath.Join(r.tmp, bundleDatabase)
	tables, err := storage.CheckSQLite(ctx, db)
	if err != nil {
		return err
	}
	if !slices.Equal(tables, r.m.Tables) {
		return fmt.Errorf("%w: tables do not have the rows they had", errNoBundle)
	}
	if err := r.renew(ctx, db); err != nil {
		return err
	}
	if err := r.files(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.database), 0o700); err != nil {
		return err
	}
	// Until it is beside the one that is there, and so fits, that one stays.
	beside := r.database + restoringSuffix
	if err := move(db, beside); err != nil {
		return err
	}
	if err := r.aside(); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	if err := os.Rename(beside, r.database); err != nil {
		return err
	}
	return syncDir(filepath.Dir(r.database))
}

// What restore calls databases that are not in force.
const (
	restoringSuffix = ".restoring"
	replacedSuffix  = ".replaced-"
)

// renew makes an old state one that can go on (reliability row 40). Tables are
// migrated on the way, so that a backup of a later release is refused here.
func (r *restoring) renew(ctx context.Context, path string) error {
	db, err := storage.Open(ctx, storage.Config{Driver: "sqlite", Path: path}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	err = plugins.Migrate(ctx, db, r.plugins)
	if err == nil {
		reached := r.reached(ctx)
		err = db.Tx(ctx, func(tx storage.Tx) error { return r.restored(ctx, tx, reached) })
	}
	return errors.Join(err, db.Close())
}

// restored lets each feature renew its tables.
func (r *restoring) restored(ctx context.Context, tx storage.Tx, reached int64) error {
	for _, p := range r.plugins {
		if p.Restored == nil {
			continue
		}
		if err := p.Restored(ctx, tx, reached); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// reached is how far ids can have come.
func (r *restoring) reached(ctx context.Context) int64 {
	at := max(time.Now().UnixMicro(), r.m.Created.UnixMicro())
	if _, err := os.Stat(r.database); err != nil {
		return at
	}
	// The database that is replaced knows, if it can be read at all.
	db, err := storage.Open(ctx, storage.Config{Driver: "sqlite", Path: r.database}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return at
	}
	defer func() { _ = db.Close() }()
	for _, p := range r.plugins {
		if p.Reached == nil {
			continue
		}
		if mark, err := p.Reached(ctx, db); err == nil {
			at = max(at, mark)
		}
	}
	return at
}

// files puts everything but the database into place.
func (r *restoring) files() error {
	for _, f := range r.m.Files {
		to, ok := r.destination(f.Name)
		if !ok {
			continue
		}
		if _, err := os.Lstat(to); err == nil && !r.force {
			return fmt.Errorf("%s is there: --force replaces it", to)
		}
	}
	for _, f := range r.m.Files {
		to, ok := r.destination(f.Name)
		if !ok {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := errors.Join(move(filepath.Join(r.tmp, filepath.FromSlash(f.Name)), to), syncDir(filepath.Dir(to))); err != nil {
			return err
		}
	}
	return nil
}

// destination is where a file of the bundle goes; false: nowhere. One that was
// made when the database's own files were not left out may hold them as files in
// a folder of the data directory: they are no state of one moment.
func (r *restoring) destination(name string) (string, bool) {
	if name == bundleDatabase {
		return "", false
	}
	if rel, ok := strings.CutPrefix(name, bundleData); ok {
		to := filepath.Join(r.settings.Data, filepath.FromSlash(rel))
		return to, !namesOf(r.database).has(to)
	}
	return filepath.Join(r.settings.Data, "restored-"+filepath.Base(name)), true
}

// aside renames the database that is there, with its log: a log beside another
// database would be taken for its own.
func (r *restoring) aside() error {
	keep := r.database + replacedSuffix + time.Now().UTC().Format("20060102T150405.000000")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(r.database+suffix, keep+suffix)
		switch {
		case err == nil:
			r.kept = keep
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// move renames; to another file system, where storage.path or what a link leads
// to may be, the file is copied first.
func move(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		return nil
	}
	beside := to + restoringSuffix
	src, openErr := os.Open(from)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer func() { _ = src.Close() }()
	dst, openErr := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	if err := os.Rename(beside, to); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	return nil
}
