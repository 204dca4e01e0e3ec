package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"parley/plugins/admin"
	"parley/plugins/config"
)

func TestServeDemonstrates(t *testing.T) {
	dir := t.TempDir()
	from, to := terminal(t)
	s := serveTo(t, dir, from, to)
	contains(t, s.said, "admin@localhost", "account add alice@localhost", "account add bob@localhost", "self-signed", "port "+port(s.doors["c2s"]))
	m := regexp.MustCompile(`Password +(\S+)`).FindStringSubmatch(s.said)
	if m == nil {
		t.Fatalf("no password in:\n%s", s.said)
	}
	contains(t, must(t, "account", "list", "--data", s.data), "admin@localhost")
	log := s.stop()
	if strings.Contains(log, m[1]) {
		t.Error("the password is in the log")
	}
	contains(t, log, "msg=started", "msg=stopped")
	if _, err := os.Stat(filepath.Join(s.data, admin.Socket)); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	from, to = terminal(t)
	again := serveTo(t, dir, from, to)
	if strings.Contains(again.said, "Password") {
		t.Errorf("a second run made an account:\n%s", again.said)
	}
	again.stop()
}

// A password that is not shown to somebody stays in a file.
func TestServeMakesNoAccountWithoutATerminal(t *testing.T) {
	s := serve(t, t.TempDir())
	contains(t, s.said, "No administrator's account was made")
	if strings.Contains(s.said, "Password") || strings.Contains(must(t, "account", "list", "--data", s.data), "admin@") {
		t.Errorf("an account was made:\n%s", s.said)
	}
	s.stop()
}

func TestServeRefusesASecondServer(t *testing.T) {
	s := serve(t, t.TempDir())
	_, _, err := parley(t, "", "serve", "--data", s.data, "--c2s", "127.0.0.1:0", "--c2s-tls", "", "--http", "", "--https", "")
	if err == nil || !strings.Contains(err.Error(), admin.ErrTaken.Error()) {
		t.Fatalf("got %v", err)
	}
	must(t, "server", "list", "--data", s.data) // the first one still answers
}

func TestServeSaysWhichPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, _, err = parley(t, "", "serve", "--data", filepath.Join(t.TempDir(), "d"), "--c2s", l.Addr().String(), "--c2s-tls", "", "--http", "", "--https", "")
	if err == nil {
		t.Fatal("it serves on a port that is taken")
	}
	contains(t, err.Error(), l.Addr().String(), "servers.streamer.c2s or --c2s", "ss -ltnp")
	for _, wrong := range []string{"foo", "999999", ":80000"} {
		_, _, err := parley(t, "", "serve", "--data", filepath.Join(t.TempDir(), "d"), "--c2s", wrong)
		if err == nil {
			t.Fatalf("it serves at %s", wrong)
		}
		contains(t, err.Error(), "--c2s", "is no address")
	}
}

func TestServeSaysThatNobodyCanConnect(t *testing.T) {
	cluster := config.Flag{Name: "x", Path: "cluster.nats.urls", Value: "[127.0.0.1]"}
	off := config.Flag{Name: "x", Path: "servers.streamer.enabled", Value: "false"}
	for _, c := range []struct {
		flags []config.Flag
		says  string
	}{
		{nil, ""},
		{[]config.Flag{{Name: "x", Path: "servers.streamer", Value: "{c2s: '', c2s_tls: '', http: '', https: ''}"}}, "has no address"},
		{[]config.Flag{off}, "enabled is false"},
		{[]config.Flag{off, cluster, {Name: "x", Path: "storage", Value: "{driver: postgres, dsn: 'postgres://x'}"}}, "A core"},
	} {
		s, err := read("", c.flags)
		if err != nil {
			t.Fatal(err)
		}
		doors, err := s.doors()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.closed(doors); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
			t.Errorf("%v: %q, want %q", c.flags, got, c.says)
		}
	}
}

// What is wrong with a directory or a file is said once, and what to do.
func TestRefusalsSayWhatToDo(t *testing.T) {
	file := write(t, "f", "")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"serve", "--data", ""}, "name a directory"},
		{[]string{"serve", "--data", file}, "not a directory"},
		{[]string{"serve", "--config", "/nofile"}, "open /nofile"},
		{[]string{"account", "list", "--config", write(t, "p.yaml", "domain: x")}, "--data DIR instead of --config"},
		{[]string{"backup"}, "parley backup FILE"},
		{[]string{"serve", "--data", t.TempDir(), "--config", write(t, "pg.yaml", "storage: {driver: postgres, dsn: 'postgres://x@127.0.0.1:1/x'}")}, "no connection"},
		{[]string{"serve", "--data", t.TempDir(), "--config", write(t, "pg.yaml", "storage: {driver: postgres, dsn: 'postgres://x@127.0.0.1:1/x'}")}, "storage.dsn is right; it is from "},
	} {
		_, _, err := parley(t, "", c.args...)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Count(err.Error(), "configuration: ") > 1 {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}

func TestServeReloads(t *testing.T) {
	file := write(t, "parley.yaml", "log: {level: info}\n")
	s := serve(t, t.TempDir(), "--config", file)
	text := "log: {level: debug}\nservers: {streamer: {outbox: 2MiB, c2s: ':1', components: {health: {timeout: 7s}}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	for !strings.Contains(must(t, "config", "show", "servers.streamer.components.health.timeout", "--data", s.data), "7s") {
	}
	out := must(t, "config", "show", "servers.streamer.c2s", "--data", s.data)
	contains(t, out, "flag --c2s") // flags win over the file
	contains(t, must(t, "config", "show", "servers.streamer.outbox", "--data", s.data), "2MiB", "counts after a restart; in force: 1MiB")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "outbox: 2MiB, ", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, must(t, "config", "reload", "--data", s.data), "servers.streamer.outbox", "2MiB", "applied") // it never was otherwise
	log := s.stop()
	contains(t, log,
		"key=log.level old=info new=debug outcome=applied",
		"key=servers.streamer.outbox old=1MiB new=2MiB outcome=restart",
		"key=servers.streamer.components.health.timeout old=3s new=7s outcome=applied",
		"outcome=overridden", "configuration reloaded")
}

func TestReloadKeepsWhatWorksWhenTheFileIsWrong(t *testing.T) {
	file := write(t, "parley.yaml", "log: {level: info}\n")
	s := serve(t, t.TempDir(), "--config", file)
	if err := os.WriteFile(file, []byte("log: {level: loud}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := parley(t, "", "config", "reload", "--data", s.data)
	if err == nil {
		t.Fatal("a wrong file was taken")
	}
	contains(t, err.Error(), "parley.yaml:1:", "loud", "^")
	contains(t, must(t, "config", "show", "log.level", "--data", s.data), "info")
}

func TestServeAnswersHTTP(t *testing.T) {
	s := serve(t, t.TempDir())
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "go_goroutines"} {
		status, body := get(t, "http://"+s.doors["http"]+path)
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, metrics := get(t, "http://"+s.doors["http"]+"/metrics")
	contains(t, metrics, `parley_connections_refused_total{reason="memory"} 0`, `parley_sessions_shed_total{which="away"} 0`) // alarms need a 0
	must(t, "server", "stop", "parser", "--data", s.data)
	if status, body := get(t, "http://"+s.doors["http"]+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "parser") {
		t.Errorf("without the parser: %d %s", status, body)
	}
	must(t, "server", "start", "parser", "--data", s.data)
	if status, body := get(t, "http://"+s.doors["http"]+"/readyz"); status != http.StatusOK {
		t.Errorf("with the parser again: %d %s", status, body)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
