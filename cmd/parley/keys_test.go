package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/atrest"
)

// vaulted is an installation whose configuration names a keys file.
type vaulted struct {
	t                       *testing.T
	dir, data, config, keys string
}

func newVaulted(t *testing.T) *vaulted {
	dir := t.TempDir()
	v := &vaulted{t, dir, filepath.Join(dir, "data"), filepath.Join(dir, "parley.yaml"), filepath.Join(dir, "keys")}
	v.configure("")
	return v
}

func (v *vaulted) configure(more string) {
	v.t.Helper()
	if err := os.WriteFile(v.config, []byte("data: "+v.data+"\n"+more), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vaulted) encryption(more string) {
	v.t.Helper()
	v.configure("storage:\n  encryption:\n    keys_file: " + v.keys + "\n" + more)
}

// messages puts some into the archive of a server that does not run.
func (v *vaulted) messages(n int) {
	v.t.Helper()
	db := opened(v.t, v.data)
	for i := range n {
		run(v.t, db, `INSERT INTO archive (owner, id, peer, contact, resource, stanza) VALUES (1, $1, 1, 'r@x', '', $2)`, i, fmt.Appendf(nil, "<message><body>star-crossed %d</body></message>", i))
	}
	if err := db.Close(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vaulted) status() (s atrest.Status) {
	v.t.Helper()
	if err := json.Unmarshal([]byte(must(v.t, "keys", "status", "--json", "--config", v.config)), &s); err != nil {
		v.t.Fatal(err)
	}
	return s
}

// settled waits until the rows of a running server are rewritten.
func (v *vaulted) settled() atrest.Status {
	v.t.Helper()
	for {
		if s := v.status(); s.Job.State == atrest.Done {
			return s
		}
		<-pause()
	}
}

func (v *vaulted) archived(s atrest.Status) string {
	for _, t := range s.Tables {
		if t.Table == "archive" {
			return fmt.Sprint(t.Rows)
		}
	}
	return "no archive"
}

// readable reports whether messages can be read in the database's file.
func (v *vaulted) readable(path string) bool {
	v.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	return bytes.Contains(raw, []byte("star-crossed"))
}

// The operator's road: on, rotated, retired, backed up, off.
func TestKeys(t *testing.T) {
	v := newVaulted(t)
	if _, _, err := parley(t, "", "keys", "new", "--config", v.config); err == nil || !strings.Contains(err.Error(), "keys_file: /etc/parley/keys") {
		t.Errorf("without a file in the configuration: %v", err)
	}
	must(t, "account", "add", "juliet@localhost", "--generate", "--config", v.config)
	v.messages(300)
	file := filepath.Join(v.data, "parley.db")
	if !v.readable(file) {
		t.Fatal("the test looks for the wrong text")
	}

	v.encryption("")
	contains(t, must(t, "keys", "new", "--config", v.config), v.keys, "keep a copy")
	s := serve(t, v.dir, "--config", v.config)
	first := v.settled()
	if got, want := v.archived(first), fmt.Sprintf("map[%d:300]", first.Current); got != want || first.Current == 0 {
		t.Errorf("switched on: %s, want %s", got, want)
	}
	contains(t, must(t, "keys", "new", "--config", v.config), "the server encrypts with key")
	id := strconv.FormatInt(first.Current, 10)
	if _, _, err := parley(t, "", "keys", "retire", id, "--config", v.config); err == nil || !strings.Contains(err.Error(), "300 rows of archive") {
		t.Errorf("a key that rows need: %v", err)
	}
	second := v.status().Current
	if _, _, err := parley(t, "", "keys", "retire", strconv.FormatInt(second, 10), "--config", v.config); err == nil || !strings.Contains(err.Error(), "encrypts") {
		t.Errorf("the key in force: %v", err)
	}
	contains(t, must(t, "keys", "status", "--config", v.config), "archive_pending", "block_report", "writes", "reads", "about to be rewritten")
	log := s.stop()
	contains(t, must(t, "keys", "wipe", "--config", v.config), "no unused parts")
	if v.readable(file) {
		t.Error("messages can be read in the file")
	}

	s = serve(t, v.dir, "--config", v.config) // a start waits for nobody
	if got, want := v.archived(v.settled()), fmt.Sprintf("map[%d:300]", second); got != want {
		t.Errorf("rotated: %s, want %s", got, want)
	}
	contains(t, must(t, "keys", "retire", id, "--config", v.config), "key "+id+" is out of")
	if got := fmt.Sprint(v.status().File); got != fmt.Sprintf("[%d]", second) {
		t.Errorf("the file has %s", got)
	}
	bundle := filepath.Join(v.dir, "b.tar")
	contains(t, must(t, "backup", bundle, "--config", v.config), fmt.Sprintf("encrypted with the keys [%d]", second))
	raw, err := os.ReadFile(v.keys)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Fields(string(raw[bytes.LastIndex(bytes.TrimSpace(raw), []byte("\n")):]))[1]
	if v.readable(bundle) {
		t.Error("messages can be read in the backup")
	}
	log += s.stop()

	v.encryption("    enabled: false\n")
	s = serve(t, v.dir, "--config", v.config)
	if got := v.archived(v.settled()); got != "map[0:300]" {
		t.Errorf("switched off: %s", got)
	}
	log += s.stop()
	if !v.readable(file) {
		t.Error("messages cannot be read in the file")
	}
	v.configure("")
	serve(t, v.dir, "--config", v.config).stop()
	for _, hidden := range []string{secret, "star-crossed"} {
		if strings.Contains(log, hidden) {
			t.Errorf("%q is in the log", hidden)
		}
	}
}

// A server without the keys that its rows need says so and does not start; a
// reload that would lose them changes nothing.
func TestMissingKeys(t *testing.T) {
	v := newVaulted(t)
	must(t, "account", "add", "juliet@localhost", "--generate", "--config", v.config)
	v.messages(3)
	v.encryption("")
	must(t, "keys", "new", "--config", v.config)
	s := serve(t, v.dir, "--config", v.config)
	id := v.settled().Current
	good, err := os.ReadFile(v.keys)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(v.dir, "b.tar")
	must(t, "backup", bundle, "--config", v.config)
	if err := os.Remove(v.keys); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, keys string }{
		{what: "no such file"},
		{fmt.Sprintf("key %d is not in the keys file, and 3 rows of archive", id), "7 " + strings.Repeat("A", 43) + "=\n"}, // it stays
	} {
		if c.keys != "" {
			if err := os.WriteFile(v.keys, []byte(c.keys), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, _, err := parley(t, "", "config", "reload", "--config", v.config)
		if err == nil {
			t.Error("the reload worked")
		}
		contains(t, out, "failed", c.what)
	}
	if got := v.status().Current; got != id {
		t.Errorf("key %d is in force after the reloads", got)
	}
	for _, keys := range []string{"", "7 " + strings.Repeat("A", 43) + "=\n"} { // none, and one that is not it
		if err := os.WriteFile(v.keys, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys == "" {
			if err := os.Remove(v.keys); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := parley(t, "", "keys", "new", "--config", v.config)
		if err == nil || !strings.Contains(err.Error(), "no key was made") || !strings.Contains(err.Error(), fmt.Sprintf("key %d is not in the keys file, and 3 rows of archive", id)) {
			t.Errorf("a new key in the place of the lost one: %v", err)
		}
		if raw, _ := os.ReadFile(v.keys); string(raw) != keys {
			t.Errorf("the file is %q after that, want %q", raw, keys)
		}
	}
	s.stop()
	serveFails := func(config, data, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of one that does start
		defer cancel()
		cmd := root()
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SetArgs([]string{"serve", "--config", config, "--data", data, "--c2s", "127.0.0.1:0", "--c2s-tls", "", "--http", "", "--https", ""})
		err := cmd.ExecuteContext(ctx)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	serveFails(v.config, v.data, "3 rows of archive need it")
	if err := os.Remove(v.keys); err != nil {
		t.Fatal(err)
	}
	serveFails(v.config, v.data, "3 rows of archive need it")
	v.configure("")
	serveFails(v.config, v.data, "keys_file is not set")

	other := filepath.Join(v.dir, "other")
	contains(t, must(t, "restore", bundle, "--config", v.config, "--data", other), "encrypted with the keys", "does not start")
	serveFails(v.config, other, "keys_file is not set")
	if err := os.WriteFile(v.keys, good, 0o600); err != nil {
		t.Fatal(err)
	}
	v.encryption("")
	serve(t, v.dir, "--config", v.config).stop()
}

// A keys file in the data directory does not get into the backup.
func TestBackupLeavesKeysOut(t *testing.T) {
	v := newVaulted(t)
	v.keys = filepath.Join(v.data, "secret", "keys")
	v.encryption("")
	if err := os.MkdirAll(filepath.Dir(v.keys), 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, "keys", "new", "--config", v.config)
	must(t, "account", "add", "juliet@localhost", "--generate", "--config", v.config)
	bundle := filepath.Join(v.dir, "b.tar")
	must(t, "backup", bundle, "--config", v.config)
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("Keys of what Parley stores")) {
		t.Error("the keys are in the backup")
	}
	db := opened(t, v.data)
	if ids, err := atrest.KeysIn(t.Context(), storage.Querier(db)); err != nil || len(ids) != 1 {
		t.Errorf("keys %v, %v", ids, err)
	}
}
