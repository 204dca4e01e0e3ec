package externals_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/plugins/admin"
	"parley/plugins/admin/client"
	"parley/plugins/all"
	"parley/plugins/externals"
	"parley/plugins/plugintest"
)

const section = `
servers:
  streamer: {components: {component: {address: 127.0.0.1:0}}}
  admin: {components: {externals: {backoff: 100ms, start_within: 1m}}}
`

// python is Debian's, which has slixmpp when that is installed.
func python(t *testing.T) string {
	t.Helper()
	path := "/usr/bin/python3"
	if out, err := exec.Command(path, "-c", "import slixmpp").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("slixmpp is missing: %s", out)
		}
		t.Skip("slixmpp is not installed (apt-get install python3-slixmpp)")
	}
	return path
}

// folder is a version of the echo component.
func folder(t *testing.T, version, command string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	code, err := os.ReadFile("testdata/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	manifest := "name: echo\nversion: " + version + "\ndomain: echo.localhost\ntitle: Echo\ncommand: " + command +
		"\nargs: ['" + strings.Join(args, "', '") + "']\nhealth: {interval: 1s}\nprivileges: {message: outgoing}\n"
	for name, text := range map[string]string{"echo.py": string(code), externals.ManifestFile: manifest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, h *plugintest.House) externals.Client {
	t.Helper()
	ctx := limit(t)
	c, err := client.Open(ctx, h.DataDir())
	for err != nil && ctx.Err() == nil { // its door opens a moment later
		time.Sleep(10 * time.Millisecond)
		c, err = client.Open(ctx, h.DataDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	return externals.Client{Client: c}
}

// until asks until the component is as it should be.
func until(t *testing.T, c externals.Client, what string, is func(externals.Status) bool) externals.Status {
	t.Helper()
	ctx := limit(t)
	var last []externals.Status
	for ctx.Err() == nil {
		all, err := c.List(ctx)
		if err == nil && len(all) == 1 && is(all[0]) {
			return all[0]
		}
		last = all
		time.Sleep(50 * time.Millisecond) // the list is asked, nothing tells of its changes
	}
	text, _ := c.Logs(context.Background(), "echo", 50)
	t.Fatalf("not %s: %+v\n%s", what, last, text)
	return externals.Status{}
}

func healthy(s externals.Status) bool { return s.State == externals.Healthy }

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func status(err error) int {
	var p *admin.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// A component in Python is installed, killed, upgraded, upgraded to a version that
// fails, and removed, while the server runs.
func TestEcho(t *testing.T) {
	py := python(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section})
	c := open(t, h)
	ctx := limit(t)
	if _, err := c.Install(ctx, folder(t, "1.0", py, "echo.py")); err != nil {
		t.Fatal(err)
	}
	first := until(t, c, "healthy", healthy)
	echoes(t, h)
	if _, err := c.Install(ctx, folder(t, "1.0", py, "echo.py")); status(err) != http.StatusConflict {
		t.Errorf("installed twice: %v", err)
	}

	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := until(t, c, "back", func(s externals.Status) bool { return healthy(s) && s.PID != first.PID })
	if second.Restarts == 0 {
		t.Errorf("nobody sees that it was restarted: %+v", second)
	}
	echoes(t, h)

	third, err := c.Upgrade(ctx, folder(t, "1.1", py, "echo.py"))
	if err != nil || third.Version != "1.1" || !healthy(third) || !gone(second.PID) {
		t.Fatalf("upgrade: %+v, %v", third, err)
	}
	for { // what a process says takes a way of its own
		text, err := c.Logs(ctx, "echo", 100)
		if err != nil {
			t.Fatalf("log: %v", err)
		}
		if strings.Contains(text, "ends in order") && strings.Count(text, "connected") >= 3 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}

	if _, err = c.Upgrade(ctx, folder(t, "1.2", "/bin/sh", "-c", "echo broken; exit 3")); status(err) != http.StatusUnprocessableEntity {
		t.Errorf("a version that fails: %v", err)
	}
	fourth := until(t, c, "rolled back", func(s externals.Status) bool { return healthy(s) && s.Version == "1.1" })
	echoes(t, h)

	if err := c.Remove(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	if all, err := c.List(ctx); err != nil || len(all) != 0 || !gone(fourth.PID) {
		t.Errorf("removed: %+v, %v", all, err)
	}
	if _, err := os.Stat(filepath.Join(h.DataDir(), "components", "echo")); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
}

// Somebody writes to the component and gets the same back.
func echoes(t *testing.T, h *plugintest.House) {
	t.Helper()
	ctx := limit(t)
	cl, err := h.Login(ctx, "romeo", "")
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Send("<message to='echo.localhost' id='e' type='chat'><body>hello</body></message>"); err != nil {
		t.Fatal(err)
	}
	for {
		el, err := cl.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if el.Name.Local != "message" {
			continue
		}
		if body := el.Child("jabber:client", "body"); el.Get("type") == "error" || body == nil || body.Text() != "hello" {
			t.Fatalf("not an echo: %s", el.Bytes(""))
		}
		return
	}
}

// Who ends again and again is left alone after a while, and says why; whoever has mended it starts it again.
func TestGivesUp(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: `
servers:
  streamer: {components: {component: {address: 127.0.0.1:0}}}
  admin: {components: {externals: {backoff: 100ms, max_restarts: 2}}}
`})
	c := open(t, h)
	ctx := limit(t)
	if _, err := c.Install(ctx, folder(t, "1.0", "/bin/sh", "-c", "echo broken; exit 3")); err != nil {
		t.Fatal(err)
	}
	failed := func(s externals.Status) bool { return s.State == externals.Failed }
	got := until(t, c, "given up", failed)
	if got.Restarts != 2 || !strings.Contains(got.Error, "3") {
		t.Errorf("given up: %+v", got)
	}
	if text, err := c.Logs(ctx, "echo", 100); err != nil || strings.Count(text, "broken") != 2 {
		t.Errorf("the log after two starts: %v\n%s", err, text)
	}
	if _, err := c.Restart(ctx, "echo"); err != nil {
		t.Error(err)
	}
	until(t, c, "given up once more", failed)
	if text, err := c.Logs(ctx, "echo", 100); err != nil || strings.Count(text, "broken") != 4 {
		t.Errorf("the log after two more: %v\n%s", err, text)
	}
}

// Where components cannot connect none is installed, and it is said what to set.
func TestNoDoor(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins()})
	c := open(t, h)
	_, err := c.Install(limit(t), folder(t, "1.0", "/bin/sh", "-c", "exit 0"))
	if status(err) != http.StatusUnprocessableEntity || !strings.Contains(err.Error(), "servers.streamer.components.component.address") {
		t.Errorf("installed: %v", err)
	}
}
