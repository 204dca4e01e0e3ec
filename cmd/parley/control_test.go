package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins"
	"parley/plugins/accountadmin"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
)

func TestSocketIsTheOwnersAlone(t *testing.T) {
	s := serve(t, t.TempDir())
	st, err := os.Stat(filepath.Join(s.data, admin.Socket))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Type() != os.ModeSocket || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %s", st.Mode())
	}
	if st, err = os.Stat(s.data); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the data directory is %s (%v)", st.Mode(), err)
	}
}

func TestComponentsAtRunTime(t *testing.T) {
	s := serve(t, t.TempDir())
	health := "http://" + s.doors["http"] + "/healthz"
	for _, step := range []struct {
		args  []string
		phase plugins.Phase
		http  int
	}{
		{[]string{"stop", "health"}, plugins.Installed, http.StatusNotFound},
		{[]string{"start", "streamer", "health"}, plugins.Running, http.StatusOK},
		{[]string{"reconfigure", "health", "timeout=4s", "metrics_from=[10.0.0.0/8]"}, plugins.Running, http.StatusOK},
		{[]string{"uninstall", "health"}, plugins.Absent, http.StatusNotFound},
		{[]string{"install", "health"}, plugins.Installed, http.StatusNotFound},
		{[]string{"start", "health"}, plugins.Running, http.StatusOK},
		{[]string{"reconfigure", "health", "enabled=false"}, plugins.Absent, http.StatusNotFound},
		{[]string{"reconfigure", "health", "enabled=true"}, plugins.Running, http.StatusOK},
	} {
		out := must(t, append(append([]string{"component"}, step.args...), "--json", "--data", s.data)...)
		var st plugins.Status
		if err := json.Unmarshal([]byte(out), &st); err != nil || st.Phase != step.phase {
			t.Fatalf("%v: %s (%v)", step.args, out, err)
		}
		if status, _ := get(t, health); status != step.http {
			t.Errorf("after %v: %d", step.args, status)
		}
	}
	if status, _ := get(t, "http://"+s.doors["http"]+"/metrics"); status != http.StatusForbidden {
		t.Errorf("metrics from loopback when only 10/8 may: %d", status)
	}
	contains(t, must(t, "config", "show", "servers.streamer.components.health", "--data", s.data), "4s", "overlay v")
	s.stop()

	again := serve(t, filepath.Dir(s.data)) // what was set stays set
	contains(t, must(t, "config", "show", "servers.streamer.components.health.timeout", "--data", again.data), "4s", "overlay v")
}

func TestConfigSet(t *testing.T) {
	s := serve(t, t.TempDir())
	const path = "servers.streamer.components.health.timeout"
	contains(t, must(t, "config", "set", path, "9s", "--data", s.data), "9s", "overlay v1")
	for _, c := range []struct{ path, value, says string }{
		{path, "soon", "timeout"},
		{path, "1ms", "at least 100ms"},
		{"servers.streamer.components.health.nothing", "1", "nothing"},
		{"servers.streamer.components.nobody.timeout", "1s", "nobody"},
		{"log.level", "debug", "parley config reload"},
	} {
		_, _, err := parley(t, "", "config", "set", c.path, c.value, "--data", s.data)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("set %s %s: %v", c.path, c.value, err)
		}
	}
	contains(t, must(t, "config", "show", path, "--data", s.data), "9s")

	contains(t, must(t, "config", "unset", path, "--data", s.data), path)
	contains(t, must(t, "config", "show", path, "--data", s.data), "3s", "default")
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	log := must(t, "config", "log", "--data", s.data)
	contains(t, log, path, "3s", "9s", "(taken back)", who.Username)
	if v2, v1 := strings.Index(log, "(taken back)"), strings.Index(log, "3s"); v2 > v1 {
		t.Errorf("the newest is not the first:\n%s", log)
	}
	if out := must(t, "config", "log", "-n", "1", "--data", s.data); strings.Count(out, path) != 1 {
		t.Errorf("asked for one change:\n%s", out)
	}
	contains(t, must(t, "config", "nodes", "--data", s.data), "live   2")
	if _, _, err := parley(t, "", "config", "unset", path, "--data", s.data); err == nil || !strings.Contains(err.Error(), "nothing is set at run time") {
		t.Errorf("unset twice: %v", err)
	}
	s.stop()
	again := serve(t, filepath.Dir(s.data)) // what was taken back stays away
	contains(t, must(t, "config", "show", path, "--data", again.data), "3s", "default")
}

