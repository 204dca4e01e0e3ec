package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/storage/storagetest"
)

// freePort is one that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// clusterFile writes the configuration of a node with NATS inside.
func clusterFile(t *testing.T, dir string) string {
	t.Helper()
	dsn := filepath.Join(dir, "dsn")
	if err := os.WriteFile(dsn, []byte(storagetest.Postgres(t).DSN), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "parley.yaml")
	text := fmt.Sprintf(`domains: [localhost]
node: verona
storage: {driver: postgres, dsn_file: %[1]q}
cluster: {nats: {embedded: {listen: "127.0.0.1:%[2]d", routes: ["127.0.0.1:%[2]d"]}}}
servers:
  streamer: {deployment: {type: distributed}}
  router: {deployment: {type: distributed}}
`, dsn, freePort(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What nodes would not hear of is refused while they live, with their names.
func TestNothingGoesAroundLiveNodes(t *testing.T) {
	dir := t.TempDir()
	file := clusterFile(t, dir)
	s := serve(t, dir, "--config", file)
	elsewhere := filepath.Join(dir, "elsewhere")
	must(t, "account", "add", "juliet@localhost", "--generate", "--config", file, "--data", s.data)
	for _, args := range [][]string{
		{"account", "disable", "juliet@localhost"},
		{"account", "delete", "juliet@localhost"},
		{"account", "list"},
		{"keys", "status"},
		{"quarantine", "list"},
	} {
		_, _, err := parley(t, "", append(args, "--config", file, "--data", elsewhere)...)
		if err == nil || !strings.Contains(err.Error(), "verona") || !strings.Contains(err.Error(), "Nothing was done") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if a := show(t, "juliet@localhost", s.data); !a.Disabled.IsZero() {
		t.Error("it was done all the same")
	}
	s.stop()
	must(t, "account", "disable", "juliet@localhost", "--config", file, "--data", elsewhere)
}
