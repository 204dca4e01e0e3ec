package externals

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"parley/parser/jid"
	"parley/plugins/config"
	"parley/stream/component"
)

// ManifestFile is a component's manifest in its folder.
const ManifestFile = "component.yaml"

// maxManifest bounds a manifest, in bytes.
const maxManifest = 64 << 10

// Manifest says what a component is.
type Manifest struct {
	Name             string            `yaml:"name"`    // [a-z0-9-], for operators
	Version          string            `yaml:"version"` // [A-Za-z0-9._-]
	Domain           string            `yaml:"domain"`  // that it serves
	Title            string            `yaml:"title"`   // what people see in the list of services
	Command          string            `yaml:"command"` // a file of the folder, or a program in PATH
	Args             []string          `yaml:"args"`
	Environment      map[string]string `yaml:"environment"`
	Health           Health            `yaml:"health"`
	component.Grants `yaml:",inline"`
}

// Health is how a component is watched.
type Health struct {
	Interval string `yaml:"interval"` // between pings; default 10s
}

// interval is valid: readManifest has looked.
func (m *Manifest) interval() time.Duration {
	d, _ := config.ParseDuration(m.Health.Interval)
	return d
}

var (
	names    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
	versions = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$`)
)

// errManifest: the manifest is not one.
var errManifest = errors.New("manifest")

// readManifest reads the manifest of a folder, strictly.
func readManifest(dir string) (*Manifest, error) {
	f, err := os.Open(filepath.Join(dir, ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errManifest, err)
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errManifest, err)
	}
	return parseManifest(raw)
}

func parseManifest(raw []byte) (*Manifest, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%w: longer than %d bytes", errManifest, maxManifest)
	}
	m := &Manifest{Health: Health{Interval: "10s"}}
	if err := yaml.UnmarshalWithOptions(raw, m, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%w: %w", errManifest, err)
	}
	wrong := func(key, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", errManifest, key, fmt.Sprintf(format, args...))
	}
	at, err := jid.Parse(m.Domain)
	d, bad := config.ParseDuration(m.Health.Interval)
	switch {
	case !names.MatchString(m.Name):
		return nil, wrong("name", "%q is not small letters, digits and -, 40 at most", m.Name)
	case !versions.MatchString(m.Version):
		return nil, wrong("version", "%q is not letters, digits, . _ and -, 40 at most", m.Version)
	case err != nil || !at.IsDomain() || at.String() != m.Domain:
		return nil, wrong("domain", "%q is not a domain", m.Domain)
	case m.Command == "":
		return nil, wrong("command", "is needed")
	case bad != nil || d < time.Second || d > time.Hour:
		return nil, wrong("health.interval", "is between 1s and 1h")
	}
	for k := range m.Environment {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.HasPrefix(k, "PARLEY_COMPONENT_") {
			return nil, wrong("environment", "%q cannot be set", k)
		}
	}
	return m, nil
}

// errFiles: the folder cannot be installed.
var errFiles = errors.New("files of the component")

// copyTree copies a folder of regular files into one that is not there yet.
func copyTree(from, to string, maxFiles int, maxSize int64) (err error) {
	part := to + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("%w: %w", errFiles, err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(part)
			err = fmt.Errorf("%w: %w", errFiles, err)
		}
	}()
	files, size := 0, int64(0)
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(part, rel), 0o700)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		size += info.Size()
		switch {
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", rel)
		case files > maxFiles || size > maxSize:
			return fmt.Errorf("more than %d files or %d bytes", maxFiles, maxSize)
		}
		return copyFile(path, filepath.Join(part, rel), info.Mode().Perm()&0o700|0o600, info.Size())
	})
	if err != nil {
		return err
	}
	return os.Rename(part, to)
}

func copyFile(from, to string, mode fs.FileMode, size int64) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, size))
	return errors.Join(err, out.Close())
}
