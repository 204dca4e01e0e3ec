package federation

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
)

//go:embed peer/*.tmpl
var templates embed.FS

// ErrMissing says that a server is not installed.
var ErrMissing = errors.New("not installed")

// Server is a real server of another kind, a child of the test's process with a
// directory and ports of its own.
type Server struct {
	Name, Domain string
	Dir          string
	Client       int // port for clients
	Peers        int // port for servers
	DNS          string
	DNSPort      string
	Files        Files
	CA           string

	t    testing.TB
	argv []string
	env  []string
	cmd  *exec.Cmd
	done chan struct{}
}

// kinds are the servers by name: what they are started with, and their templates.
var kinds = map[string]struct {
	files   []string
	command func(*Server) (argv, env []string)
}{
	"prosody": {[]string{"prosody.cfg.lua"}, func(s *Server) ([]string, []string) {
		return []string{"prosody", "--config", s.file("prosody.cfg.lua"), "-F"}, nil
	}},
	"ejabberd": {[]string{"ejabberd.yml", "inetrc"}, func(s *Server) ([]string, []string) {
		libs, _ := filepath.Glob("/usr/lib/*/ejabberd-*/ebin")
		lib := "/usr/lib"
		if len(libs) > 0 {
			lib = filepath.Dir(filepath.Dir(libs[0]))
		}
		return []string{"erl", "-noinput", "+S", "1:1", "+sbwt", "none", "-kernel", "inetrc", `"` + s.file("inetrc") + `"`, "-mnesia", "dir", `"` + s.file("mnesia") + `"`, "-s", "ejabberd"},
			[]string{"ERL_LIBS=" + lib, "EJABBERD_CONFIG_PATH=" + s.file("ejabberd.yml"), "EJABBERD_LOG_PATH=" + s.file("ejabberd.log"), "ERL_CRASH_DUMP=" + s.file("crash.dump"), "HOME=" + s.Dir}
	}},
}

func (s *Server) file(name string) string { return filepath.Join(s.Dir, name) }

// Server starts one, known to DNS. ErrMissing: it is not installed.
func (w *World) Server(kind, domain string) (*Server, error) {
	w.t.Helper()
	k, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("no server %q is known", kind)
	}
	dir := w.t.TempDir()
	s := &Server{Name: kind, Domain: domain, Dir: dir, t: w.t, CA: w.CA.File}
	s.argv, s.env = k.command(s)
	if _, err := exec.LookPath(kindProgram(kind)); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, ErrMissing)
	}
	var err error
	if s.Files, err = w.CA.Issue(dir, Leaf{Names: []string{domain, "*." + domain}}); err != nil {
		return nil, err
	}
	if s.DNS, s.DNSPort, err = net.SplitHostPort(w.Zone.Address()); err != nil {
		return nil, err
	}
	if s.Client, s.Peers, err = freePorts(); err != nil {
		return nil, err
	}
	for _, name := range k.files {
		if err := s.write(name); err != nil {
			return nil, err
		}
	}
	w.Announce(domain, s.Door())
	w.t.Cleanup(s.Kill)
	return s, s.Start()
}

// kindProgram is what has to be installed.
func kindProgram(kind string) string {
	if kind == "ejabberd" {
		return "ejabberdctl"
	}
	return kind
}

func (s *Server) write(name string) error {
	t, err := template.ParseFS(templates, "peer/"+name+".tmpl")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return err
	}
	return os.WriteFile(s.file(name), b.Bytes(), 0o600)
}

// startLimit bounds a server's start.
const startLimit = 2 * time.Minute

// Start starts a server that was killed, on what it has stored.
func (s *Server) Start() error {
	out, err := os.OpenFile(s.file("output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...) //nolint:gosec // the test's own
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, out, out
	s.cmd.SysProcAttr = childAttributes()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(s.cmd, s.done)
	return s.answers()
}

// answers waits until the server opens a stream.
func (s *Server) answers() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(startLimit)
	for {
		select {
		case <-s.done:
			return fmt.Errorf("%s has ended while it started: %s", s.Name, s.Log())
		case <-limit:
			return fmt.Errorf("%s does not answer: %s", s.Name, s.Log())
		case <-tick.C:
			if s.greets() {
				return nil
			}
		}
	}
}

func (s *Server) greets() bool {
	conn, err := net.DialTimeout("tcp", s.at(), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(conn, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='"+s.Domain+"'>")
	b := make([]byte, 1024)
	n, err := conn.Read(b)
	return err == nil && bytes.Contains(b[:n], []byte("<stream:stream"))
}

func (s *Server) at() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Client)) }

// Door is where it takes streams of other servers.
func (s *Server) Door() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Peers)) }

// Kill ends the server at once, by its process group, which is its own.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	select {
	case <-s.done:
		return
	default:
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

// Log is the end of what the server has said.
func (s *Server) Log() string {
	var b strings.Builder
	for _, name := range []string{"output", "prosody.log", "ejabberd.log"} {
		text, err := os.ReadFile(s.file(name))
		if err == nil {
			fmt.Fprintf(&b, "%s:\n%s\n", name, text[max(0, len(text)-6000):])
		}
	}
	return b.String()
}

// Login makes the account if need be, and logs in.
func (s *Server) Login(ctx context.Context, user string) (*plugintest.Client, error) {
	_ = script.Register(ctx, script.Connection{Target: foreign{s}}, user, plugintest.Password) // there already: it is the next life
	return plugintest.Dial(ctx, s.at(), s.Domain, user, plugintest.Password, "r")
}

// foreign lets accounts be made in band.
type foreign struct{ *Server }

var _ script.Target = foreign{}

// Domain implements script.Target.
func (f foreign) Domain() string { return f.Server.Domain }

// Dial implements script.Target.
func (f foreign) Dial(ctx context.Context, _ script.DialKind) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", f.at())
}

// Account implements script.Target.
func (foreign) Account(context.Context, string, string) error { return errors.ErrUnsupported }

// Service implements script.Target.
func (foreign) Service(string) string { return "" }

// Restart implements script.Target.
func (foreign) Restart(context.Context) error { return errors.ErrUnsupported }

// Reload implements script.Target.
func (foreign) Reload(context.Context) error { return errors.ErrUnsupported }

// freePorts finds two that nobody listens on, below those that connections come
// from.
func freePorts() (client, peers int, err error) {
	for range 100 {
		first := 20_000 + 2*rand.IntN(5_000)
		if free(first) && free(first+1) {
			return first, first + 1, nil
		}
	}
	return 0, 0, errors.New("no free ports")
}

func free(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
