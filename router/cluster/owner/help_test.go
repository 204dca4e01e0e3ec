package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/router/channel/nats"
	"parley/router/cluster"
	"parley/storage"
	"parley/storage/storagetest"
)

// soon ends a test in which something does not happen.
const soon = 30 * time.Second

// wall is the machine's clock.
type wall struct{}

func (wall) Now() time.Time { return time.Now() }

func (wall) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// network joins the nodes of a test.
type network struct {
	mu    sync.Mutex
	nodes map[string]*end
}

// end is a node's.
type end struct {
	net      *network
	name     string
	handlers map[string]nats.Handler
	gone     bool // pipes take nothing for it
	deaf     bool // they do, and nothing arrives
}

func (n *network) end(name string) *end {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &end{net: n, name: name, handlers: map[string]nats.Handler{}}
	n.nodes[name] = e
	return e
}

func (n *network) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// Handle implements Pipes.
func (e *end) Handle(port string, h nats.Handler) error {
	e.net.set(func() { e.handlers[port] = h })
	return nil
}

// Send implements Pipes.
func (e *end) Send(ctx context.Context, node, port string, payload []byte, done func(error)) error {
	e.net.mu.Lock()
	to := e.net.nodes[node]
	if to == nil || to.gone {
		e.net.mu.Unlock()
		return nats.ErrGone
	}
	h, deaf := to.handlers[port], to.deaf
	e.net.mu.Unlock()
	if deaf {
		return nil
	}
	if err := h(ctx, nats.Peer{Node: e.name}, append([]byte(nil), payload...)); err != nil {
		return err
	}
	if done != nil {
		done(nil)
	}
	return nil
}

// world is what the nodes of a test have in common.
type world struct {
	*testing.T
	db  storage.DB
	net *network
}

// each runs f on both databases.
func each(t *testing.T, f func(w *world)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := cluster.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(t.Context(), `CREATE TABLE note (text text NOT NULL)`); err != nil {
			t.Fatal(err)
		}
		f(&world{t, db, &network{nodes: map[string]*end{}}})
	})
}

// node is a life with its service.
type node struct {
	*Service
	members *cluster.Members
	reg     *prometheus.Registry
	pipes   *end
	fenced  chan struct{} // closed: it is
}

// fencible are members that a test can fence.
type fencible struct {
	*cluster.Members
	fenced chan struct{}
}

func (f fencible) Fenced() <-chan struct{} { return f.fenced }

func (w *world) join(name string, change ...func(*Options)) *node {
	w.Helper()
	n := &node{pipes: w.net.end(name), fenced: make(chan struct{}), reg: prometheus.NewRegistry()}
	var started atomic.Pointer[Service]
	var err error
	n.members, err = cluster.Join(w.Context(), cluster.Options{
		DB: w.db, Node: name, Servers: []string{"processor"}, Clock: wall{}, Log: slog.New(slog.DiscardHandler),
		Lease: time.Hour, Renew: 10 * time.Millisecond, // so that all are seen at once
		Changed: func(_, left []cluster.Member) {
			for _, m := range left {
				if s := started.Load(); s != nil {
					s.Left(m)
				}
			}
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(n.members.Close)
	o := Options{DB: w.db, Members: fencible{n.members, n.fenced}, Pipes: n.pipes, Server: "processor", Clock: wall{}, Log: slog.New(slog.DiscardHandler), Metrics: n.reg}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		w.Fatal(err)
	}
	n.Service = s
	started.Store(s)
	n.Handle("note", n.note)
	s.Open()
	w.Cleanup(s.Close)
	return n
}

// metric is the value of one without labels.
func (n *node) metric(t *testing.T, name string) float64 {
	t.Helper()
	all, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// meet returns when everybody sees everybody.
func (w *world) meet(all ...*node) {
	w.Helper()
	w.until("the nodes see each other", func() bool {
		for _, n := range all {
			if len(n.members.Live()) != len(all) {
				return false
			}
		}
		return true
	})
}

func (w *world) until(what string, so func() bool) {
	w.Helper()
	limit := time.Now().Add(soon)
	for !so() {
		if time.Now().After(limit) {
			w.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// crash ends a life without a word, and lets its lease run out.
func (w *world) crash(n *node) {
	w.Helper()
	n.members.Close()
	w.exec(`UPDATE cluster_node SET until = 0 WHERE node = $1`, n.store.self.node)
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.db.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

// keyOf is a key that the node is meant to have.
func (w *world) keyOf(n *node) string {
	w.Helper()
	for i := range 1000 {
		if key := fmt.Sprintf("room%d@muc.localhost", i); n.Preferred(key) == n.store.self.node {
			return key
		}
	}
	w.Fatal("no key is meant for the node")
	return ""
}

func (w *world) acquire(n *node, key string) *Hold {
	w.Helper()
	h, err := n.Acquire(w.Context(), key)
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// insert is what owners write.
var insert = storage.Stmt{Name: "note", SQL: `INSERT INTO note (text) VALUES ($1)`}

// write commits a guarded row.
func (w *world) write(h *Hold, text string) error {
	var set storage.WriteSet
	h.Guard(set.Add)
	set.Add(&insert, text)
	return w.db.Commit(w.Context(), &set)
}

// notes is how many rows there are of a text.
func (w *world) notes(text string) (n int) {
	w.Helper()
	if err := w.db.QueryRow(w.Context(), `SELECT COUNT(*) FROM note WHERE text = $1`, text).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *world) lost(h *Hold) {
	w.Helper()
	select {
	case <-h.Lost():
	case <-time.After(soon):
		w.Fatalf("the hold of %q is not lost", h.Key)
	}
}

// note is the handler of the tests' work: it writes the payload, and answers with
// the node's name.
func (n *node) note(ctx context.Context, h *Hold, payload []byte) ([]byte, error) {
	var set storage.WriteSet
	h.Guard(set.Add)
	set.Add(&insert, string(payload))
	if err := n.opt.DB.Commit(ctx, &set); err != nil {
		return nil, err
	}
	return []byte(n.store.self.node), nil
}

// do is work that writes text, and returns who did it.
func (n *node) do(ctx context.Context, key, text string) (by string, err error) {
	answer, err := n.Do(ctx, Work{
		Key: key, Topic: "note", Payload: func() []byte { return []byte(text) },
		Here: func(ctx context.Context, h *Hold) error {
			a, err := n.note(ctx, h, []byte(text))
			by = string(a)
			return err
		},
	})
	if answer != nil {
		by = string(answer)
	}
	return by, err
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
}
