package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// opened opens the database of an installation whose server does not run.
func opened(t *testing.T, data string) storage.DB {
	t.Helper()
	return storagetest.Open(t, storage.Config{Path: filepath.Join(data, "parley.db")})
}

func number(t *testing.T, db storage.DB, sql string, args ...any) (n int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func run(t *testing.T, db storage.DB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Reliability row 40: a backup of a running server, restored elsewhere and over
// the installation it came from.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	must(t, "account", "add", "juliet@localhost", "--generate", "--data", s.data)
	file := filepath.Join(dir, "b.tar")
	contains(t, must(t, "backup", file, "--data", s.data), "account_key", "archive_mark", "verified")
	for name, args := range map[string][]string{
		"--force": {"backup", file, "--data", s.data},
		"stop":    {"restore", file, "--data", s.data, "--force"},
	} {
		if _, _, err := parley(t, "", args...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v", args, err)
		}
	}
	must(t, "account", "add", "late@localhost", "--generate", "--data", s.data)
	s.stop()
	if _, _, err := parley(t, "", "restore", file, "--data", s.data); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("over a database: %v", err)
	}

	other := filepath.Join(dir, "other")
	must(t, "restore", file, "--data", other)
	want, err := os.ReadFile(filepath.Join(s.data, "tls", "self-signed.key"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(other, "tls", "self-signed.key")); err != nil || string(got) != string(want) {
		t.Errorf("the key: %v", err)
	}
	contains(t, must(t, "restore", file, "--data", s.data, "--force"), "the database that was there")
	for _, data := range []string{other, s.data} {
		out := must(t, "account", "list", "--data", data)
		contains(t, out, "juliet@localhost")
		if strings.Contains(out, "late@") {
			t.Errorf("made after the backup:\n%s", out)
		}
		if left, _ := filepath.Glob(filepath.Join(data, ".parley-*")); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	serve(t, dir).stop()
}

// Reliability row 40: ids stay ahead of what was given after the backup, by a
// clock that ran ahead too; rosters are fetched again; tokens are gone.
func TestRestoreGoesOn(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, "account", "add", "juliet@localhost", "--generate", "--data", data)
	db := opened(t, data)
	run(t, db, `INSERT INTO roster_versions (owner, ver, floor) VALUES ($1, $2, $3)`, "juliet@localhost", 40, 10)
	run(t, db, `INSERT INTO account_token (jid, client, slot, id, secret, mechanism, expires_at) VALUES ($1, 'c', 'current', 1, 's', 'm', $2)`, "juliet@localhost", int64(1)<<60)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "parley.yaml")
	if err := os.WriteFile(config, []byte("data: "+data+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "b.tar")
	must(t, "backup", file, "--config", config)
	ahead := time.Now().Add(time.Hour).UnixMicro()
	db = opened(t, data)
	run(t, db, `INSERT INTO archive_mark (id, mark) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET mark = excluded.mark`, ahead)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	must(t, "restore", file, "--config", config, "--force")
	db = opened(t, data)
	if got := number(t, db, `SELECT mark FROM archive_mark`); got < ahead {
		t.Errorf("ids go back: %d < %d", got, ahead)
	}
	if got := number(t, db, `SELECT floor FROM roster_versions`); got < ahead || got != number(t, db, `SELECT ver FROM roster_versions`) {
		t.Errorf("roster floor %d", got)
	}
	if got := number(t, db, `SELECT count(*) FROM account_token`); got != 0 {
		t.Errorf("%d tokens live on", got)
	}
	if _, err := os.Stat(filepath.Join(data, "restored-parley.yaml")); err != nil {
		t.Error(err)
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, "account", "add", "juliet@localhost", "--generate", "--data", data)
	file := filepath.Join(dir, "b.tar")
	must(t, "backup", file, "--data", data)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(data, "parley.db"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(string(good))
	flipped[512+5000] ^= 1
	for name, raw := range map[string][]byte{"flipped": flipped, "cut": good[:len(good)*2/3], "empty": {}, "a database": before} {
		bad := write(t, "bad.tar", string(raw))
		if _, _, err := parley(t, "", "restore", bad, "--data", data, "--force"); !errors.Is(err, errNoBundle) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := parley(t, "", "restore", bad, "--data", filepath.Join(dir, "new")); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	if after, err := os.ReadFile(filepath.Join(data, "parley.db")); err != nil || string(after) != string(before) {
		t.Errorf("the database that was there has changed (%v)", err)
	}
}

func TestBackupOfPostgresNamesItsOwnTool(t *testing.T) {
	dir := t.TempDir()
	put(t, "x", dir, "data", "tls", "a.key")
	put(t, "x", dir, "disk", "photo")
	put(t, "x", dir, "data", ownPrefix+"restore-1", "b")
	if err := os.Symlink(filepath.Join(dir, "disk"), filepath.Join(dir, "data", "uploads")); err != nil {
		t.Fatal(err)
	}
	config := put(t, "data: "+filepath.Join(dir, "data")+"\nstorage: {driver: postgres, dsn: 'postgres://parley:geheim@db.example/x?sslmode=require&password=geheim&sslpassword=geheim'}\n", dir, "p.yaml")
	file := filepath.Join(dir, "x.tar")
	_, _, err := parley(t, "", "backup", file, "--config", config)
	if err == nil {
		t.Fatal("no error")
	}
	contains(t, err.Error(), "pg_dump --format=custom --file="+file+" --dbname='postgres://parley@db.example/x?sslmode=require'", "PGPASSFILE")
	_, _, restore := parley(t, "", "restore", file, "--config", config)
	contains(t, fmt.Sprint(restore), "pg_restore", "--dbname='postgres://parley@db.example/x?sslmode=require'", "PGPASSFILE")
	if strings.Contains(err.Error()+restore.Error(), "geheim") {
		t.Errorf("shows the password: %v %v", err, restore)
	}
	// What it says about the folders is right, too.
	if _, missing := exec.LookPath("tar"); missing != nil {
		t.Skipf("the printed command cannot be tried: %v", missing)
	}
	_, rest, _ := strings.Cut(err.Error(), "\n  tar ")
	command, _, _ := strings.Cut(rest, "\n")
	if out, err := exec.Command("sh", "-c", "tar "+command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	list, err := exec.Command("tar", "-tf", file+".data.tar").Output()
	if err != nil || string(list) == "" || strings.Contains(string(list), ownPrefix) {
		t.Errorf("%s packs %q, %v", command, list, err)
	}
	contains(t, string(list), "tls/a.key", "uploads/photo")
}
