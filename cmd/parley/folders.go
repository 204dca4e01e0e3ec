package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ownPrefix begins the names of this program's temporary files and folders.
const ownPrefix = ".parley-"

// databaseNames are the names of a SQLite database, absolute.
type databaseNames []string

func namesOf(path string) databaseNames {
	names := databaseNames{absolute(path)}
	if real, err := filepath.EvalSymlinks(names[0]); err == nil && real != names[0] { // SQLite names its files after the target
		names = append(names, real)
	}
	return names
}

// has reports whether a file is the database, or of it: its write-ahead log, or
// what restore has put aside. They are told by folder and name: a log comes and
// goes while somebody looks.
func (d databaseNames) has(at string) bool {
	at = absolute(at)
	return slices.ContainsFunc(d, func(name string) bool {
		suffix, ok := strings.CutPrefix(filepath.Base(at), filepath.Base(name))
		if !ok || !slices.Contains([]string{"", "-wal", "-shm", "-journal", restoringSuffix}, suffix) && !strings.HasPrefix(suffix, replacedSuffix) {
			return false
		}
		return filepath.Dir(name) == filepath.Dir(at) || sameFile(filepath.Dir(name), filepath.Dir(at))
	})
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// folders is the walk over the data directory.
type folders struct {
	data     string
	database databaseNames
	target   string                       // the folder that the backup is written to
	keys     string                       // the keys file: a backup that holds it is not encrypted
	add      func(rel, from string) error // of a file
	skip     func(at, why string)         // of what is left out, and perhaps wanted
	above    []os.FileInfo                // the folders that the walk is in
}

// walk adds the files in the folders of the data directory; symbolic links are
// followed. What vanishes meanwhile is not there; what cannot be read is an error.
func (w *folders) walk() error {
	st, err := os.Stat(w.data)
	if err != nil {
		return err
	}
	return w.folder("", st)
}

func (w *folders) folder(rel string, st os.FileInfo) error {
	at := filepath.Join(w.data, rel)
	entries, err := os.ReadDir(at)
	if err != nil {
		return w.gone(at, err)
	}
	w.above = append(w.above, st)
	defer func() { w.above = w.above[:len(w.above)-1] }()
	for _, e := range entries {
		if err := w.entry(filepath.Join(rel, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (w *folders) entry(rel string) error {
	at, name := filepath.Join(w.data, rel), filepath.Base(rel)
	if strings.HasPrefix(name, ownPrefix) || w.database.has(at) {
		return nil
	}
	st, err := os.Stat(at)
	if err != nil {
		return w.gone(at, err)
	}
	switch {
	case st.Mode().Type() == fs.ModeSocket: // holds nothing
	case w.keys != "" && sameFile(at, w.keys):
		w.skip(at, "the keys that messages are encrypted with: keep them at another place")
	case name[0] == '.':
		w.skip(at, "its name begins with a dot")
	case st.IsDir() && sameFile(at, w.target):
		w.skip(at, "the backup is written there")
	case st.IsDir() && slices.ContainsFunc(w.above, func(a os.FileInfo) bool { return os.SameFile(a, st) }):
		w.skip(at, "a link to a folder that it is in")
	case st.IsDir():
		return w.folder(rel, st)
	case !st.Mode().IsRegular():
		w.skip(at, "neither a file nor a folder")
	case rel == name:
		w.skip(at, "in no folder of the data directory")
	default:
		if err := w.add(rel, at); err != nil {
			return w.gone(at, err)
		}
	}
	return nil
}

// gone is nil for what was removed meanwhile; a link that leads nowhere is left
// out, and said.
func (w *folders) gone(at string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st, err := os.Lstat(at); err == nil && st.Mode().Type() == fs.ModeSymlink {
		w.skip(at, "a link to what is not there: is a disk missing?")
	}
	return nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}
