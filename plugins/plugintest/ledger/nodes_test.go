package ledger_test

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// nodeConfiguration is what every node under test has.
const nodeConfiguration = `
domains: [localhost]
node: %s
data: %s
storage: {driver: postgres, statement_timeout: 1s, dsn: %q}
cluster: {lease: %s, nats: {urls: [%q]}}
servers:
  streamer:
    deployment: {type: distributed}
    c2s: 127.0.0.1:0
    c2s_tls: ""
    http: ""
    https: ""
    tls: {plain_on_loopback: true}
    rate: {bytes: 0, stanzas: 0}
    components:
      accounts: {iterations: 4096}
  router: {deployment: {type: distributed}}
  processor:
    components:
      archive: {max_pending: 1000000}
`

// lease is how long a dead node counts as alive.
const lease = 3 * time.Second

// nodes are several servers that are one. Whoever connects gets the next one
// that has a door, so people move between them.
type nodes struct {
	all  []*server
	next atomic.Uint64
}

func newNodes(t *testing.T, program, dsn, url string, n int) *nodes {
	t.Helper()
	h := &nodes{}
	for i := range n {
		name := fmt.Sprintf("node%d", i+1)
		s := configured(t, program, fmt.Sprintf(nodeConfiguration, name, t.TempDir(), dsn, lease, url))
		h.all = append(h.all, s)
		if dir := os.Getenv("PARLEY_TEST_LEDGER_LOGS"); dir != "" {
			t.Cleanup(func() { _ = os.WriteFile(filepath.Join(dir, name+".log"), []byte(s.log.tail(1<<20)), 0o600) })
		}
	}
	return h
}

func (h *nodes) start() error {
	for _, s := range h.all {
		if err := s.start(); err != nil {
			return err
		}
	}
	return nil
}

func (h *nodes) account(ctx context.Context, user string) error { return h.all[0].account(ctx, user) }

func (h *nodes) address(ctx context.Context) (string, error) {
	for range h.all {
		s := h.all[h.next.Add(1)%uint64(len(h.all))]
		if s.pid() == 0 {
			continue
		}
		return s.address(ctx)
	}
	return h.all[0].address(ctx)
}

func (h *nodes) refused() (ids []string) {
	for _, s := range h.all {
		ids = append(ids, s.refused()...)
	}
	return ids
}

// killNode is kill -9 of one node, which comes back when its lease has run out
// (reliability row 32).
func killNode(h *nodes) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		s := h.all[random.IntN(len(h.all))]
		m := w.book.now()
		began := time.Now()
		s.kill()
		w.progress("life without the node", m, len(cast)*10)
		if err := s.start(); err != nil {
			w.t.Fatal(err)
		}
		return began
	}
}

// freezeNode stops a node for longer than its lease: the others take it for
// dead, and it has to know when it goes on. It ends by itself.
func freezeNode(h *nodes) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		s := h.all[random.IntN(len(h.all))]
		began := time.Now()
		if err := syscall.Kill(s.pid(), syscall.SIGSTOP); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(lease + lease/2) // the fault itself
		if err := syscall.Kill(s.pid(), syscall.SIGCONT); err != nil {
			w.t.Fatal(err)
		}
		s.ended(w.t)
		if err := s.start(); err != nil {
			w.t.Fatal(err)
		}
		return began
	}
}

// severalNodes is the database's name in the rows of several nodes.
const severalNodes = "3 nodes"

// excuse takes out of the verdict what several nodes do not promise yet (docs/
// cluster.md), and says how much of it there was:
//
//   - the order in which devices get messages (late): what waits in the database
//     while nodes do not hear each other is overtaken by what its sender, who has
//     moved to the recipient's node, says there. Archives are in order;
//   - that a message which its sender has sent to two nodes, one of which was
//     frozen with it, has one stanza-id: rare, and the cause is not known.
func (o *outcome) excuse(t *testing.T) {
	n := len(o.reordered)
	o.reordered = slices.DeleteFunc(o.reordered, func(s string) bool { return !strings.HasPrefix(s, "the archive of ") })
	o.late += n - len(o.reordered)
	o.excuseSentAgain(t)
}

// excuseSentAgain takes out what was stored twice because its sender has sent it
// again, on another node.
func (v *verdict) excuseSentAgain(t *testing.T) {
	n := len(v.wrong)
	v.wrong = slices.DeleteFunc(v.wrong, func(s string) bool {
		return strings.Contains(s, "under two stanza-ids (sent") && !strings.Contains(s, "(sent 1 ") || strings.Contains(s, "twice (sent") && !strings.Contains(s, "(sent 1 ")
	})
	if n -= len(v.wrong); n > 0 {
		t.Logf("%d sightings of messages that were sent again and stored twice", n)
	}
}

// restartNATS takes away what nodes hear each other by (reliability row 33).
func restartNATS(n *natsServer) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		m := w.book.now()
		n.stop()
		w.progress("life without NATS", m, len(cast)*10)
		after(random, time.Second)
		began := time.Now()
		n.start(w.t)
		return began
	}
}

// natsServer is one that can be restarted where it was.
type natsServer struct {
	opt natsserver.Options
	run *natsserver.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	n := &natsServer{opt: natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true}}
	n.start(t)
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) url() string { return fmt.Sprintf("nats://%s:%d", n.opt.Host, n.opt.Port) }

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	opt := n.opt
	s, err := natsserver.NewServer(&opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	n.run = s
}

func (n *natsServer) stop() {
	if n.run != nil {
		n.run.Shutdown()
		n.run.WaitForShutdown()
		n.run = nil
	}
}

// ended waits until the server has ended by itself.
func (s *server) ended(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	cmd := s.cmd
	s.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(s.log.tail(40), "lost its place") {
			t.Errorf("ended with %v", errors.Join(err))
		}
	case <-time.After(patience):
		t.Fatal("a node that was frozen for longer than its lease goes on")
	}
	s.mu.Lock()
	s.cmd, s.door = nil, ""
	s.mu.Unlock()
}

// nodes is the ledger over three nodes.
func (l *long) nodes(t *testing.T) {
	p := startPostgres(t)
	for _, c := range []struct {
		name   string
		rounds int
		f      func(*nodes, *natsServer) fault
	}{
		{"node killed", l.rounds/2 + 1, func(h *nodes, _ *natsServer) fault { return killNode(h) }},
		{"node frozen", l.rounds/2 + 1, func(h *nodes, _ *natsServer) fault { return freezeNode(h) }},
		{"NATS restarted", l.rounds/2 + 1, func(_ *nodes, n *natsServer) fault { return restartNATS(n) }},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			n := startNATS(t)
			h := newNodes(t, l.program, p.database(t).String(), n.url(), 3)
			l.play(t, &outcome{database: severalNodes, fault: c.name, rounds: c.rounds}, h, c.f(h, n))
		})
	}
}
