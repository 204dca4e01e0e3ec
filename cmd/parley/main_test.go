package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// childVariable makes the test binary behave as parley.
const childVariable = "PARLEY_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// parley runs a command in process.
func parley(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := root()
	var out, errs bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// must is parley for what has to work.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := parley(t, "", args...)
	if err != nil {
		t.Fatalf("parley %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// server is a child that serves.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	data  string
	doors map[string]string
	said  string // on standard output until it was ready
	log   *bytes.Buffer
	rest  chan string
	ended bool
}

// lastWords end the greeting with --demo.
const lastWords = "Stop with Ctrl-C."

var doorLine = regexp.MustCompile(`^  (c2s|c2s-tls|http|https) +(\S+:\d+) `)

// serve starts a server on free ports; its data directory is dir/data.
func serve(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return serveTo(t, dir, r, w, args...)
}

// serveTo is serve with the two ends of the standard output.
func serveTo(t *testing.T, dir string, from, to *os.File, args ...string) *server {
	t.Helper()
	t.Cleanup(func() { _ = from.Close() })
	s := &server{t: t, data: filepath.Join(dir, "data"), doors: map[string]string{}, log: &bytes.Buffer{}, rest: make(chan string, 1)}
	args = append([]string{"serve", "--demo", "--data", s.data, "--c2s", "127.0.0.1:0", "--c2s-tls", "", "--http", "127.0.0.1:0", "--https", ""}, args...)
	s.cmd = exec.Command(os.Args[0], args...)
	s.cmd.Env = append(os.Environ(), childVariable+"=1")
	s.cmd.Stderr = s.log
	s.cmd.Stdout = to
	err := s.cmd.Start()
	_ = to.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill() })
	r := bufio.NewReader(from)
	for !strings.Contains(s.said, lastWords) {
		line, err := r.ReadString('\n')
		s.said += line
		if err != nil {
			s.kill()
			t.Fatalf("the server ended: %s\n%s", s.said, s.log.String())
		}
		if m := doorLine.FindStringSubmatch(line); m != nil {
			s.doors[m[1]] = m[2]
		}
	}
	go func() {
		rest, _ := io.ReadAll(r)
		s.rest <- string(rest)
	}()
	return s
}

func (s *server) kill() {
	if !s.ended {
		s.ended = true
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// stop ends the server with a signal and returns its log.
func (s *server) stop() string {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	<-s.rest
	s.ended = true
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("not a graceful stop: %v\n%s", err, s.log.String())
	}
	return s.log.String()
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// write makes a file in a new directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}
