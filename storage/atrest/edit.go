package atrest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// NewKey puts a fresh key before the others of a keys file, so that it encrypts
// from the next reading on, and returns its id: the day and a number, which is
// higher than every id in the file and, for a day, than what it had. A file
// that is not there is made; owner is who gets it (-1: whoever makes it).
func NewKey(path string, now time.Time, uid, gid int) (id int64, err error) {
	err = alone(path, func() error {
		id, err = newKeyIn(path, now, uid, gid)
		return err
	})
	return id, err
}

// RemoveKey takes a key out of a keys file.
func RemoveKey(path string, id int64) error {
	return alone(path, func() error { return removeKeyIn(path, id) })
}

// alone runs f while nobody else changes the keys file: of two who read it at
// the same time the later one would drop the other's key, which rows may need
// by then.
func alone(path string, f func() error) error {
	path, err := resolved(path)
	if err != nil {
		return fmt.Errorf("encryption keys: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("encryption keys: %w", err)
	}
	defer func() { _ = d.Close() }() // which unlocks
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("encryption keys: lock %s: %w", d.Name(), err)
	}
	return f()
}

func newKeyIn(path string, now time.Time, uid, gid int) (int64, error) {
	raw, err := readKeys(path)
	made := errors.Is(err, fs.ErrNotExist)
	if err != nil && !made {
		return 0, err
	}
	if made {
		raw = []byte("# Keys of what Parley stores encrypted: id, 32 bytes in base64; the first one encrypts.\n" +
			"# Whoever has them and the database reads everybody's messages. Without them nobody does.\n")
	}
	r, _, err := parse(path, raw)
	if err != nil && !errors.Is(err, errNoKeys) {
		return 0, err
	}
	day := now.UTC()
	id := int64(day.Year()*10000+int(day.Month())*100+day.Day())*100 + 1
	for _, o := range r.IDs() {
		id = max(id, o+1)
	}
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	line := fmt.Sprintf("%d %s", id, base64.StdEncoding.EncodeToString(secret))
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { l = strings.TrimSpace(l); return l != "" && l[0] != '#' })
	if at < 0 {
		at = len(lines)
	}
	return id, rewriteKeys(path, slices.Insert(lines, at, line), uid, gid)
}

func removeKeyIn(path string, id int64) error {
	raw, err := readKeys(path)
	if err != nil {
		return err
	}
	r, at, err := parse(path, raw)
	if err != nil {
		return err
	}
	i := slices.Index(r.IDs(), id)
	if i < 0 {
		return fmt.Errorf("encryption keys: %s has no key %d", path, id)
	}
	if len(r.keys) == 1 {
		return fmt.Errorf("encryption keys: %d is the only key of %s: take keys_file out of the configuration instead", id, path)
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return rewriteKeys(path, slices.Delete(lines, at[i], at[i]+1), -1, -1)
}

// rewriteKeys replaces the file in one step; a crash leaves the old or the new
// one. Mode and owner stay.
func rewriteKeys(path string, lines []string, uid, gid int) (err error) {
	if path, err = resolved(path); err != nil {
		return fmt.Errorf("encryption keys: %w", err)
	}
	mode := fs.FileMode(0o600)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(sys.Uid), int(sys.Gid)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".parley-keys-*") // mode 600
	if err != nil {
		return fmt.Errorf("encryption keys: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("encryption keys: %w", err)
		}
	}()
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if err = errors.Join(err, f.Sync()); err == nil && uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		err = f.Chown(uid, gid)
	}
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// resolved is where a symbolic link leads.
func resolved(path string) (string, error) {
	to, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return to, err
}
