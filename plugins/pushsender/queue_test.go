package pushsender

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
)

// bench is a queue whose jobs wait until they are let go.
type bench struct {
	t *testing.T
	*queue
	begun chan *job
	ends  chan struct{}
	mu    sync.Mutex
	off   int // jobs that began after the end
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	cfg := defaults()
	change(cfg)
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, begun: make(chan *job), ends: make(chan struct{})}
	b.queue = newQueue(cfg, plugins.SystemClock{}, func(ctx context.Context, j *job) {
		defer b.done(j)
		if ctx.Err() != nil {
			b.mu.Lock()
			b.off++
			b.mu.Unlock()
			return
		}
		b.begun <- j
		select {
		case <-b.ends:
		case <-ctx.Done():
		}
	}, m)
	return b
}

func (b *bench) add(node, host string, calls int) bool {
	_, ok := b.put(&job{note: note{to: registration{node: node}, calls: calls}, host: host})
	return ok
}

func (b *bench) next(want string) {
	b.t.Helper()
	select {
	case j := <-b.begun:
		if j.to.node != want {
			b.t.Fatalf("%s begins, not %s", j.to.node, want)
		}
	case <-time.After(30 * time.Second):
		b.t.Fatalf("%s does not begin", want)
	}
}

func TestCallsFirst(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Workers = 1 })
	for _, node := range []string{"a", "b"} {
		if !b.add(node, "h", 0) {
			t.Fatal(node)
		}
	}
	if !b.add("call", "h", 1) {
		t.Fatal("call")
	}
	b.start(t.Context())
	defer b.stop()
	for _, want := range []string{"call", "a", "b"} {
		b.next(want)
		b.ends <- struct{}{}
	}
}

// A host that is slow has no more than its share of the workers.
func TestSlowHost(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Workers, c.PerHost = 2, 1 })
	for _, node := range []string{"a", "b"} {
		b.add(node, "slow", 0)
	}
	b.add("c", "other", 0)
	b.start(t.Context())
	defer b.stop()
	got := map[string]bool{}
	for range 2 {
		select {
		case j := <-b.begun:
			got[j.to.node] = true
		case <-time.After(30 * time.Second):
			t.Fatal("nothing begins")
		}
	}
	if !got["a"] || !got["c"] {
		t.Errorf("%v begin", got)
	}
}

// What finds no place is put off, and its place is there again.
func TestBounds(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Workers, c.Queue, c.Rate = 1, 4, 1000 })
	if !b.add("a", "h", 0) || b.add("a", "h", 1) {
		t.Error("one registration has one note under way")
	}
	for _, node := range []string{"b", "c"} {
		if !b.add(node, "h", 0) {
			t.Error(node)
		}
	}
	if b.add("d", "h", 0) {
		t.Error("a host has more than its share")
	}
	if !b.add("e", "other", 0) || b.add("f", "third", 0) {
		t.Error("the queue has no bound")
	}
	b.start(t.Context())
	b.next("a")
	b.ends <- struct{}{}
	b.next("b")
	if !b.add("a", "third", 0) {
		t.Error("there is no place again")
	}
	b.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off != 3 || b.pending != 0 || len(b.busy) != 0 {
		t.Errorf("%d were put off, %d stay, %d are busy", b.off, b.pending, len(b.busy))
	}
	if b.add("z", "h", 0) {
		t.Error("it has ended")
	}
}

func TestRate(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Rate = 0.1 })
	if !b.add("a", "h", 0) || b.add("b", "h", 0) || !b.add("c", "other", 0) {
		t.Error("each host has a pace of its own")
	}
	b.stop()
}
