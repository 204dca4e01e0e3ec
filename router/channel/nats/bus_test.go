package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
)

// MUST 1, 3
func TestPayloadsAreHandledInOrderAndDoneIsTold(t *testing.T) {
	n, s := pair(t)
	got := forward(t, s, "p")
	done, told := results()
	payload := []byte("00")
	for i := range 100 {
		copy(payload, fmt.Sprintf("%02d", i)) // Send has copied it
		if err := n.Send(t.Context(), south.Node, "p", payload, done); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		expect(t, got, fmt.Sprintf("%02d", i))
		expectErr(t, told, nil)
	}
}

// MUST 2
func TestSendToNobody(t *testing.T) {
	n, _ := pair(t)
	for _, node := range []string{"west", north.Node, ""} {
		n.Join(Peer{north.Node, 1})
		n.Join(Peer{"", 1})
		if err := n.Send(t.Context(), node, "p", nil, nil); !errors.Is(err, ErrGone) {
			t.Errorf("%q: %v", node, err)
		}
	}
	for _, port := range []string{"", "a.b", "*", ackPort} {
		if n.Send(t.Context(), south.Node, port, nil, nil) == nil || n.Handle(port, nil) == nil {
			t.Errorf("%q is a port", port)
		}
	}
}

// MUST 2, 4: who is faster than the handler waits, in the order of asking.
func TestBackPressure(t *testing.T) {
	reg := prometheus.NewRegistry()
	n, s := pair(t, func(o *Options) { o.Window = Window{Frames: 3}; o.Metrics = nil })
	if err := reg.Register(metrics{n}); err != nil {
		t.Fatal(err)
	}
	inside, proceed := make(chan string), make(chan struct{})
	handle(t, s, "p", func(_ context.Context, _ Peer, p []byte) error {
		give(t, inside, string(p))
		take(t, proceed)
		return nil
	})
	done, told := results()
	for _, p := range []string{"1", "2", "3"} {
		mustSend(t, n, south, "p", p, done)
	}
	expect(t, inside, "1")
	ctx, cancel := context.WithCancel(t.Context())
	fourth := goSend(t, t.Context(), n, south, "p", "4", done)
	given := goSend(t, ctx, n, south, "p", "never", done)
	fifth := goSend(t, t.Context(), n, south, "p", "5", done)
	cancel()
	expectErr(t, given, context.Canceled)
	if v := value(t, reg, "parley_lane_in_flight", south.Node, "p"); v != 3 {
		t.Errorf("%v in flight", v)
	}
	if v := value(t, reg, "parley_lane_window", south.Node, "p"); v != 3 {
		t.Errorf("%v may be in flight", v)
	}
	if v := value(t, reg, "parley_lane_in_flight_bytes", south.Node, "p"); v < 3 {
		t.Errorf("%v bytes in flight", v)
	}
	if l := n.Lanes(south.Node); len(l) != 1 || l[0].Port != "p" || l[0].InFlight != 3 || l[0].Window.Frames != 3 || l[0].Oldest <= 0 || l[0].Stalled {
		t.Errorf("lanes %+v", l)
	}
	if v := value(t, reg, "parley_lane_oldest_seconds", south.Node, "p"); v <= 0 {
		t.Errorf("the oldest is %v s old", v)
	}
	select {
	case err := <-fourth:
		t.Fatalf("no place, but: %v", err)
	case err := <-told:
		t.Fatalf("acknowledged before the handler has returned: %v", err)
	default:
	}
	let(t, proceed)
	expectErr(t, told, nil)
	expectErr(t, fourth, nil)
	for _, p := range []string{"2", "3", "4", "5"} {
		expect(t, inside, p)
		let(t, proceed)
		expectErr(t, told, nil)
	}
	expectErr(t, fifth, nil)
}

func TestWindowOfBytes(t *testing.T) {
	n, s := pair(t, func(o *Options) { o.Window = Window{Bytes: 1000} })
	inside, proceed := make(chan string), make(chan struct{})
	handle(t, s, "p", func(_ context.Context, _ Peer, p []byte) error {
		give(t, inside, string(p[:1]))
		take(t, proceed)
		return nil
	})
	mustSend(t, n, south, "p", "1"+strings.Repeat(".", 5000), nil) // an empty window takes any one
	expect(t, inside, "1")
	second := goSend(t, t.Context(), n, south, "p", "2", nil)
	let(t, proceed)
	expectErr(t, second, nil)
	expect(t, inside, "2")
	mustSend(t, n, south, "p", "3"+strings.Repeat(".", 500), nil)
	ctx, cancel := context.WithCancel(t.Context())
	large := goSend(t, ctx, n, south, "p", "never"+strings.Repeat(".", 600), nil)
	small := goSend(t, t.Context(), n, south, "p", "4", nil) // keeps its turn
	cancel()
	expectErr(t, large, context.Canceled)
	expectErr(t, small, nil)
	for _, p := range []string{"3", "4"} {
		let(t, proceed)
		expect(t, inside, p)
	}
	let(t, proceed)
}

