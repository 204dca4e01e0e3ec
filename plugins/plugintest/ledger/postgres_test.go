package ledger_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
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

// ctl runs pg_ctl.
func (p *postgres) ctl(args ...string) {
	p.t.Helper()
	if err := p.try(args...); err != nil {
		p.t.Fatalf("pg_ctl %v: %v", args, err)
	}
}

// try runs pg_ctl as the user whose database it is.
func (p *postgres) try(args ...string) error {
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
	return cmd.Run() // no pipe: the server would keep it open
}

// kill ends it without a shutdown: it recovers from its log when it is started.
func (p *postgres) kill() { p.ctl("-m", "immediate", "stop") }

// stop ends it in order, whoever is connected.
func (p *postgres) stop() { p.ctl("-m", "fast", "stop") }

// murder is kill -9 of the postmaster: its children end when they notice.
func (p *postgres) murder() {
	p.t.Helper()
	all := p.processes()
	if len(all) == 0 {
		p.t.Fatal("Postgres does not run")
	}
	var ends []int
	for _, pid := range all {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it has ended
			ends = append(ends, fd)
		}
	}
	_ = syscall.Kill(all[0], syscall.SIGKILL)
	for _, fd := range ends {
		ended(p.t, fd)
	}
	// As long as nobody has waited for it the dead postmaster has its number, and
	// pg_ctl takes it for alive.
	_ = os.Remove(filepath.Join(p.dir, "data", "postmaster.pid"))
}

// ended waits for the end of a process that is not our child, and closes its
// descriptor.
func ended(t *testing.T, pidfd int) {
	t.Helper()
	defer func() { _ = unix.Close(pidfd) }()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil || n == 0:
			t.Fatalf("a process does not end: %v", err)
		default:
			return
		}
	}
}

// start starts it again, where and as it was. One that was killed may still have
// its lock on the socket for a moment.
func (p *postgres) start() {
	p.t.Helper()
	limit, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for err := p.try("restart"); err != nil; err = p.try("restart") {
		if limit.Err() != nil {
			p.t.Fatalf("Postgres does not start again: %v", err)
		}
		wait(limit, retry)
	}
}

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
