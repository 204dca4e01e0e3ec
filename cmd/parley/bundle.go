package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"parley/storage"
)

// A bundle is what `parley backup` writes: a tar file with everything that an
// installation is made of.
//
//	parley.db       the database
//	data/…          the folders of the data directory: certificates, keys, files
//	config/NAME     the configuration file, if there is one
//	manifest.json   last: what has to be there, with checksums
const (
	bundleDatabase = "parley.db"
	bundleData     = "data/"
	bundleConfig   = "config/"
	bundleManifest = "manifest.json"
	bundleFormat   = 1
	maxManifest    = 64 << 20 // bytes
)

var errNoBundle = errors.New("not a whole backup")

// manifest says what a bundle holds.
type manifest struct {
	Format  int                 `json:"format"`
	Version string              `json:"version"` // the program that made it
	Created time.Time           `json:"created"`
	Domains []string            `json:"domains"`
	Tables  []storage.TableRows `json:"tables"`
	Keys    []int64             `json:"keys,omitempty"` // that rows are encrypted with; not in it
	Files   []bundled           `json:"files"`
	Left    []string            `json:"left,omitempty"` // what is not in it, and why
}

// bundled is a file in a bundle.
type bundled struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// bundler writes a bundle.
type bundler struct {
	tar *tar.Writer
	m   manifest
}

// file adds a file; a symbolic link's target stands in for it.
func (b *bundler) file(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: st.Size(), Mode: 0o600, ModTime: st.ModTime()}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(b.tar, sum), f, st.Size()); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	b.m.Files = append(b.m.Files, bundled{name, st.Size(), hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// finish writes the manifest.
func (b *bundler) finish() error {
	raw, err := json.MarshalIndent(b.m, "", "  ")
	if err != nil {
		return err
	}
	if err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: bundleManifest, Size: int64(len(raw)), Mode: 0o600, ModTime: b.m.Created}); err != nil {
		return err
	}
	if _, err := b.tar.Write(raw); err != nil {
		return err
	}
	return b.tar.Close()
}

// unbundle writes a bundle's files below the directory to, synced, and returns
// its manifest. It trusts nothing in it: what is not listed, missing, changed
// or named so that it would lie elsewhere is an error.
func unbundle(r io.Reader, to string) (*manifest, error) {
	got := map[string]bundled{}
	var m *manifest
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errNoBundle, err)
		case m != nil:
			return nil, fmt.Errorf("%w: %q comes after its end", errNoBundle, h.Name)
		case h.Name == bundleManifest:
			m = &manifest{}
			if err := json.NewDecoder(io.LimitReader(t, maxManifest)).Decode(m); err != nil {
				return nil, fmt.Errorf("%w: manifest: %w", errNoBundle, err)
			}
			continue
		}
		if _, twice := got[h.Name]; twice || h.Typeflag != tar.TypeReg || !bundleName(h.Name) {
			return nil, fmt.Errorf("%w: %q does not belong there", errNoBundle, h.Name)
		}
		if got[h.Name], err = unpack(t, h.Name, filepath.Join(to, filepath.FromSlash(h.Name))); err != nil {
			return nil, err
		}
	}
	if m == nil {
		return nil, fmt.Errorf("%w: it has no end", errNoBundle)
	}
	return m, m.compare(got)
}

// bundleName reports whether a bundle may hold a file of that name.
func bundleName(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name || strings.Contains(name, `\`) {
		return false
	}
	config, isConfig := strings.CutPrefix(name, bundleConfig)
	return name == bundleDatabase || isConfig && !strings.Contains(config, "/") || strings.HasPrefix(name, bundleData)
}

func unpack(r io.Reader, name, to string) (bundled, error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return bundled{}, err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return bundled{}, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %s is cut off", errNoBundle, name)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return bundled{}, err
	}
	return bundled{name, n, hex.EncodeToString(sum.Sum(nil))}, nil
}

// compare sees whether what was found is what the manifest says.
func (m *manifest) compare(got map[string]bundled) error {
	if m.Format != bundleFormat {
		return fmt.Errorf("%w: format %d is not known to this release", errNoBundle, m.Format)
	}
	for _, f := range m.Files {
		if got[f.Name] != f {
			return fmt.Errorf("%w: %s is missing or changed", errNoBundle, f.Name)
		}
	}
	if _, ok := got[bundleDatabase]; !ok || len(got) != len(m.Files) {
		return fmt.Errorf("%w: it holds %d files, its list %d", errNoBundle, len(got), len(m.Files))
	}
	return nil
}
