package cluster

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/storage"
	"parley/storage/storagetest"
)

// Who drains owns nothing any more, unless everybody drains.
func TestDrain(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "b")
		a.look()
		owns := func(n *node, name string) bool {
			for _, k := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
				if m, _ := n.Owner(k, "router"); m.Node == name {
					return true
				}
			}
			return false
		}
		if !owns(a, "a") || !owns(a, "b") {
			t.Fatal("not shared")
		}
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.look()
		for _, n := range []*node{a, b} {
			if owns(n, "b") {
				t.Errorf("%s: b owns", n.self.Node)
			}
			if m, ok := n.Find("b"); !ok || !m.Draining {
				t.Errorf("%s: %v %v", n.self.Node, m, ok)
			}
		}
		if !b.Self().Draining || a.Self().Draining {
			t.Error("not b alone drains")
		}
		b.look()
		if owns(b, "b") {
			t.Error("b owns again")
		}
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !owns(a, "a") || !owns(a, "b") {
			t.Error("nobody owns when all drain")
		}
		if err := a.Undrain(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.look()
		b.look()
		for _, n := range []*node{a, b} {
			if m, ok := n.Find("a"); !ok || m.Draining || !owns(n, "a") || owns(n, "b") {
				t.Errorf("%s: after undrain %v", n.self.Node, m)
			}
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if next := join(t, db, "b"); next.Self().Draining {
			t.Error("the next life drains")
		}
	})
}

// A look that was under way when the node began to drain does not undo it.
func TestDrainDuringALook(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		release := n.db.hold(true)
		n.clock.advance(renew)
		<-n.db.asked
		if err := n.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := n.clock.count(renew)
		release()
		n.clock.await(renew, before+1)
		if m, _ := n.Find("a"); !m.Draining {
			t.Error("it takes new work again")
		}
	})
}

// A member that does not run a server owns nothing of it.
func TestOwnerRunsTheServer(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a := join(t, db, "a")
		o, n := options(db, "b")
		o.Servers = []string{"processor"}
		var err error
		if n.Members, err = Join(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		a.look()
		for server, want := range map[string]string{"processor": "b", "streamer": "a", "parser": ""} {
			if m, ok := a.Owner("k", server); m.Node != want || ok != (want != "") {
				t.Errorf("%s: %v %v", server, m, ok)
			}
		}
		m, ok := a.Find("b")
		if !ok || m.Version != "1.0" || len(m.Servers) != 1 || m.Since.IsZero() || m.Incarnation != n.Self().Incarnation || !m.Since.Equal(n.Self().Since) {
			t.Errorf("%+v", m)
		}
		if _, ok := a.Find("c"); ok {
			t.Error("c is there")
		}
	})
}

// Whoever is slow to hear of changes delays no renewal, and hears of lives that
// came and went meanwhile not at all.
func TestSlowListener(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		o, a := options(db, "a")
		a.told = make(chan string) // taken from when the test likes
		var err error
		if a.Members, err = Join(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		a.clock.await(renew, 1)
		join(t, db, "b")
		a.look() // Changed waits with +b from some moment on
		a.hears(t, "+b")
		join(t, db, "c")
		a.look()
		a.look()
		a.hears(t, "+c")
		a.look()
		if !a.Held() {
			t.Error("fenced")
		}
	})
}

// A slow listener is told the difference that is left when it is done.
func TestMissedLives(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		o, a := options(db, "a")
		changed, busy, free := o.Changed, make(chan struct{}), make(chan struct{})
		var once sync.Once
		o.Changed = func(joined, left []Member) {
			once.Do(func() { close(busy); <-free })
			changed(joined, left)
		}
		join(t, db, "b")
		var err error
		if a.Members, err = Join(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		a.clock.await(renew, 1)
		<-busy
		c := join(t, db, "c")
		a.look()
		if err := c.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.look()
		join(t, db, "d")
		a.look()
		close(free)
		a.hears(t, "+b", "+d")
	})
}

func TestMetrics(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a := join(t, db, "a")
		join(t, db, "b")
		a.look()
		a.clock.advance(time.Minute)
		values := func() map[string]float64 {
			t.Helper()
			all, err := a.reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			out := map[string]float64{}
			for _, f := range all {
				out[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
			}
			return out
		}
		if v := values(); v["parley_cluster_members"] != 2 || v["parley_cluster_lease_seconds"] != (limit-time.Minute).Seconds() {
			t.Errorf("%v", v)
		}
		a.clock.advance(limit)
		<-a.Fenced()
		if v := values(); v["parley_cluster_lease_seconds"] != 0 {
			t.Errorf("%v", v)
		}
		a.Close()
		if v := values(); len(v) != 0 {
			t.Errorf("%v after the end", v)
		}
	})
}

// Questions may be asked while everything changes.
func TestQuestionsMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a := join(t, db, "a")
		stop := make(chan struct{})
		var asking sync.WaitGroup
		for range 3 {
			asking.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if m, ok := a.Owner("k", "router"); !ok || m.Node == "" {
						t.Errorf("owner %v %v", m, ok)
						return
					}
					if len(a.Live()) == 0 || a.Self().Node != "a" {
						t.Error("nobody there")
						return
					}
				}
			})
		}
		for _, name := range []string{"b", "c", "d"} {
			n := join(t, db, name)
			a.look()
			a.hears(t, "+"+name)
			if err := a.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			n.Close()
		}
		close(stop)
		asking.Wait()
	})
}

// machine is the machine's clock.
type machine struct{}

func (machine) Now() time.Time                                  { return time.Now() }
func (machine) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// begin joins with the machine's clock.
func begin(t *testing.T, db storage.DB, name string, term, renew time.Duration, changed func(joined, left []Member)) *Members {
	t.Helper()
	m, err := Join(t.Context(), Options{
		DB: db, Node: name, Servers: []string{"router"}, Clock: machine{}, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(), Lease: term, Renew: renew, Changed: changed,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// With the machine's clock nobody has to be told to look.
func TestByItself(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		told := make(chan string, 10)
		begin(t, db, "a", time.Minute, 5*time.Millisecond, func(joined, left []Member) { told <- tell("+", joined) + tell("-", left) })
		b := begin(t, db, "b", time.Minute, 5*time.Millisecond, nil)
		if got := <-told; got != "+b" {
			t.Fatal(got)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := <-told; got != "-b" {
			t.Fatal(got)
		}
		select {
		case <-b.Fenced():
			t.Error("leaving is no loss")
		default:
		}
	})
}

// A node whose Postgres is frozen is fenced before the others take it for dead,
// and stops although no answer comes.
func TestReliability31CutOffFromPostgres(t *testing.T) {
	c := storagetest.Postgres(t)
	db := storagetest.Open(t, c)
	if err := Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	p := storagetest.Behind(t, &c)
	cut := storagetest.Open(t, c)
	left := make(chan bool, 1)
	joined := make(chan struct{})
	var b *Members
	begin(t, db, "a", time.Minute, 20*time.Millisecond, func(_, gone []Member) {
		if len(gone) == 0 {
			return
		}
		<-joined
		left <- !b.lease.over.Load()
	})
	b = begin(t, cut, "b", 2*time.Second, 100*time.Millisecond, nil)
	close(joined)
	p.Freeze()
	if acting := <-left; acting {
		t.Error("the others took it for dead before it knew")
	}
	<-b.Fenced()
	b.Close()
	p.Thaw()
	begin(t, cut, "b", time.Minute, time.Second, nil)
}