func TestRefusals(t *testing.T) {
	s := serve(t, t.TempDir())
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"component", "stop", "nobody"}, "no component nobody"},
		{[]string{"component", "stop", "streamer", "nobody"}, "no such component"},
		{[]string{"component", "stop", "accounts"}, "say which one"},
		{[]string{"component", "stop", "processor", "accounts"}, "others need it"},
		{[]string{"component", "install", "streamer", "health"}, "is running already"},
		{[]string{"component", "reconfigure", "streamer", "health", "timeout"}, "KEY=VALUE"},
		{[]string{"server", "stop", "admin"}, "cannot stop itself"},
		{[]string{"server", "stop", "nobody"}, "no Server nobody"},
		{[]string{"plugin", "stop", "nobody"}, "no such component"},
	} {
		_, _, err := parley(t, "", append(c.args, "--data", s.data)...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	_, _, err := parley(t, "", "plugin", "stop", "accounts", "--data", s.data)
	if err == nil || strings.Count(err.Error(), "others need it") > 2 {
		t.Errorf("stopped what others need, or said so too often: %v", err)
	}
	if log := s.stop(); strings.Contains(log, "does not follow its configuration") {
		t.Errorf("what was refused is logged as a fault:\n%s", log)
	}
}

func TestPluginStopsEverywhere(t *testing.T) {
	s := serve(t, t.TempDir())
	if out := must(t, "plugin", "stop", "health", "--data", s.data); strings.Count(out, "installed") != 2 {
		t.Errorf("stopped:\n%s", out)
	}
	if out := must(t, "plugin", "start", "health", "--data", s.data); strings.Count(out, "running") != 2 {
		t.Errorf("started:\n%s", out)
	}
	contains(t, must(t, "plugin", "list", "--data", s.data), "streamer/health running")
}

func TestNotRunning(t *testing.T) {
	_, _, err := parley(t, "", "server", "list", "--data", t.TempDir())
	if !errors.Is(err, client.ErrNotRunning) {
		t.Fatalf("got %v", err)
	}
}

// TestAccounts does the same with a running server and without one.
func TestAccounts(t *testing.T) {
	for _, running := range []bool{true, false} {
		name := map[bool]string{true: "running", false: "not running"}[running]
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if running {
				data = serve(t, filepath.Dir(data)).data
			}
			accountLife(t, data)
		})
	}
}

func accountLife(t *testing.T, data string) {
	t.Helper()
	const jid = "Juliet@LocalHost" // prepared by the server
	if _, _, err := parley(t, "wherefore art thou\r\n", "account", "add", jid, "--password-stdin", "--data", data); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"add", jid, "--generate"}, "exists already"},
		{[]string{"add", "romeo@elsewhere", "--generate"}, "not the address of an account here: NAME@DOMAIN, and the domains are localhost"},
		{[]string{"add", "romeo"}, "no address"},
		{[]string{"add", "ro meo@localhost", "--generate"}, "without blanks"},
		{[]string{"add"}, "parley account add JID"},
		{[]string{"add", "@", "--generate"}, "no address"},
		{[]string{"show", "romeo@localhost"}, "no such account"},
		{[]string{"passwd", "romeo@localhost", "--generate"}, "no such account"},
		{[]string{"add", "romeo@localhost"}, "no terminal"},
		{[]string{"add", "romeo@localhost", "--password-stdin"}, "no password"},
	} {
		_, _, err := parley(t, "", append(append([]string{"account"}, c.args...), "--data", data)...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	contains(t, must(t, "account", "passwd", jid, "--generate", "--data", data), "password changed", "password: ")
	must(t, "account", "disable", jid, "--data", data)
	if a := show(t, jid, data); a.Disabled.IsZero() || a.JID != "juliet@localhost" {
		t.Errorf("disabled: %+v", a)
	}
	must(t, "account", "enable", jid, "--data", data)
	if a := show(t, jid, data); !a.Disabled.IsZero() {
		t.Errorf("enabled: %+v", a)
	}
	contains(t, must(t, "account", "list", "--data", data), "juliet@localhost")
	must(t, "account", "delete", jid, "--data", data)
	if out := must(t, "account", "list", "--data", data); strings.Contains(out, "juliet") {
		t.Errorf("deleted, but listed:\n%s", out)
	}
}

func show(t *testing.T, jid, data string) (a accountadmin.Account) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, "account", "show", jid, "--json", "--data", data)), &a); err != nil {
		t.Fatal(err)
	}
	return a
}
