package main

import (
	"strings"
	"testing"
)

// Accounts of every domain are listed, or of one.
func TestAccountsOfAllDomains(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	must(t, "domain", "add", "other.localhost", "--data", s.data)
	for _, at := range []string{"romeo@localhost", "juliet@other.localhost"} {
		must(t, "account", "add", at, "--generate", "--data", s.data)
	}
	contains(t, must(t, "account", "list", "--data", s.data), "romeo@localhost", "juliet@other.localhost")
	if out := must(t, "account", "list", "--of", "other.localhost", "--data", s.data); strings.Contains(out, "romeo@") || !strings.Contains(out, "juliet@") {
		t.Errorf("of one domain:\n%s", out)
	}
}
