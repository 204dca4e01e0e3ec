package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/plugins/admin/client"
	"parley/storage"
	"parley/storage/atrest"
)

func keysCommand() *cobra.Command {
	return group("keys", "Keys that the messages in the database are encrypted with", keysStatus(), keysNew(), keysRetire(), keysWipe())
}

func keysStatus() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the keys, how many rows each was used for, and whether rows are being rewritten",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.reachAlways(cmd)
			if err != nil {
				return err
			}
			s, err := c.Keys(cmd.Context())
			if err = errors.Join(err, c.release()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printKeys(cmd.OutOrStdout(), s)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printKeys lists the keys in the order of the file, then those that only rows
// know, last what is not encrypted.
func printKeys(w io.Writer, s atrest.Status) error {
	ids := slices.Clone(s.File)
	for _, t := range s.Tables {
		for _, id := range slices.Sorted(maps.Keys(t.Rows)) {
			if id != 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	head := []string{"KEY", "USE"}
	for _, t := range s.Tables {
		head = append(head, t.Table)
	}
	rows := [][]string{head}
	for _, id := range append(ids, 0) {
		name, use := strconv.FormatInt(id, 10), "reads"
		switch {
		case id == 0:
			name, use = "none", "reads"
			if s.Current == 0 {
				use = "writes"
			}
		case id == s.Current:
			use = "writes"
		case !slices.Contains(s.File, id):
			use = "missing"
		}
		row := []string{name, use}
		for _, t := range s.Tables {
			n := "not counted"
			if t.Rows != nil {
				n = strconv.FormatInt(t.Rows[id], 10)
			}
			row = append(row, n)
		}
		rows = append(rows, row)
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", jobText(s.Job))
	return err
}

func jobText(j atrest.Job) string {
	switch j.State {
	case atrest.Done:
		return "Every row is as the key in force wants it."
	case atrest.Waiting:
		return "Rows of other keys are about to be rewritten: a minute after a key came into force, or at the next start."
	case atrest.Working:
		return fmt.Sprintf("Rows are being rewritten: %d so far, now those of %s.", j.Rows, j.Table)
	}
	return fmt.Sprintf("Rows could not be rewritten (%d of them do not open): the log says why.", j.Damaged)
}

func keysNew() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Put a fresh key into the keys file; a running server encrypts with it at once",
		Long: `Puts a fresh key before the others of the file that storage.encryption.keys_file
names, and makes the file when it is not there. A running server reads it: what
is written from then on is encrypted with the new key, and what is there is
rewritten in the background. Keep a copy of the file where backups are not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, file, err := p.keysFile(cmd)
			if err != nil {
				return err
			}
			if err := s.nothingLost(cmd.Context(), file); err != nil {
				return err
			}
			uid, gid := ownerOf(s.settings.Data)
			id, err := atrest.NewKey(file, time.Now(), uid, gid)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "key %d is in %s: keep a copy of that file, without it nobody reads what is encrypted\n", id, file)
			return s.readKeys(cmd.Context(), cmd.OutOrStdout())
		},
	}
	p.common(cmd)
	return cmd
}

func keysRetire() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "retire ID",
		Short: "Take a key that no row needs any more out of the keys file, while the server runs",
		Long: `Takes a key out of the keys file, when no row of the database needs it. Backups
made before its rows were rewritten still do: keep a copy of the key as long as
you keep those.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id <= 0 {
				return fmt.Errorf("%q is not a key's id: see `parley keys status`", args[0])
			}
			s, file, err := p.keysFile(cmd)
			if err != nil {
				return err
			}
			c, err := p.reach(cmd) // not a house of ours, which may not be root to change the file
			if err != nil {
				return err
			}
			if err := errors.Join(c.RetireKey(cmd.Context(), id), c.release()); err != nil {
				return err
			}
			if err := atrest.RemoveKey(file, id); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "key %d is out of %s; backups from before may still need it\n", id, file)
			return s.readKeys(cmd.Context(), cmd.OutOrStdout())
		},
	}
	p.common(cmd)
	return cmd
}

