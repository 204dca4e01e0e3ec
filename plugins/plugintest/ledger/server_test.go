package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const password = "correct horse battery staple"

// build makes the program.
func build(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "parley")
	cmd := exec.Command("go", "build", "-o", file, "parley/cmd/parley")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return file
}

// server is parley in a process of its own.
type server struct {
	program, config string
	log             logs

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil: it does not run
	door string        // where clients connect; "": nowhere
	up   chan struct{} // closed when door changes
}

// configuration is what every server under test has: one door, no limits that
// are other tests' business.
const configuration = `
domains: [localhost]
data: %s
storage: %s
servers:
  streamer:
    c2s: 127.0.0.1:0
    c2s_tls: ""
    http: ""
    https: ""
    tls: {plain_on_loopback: true}
    rate: {bytes: 0, stanzas: 0}
    components:
      accounts: {iterations: 4096}
  processor:
    components:
      archive: {max_pending: 1000000}
`

// newServer prepares a server with its data in dir. storage is YAML.
func newServer(t *testing.T, program, dir, storage string) *server {
	t.Helper()
	return configured(t, program, fmt.Sprintf(configuration, dir, storage))
}

func configured(t *testing.T, program, yaml string) *server {
	t.Helper()
	s := &server{program: program, config: filepath.Join(t.TempDir(), "parley.yaml"), up: make(chan struct{})}
	if err := os.WriteFile(s.config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the server's log ends with\n%s", s.log.tail(40))
		}
	})
	return s
}

var doorLine = regexp.MustCompile(`(?m)^  c2s +(\S+:\d+) `)

// start returns when the door is open.
func (s *server) start() error {
	cmd := exec.Command(s.program, "serve", "--config", s.config)
	cmd.Env = environment()
	cmd.Stderr = &s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if m := doorLine.FindStringSubmatch(line); m != nil {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			s.opened(cmd, m[1])
			return nil
		}
		if err != nil {
			return fmt.Errorf("the server does not open its door: %w\n%s", errors.Join(err, cmd.Wait()), s.log.tail(20))
		}
	}
}

func (s *server) opened(cmd *exec.Cmd, door string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.door = cmd, door
	close(s.up)
	s.up = make(chan struct{})
}

// kill ends it with SIGKILL.
func (s *server) kill() {
	s.mu.Lock()
	cmd := s.cmd
	s.cmd, s.door = nil, ""
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// pid is 0 when it does not run.
func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// address waits until the server has a door.
func (s *server) address(ctx context.Context) (string, error) {
	for {
		s.mu.Lock()
		door, up := s.door, s.up
		s.mu.Unlock()
		if door != "" {
			return door, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// account makes one through the running server.
func (s *server) account(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, "account", "add", user+"@localhost", "--password-stdin", "--config", s.config)
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("account of %s: %w: %s", user, err, out)
	}
	return nil
}

func (s *server) refused() []string { return s.log.refused() }

// environment is ours without the variables that configure a server or a test.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PARLEY_") })
}

// logs keeps the server's log.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

var refusal = regexp.MustCompile(`msg="(?:message not stored|stanza failed)".* id=(\S+)`)

// refused are the ids of the messages that the server says it has not stored.
func (l *logs) refused() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range refusal.FindAllSubmatch(l.buf.Bytes(), -1) {
		ids = append(ids, string(m[1]))
	}
	return ids
}

func (l *logs) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
