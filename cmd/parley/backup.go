package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"parley/storage"
)

func backupCommand() *cobra.Command {
	var p place
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole installation into one file, whether the server runs or not",
		Long: `Writes the database as it is at one moment, the folders of the data directory
(certificates, keys, files) and the configuration file into one tar file, and
verifies the copy of the database. The server may run. Where FILE is written
there must be free space for the database twice. FILE holds people's messages,
password keys and private keys: protect it like the server.

Links to folders and files are followed. What cannot be read ends the backup.
Not in it: certificate and secret files outside the data directory that the
configuration names; the keys that messages are encrypted with, wherever they
are: keep their file at another place; databases that a restore has put aside.
What else of the data directory is left out is listed: files that are in none of
its folders, names that begin with a dot, links to what is not there, and the
folder that FILE is written to.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := p.load(cmd)
			if err != nil {
				return err
			}
			return s.backup(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), p.file, args[0], force)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	return cmd
}

func (s *setup) backup(ctx context.Context, out, progress io.Writer, config, to string, force bool) error {
	c := s.settings.StorageConfig()
	if c.Driver == "postgres" {
		return fmt.Errorf(`this installation is on Postgres, which makes its own backups, also while the server runs:

  pg_dump --format=custom --file=%s --dbname='%s'

Its password belongs into a file that PGPASSFILE names: other users of this machine
see the arguments of a command. Keep the data directory's folders (certificates) and
the configuration with it:

  tar -chf %s.data.tar -C '%s' --exclude='.parley-*' .

(docs/operate.md says more)`, to, withoutPassword(c.DSN), to, s.settings.Data)
	}
	if _, err := os.Lstat(to); err == nil && !force {
		return fmt.Errorf("%s is there already: choose another name, or --force", to)
	}
	if _, err := os.Stat(c.Path); err != nil {
		return fmt.Errorf("no database to back up: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(to), ".parley-backup-*")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	m, err := s.bundle(ctx, progress, c.Path, config, tmp, filepath.Dir(to))
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := publish(filepath.Join(tmp, "bundle"), to, force); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := m.print(out, to); err != nil {
		return err
	}
	return needsKeys(out, m.Keys)
}

// bundle makes tmp/bundle.
func (s *setup) bundle(ctx context.Context, progress io.Writer, database, config, tmp, target string) (*manifest, error) {
	copied := filepath.Join(tmp, "database")
	created := time.Now()
	see := &ticks{w: progress, next: created.Add(tickEvery)}
	if err := storage.BackupSQLite(ctx, database, copied, func(done, total int) {
		see.say("database: %d of %d pages", done, total)
	}); err != nil {
		return nil, err
	}
	keys, err := keysOf(ctx, copied)
	if err != nil {
		return nil, err
	}
	tables, err := storage.CheckSQLite(ctx, copied)
	if err != nil {
		return nil, fmt.Errorf("the copy is not good: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(tmp, "bundle"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	b := &bundler{tar: tar.NewWriter(f), m: manifest{Format: bundleFormat, Version: thisBuild().Version, Created: created.UTC(), Domains: s.settings.Domains, Tables: tables, Keys: keys}}
	err = b.file(bundleDatabase, copied)
	if err == nil {
		err = s.folders(b, database, target)
	}
	if err == nil && config != "" {
		err = b.file(bundleConfig+filepath.Base(config), config)
	}
	if err == nil {
		err = b.finish()
	}
	return &b.m, errors.Join(err, f.Sync(), f.Close())
}

// folders adds those of the data directory.
func (s *setup) folders(b *bundler, database, target string) error {
	w := &folders{data: s.settings.Data, database: namesOf(database), target: target, keys: s.settings.Storage.Encryption.KeysFile}
	w.add = func(rel, from string) error { return b.file(bundleData+filepath.ToSlash(rel), from) }
	w.skip = func(at, why string) { b.m.Left = append(b.m.Left, at+": "+why) }
	return w.walk()
}

// publish gives a finished file its name; without force it replaces none.
func publish(from, to string, force bool) error {
	err := errors.ErrUnsupported
	if !force {
		err = os.Link(from, to) // fails when to is there
		if errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err != nil { // replaces, or a file system without links
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(to))
}

// syncDir waits until the disk has a directory's names.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// print lists what a bundle holds.
func (m *manifest) print(w io.Writer, name string) error {
	rows := [][]string{{"TABLE", "ROWS"}}
	for _, t := range m.Tables {
		rows = append(rows, []string{t.Table, strconv.FormatInt(t.Rows, 10)})
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	for i, left := range m.Left {
		if i == 0 {
			_, _ = fmt.Fprintln(w)
		}
		_, _ = fmt.Fprintf(w, "not in it: %s\n", left)
	}
	size := int64(0)
	for _, f := range m.Files {
		size += f.Size
	}
	_, err := fmt.Fprintf(w, "\n%s: verified, %d files, %.1f MB\n", name, len(m.Files), float64(size)/1e6)
	return err
}

// withoutPassword is a connection string as it may be shown.
func withoutPassword(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Host == "" {
		return "…"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	q.Del("password")
	q.Del("sslpassword")
	u.RawQuery = q.Encode()
	return u.String()
}

// tickEvery is the time between two lines of progress.
const tickEvery = time.Second

// ticks writes lines of progress, not too many.
type ticks struct {
	w    io.Writer
	next time.Time
}

func (t *ticks) say(format string, args ...any) {
	if now := time.Now(); now.After(t.next) {
		t.next = now.Add(tickEvery)
		_, _ = fmt.Fprintf(t.w, format+"\n", args...)
	}
}
