package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/plugins/plugintest"
	"parley/storage/storagetest"
)

// waiting is a front that has no core, as a child of the test.
type waiting struct {
	cmd  *exec.Cmd
	log  *bufio.Reader
	said strings.Builder
}

// waitForACore starts one, and returns when it says that it waits.
func waitForACore(t *testing.T, dsn string) *waiting {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "parley.yaml")
	text := fmt.Sprintf(`
domains: [localhost]
node: front
data: %q
storage: {driver: postgres, dsn: %q}
cluster: {lease: 2s, nats: {embedded: {listen: %q, secret: of the test}}}
servers:
  streamer: {c2s: "127.0.0.1:0", c2s_tls: "", http: "", https: "", deployment: {type: distributed}}
  processor: {enabled: false}
  router: {enabled: false}
`, filepath.Join(dir, "data"), dsn, plugintest.Addresses(t, 1)[0])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &waiting{cmd: exec.Command(os.Args[0], "serve", "--config", file)}
	w.cmd.Env = append(os.Environ(), childVariable+"=1")
	from, err := w.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	w.log = bufio.NewReader(from)
	for !strings.Contains(w.said.String(), "waiting for a core") {
		line, err := w.log.ReadString('\n')
		w.said.WriteString(line)
		if err != nil {
			t.Fatalf("it ended: %s", w.said.String())
		}
	}
	return w
}

// stopLimit is long before a unit's TimeoutStopSec.
const stopLimit = 45 * time.Second

// ended returns the log and how the process has ended.
func (w *waiting) ended(t *testing.T) (string, error) {
	t.Helper()
	late := time.AfterFunc(stopLimit, func() { _ = w.cmd.Process.Kill() })
	defer late.Stop()
	rest, err := io.ReadAll(w.log)
	if err != nil {
		t.Fatal(err)
	}
	return w.said.String() + string(rest), w.cmd.Wait()
}

// A front that waits for a core stops when it is told to, in order.
func TestServeStopsWhileItWaitsForACore(t *testing.T) {
	dsn := storagetest.Postgres(t).DSN
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		w := waitForACore(t, dsn)
		if err := w.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		log, err := w.ended(t)
		if err != nil {
			t.Errorf("%s: %v\n%s", sig, err, log)
		}
		contains(t, log, "stopping while it starts", "msg=stopped")
	}
}

// One that is fenced meanwhile ends, with an error, so that it is started again.
func TestServeEndsWhenItIsFencedWhileItWaitsForACore(t *testing.T) {
	c := storagetest.Postgres(t)
	database := storagetest.Behind(t, &c)
	w := waitForACore(t, c.DSN)
	database.Freeze()
	log, err := w.ended(t)
	var failed *exec.ExitError
	if !errors.As(err, &failed) || failed.ExitCode() != 1 {
		t.Errorf("it ended with %v\n%s", err, log)
	}
	contains(t, log, "this node has lost its place in the cluster")
}
