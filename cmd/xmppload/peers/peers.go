//go:build linux

// Package peers starts servers to compare with, as children of this process
// and on ports of their own: Parley, Debian's ejabberd and Prosody, the floor,
// and a private Postgres for their archives. Each gets a new directory, the
// same certificate and the configuration that lies beside this file. Nothing
// of an installation's is touched, and what is started here ends by its
// process id.
package peers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed *.tmpl
var templates embed.FS

// Where says how children run.
type Where struct {
	Dir  string // a new directory for everything; it is the caller's to remove
	CPU  string // what taskset pins servers to; empty: anywhere
	Nice string // what nice takes; empty: nothing
	Root string // the repository, for .ci/testpg
}

// Config is what a template knows.
type Config struct {
	Dir     string
	Port    int    // c2s, plain or STARTTLS
	Direct  int    // c2s, TLS from the first byte
	Archive string // sqlite, postgres; empty: none
	DB      Database
	Node    Node // of a cluster
}

// Database is a Postgres.
type Database struct {
	URL  string
	Port int
}

// Child is a server that runs.
type Child struct {
	Name    string
	Version string
	Config
	PIDs []int         // its process, and its database's
	Took time.Duration // from its start to its first answer

	argv, env []string
	answers   func(port int) bool
	db        *Postgres
	cmd       *exec.Cmd
	done      chan error
}

// ErrMissing says that a server is not installed.
var ErrMissing = errors.New("not installed")

// kind is how one sort of server is started.
type kind struct {
	file    string                                      // of its configuration
	command func(Config, string) (argv, env []string)   // the file's path
	prepare func(context.Context, Where, *Config) error // may be nil
	version []string
}

// kinds are the servers by name. A table: adding one is adding a line and a template.
func kinds(parley, self string) map[string]kind {
	return map[string]kind{
		"parley": {"parley.yaml", func(c Config, file string) ([]string, []string) {
			return []string{parley, "serve", "--config", file, "--data", c.Dir + "/data", "--pprof", "127.0.0.1:" + strconv.Itoa(c.Port+2)}, []string{"GOMAXPROCS=1"}
		}, nil, []string{parley, "version"}},
		"floor": {"", func(c Config, _ string) ([]string, []string) {
			return []string{self, "floor", "--listen", "127.0.0.1:" + strconv.Itoa(c.Port)}, []string{"GOMAXPROCS=1"}
		}, nil, nil},
		"nats": {"", func(c Config, _ string) ([]string, []string) {
			return []string{filepath.Join(filepath.Dir(parley), "nats-server"), "-a", "127.0.0.1", "-p", strconv.Itoa(c.Port)}, []string{"GOMAXPROCS=1"}
		}, nil, []string{filepath.Join(filepath.Dir(parley), "nats-server"), "--version"}},
		"prosody": {"prosody.cfg.lua", func(_ Config, file string) ([]string, []string) {
			return []string{"prosody", "--config", file, "-F"}, nil
		}, prosodyDatabase, []string{"dpkg-query", "-W", "-f", "${Version}", "prosody"}},
		"ejabberd": {"ejabberd.yml", ejabberd, ejabberdDatabase, []string{"dpkg-query", "-W", "-f", "${Version}", "ejabberd"}},
	}
}

// ejabberd is what ejabberdctl foreground runs, without its node name: one
// scheduler for one core, no busy waiting (the performance guide).
func ejabberd(c Config, file string) ([]string, []string) {
	libs, _ := filepath.Glob("/usr/lib/*/ejabberd-*/ebin")
	lib := "/usr/lib"
	if len(libs) > 0 {
		lib = filepath.Dir(filepath.Dir(libs[0]))
	}
	return []string{
			"erl", "-noinput", "+K", "true", "+P", "1000000", "+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
			"-mnesia", "dir", `"` + c.Dir + `/mnesia"`, "-s", "ejabberd",
		}, []string{
			"ERL_LIBS=" + lib, "EJABBERD_CONFIG_PATH=" + file, "EJABBERD_LOG_PATH=" + c.Dir + "/ejabberd.log",
			"ERL_MAX_PORTS=200000", "ERL_MAX_ETS_TABLES=20000", "ERL_CRASH_DUMP=" + c.Dir + "/crash.dump", "HOME=" + c.Dir,
		}
}