func keysWipe() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "wipe",
		Short: "Remove what is left of deleted messages from a SQLite database; the server must not run",
		Long: `Writes the database file anew, without its unused parts: those may hold messages
from before encryption was switched on, or under a key that was retired.
Needs free space for the database twice.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.load(cmd)
			if err != nil {
				return err
			}
			c := s.settings.StorageConfig()
			if c.Driver == "postgres" {
				return errors.New("this installation is on Postgres: VACUUM FULL archive, archive_pending, block_report, quarantine")
			}
			if err := becomeOwner(s.settings.Data); err != nil {
				return err
			}
			if err := s.stopped(cmd.Context()); err != nil {
				return err
			}
			if err := storage.VacuumSQLite(cmd.Context(), c.Path); err != nil {
				return fmt.Errorf("wipe %s: %w", c.Path, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has no unused parts any more\n", c.Path)
			return err
		},
	}
	p.common(cmd)
	return cmd
}

// keysFile is the file that the configuration names.
func (p *place) keysFile(cmd *cobra.Command) (*setup, string, error) {
	s, err := p.load(cmd)
	if err != nil {
		return nil, "", err
	}
	file := s.settings.Storage.Encryption.KeysFile
	if file == "" {
		return nil, "", errors.New(`the configuration names no keys file. Put this into it first:

  storage:
    encryption:
      keys_file: /etc/parley/keys   # not in the data directory: backups must not hold it`)
	}
	return s, file, nil
}

// nothingLost refuses a keys file that is not the one of this database: a key of
// its own beside it would read nothing, and hide what is missing.
func (s *setup) nothingLost(ctx context.Context, file string) error {
	ring, err := atrest.Load(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		ring = &atrest.Ring{}
	case err != nil:
		return nil // atrest.NewKey says what is wrong with it, or fills an empty one
	}
	c := s.settings.StorageConfig()
	if _, err := os.Stat(c.Path); c.Driver == "sqlite" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := storage.Open(ctx, c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return fmt.Errorf("no key was made: whether the database needs other keys is not known: %w", err)
	}
	err = plugins.LackingKeys(ctx, db, s.plugins, ring)
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("no key was made, %s is not the keys file of this database: %w", file, err)
	}
	return nil
}

// readKeys has a running server read the keys file.
func (s *setup) readKeys(ctx context.Context, out io.Writer) error {
	c, err := client.Open(ctx, s.settings.Data)
	if errors.Is(err, client.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	changes, err := c.Reload(ctx)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if ch.Outcome == "failed" {
			return fmt.Errorf("the server does not take %s: %s", ch.Path, ch.Detail)
		}
	}
	now, err := c.Keys(ctx)
	if err != nil {
		return err
	}
	if now.Current == 0 {
		_, err = fmt.Fprintln(out, "the server encrypts nothing: see storage.encryption in its configuration")
		return err
	}
	_, err = fmt.Fprintf(out, "the server encrypts with key %d\n", now.Current)
	return err
}

// ownerOf is whom a directory belongs to; -1: it is not there.
func ownerOf(dir string) (uid, gid int) {
	if st, err := os.Stat(dir); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			return int(sys.Uid), int(sys.Gid)
		}
	}
	return -1, -1
}

// keysOf returns the keys that rows of a database file are encrypted with.
func keysOf(ctx context.Context, path string) ([]int64, error) {
	db, err := storage.Open(ctx, storage.Config{Driver: "sqlite", Path: path}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	ids, err := atrest.KeysIn(ctx, db)
	return ids, errors.Join(err, db.Close())
}

// needsKeys says what a copy of the database is of no use without.
func needsKeys(w io.Writer, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "messages in it are encrypted with the keys %v: without the keys file that has them nobody reads them, and the server does not start. Keep it at another place.\n", ids)
	return err
}