// MUST 2, 5: a peer that acknowledges nothing keeps nobody waiting, and what was
// accepted arrives when it is back.
func TestStallAndRecovery(t *testing.T) {
	const stall = 200 * time.Millisecond
	var cut atomic.Bool
	reg := prometheus.NewRegistry()
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north, func(o *Options) { o.Window.Frames, o.Stall, o.Metrics = 3, stall, reg })
	s := dial(t, url, south, func(o *Options) { o.lose = func(string, []byte) bool { return cut.Load() } })
	n.Join(south)
	got := forward(t, s, "p")
	done, told := results()
	mustSend(t, n, south, "p", "0", done)
	expectErr(t, told, nil)
	expect(t, got, "0")

	cut.Store(true)
	for _, p := range []string{"1", "2", "3"} {
		mustSend(t, n, south, "p", p, done)
	}
	waiting := goSend(t, t.Context(), n, south, "p", "never", done)
	expectErr(t, waiting, ErrStalled)
	if err := n.Send(t.Context(), south.Node, "p", nil, done); !errors.Is(err, ErrStalled) {
		t.Errorf("the pipe has stalled, but: %v", err)
	}
	if v := value(t, reg, "parley_lane_stalled_total", south.Node, "p"); v != 1 {
		t.Errorf("stalled %v times", v)
	}

	cut.Store(false)
	expect(t, got, "1", "2", "3")
	for range 3 {
		expectErr(t, told, nil)
	}
	if v := value(t, reg, "parley_lane_retries_total", south.Node, "p"); v != 3 {
		t.Errorf("%v retries", v)
	}
	mustSend(t, n, south, "p", "4", done)
	expectErr(t, told, nil)
	expect(t, got, "4")
}

// MUST 3: done runs without a lock and may send, even when there is room only
// because of it.
func TestDoneMaySend(t *testing.T) {
	n, s := pair(t, func(o *Options) { o.Window.Frames = 1 })
	got := forward(t, s, "p")
	sent := make(chan error, 1)
	mustSend(t, n, south, "p", "1", func(error) { sent <- n.Send(t.Context(), south.Node, "p", []byte("2"), nil) })
	expectErr(t, sent, nil)
	expect(t, got, "1", "2")
}

// MUST 7
func TestHandlerFailsAndPanics(t *testing.T) {
	n, s := pair(t)
	got := make(chan string, 3)
	handle(t, s, "p", func(_ context.Context, _ Peer, p []byte) error {
		got <- string(p)
		switch string(p) {
		case "error":
			return errors.New("not for us")
		case "panic":
			panic("at the handler")
		}
		return nil
	})
	done, told := results()
	for _, p := range []string{"error", "panic", "good"} {
		mustSend(t, n, south, "p", p, done)
		expect(t, got, p)
		expectErr(t, told, nil)
	}
	mustSend(t, n, south, "p", "good", func(error) { panic("at done") })
	mustSend(t, n, south, "p", "good", done)
	expectErr(t, told, nil)
}

// MUST 3, 7: what the handler does not take goes back to its sender, once, though
// acknowledgements are lost, and the pipe goes on.
func TestRefusedPayloadsGoBack(t *testing.T) {
	const all = 2000
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 0))
	lossy := func(string, []byte) bool { mu.Lock(); defer mu.Unlock(); return r.IntN(10) == 0 }
	url := serve(t, -1).ClientURL()
	n, s := dial(t, url, north, func(o *Options) { o.lose = lossy }), dial(t, url, south)
	n.Join(south)
	handle(t, s, "p", func(_ context.Context, _ Peer, p []byte) error {
		if binary.BigEndian.Uint64(p)%3 == 0 {
			return fmt.Errorf("%w: of a later release", ErrRefused)
		}
		return nil
	})
	done, told := results()
	go func() {
		for i := range uint64(all) {
			mustSend(t, n, south, "p", string(binary.BigEndian.AppendUint64(nil, i)), done)
		}
	}()
	for i := range all {
		var want error
		if i%3 == 0 {
			want = ErrRefused
		}
		expectErr(t, told, want)
	}
	if refused := s.refusals(north, "p"); refused > maxWindow {
		t.Errorf("%d refusals are remembered", refused)
	}
}

