package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
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
	prefix          []string // of every command: where it runs
	dial            dialer
	ended           func(*life) // it has ended by itself; nil: nobody minds
	log             logs

	mu   sync.Mutex
	life *life         // nil: it does not run
	door string        // where clients connect; "": nowhere
	up   chan struct{} // closed when door changes
}

// life is one process.
type life struct {
	cmd  *exec.Cmd
	from int           // where its part of the log begins
	over chan struct{} // closed when it has ended
	err  error         // then
}

// dialer connects a client to an address.
type dialer func(ctx context.Context, address string) (net.Conn, error)

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// door is a way in.
type door struct {
	open   func(ctx context.Context) (net.Conn, error)
	closed <-chan struct{} // who is behind it has ended
}

// while bounds a context by who is behind the door.
func (d door) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-d.closed:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
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
      muc: {messages: {every: 0s}, presences: {every: 0s}, entries: {every: 0s}}
`

// newServer prepares a server with its data in dir. storage is YAML.
func newServer(t *testing.T, program, dir, storage string) *server {
	t.Helper()
	s := configured(t, program, fmt.Sprintf(configuration, dir, storage))
	if dumps() != "" {
		t.Cleanup(func() { dump(t, "log", s.log.tail(1<<20)) })
	}
	return s
}

func configured(t *testing.T, program, yaml string) *server {
	t.Helper()
	s := &server{program: program, config: filepath.Join(t.TempDir(), "parley.yaml"), dial: dialTCP, up: make(chan struct{})}
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

// command is the program's, where the server runs.
func (s *server) command(ctx context.Context, args ...string) *exec.Cmd {
	args = slices.Concat(s.prefix, []string{s.program}, args, []string{"--config", s.config})
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = environment()
	return cmd
}

var doorLine = regexp.MustCompile(`(?m)^  c2s(?:-tls)? +(\S+:\d+) `)

// start returns when the door is open.
func (s *server) start() error {
	cmd := s.command(context.Background(), "serve")
	cmd.Stderr = &s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	l := &life{cmd: cmd, from: s.log.size(), over: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	s.mu.Lock()
	s.life = l
	s.mu.Unlock()
	open := make(chan struct{})
	go s.watch(l, out, open)
	select {
	case <-open:
		return nil
	case <-l.over:
		return fmt.Errorf("the server does not open its door: %w\n%s", l.err, s.log.tail(20))
	}
}

// watch reads what a life says, until it ends.
func (s *server) watch(l *life, out io.Reader, open chan struct{}) {
	r := bufio.NewReader(out)
	opened := false
	for {
		line, err := r.ReadString('\n')
		if m := doorLine.FindStringSubmatch(line); m != nil && !opened {
			opened = true
			s.mu.Lock()
			if s.life == l {
				s.door = m[1]
				close(s.up)
				s.up = make(chan struct{})
			}
			s.mu.Unlock()
			close(open)
		}
		if err != nil {
			break
		}
	}
	l.err = l.cmd.Wait()
	s.mu.Lock()
	itself := s.life == l
	if itself {
		s.life, s.door = nil, ""
	}
	s.mu.Unlock()
	close(l.over)
	if itself && opened && s.ended != nil {
		s.ended(l)
	}
}

// kill ends it with SIGKILL.
func (s *server) kill() {
	s.mu.Lock()
	l := s.life
	s.life, s.door = nil, ""
	s.mu.Unlock()
	if l != nil {
		_ = l.cmd.Process.Kill()
		<-l.over
	}
}

// lives is the process that runs; nil: none.
func (s *server) lives() *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// pid is 0 when it does not run.
func (s *server) pid() int {
	if l := s.lives(); l != nil {
		return l.cmd.Process.Pid
	}
	return 0
}

// open reports whether it has a door.
func (s *server) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.door != ""
}

// enter waits until the server has a door.
func (s *server) enter(ctx context.Context) (door, error) {
	for {
		s.mu.Lock()
		at, up, l := s.door, s.up, s.life
		s.mu.Unlock()
		if at != "" {
			return door{func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, at) }, l.over}, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return door{}, ctx.Err()
		}
	}
}

// account makes one through the running server.
func (s *server) account(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := s.command(ctx, "account", "add", user+"@localhost", "--password-stdin")
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

func (l *logs) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Len()
}

// said reports whether the part that begins there contains the text.
func (l *logs) said(from int, text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf.Bytes()[from:], []byte(text))
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
