package ledger_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// network is network namespaces: one of each node, and a hub, where Postgres
// and NATS are reached and clients come from. Two links lead from the hub to
// each node. No packet leaves it.
type network struct {
	t      *testing.T
	prefix string // of the names of its namespaces
}

// road is one of a node's two links.
type road string

const (
	mainRoad road = "main" // to the database and to clients
	natsRoad road = "nats"
)

// subnets are the addresses of the links of node n: 1 is the hub's end, 2 the node's.
func subnets(n int) map[road]string {
	return map[road]string{mainRoad: fmt.Sprintf("10.77.%d.", n), natsRoad: fmt.Sprintf("10.78.%d.", n)}
}

// namespaces is what the names of all our namespaces begin with; the process
// follows that made them.
const namespaces = "parley-ledger-"

// newNetwork makes one for n nodes; it goes with the test.
func newNetwork(t *testing.T, n int) *network {
	t.Helper()
	w := &network{t: t, prefix: fmt.Sprintf("%s%d-", namespaces, os.Getpid())}
	sweep(t)
	if out, err := exec.Command("ip", "netns", "add", w.hub()).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespaces: ip netns add: %v: %s", err, out)
		}
		t.Skipf("no network namespaces (they need iproute2, root and CAP_NET_ADMIN): ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() { remove(t, w.hub()) })
	w.ip("-n", w.hub(), "link", "set", "lo", "up")
	for i := range n {
		w.ip("netns", "add", w.node(i))
		t.Cleanup(func() { remove(t, w.node(i)) })
		w.ip("-n", w.node(i), "link", "set", "lo", "up")
		for r, subnet := range subnets(i) {
			w.ip("-n", w.hub(), "link", "add", w.port(i, r), "type", "veth", "peer", "name", string(r), "netns", w.node(i))
			w.ip("-n", w.hub(), "addr", "add", subnet+"1/30", "dev", w.port(i, r))
			w.ip("-n", w.node(i), "addr", "add", subnet+"2/30", "dev", string(r))
			w.ip("-n", w.node(i), "link", "set", string(r), "up")
			w.up(i, r)
		}
	}
	return w
}

func (w *network) hub() string               { return w.prefix + "hub" }
func (w *network) node(i int) string         { return w.prefix + strconv.Itoa(i) }
func (w *network) port(i int, r road) string { return string(r) + strconv.Itoa(i) }

// down cuts a road of a node: nothing passes, and nobody is told.
func (w *network) down(i int, r road) { w.ip("-n", w.hub(), "link", "set", w.port(i, r), "down") }

func (w *network) up(i int, r road) { w.ip("-n", w.hub(), "link", "set", w.port(i, r), "up") }

func (w *network) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// listen takes a port of all addresses of the hub.
func (w *network) listen() net.Listener {
	w.t.Helper()
	var l net.Listener
	err := inside(w.hub(), func() (err error) {
		l, err = net.Listen("tcp4", "0.0.0.0:0")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// dial connects from the hub, with TLS: what is not loopback needs it.
func (w *network) dial(ctx context.Context, address string) (net.Conn, error) {
	var raw net.Conn
	err := inside(w.hub(), func() (err error) {
		raw, err = dialTCP(ctx, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The server has made its certificate itself, and there is nobody in between.
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"xmpp-client"}}) //nolint:gosec // see above
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// inside runs f in a network namespace. A socket stays in that in which it was made.
func inside(namespace string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- func() error {
			file, err := os.Open(filepath.Join("/run/netns", namespace))
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", namespace, err)
			}
			return f()
		}()
	}()
	return <-done
}

// sweep removes what a run has left that was killed, its nodes included.
func sweep(t *testing.T) {
	t.Helper()
	left, _ := filepath.Glob(filepath.Join("/run/netns", namespaces+"*"))
	for _, path := range left {
		name := filepath.Base(path)
		maker, _, _ := strings.Cut(strings.TrimPrefix(name, namespaces), "-")
		if _, err := os.Stat(filepath.Join("/proc", maker)); err == nil {
			continue // it runs beside us
		}
		out, _ := exec.Command("ip", "netns", "pids", name).Output()
		for pid := range strings.FieldsSeq(string(out)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		t.Logf("%s was left over", name)
		remove(t, name)
	}
}

func remove(t *testing.T, namespace string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "del", namespace).CombinedOutput(); err != nil {
		t.Errorf("ip netns del %s: %v: %s", namespace, err, out)
	}
}