// MUST 9
func TestTooLarge(t *testing.T) {
	n, s := pair(t)
	got := forward(t, s, "p")
	if err := n.Send(t.Context(), south.Node, "p", make([]byte, 1<<20), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	mustSend(t, n, south, "p", strings.Repeat("x", 1<<20-100), nil)
	if p := await(t, got); len(p) != 1<<20-100 {
		t.Errorf("%d bytes", len(p))
	}
}

func TestHandleTwice(t *testing.T) {
	n, _ := pair(t)
	forward(t, n, "p")
	if err := n.Handle("p", nil); err == nil {
		t.Error("two handlers of one port")
	}
}

// MUST 2, 3: Close lets nobody wait.
func TestClose(t *testing.T) {
	n, s := pair(t, func(o *Options) { o.Window.Frames = 1 })
	inside := make(chan struct{})
	handle(t, s, "p", func(ctx context.Context, _ Peer, _ []byte) error {
		close(inside)
		<-ctx.Done()
		return ctx.Err()
	})
	done, told := results()
	mustSend(t, n, south, "p", "1", done)
	await(t, inside)
	waiting := goSend(t, t.Context(), n, south, "p", "never", done)
	shut(t, n)
	expectErr(t, told, ErrClosed)
	expectErr(t, waiting, ErrClosed)
	if err := n.Send(t.Context(), south.Node, "p", nil, done); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := n.Handle("q", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if len(told) > 0 {
		t.Error("done of a Send that has failed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a handler was cut short, but: %v", err)
	}
}

// MUST 3, 4: what is handled while the far end closes is acknowledged.
func TestCloseAcknowledgesWhatRuns(t *testing.T) {
	n, s := pair(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	handle(t, s, "p", func(context.Context, Peer, []byte) error {
		close(inside)
		take(t, proceed)
		return nil
	})
	done, told := results()
	mustSend(t, n, south, "p", "1", done)
	await(t, inside)
	closed := make(chan struct{})
	go func() { shut(t, s); close(closed) }()
	eventually(t, "closed", func() bool { s.mu.RLock(); defer s.mu.RUnlock(); return s.closed })
	close(proceed)
	expectErr(t, told, nil)
	<-closed
}

func TestDialSaysWhereButNotHow(t *testing.T) {
	for _, url := range []string{"nats://romeo:secret@127.0.0.1:1", "nats://secret@127.0.0.1:1", "nats://romeo:secret@127.0.0.1:no", "romeo:secret@%zz"} {
		_, err := Dial(t.Context(), Options{URLs: []string{url}, Cluster: "test", Self: north})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
		if url[len(url)-1] == '1' && !strings.Contains(err.Error(), "nats://127.0.0.1:1") {
			t.Errorf("%s: which server? %v", url, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, Options{URLs: []string{serve(t, -1).ClientURL()}, Cluster: "test", Self: north}); !errors.Is(err, context.Canceled) {
		t.Errorf("its context is done, but: %v", err)
	}
	if _, err := Dial(t.Context(), Options{URLs: []string{"nats://x"}, Cluster: "a.b", Self: north}); err == nil {
		t.Error("a prefix of two tokens")
	}
}

// What asks for TLS and a password gets them.
func TestDialSecurely(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Username: "romeo", Password: "secret", TLS: true,
		TLSConfig: &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS13}, TLSTimeout: soon.Seconds(),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer stop(srv)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	addr := srv.Addr().String()
	secure := func(o *Options) { o.TLS = &tls.Config{RootCAs: roots} }
	n := dial(t, "tls://romeo:secret@"+addr, north, secure)
	s := dial(t, "tls://romeo:secret@"+addr, south, secure)
	n.Join(south)
	got := forward(t, s, "p")
	mustSend(t, n, south, "p", "1", nil)
	expect(t, got, "1")
	shut(t, n)
	shut(t, s)
	for url, tc := range map[string]*tls.Config{"tls://romeo:wrong@" + addr: {RootCAs: roots}, "tls://romeo:secret@" + addr: nil} {
		if _, err := Dial(t.Context(), Options{URLs: []string{url}, Cluster: "test", Self: north, TLS: tc}); err == nil || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
