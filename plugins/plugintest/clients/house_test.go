package clients_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"parley/plugins/all"
	"parley/plugins/plugintest"
)

// patience ends a wait for something that does not come.
const patience = 60 * time.Second

const password = "correct horse battery staple"

// need skips the test unless real clients are wanted and those it needs are
// there. In CI a client that is missing is a failure: a skip would be silent.
func need(t *testing.T, missing func() error) {
	t.Helper()
	if os.Getenv("PARLEY_TEST_CLIENTS") == "" {
		t.Skip("PARLEY_TEST_CLIENTS is not set: real clients run in make test, or with PARLEY_TEST_CLIENTS=1")
	}
	if err := missing(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs a client that is not here: %v", err)
		}
		t.Skipf("this test needs a client that is not here: %v", err)
	}
}

// programs is the need for commands.
func programs(names ...string) func() error {
	return func() error {
		for _, n := range names {
			if _, err := exec.LookPath(n); err != nil {
				return err
			}
		}
		return nil
	}
}

// nothing is the need of a client that is compiled in.
func nothing() error { return nil }

// config closes every way in without TLS.
const config = `
servers:
  streamer:
    https: 127.0.0.1:0
    tls: {required: true, plain_on_loopback: false}
`

// server is the house under test.
type server struct {
	*plugintest.House
	certificate string // PEM file
}

// start starts a server with accounts, all with the same password.
func start(t *testing.T, users ...string) *server {
	t.Helper()
	log := &logs{}
	data := t.TempDir()
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: config + "data: " + data + "\n", Log: log})
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("PARLEY_TEST_LOG") != "" {
			t.Logf("the server's log:\n%s", log)
		}
	})
	for _, u := range users {
		if err := h.Account(t.Context(), u, password); err != nil {
			t.Fatal(err)
		}
	}
	return &server{h, filepath.Join(data, "tls", "self-signed.crt")}
}

// trust is a TLS configuration that accepts the server's certificate, and no
// other.
func (s *server) trust(t *testing.T) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(s.certificate)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s is not a certificate", s.certificate)
	}
	return &tls.Config{ServerName: s.Domain(), RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// fetch is what is at an address of the HTTPS door.
func (s *server) fetch(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: s.trust(t)}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", address, resp.Status, err)
	}
	return string(body)
}

// door is a door's host and port.
func (s *server) door(t *testing.T, name string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Door(name))
	if err != nil {
		t.Fatalf("door %s: %v", name, err)
	}
	return host, port
}

// logs keeps the server's log for a test that fails.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// home is an environment in which a program finds nothing of the user's and
// leaves nothing behind.
func home(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	env := []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm-256color", "TMPDIR=" + dir,
	}
	for _, x := range []string{"CONFIG", "DATA", "CACHE", "STATE"} {
		env = append(env, "XDG_"+x+"_HOME="+filepath.Join(dir, x))
	}
	return append(env, "XDG_RUNTIME_DIR="+dir)
}

// eventually polls a program that cannot tell when something has changed.
func eventually(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
