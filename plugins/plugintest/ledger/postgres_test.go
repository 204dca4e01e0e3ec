package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testpg is the script that starts a Postgres of our own.
const testpg = "../../../.ci/testpg"

// postgres is one that may be ill-treated.
type postgres struct {
	t         *testing.T
	dir, dsn  string
	databases atomic.Int32
}

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	if there, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(there) == 0 {
		if _, err := exec.LookPath("initdb"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("Postgres is not installed")
			}
			t.Skip("Postgres is not installed")
		}
	}
	parent, err := os.MkdirTemp("", "parley-ledger")
	if err != nil {
		t.Fatal(err)
	}
	p := &postgres{t: t, dir: filepath.Join(parent, "pg")}
	t.Cleanup(func() {
		p.thaw()
		_ = exec.Command(testpg, "stop", p.dir).Run()
		_ = os.RemoveAll(parent)
	})
	cmd := exec.Command(testpg, "start", p.dir)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("Postgres: %v: %s", err, complaints.String())
	}
	p.dsn = strings.TrimSpace(string(out))
	return p
}

// database makes one and returns its connection string.
func (p *postgres) database(t *testing.T) *url.URL {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	name := fmt.Sprintf("ledger%d", p.databases.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(p.dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u
}

// ctl runs pg_ctl as the user whose database it is.
func (p *postgres) ctl(args ...string) {
	p.t.Helper()
	data := filepath.Join(p.dir, "data")
	opts, err := os.ReadFile(filepath.Join(data, "postmaster.opts"))
	if err != nil {
		p.t.Fatal(err)
	}
	program, _, _ := strings.Cut(string(opts), " ")
	cmd := exec.Command(filepath.Join(filepath.Dir(program), "pg_ctl"), append([]string{"-D", data, "-w", "-l", filepath.Join(p.dir, "log")}, args...)...)
	cmd.Dir = p.dir
	var owner syscall.Stat_t
	if err := syscall.Stat(data, &owner); err != nil {
		p.t.Fatal(err)
	}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := cmd.Run(); err != nil { // no pipe: the server would keep it open
		p.t.Fatalf("pg_ctl %v: %v", args, err)
	}
}

// kill ends it without a shutdown: it recovers from its log when it is started.
func (p *postgres) kill() { p.ctl("-m", "immediate", "stop") }

// start starts it again, where and as it was.
func (p *postgres) start() { p.ctl("restart") }

// processes are the postmaster, first, and its children.
func (p *postgres) processes() (pids []int) {
	b, err := os.ReadFile(filepath.Join(p.dir, "data", "postmaster.pid"))
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(b), "\n")
	main, err := strconv.Atoi(first)
	if err != nil {
		return nil
	}
	pids = append(pids, main)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue // has ended meanwhile
		}
		pid, _, _ := strings.Cut(string(b), " ")
		// pid (name) state ppid …; the name may hold anything
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if n, err := strconv.Atoi(pid); err == nil && len(fields) > 1 && fields[1] == first {
			pids = append(pids, n)
		}
	}
	return pids
}

// freeze stops it as a virtual machine that is paused: connections stay open
// and nothing answers.
func (p *postgres) freeze() {
	if pids := p.processes(); len(pids) > 0 {
		_ = syscall.Kill(pids[0], syscall.SIGSTOP) // no more children
	}
	for _, pid := range p.processes() {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

func (p *postgres) thaw() {
	for _, pid := range p.processes() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// proxy is a TCP connection's way with a delay.
type proxy struct {
	listener net.Listener
	to       string
	delay    atomic.Int64 // nanoseconds, each way
	tasks    sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

// newProxy stands in front of an address.
func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.tasks.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.tasks.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, near, far)
		p.mu.Unlock()
		p.tasks.Go(func() { p.pass(near, far) })
		p.tasks.Go(func() { p.pass(far, near) })
	}
}

func (p *proxy) pass(from, to net.Conn) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			time.Sleep(time.Duration(p.delay.Load())) // the fault itself
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
