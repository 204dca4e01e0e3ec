package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"parley/storage"
	"parley/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests' lease does not run out while they run: they age rows, and turn
// their nodes' clocks.
const (
	term     = time.Hour
	renew    = 12 * time.Minute
	retry    = renew / 3
	limit    = 45 * time.Minute
	patience = 10 * time.Minute
)

// clock stands still; nodes have one each.
type clock struct {
	mu     sync.Mutex
	armed  *sync.Cond
	now    time.Time
	timers []*timer
	counts map[time.Duration]int // of timers that were set
}

type timer struct {
	at time.Time
	f  func()
}

func newClock(at time.Time) *clock {
	c := &clock{now: at, counts: map[time.Duration]int{}}
	c.armed = sync.NewCond(&c.mu)
	return c
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.now.Add(d), f}
	c.timers = append(c.timers, t)
	c.counts[d]++
	c.armed.Broadcast()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.timers, t)
		if i >= 0 {
			c.timers = slices.Delete(c.timers, i, i+1)
		}
		return i >= 0
	}
}

// jump is what a process sees that stood still: its timers have not fired yet.
func (c *clock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// advance lets time pass, timer by timer.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.now.Add(d)
	for {
		var next *timer
		for _, t := range c.timers {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			c.now = end
			return
		}
		c.timers = slices.DeleteFunc(c.timers, func(t *timer) bool { return t == next })
		if next.at.After(c.now) {
			c.now = next.at
		}
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
}

func (c *clock) count(d time.Duration) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[d]
}

// await returns when n timers of that length have been set.
func (c *clock) await(d time.Duration, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.counts[d] < n {
		c.armed.Wait()
	}
}

// gate is a database that can be slow, or away.
type gate struct {
	storage.DB
	mu    sync.Mutex
	calls []string
	err   error
	shut  chan struct{} // not nil: the next call tells asked, and waits until it is closed
	after bool          // it waits with its answer
	asked chan struct{}
}

func (g *gate) pass(ctx context.Context, call string, f func() error) error {
	g.mu.Lock()
	g.calls = append(g.calls, call)
	err, shut, after := g.err, g.shut, g.after
	g.shut, g.after = nil, false
	g.mu.Unlock()
	if err != nil {
		return err
	}
	if after {
		err = f()
	}
	if shut != nil {
		g.asked <- struct{}{}
		select {
		case <-shut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if after {
		return err
	}
	return f()
}

func (g *gate) Query(ctx context.Context, sql string, args ...any) (rows storage.Rows, err error) {
	err = g.pass(ctx, "Query", func() error { rows, err = g.DB.Query(ctx, sql, args...); return err })
	return rows, err
}

func (g *gate) Exec(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = g.pass(ctx, "Exec", func() error { n, err = g.DB.Exec(ctx, sql, args...); return err })
	return n, err
}

func (g *gate) Tx(ctx context.Context, f func(storage.Tx) error) error {
	return g.pass(ctx, "Tx", func() error { return g.DB.Tx(ctx, f) })
}

func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

// hold makes the next call wait, before or after it has done its work.
func (g *gate) hold(after bool) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut, g.after = shut, after
	return func() { close(shut) }
}

// took is which calls were made since the last one.
func (g *gate) took() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.calls = nil }()
	return strings.Join(g.calls, " ")
}

// journal is a log that may be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), what)
}

// node is a life under test.
type node struct {
	*Members
	clock *clock
	db    *gate
	log   *journal
	reg   *prometheus.Registry
	told  chan string // what Changed was told: "+b +c" or "-b"
}

// tell writes lives as told has them.
func tell(sign string, all []Member) string {
	var out []string
	for _, a := range all {
		out = append(out, sign+a.Node)
	}
	return strings.Join(out, " ")
}

// options are those of a node whose clock is years away from everybody's.
func options(db storage.DB, name string) (Options, *node) {
	n := &node{
		clock: newClock(time.Unix(int64(len(name))*1e9, 0).AddDate(int(name[0]), 0, 0)),
		db:    &gate{DB: db, asked: make(chan struct{}, 1)},
		log:   &journal{}, reg: prometheus.NewRegistry(), told: make(chan string, 100),
	}
	return Options{
		DB: n.db, Node: name, Version: "1.0", Servers: []string{"streamer", "router"}, Clock: n.clock,
		Log: slog.New(slog.NewTextHandler(n.log, nil)), Metrics: n.reg, Lease: term, Renew: renew,
		Changed: func(joined, left []Member) {
			if len(left) > 0 {
				n.told <- tell("-", left)
			}
			if len(joined) > 0 {
				n.told <- tell("+", joined)
			}
		},
	}, n
}

func join(t *testing.T, db storage.DB, name string) *node {
	t.Helper()
	o, n := options(db, name)
	var err error
	if n.Members, err = Join(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.clock.await(renew, 1) // it runs
	n.db.took()
	return n
}

// look has the node renew and look, and returns when it has.
func (n *node) look() { n.round(renew, renew) }

// round lets time pass until the next round, and returns when the node has
// decided on the pause after it.
func (n *node) round(pause, next time.Duration) {
	before := n.clock.count(next)
	n.clock.advance(pause)
	n.clock.await(next, before+1)
}

// hears fails unless that is what Changed is told next.
func (n *node) hears(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-n.told; got != w {
			t.Fatalf("%s was told %q, want %q", n.self.Node, got, w)
		}
	}
}

// sees fails unless those are alive.
func (n *node) sees(t *testing.T, want string) {
	t.Helper()
	if got := tell("", n.Live()); got != want {
		t.Fatalf("%s sees %q, want %q", n.self.Node, got, want)
	}
}

func (n *node) fenced() bool {
	select {
	case <-n.Fenced():
		return true
	default:
		return false
	}
}

func exec(t *testing.T, db storage.DB, sql string, args ...any) {
	t.Helper()
	if n, err := db.Exec(t.Context(), sql, args...); err != nil || n == 0 {
		t.Fatalf("%s: %d rows, %v", sql, n, err)
	}
}

// age makes a node's last renewal older.
func age(t *testing.T, db storage.DB, name string, by time.Duration) {
	t.Helper()
	exec(t, db, `UPDATE cluster_node SET until = until - $1 WHERE node = $2`, by.Microseconds(), name)
}

// each runs f on both databases.
func each(t *testing.T, f func(t *testing.T, db storage.DB)) {
	t.Helper()
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		f(t, db)
	})
}
