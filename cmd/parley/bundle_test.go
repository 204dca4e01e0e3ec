package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tarOf makes a tar file of names and texts.
func tarOf(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f[0], Size: int64(len(f[1])), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sumOfX is the SHA-256 of "x".
const sumOfX = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

func listed(names ...string) [2]string {
	out := []string{}
	for _, n := range names {
		out = append(out, `{"name": "`+n+`", "size": 1, "sha256": "`+sumOfX+`"}`)
	}
	return [2]string{bundleManifest, `{"format": 1, "files": [` + strings.Join(out, ",") + `]}`}
}

func TestUnbundle(t *testing.T) {
	db := [2]string{bundleDatabase, "x"}
	for name, c := range map[string]struct {
		files []([2]string)
		good  bool
	}{
		"whole":           {[][2]string{db, {"data/tls/a.key", "x"}, {"config/p.yaml", "x"}, listed(bundleDatabase, "data/tls/a.key", "config/p.yaml")}, true},
		"no manifest":     {[][2]string{db}, false},
		"no database":     {[][2]string{{"data/a", "x"}, listed("data/a")}, false},
		"changed":         {[][2]string{{bundleDatabase, "y"}, listed(bundleDatabase)}, false},
		"missing":         {[][2]string{db, listed(bundleDatabase, "data/a")}, false},
		"not listed":      {[][2]string{db, {"data/a", "x"}, listed(bundleDatabase)}, false},
		"after the end":   {[][2]string{db, listed(bundleDatabase), {"data/a", "x"}}, false},
		"twice":           {[][2]string{db, db, listed(bundleDatabase)}, false},
		"elsewhere":       {[][2]string{db, {"data/../../a", "x"}, listed(bundleDatabase, "data/../../a")}, false},
		"absolute":        {[][2]string{db, {"/a", "x"}, listed(bundleDatabase, "/a")}, false},
		"unknown":         {[][2]string{db, {"other/a", "x"}, listed(bundleDatabase, "other/a")}, false},
		"deep config":     {[][2]string{db, {"config/a/b", "x"}, listed(bundleDatabase, "config/a/b")}, false},
		"a later format":  {[][2]string{db, {bundleManifest, `{"format": 2}`}}, false},
		"manifest no use": {[][2]string{db, {bundleManifest, `[]`}}, false},
	} {
		m, err := unbundle(bytes.NewReader(tarOf(t, c.files...)), t.TempDir())
		switch {
		case c.good && (err != nil || len(m.Files) != 3):
			t.Errorf("%s: %v", name, err)
		case !c.good && !errors.Is(err, errNoBundle):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a file says, nothing is written outside the directory.
func FuzzUnbundle(f *testing.F) {
	f.Add(tarOf(f, [2]string{bundleDatabase, "x"}, listed(bundleDatabase)))
	f.Add(tarOf(f, [2]string{"data/../../a", "x"}, [2]string{"../b", "x"}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		top := t.TempDir()
		in := filepath.Join(top, "a", "b")
		if err := os.MkdirAll(in, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = unbundle(bytes.NewReader(raw), in)
		err := filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
			if !d.IsDir() && !strings.HasPrefix(at, in+string(filepath.Separator)) {
				t.Errorf("%s is outside", at)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