// Start starts a server and waits until it takes connections.
func Start(ctx context.Context, w Where, parley, name, archive string, db *Postgres) (*Child, error) {
	c := Config{Archive: archive}
	if db != nil && archive == "postgres" {
		c.DB = db.Database
	}
	ch, err := made(ctx, w, parley, name, c)
	if err != nil {
		return nil, err
	}
	if archive == "postgres" {
		ch.db = db
	}
	if err := ch.Again(ctx); err != nil {
		return nil, err
	}
	return ch, nil
}

// made gives a server its ports, its directory and what is in there.
func made(ctx context.Context, w Where, parley, name string, c Config) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	k, ok := kinds(parley, self)[name]
	if !ok {
		return nil, fmt.Errorf("no server %q is known", name)
	}
	if c.Port, err = freePorts(); err != nil {
		return nil, err
	}
	c.Dir, c.Direct = filepath.Join(w.Dir, name+"-"+c.Archive+strconv.Itoa(c.Port)), c.Port+1
	if err := os.MkdirAll(filepath.Join(c.Dir, "data"), 0o700); err != nil {
		return nil, err
	}
	if err := certificate(c.Dir); err != nil {
		return nil, err
	}
	file, err := configure(c, k.file)
	if err != nil {
		return nil, err
	}
	argv, env := k.command(c, file)
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrMissing)
	}
	if k.prepare != nil && c.Archive != "" {
		if err := k.prepare(ctx, w, &c); err != nil {
			return nil, fmt.Errorf("%s: database: %w", name, err)
		}
	}
	return &Child{Name: name, Config: c, Version: version(k.version), argv: w.pin(argv), env: env, answers: answers}, nil
}

// Again starts a server that was stopped, on what it has stored.
func (c *Child) Again(ctx context.Context) error {
	start := time.Now()
	if err := c.run(); err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	if c.db != nil {
		c.PIDs = append(c.PIDs, c.db.PID)
	}
	if err := c.ready(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", c.Name, err), c.Stop())
	}
	c.Took = time.Since(start)
	return nil
}

func (w Where) pin(argv []string) []string {
	if w.CPU != "" {
		argv = append([]string{"taskset", "-c", w.CPU}, argv...)
	}
	if w.Nice != "" {
		argv = append([]string{"nice", "-n", w.Nice}, argv...)
	}
	return argv
}

func (c *Child) run() error {
	log, err := os.Create(filepath.Join(c.Dir, "output"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command(c.argv[0], c.argv[1:]...)
	c.cmd.Env = append(os.Environ(), c.env...)
	c.cmd.Dir = c.Dir
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.PIDs = []int{c.cmd.Process.Pid} // nice and taskset become what they start
	c.done = make(chan error, 1)
	go func() {
		c.done <- c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

// startLimit bounds a server's start.
const startLimit = time.Minute

// ready waits until the server answers a stream.
func (c *Child) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case err := <-c.done:
			out, _ := os.ReadFile(filepath.Join(c.Dir, "output"))
			return fmt.Errorf("ended while it started: %v: %s", err, bytes.TrimSpace(out[max(0, len(out)-2000):]))
		case <-ctx.Done():
			return fmt.Errorf("does not answer on port %d; see %s", c.Port, c.Dir)
		case <-again.C:
			if c.answers(c.Port) {
				return nil
			}
		}
	}
}

// answers reports whether a server opens a stream.
func answers(port int) bool {
	return says(port, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='localhost'>", "<stream:stream")
}

// says reports whether who listens there answers a greeting so.
func says(port int, greeting, answer string) bool {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(conn, greeting)
	b := make([]byte, 1024)
	n, err := conn.Read(b)
	return err == nil && bytes.Contains(b[:n], []byte(answer))
}

// Stop ends the server by its process id: politely, then not. One that has
// ended is left alone.
func (c *Child) Stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
		return nil
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // its own process group
		<-c.done
		return nil
	}
}

