package nats

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must not take long; only a test that fails waits for it.
const soon = 30 * time.Second

// serve runs a NATS server that ends with the test; port -1 is any.
func serve(t testing.TB, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true, MaxPayload: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(soon) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func port(t testing.TB, s *server.Server) int {
	t.Helper()
	a, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the server listens at %v", s.Addr())
	}
	return a.Port
}

// dial connects a life; it ends with the test.
func dial(t testing.TB, url string, self Peer, with ...func(*Options)) *Bus {
	t.Helper()
	o := Options{URLs: []string{url}, Cluster: "test", Self: self, Stall: soon}
	for _, f := range with {
		f(&o)
	}
	b, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, b) })
	return b
}

func shut(t testing.TB, b *Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}

var north, south = Peer{"north", 1}, Peer{"south.2 *", 1}

// pair connects two that know each other.
func pair(t testing.TB, with ...func(*Options)) (n, s *Bus) {
	t.Helper()
	url := serve(t, -1).ClientURL()
	n, s = dial(t, url, north, with...), dial(t, url, south, with...)
	n.Join(south)
	s.Join(north)
	return n, s
}

func handle(t testing.TB, b *Bus, port string, h Handler) {
	t.Helper()
	if err := b.Handle(port, h); err != nil {
		t.Fatal(err)
	}
	if err := b.nc.Flush(); err != nil { // or a first frame comes 200 ms late
		t.Fatal(err)
	}
}

// forward makes what comes to a port visible.
func forward(t testing.TB, b *Bus, port string) <-chan string {
	t.Helper()
	got := make(chan string, 1000)
	handle(t, b, port, func(_ context.Context, from Peer, p []byte) error {
		got <- string(p)
		return nil
	})
	return got
}

// results collects what done was called with.
func results() (done func(error), got <-chan error) {
	ch := make(chan error, 1000)
	return func(err error) { ch <- err }, ch
}

func await[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(soon):
		t.Fatal("nothing came")
	}
	return v
}

// give and take are for handlers: they end with the test, so that one that fails does
// not hang in Close.
func give[T any](t testing.TB, ch chan<- T, v T) {
	select {
	case ch <- v:
	case <-t.Context().Done():
	}
}

func take[T any](t testing.TB, ch <-chan T) {
	select {
	case <-ch:
	case <-t.Context().Done():
	}
}

// let is for tests: it makes a handler go on.
func let(t testing.TB, proceed chan<- struct{}) {
	t.Helper()
	select {
	case proceed <- struct{}{}:
	case <-time.After(soon):
		t.Fatal("nobody waits")
	}
}

func expect[T comparable](t testing.TB, ch <-chan T, want ...T) {
	t.Helper()
	for _, w := range want {
		if got := await(t, ch); got != w {
			t.Fatalf("got %v, want %v", got, w)
		}
	}
}

func expectErr(t testing.TB, ch <-chan error, want error) {
	t.Helper()
	if got := await(t, ch); !errors.Is(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// eventually waits for what cannot be awaited from outside.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(soon)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not so: %s", what)
		}
	}
}

// near is the near end of a pipe that exists.
func near(t testing.TB, b *Bus, node, port string) *sender {
	t.Helper()
	s, err := b.sender(node, port)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refusals is how many the far end of a pipe remembers.
func (b *Bus) refusals(from Peer, port string) int {
	b.mu.RLock()
	r := b.neighbours[from.Node].in[port]
	b.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.refused)
}

func (s *sender) waiters() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

func mustSend(t testing.TB, b *Bus, to Peer, port, payload string, done func(error)) {
	t.Helper()
	if err := b.Send(t.Context(), to.Node, port, []byte(payload), done); err != nil {
		t.Fatal(err)
	}
}

// goSend sends from a goroutine that has its place in the queue of those who wait
// when goSend returns.
func goSend(t testing.TB, ctx context.Context, b *Bus, to Peer, port, payload string, done func(error)) <-chan error {
	t.Helper()
	s := near(t, b, to.Node, port)
	before := s.waiters()
	ch := make(chan error, 1)
	go func() { ch <- b.Send(ctx, to.Node, port, []byte(payload), done) }()
	eventually(t, "a Send waits", func() bool { return s.waiters() > before })
	return ch
}

// ledger checks that numbers come in order, each once.
type ledger struct {
	t    testing.TB
	mu   sync.Mutex
	last map[string]uint64
	left sync.WaitGroup
}

func newLedger(t testing.TB, n int) *ledger {
	l := &ledger{t: t, last: map[string]uint64{}}
	l.left.Add(n)
	return l
}

func (l *ledger) note(who string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch last := l.last[who]; {
	case n <= last:
		l.t.Errorf("%s: %d comes again after %d", who, n, last)
		return
	case n > last+1:
		l.t.Errorf("%s: %d after %d", who, n, last)
	}
	for ; l.last[who] < n; l.last[who]++ {
		l.left.Done()
	}
}

func (l *ledger) wait() {
	l.t.Helper()
	all := make(chan struct{})
	go func() { l.left.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(4 * soon):
		l.mu.Lock()
		defer l.mu.Unlock()
		l.t.Fatalf("not everything came: %v", l.last)
	}
}

func (l *ledger) handler(port string) Handler {
	return func(_ context.Context, from Peer, p []byte) error {
		l.note(from.Node+" "+port, binary.BigEndian.Uint64(p))
		return nil
	}
}

// ghost speaks the protocol by hand, so that a test says which frame comes when.
type ghost struct {
	t  testing.TB
	nc *natsgo.Conn
	in chan frame
	Peer
}

func newGhost(t testing.TB, url string, p Peer, ports ...string) *ghost {
	t.Helper()
	nc, err := natsgo.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	g := &ghost{t: t, nc: nc, in: make(chan frame, 1000), Peer: p}
	for _, port := range append(ports, ackPort) {
		if _, err := nc.Subscribe(inbox("test", p.Node, port), func(m *natsgo.Msg) {
			f, err := parse(m.Data)
			if err != nil {
				t.Error(err)
			}
			if f.to == p.Incarnation { // ghosts of one node hear each other's
				g.in <- f
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *ghost) send(to Peer, port string, f frame) {
	g.t.Helper()
	f.node, f.life, f.to = []byte(g.Node), g.Incarnation, to.Incarnation
	if err := g.nc.Publish(subject("test", to.Node, g.Node, port), f.append(nil)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *ghost) data(to Peer, port string, seq uint64) {
	g.t.Helper()
	g.send(to, port, frame{kind: kindData, seq: seq, payload: strconv.AppendUint(nil, seq, 10)})
}

// ask puts a question behind what was sent and returns the answer; everything
// before it has been taken or ignored by then.
func (g *ghost) ask(to Peer, port string, question uint64) frame {
	g.t.Helper()
	g.send(to, port, frame{kind: kindAsk, question: question, seq: 1})
	for {
		if f := await(g.t, g.in); f.question == question {
			return f
		}
	}
}

// value of a metric, -1 when there is none.
func value(t testing.TB, reg *prometheus.Registry, name, peer, port string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name && strings.Join(labels, "/") == peer+"/"+port {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}
