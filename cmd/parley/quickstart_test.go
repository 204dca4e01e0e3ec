package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestQuickstart(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // as main sets it
	dir := t.TempDir()
	file, data := filepath.Join(dir, "etc", "parley.yaml"), filepath.Join(dir, "data")
	out := must(t, "quickstart", "Example.ORG", "--email", "me@example.org", "--account", "alice,bob@example.org", "--data", data, "--config", file)
	contains(t, out,
		"alice@example.org", "bob@example.org", "█",
		"_xmpp-client._tcp.example.org. 3600 IN SRV 0 5 5222 example.org.",
		"_xmpps-client._tcp.example.org. 3600 IN SRV 0 5 5223 example.org.",
		"example.org. 3600 IN AAAA", called()+" check --config "+file, "parley.service")
	if n := len(regexp.MustCompile(`Password +\S+`).FindAllString(out, -1)); n != 2 {
		t.Errorf("%d passwords", n)
	}
	contains(t, must(t, "account", "list", "--config", file), "alice@example.org", "bob@example.org")
	contains(t, must(t, "config", "show", "--config", file, "--changed"), "servers.streamer.tls.acme.enabled", "me@example.org", data)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the configuration is %v (%v)", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Dir(file)); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the server's user cannot enter the directory of the configuration: %v (%v)", st.Mode(), err)
	}
}

func TestQuickstartOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	file, data := filepath.Join(dir, "parley.yaml"), filepath.Join(dir, "data")
	args := []string{"quickstart", "chat.internal", "--account", "alice", "--data", data, "--config", file}
	contains(t, must(t, args...), "needs no DNS records", "Password")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = parley(t, "", "quickstart", "other.internal", "--data", data, "--config", file)
	if err == nil || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("got %v", err)
	}
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
	out := must(t, append(args, "--force")...)
	contains(t, out, "alice@chat.internal is there already")
	if strings.Contains(out, "Password") {
		t.Errorf("a password was printed for an account that keeps its own:\n%s", out)
	}
}

func TestQuickstartRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"example.org"}, "which certificate"},
		{[]string{}, "parley quickstart DOMAIN"},
		{[]string{"example.org", "--email", "a@example.org", "--self-signed"}, "one of the two"},
		{[]string{"localhost", "--email", "a@example.org"}, "no authority"},
		{[]string{"example.org", "--email", "nobody"}, "--email"},
		{[]string{"a@example.org", "--self-signed"}, "not a domain"},
		{[]string{"example.org", "--self-signed", "--account", "x@other.example"}, "not the name of an account"},
	} {
		file := filepath.Join(t.TempDir(), "parley.yaml")
		_, _, err := parley(t, "", append([]string{"quickstart", "--config", file}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.args, err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%v: left a file behind", c.args)
		}
	}
}

func TestQRHasItsMargin(t *testing.T) {
	var b bytes.Buffer
	if err := printQR(&b, "xmpp:alice@example.org"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	wide := len([]rune(lines[0]))
	for i, l := range lines {
		r := []rune(l)
		if len(r) != wide || string(r[:4]) != "  ██" || string(r[wide-2:]) != "██" {
			t.Errorf("line %d: %q", i, l)
		}
	}
	if want := "  " + strings.Repeat("█", wide-2); lines[0] != want {
		t.Errorf("above the code: %q", lines[0])
	}
	// The finder pattern's upper left corner: seven dark modules, light inside.
	if got := string([]rune(lines[1])[4:11]); got != " ▄▄▄▄▄ " {
		t.Errorf("finder pattern: %q", got)
	}
}

func TestNewPassword(t *testing.T) {
	seen := map[string]bool{}
	form := regexp.MustCompile(`^([abcdefghjkmnpqrstuvwxyz2-9]{4}-){3}[abcdefghjkmnpqrstuvwxyz2-9]{4}$`)
	for range 100 {
		p := newPassword()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("%q", p)
		}
		seen[p] = true
	}
}
