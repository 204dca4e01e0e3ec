package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley/storage/space"
)

// disk is a directory. A file lies in one of 1296 folders named after its key's
// first two characters; what is being written lies in "tmp" and is renamed when
// it is whole and synced. Everything goes through an os.Root, which leads nowhere
// else whatever links somebody has put there.
type disk struct {
	path    string
	reserve int64

	mu   sync.Mutex
	root *os.Root // nil: not used yet
}

const (
	tempFolder = "tmp"
	copyBuffer = 64 << 10
)

func newDisk(path string, reserve int64) *disk { return &disk{path: path, reserve: reserve} }

// dir opens the directory when it is first needed, and makes it.
func (d *disk) dir() (*os.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != nil {
		return d.root, nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, diskError("files", err)
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, diskError("files", err)
	}
	if err := root.Mkdir(tempFolder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		_ = root.Close()
		return nil, diskError("files", err)
	}
	d.root = root
	return root, nil
}

func (k Key) folder() string { return k.s[:2] }

func (k Key) path() string { return path.Join(k.folder(), k.s) }

// Room implements Roomy.
func (d *disk) Room(size int64) error {
	if _, err := d.dir(); err != nil {
		return err
	}
	free, known := space.Free(d.path)
	if known && free-size < d.reserve {
		return fmt.Errorf("%w: %d bytes are free at %s, and %d stay so (storage.files.reserve)", ErrFull, free, d.path, d.reserve)
	}
	return nil
}

// Put implements Store.
func (d *disk) Put(ctx context.Context, k Key, r io.Reader, size int64) (sum Sum, err error) {
	root, err := d.dir()
	if err != nil {
		return sum, err
	}
	if err := d.Room(size); err != nil {
		return sum, err
	}
	temp := path.Join(tempFolder, k.s)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return sum, diskError("new file", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = root.Remove(temp)
		}
	}()
	m := NewMeasure(r, size)
	if _, err = io.CopyBuffer(f, under{ctx, m}, make([]byte, copyBuffer)); err != nil {
		return sum, diskError("write file", err)
	}
	if err = f.Sync(); err == nil {
		err = f.Close()
	}
	if err != nil {
		return sum, diskError("write file", err)
	}
	if err = d.place(root, temp, k); err != nil {
		return sum, diskError("write file", err)
	}
	sum, _ = m.Sum()
	return sum, nil
}

// under stops reading when its context is done.
type under struct {
	ctx  context.Context
	from io.Reader
}

func (u under) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}

// place gives a whole file its name, for good.
func (d *disk) place(root *os.Root, temp string, k Key) error {
	switch err := root.Mkdir(k.folder(), 0o700); {
	case err == nil:
		if err := syncFolder(root, "."); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := root.Rename(temp, k.path()); err != nil {
		return err
	}
	return syncFolder(root, k.folder())
}

// syncFolder lets the names in a folder last.
func syncFolder(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get implements Store.
func (d *disk) Get(_ context.Context, k Key, offset int64) (io.ReadCloser, error) {
	root, err := d.dir()
	if err != nil {
		return nil, err
	}
	f, err := root.Open(k.path())
	if err != nil {
		return nil, diskError("read file", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, diskError("read file", err)
	}
	return f, nil
}

// Stat implements Store.
func (d *disk) Stat(_ context.Context, k Key) (Info, error) {
	root, err := d.dir()
	if err != nil {
		return Info{}, err
	}
	st, err := root.Lstat(k.path())
	if err != nil {
		return Info{}, diskError("file", err)
	}
	return Info{k, st.Size(), st.ModTime()}, nil
}

// Delete implements Store.
func (d *disk) Delete(_ context.Context, k Key) error {
	root, err := d.dir()
	if err != nil {
		return err
	}
	if err := root.Remove(k.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("delete file", err)
	}
	return nil
}

// List implements Store.
func (d *disk) List(ctx context.Context, after Key, limit int) ([]Info, error) {
	root, err := d.dir()
	if err != nil {
		return nil, err
	}
	folders, err := names(root, ".")
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, folder := range folders {
		if len(folder) != 2 || after.s != "" && folder < after.folder() {
			continue
		}
		files, err := names(root, folder)
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			k, ok := ParseKey(name)
			if !ok || k.folder() != folder || name <= after.s {
				continue
			}
			if len(out) == limit {
				return out, nil
			}
			st, err := root.Lstat(k.path())
			if errors.Is(err, fs.ErrNotExist) { // it has just gone
				continue
			}
			if err != nil {
				return nil, diskError("list files", err)
			}
			if st.Mode().IsRegular() {
				out = append(out, Info{k, st.Size(), st.ModTime()})
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// names are those in a folder, in their order.
func names(root *os.Root, folder string) ([]string, error) {
	f, err := root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError("list files", err)
	}
	defer func() { _ = f.Close() }()
	all, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return nil, diskError("list files", err)
	}
	slices.Sort(all)
	return all, nil
}

// Tidy implements Tidier.
func (d *disk) Tidy(_ context.Context, before time.Time) error {
	root, err := d.dir()
	if err != nil {
		return err
	}
	all, err := names(root, tempFolder)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range all {
		at := path.Join(tempFolder, name)
		st, err := root.Lstat(at)
		if err == nil && st.ModTime().Before(before) {
			err = root.Remove(at)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, diskError("tidy files", err))
		}
	}
	return errors.Join(errs...)
}

// diskError says what an error of the operating system means. What the reader
// that was stored has failed with is none of them and stays what it is.
func diskError(what string, err error) error {
	var sys *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: %w", what, ErrFull, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case errors.As(err, &sys), errors.As(err, &link):
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// String names the Store for logs.
func (d *disk) String() string { return "directory " + strings.TrimSuffix(d.path, "/") }
