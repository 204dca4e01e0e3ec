package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put makes a file and the folders above it.
func put(t *testing.T, text string, path ...string) string {
	t.Helper()
	at := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return at
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}

// installation is one whose database is in a folder of its data directory; in
// a folder that is a link when at is set.
func installation(t *testing.T, at string) (dir, data, config string) {
	dir = t.TempDir()
	data = filepath.Join(dir, "data")
	if at != "" {
		at = filepath.Join(dir, at)
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(data, "db")); err != nil {
			t.Fatal(err)
		}
	}
	config = put(t, "data: "+data+"\nstorage:\n  path: "+filepath.Join(data, "db", "parley.db")+"\n", dir, "parley.yaml")
	return dir, data, config
}

// noDatabase sees that no file of one is among a bundle's files.
func noDatabase(t *testing.T, bundle string) {
	t.Helper()
	f, err := os.Open(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	m, err := unbundle(f, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		if strings.HasPrefix(f.Name, bundleData+"db/") {
			t.Errorf("%s is among the files", f.Name)
		}
	}
}

// A database in a folder of the data directory is not one of its files: neither
// is a running one copied raw, nor is what was there lost by a restore.
func TestReliability40DatabaseInAFolder(t *testing.T) {
	for name, link := range map[string]string{"folder": "", "linked folder": "disk"} {
		t.Run(name, func(t *testing.T) {
			dir, data, config := installation(t, link)
			s := serve(t, dir, "--config", config)
			must(t, "account", "add", "juliet@localhost", "--generate", "--config", config)
			file := filepath.Join(dir, "b.tar")
			must(t, "backup", file, "--config", config)
			noDatabase(t, file)
			must(t, "account", "add", "late@localhost", "--generate", "--config", config)
			s.stop()
			must(t, "restore", file, "--config", config, "--force")
			kept, err := filepath.Glob(filepath.Join(data, "db", "parley.db.replaced-*"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept: %v, %v", kept, err)
			}
			out := must(t, "account", "list", "--config", config)
			contains(t, out, "juliet@localhost")
			if strings.Contains(out, "late@") {
				t.Errorf("made after the backup:\n%s", out)
			}
			aside := put(t, "data: "+data+"\nstorage:\n  path: "+kept[0]+"\n", dir, "aside.yaml")
			contains(t, must(t, "account", "list", "--config", aside), "juliet@localhost", "late@localhost")
			again := filepath.Join(dir, "again.tar")
			must(t, "backup", again, "--config", config)
			noDatabase(t, again) // what was put aside neither
			serve(t, dir, "--config", config).stop()
		})
	}
}

// A bundle that has a database's files among the others, as they were made once,
// does not put them beside the database.
func TestReliability40RawDatabaseIsNotRestored(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	r := &restoring{setup: &setup{}, database: filepath.Join(data, "db", "parley.db")}
	r.settings.Data = data
	for name, want := range map[string]bool{
		"data/db/parley.db": false, "data/db/parley.db-wal": false, "data/db/parley.db-shm": false, "data/db/parley.db.replaced-1": false,
		"data/db/notes": true, "data/tls/parley.db": true, "data/db/parley.dbx": true, "parley.db": false, "config/p.yaml": true,
	} {
		if _, ok := r.destination(name); ok != want {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

// What a backup holds of a data directory: links are followed, and what is left
// out is said.
func TestBackupSaysWhatItLeavesOut(t *testing.T) {
	dir := t.TempDir()
	data, disk := filepath.Join(dir, "real"), filepath.Join(dir, "disk")
	must(t, "account", "add", "juliet@localhost", "--generate", "--data", data)
	put(t, "a photo", disk, "uploads", "a", "photo")
	put(t, "a key", disk, "key.pem")
	put(t, "a certificate", data, "cert.pem")
	put(t, "hidden", data, "web", ".well-known", "x")
	put(t, "old", data, "backups", "old.tar")
	links := map[string]string{
		filepath.Join(data, "uploads"):        filepath.Join(disk, "uploads"),
		filepath.Join(data, "tls", "key.pem"): filepath.Join(disk, "key.pem"),
		filepath.Join(data, "web", "round"):   filepath.Join(data, "web"),
		filepath.Join(data, "missing"):        filepath.Join(dir, "unmounted"),
		filepath.Join(dir, "data"):            data, // the data directory itself
	}
	if err := os.MkdirAll(filepath.Join(data, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	for at, to := range links {
		if err := os.Symlink(to, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(data, "web", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	data = filepath.Join(dir, "data")
	file := filepath.Join(data, "backups", "b.tar")
	out := must(t, "backup", file, "--data", data)
	for name, why := range map[string]string{
		"cert.pem": "in no folder", "web/.well-known": "dot", "web/round": "a folder that it is in", "web/pipe": "neither a file",
		"missing": "not there", "backups": "written there",
	} {
		contains(t, out, "not in it: "+filepath.Join(data, name)+": ", why)
	}
	if n := strings.Count(out, "not in it: "); n != 6 {
		t.Errorf("%d are left out:\n%s", n, out)
	}

	other := filepath.Join(dir, "other")
	contains(t, must(t, "restore", file, "--data", other), "not in it: ")
	holds(t, filepath.Join(other, "uploads", "a", "photo"), "a photo")
	holds(t, filepath.Join(other, "tls", "key.pem"), "a key")
	put(t, "changed", disk, "uploads", "a", "photo")
	must(t, "restore", file, "--data", data, "--force")
	holds(t, filepath.Join(disk, "uploads", "a", "photo"), "a photo") // the link stays
}

// A folder or a file that cannot be read is an error: nothing is verified that
// lacks it.
func TestBackupRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, "account", "add", "juliet@localhost", "--generate", "--data", data)
	put(t, "x", data, "tls", "x")
	if err := os.Symlink("self", filepath.Join(data, "tls", "self")); err != nil { // ELOOP, for root too
		t.Fatal(err)
	}
	file := filepath.Join(dir, "b.tar")
	if _, _, err := parley(t, "", "backup", file, "--data", data); err == nil || !strings.Contains(err.Error(), filepath.Join("tls", "self")) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("there is a backup")
	}
}