// Postgres is a private Postgres.
type Postgres struct {
	Database
	PID     int
	Version string
	dir     string
	root    string
}

// StartPostgres starts one, pinned as the servers are: its work is part of theirs.
func StartPostgres(ctx context.Context, w Where) (*Postgres, error) {
	p := &Postgres{dir: filepath.Join(w.Dir, "postgres"), root: w.Root}
	argv := []string{filepath.Join(w.Root, ".ci", "testpg"), "start", p.dir}
	if w.CPU != "" {
		argv = append([]string{"taskset", "-c", w.CPU}, argv...)
	}
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w: %w", ErrMissing, err)
	}
	p.URL = strings.TrimSpace(string(out))
	_, rest, _ := strings.Cut(p.URL, "127.0.0.1:")
	port, _, _ := strings.Cut(rest, "/")
	if p.Port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("postgres: %q has no port", p.URL)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "data", "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if p.PID, err = strconv.Atoi(line); err != nil {
		return nil, err
	}
	p.Version = version([]string{"psql", "--version"})
	return p, nil
}

// Stop ends it and removes its files.
func (p *Postgres) Stop() error {
	return exec.Command(filepath.Join(p.root, ".ci", "testpg"), "stop", p.dir).Run()
}

func (d Database) psql(ctx context.Context, database string, args ...string) error {
	u := strings.Replace(d.URL, "/postgres?", "/"+database+"?", 1)
	cmd := exec.CommandContext(ctx, "psql", append([]string{"-q", "-v", "ON_ERROR_STOP=1", u}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w: %s", err, out)
	}
	return nil
}

func prosodyDatabase(ctx context.Context, _ Where, c *Config) error {
	if c.Archive != "postgres" {
		return nil // Prosody makes its tables itself
	}
	return c.DB.psql(ctx, "postgres", "-c", "CREATE DATABASE prosody")
}

func ejabberdDatabase(ctx context.Context, _ Where, c *Config) error {
	const schema = "/usr/share/ejabberd/sql/"
	if c.Archive == "postgres" {
		if err := c.DB.psql(ctx, "postgres", "-c", "CREATE DATABASE ejabberd"); err != nil {
			return err
		}
		return c.DB.psql(ctx, "ejabberd", "-f", schema+"pg.sql")
	}
	cmd := exec.CommandContext(ctx, "sqlite3", c.Dir+"/archive.db", ".read "+schema+"lite.sql")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return nil
}

func configure(c Config, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	t, err := template.ParseFS(templates, name+".tmpl")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, c); err != nil {
		return "", err
	}
	file := filepath.Join(c.Dir, name)
	return file, os.WriteFile(file, b.Bytes(), 0o600)
}

// certificate writes a self-signed ECDSA P-256 certificate, the same kind for
// every server: cert.pem, key.pem, and both in both.pem.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), secret, 0o600),
		os.WriteFile(filepath.Join(dir, "both.pem"), append(cert, secret...), 0o600),
	)
}

// freePorts finds three ports in a row that nobody listens on, below those that
// connections come from: a storm of logins leaves every second one of these in
// TIME-WAIT.
func freePorts() (int, error) {
	for range 100 {
		first := 10_000 + rand.IntN(10_000)
		if !slices.ContainsFunc([]int{first, first + 1, first + 2}, taken) {
			return first, nil
		}
	}
	return 0, errors.New("no free ports")
}

func taken(port int) bool {
	ln, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return true
	}
	_ = ln.Close()
	return false
}

func version(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return "?"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
