package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// watched is a socket that a poller watches; each turn reads all there is.
type watched struct {
	*tcp
	got chan []byte // what each Fill brought
	err chan error  // why there will be nothing more
}

func newWatched(t *testing.T) (*watched, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return &watched{tcp: NewTCP(c).(*tcp), got: make(chan []byte, 1000), err: make(chan error, 1)}, peer.(*net.TCPConn)
}

func (w *watched) begin(t *testing.T, p *poller) {
	t.Helper()
	if !w.Watch(p, w.read) {
		t.Fatal("not watched")
	}
}

func (w *watched) read() {
	for {
		b, err := w.Fill()
		switch {
		case errors.Is(err, errQuiet):
			return
		case err != nil:
			w.err <- err
			w.Release(0)
			return
		}
		w.got <- bytes.Clone(b)
	}
}

func testPoller(t *testing.T) *poller {
	t.Helper()
	p, err := newPoller()
	if errors.Is(err, errNoPoller) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func TestPollerBringsEverythingInOrder(t *testing.T) {
	p := testPoller(t)
	w, peer := newWatched(t)
	send := func(s string) {
		if _, err := peer.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	send("before it was watched,") // has no edge of its own any more
	w.begin(t, p)
	var all []byte
	all = append(all, <-w.got...)
	for _, s := range []string{"one,", "two,", "three"} {
		send(s)
		all = append(all, <-w.got...)
	}
	if want := "before it was watched,one,two,three"; string(all) != want {
		t.Fatalf("got %q, want %q", all, want)
	}
}

// The last bytes and the end of the stream may share one edge.
func TestPollerSeesAnEndThatSharesItsEdge(t *testing.T) {
	p := testPoller(t)
	for range 200 {
		w, peer := newWatched(t)
		w.begin(t, p)
		if _, err := peer.Write([]byte("farewell")); err != nil {
			t.Fatal(err)
		}
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-w.err; !errors.Is(err, io.EOF) {
			t.Fatalf("ended with %v", err)
		}
		if b := <-w.got; string(b) != "farewell" {
			t.Fatalf("got %q", b)
		}
	}
}

// A turn that blocks holds up nobody else.
func TestPollerGoesOnWhileTurnsBlock(t *testing.T) {
	p := testPoller(t)
	const blocked = 3 * idleWorkers
	release, entered := make(chan struct{}), make(chan struct{}, blocked)
	for range blocked {
		w, peer := newWatched(t)
		if !w.Watch(p, func() { // the first turn comes at once
			entered <- struct{}{}
			<-release
			w.read()
		}) {
			t.Fatal("not watched")
		}
		defer func() { _ = peer.Close(); <-w.err }()
	}
	defer close(release)
	for range blocked {
		<-entered
	}
	w, peer := newWatched(t)
	w.begin(t, p)
	if _, err := peer.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if b := <-w.got; string(b) != "still here" {
		t.Fatalf("got %q", b)
	}
}

func TestPollerClosedByAnotherGoroutine(t *testing.T) {
	p := testPoller(t)
	w, peer := newWatched(t)
	w.begin(t, p)
	w.Close(0)
	if err := <-w.err; !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the reader was told %v", err)
	}
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("the peer reads %d, %v", n, err)
	}
	if w.Flush() >= 0 {
		t.Fatal("a released socket takes bytes")
	}
}

func TestPollerKeepsDeadlines(t *testing.T) {
	p := testPoller(t)
	w, _ := newWatched(t)
	w.begin(t, p)
	w.SetReadDeadline(time.Now().Add(time.Hour))
	w.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := <-w.err; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ended with %v", err)
	}
}

// Who closes a stream while its socket begins to be watched has set a deadline
// that holds.
func TestPollerKeepsDeadlineOfBefore(t *testing.T) {
	p := testPoller(t)
	w, peer := newWatched(t)
	w.SetReadDeadline(time.Now().Add(time.Millisecond))
	w.begin(t, p)
	unblock := time.AfterFunc(10*time.Second, func() { _ = peer.Close() })
	defer unblock.Stop()
	if err := <-w.err; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ended with %v", err)
	}
}

// What the peer does not take at once arrives when it reads, and counts as
// pending until then.
func TestPollerWritesWhenThereIsRoom(t *testing.T) {
	p := testPoller(t)
	w, peer := newWatched(t)
	w.begin(t, p)
	drained := make(chan struct{}, 1)
	w.OnDrained(func() { drained <- struct{}{} })
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	w.Queue(data)
	if pending := w.Flush(); pending <= 0 {
		t.Fatalf("%d bytes pending of %d that nobody reads", pending, len(data))
	}
	if w.Pending() == 0 {
		t.Fatal("nothing pending while the writer waits")
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	<-drained
	if !bytes.Equal(got, data) || w.Pending() != 0 {
		t.Fatalf("arrived otherwise, %d pending", w.Pending())
	}
}

// Silent sockets have no goroutines.
func TestPollerSilentSocketsCostNoGoroutine(t *testing.T) {
	p := testPoller(t)
	before := runtime.NumGoroutine()
	const sockets = 500
	for range sockets {
		w, peer := newWatched(t)
		w.begin(t, p)
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-w.got
		defer func() { _ = peer.Close(); <-w.err }()
	}
	if more := runtime.NumGoroutine() - before; more > idleWorkers+2 {
		t.Fatalf("%d goroutines for %d silent sockets", more, sockets)
	}
}

// Sockets come and go, closed by anybody, while descriptors get new owners and
// deadlines are set: nobody reads another's bytes, and every reader hears of
// the end.
func TestPollerSocketsComeAndGo(t *testing.T) {
	p := testPoller(t)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for round := range 60 {
				comeAndGo(t, p, worker*1000+round)
			}
		})
	}
	all.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd, w := range p.watches {
		if w != nil {
			t.Errorf("descriptor %d is still watched", fd)
		}
	}
}

// comeAndGo sends a socket's number both ways until somebody ends it.
func comeAndGo(t *testing.T, p *poller, number int) {
	w, peer := newWatched(t)
	mine := fmt.Appendf(nil, "%06d", number)
	var got, echoed []byte
	ended := make(chan struct{})
	turn := func() {
		for {
			b, err := w.Fill()
			switch {
			case errors.Is(err, errQuiet):
				return
			case err != nil:
				w.Release(time.Second)
				close(ended)
				return
			}
			got = append(got, b...)
			w.Queue(b)
			w.Flush()
		}
	}
	if !w.Watch(p, turn) {
		t.Error("not watched")
		return
	}
	var others sync.WaitGroup
	others.Go(func() { echoed, _ = io.ReadAll(peer) })
	others.Go(func() {
		for range 20 {
			if _, err := peer.Write(mine); err != nil {
				break
			}
		}
		if number%3 == 0 {
			_ = peer.CloseWrite()
		}
	})
	others.Go(func() {
		for range 10 {
			w.SetReadDeadline(time.Now().Add(time.Minute))
			w.Flush()
			w.SetReadDeadline(time.Time{})
		}
		switch number % 3 {
		case 1:
			w.Close(0)
		case 2:
			w.SetReadDeadline(time.Now().Add(time.Microsecond))
		}
	})
	<-ended
	_ = peer.Close() // the writer may wait for a reader
	others.Wait()
	for _, b := range [][]byte{got, echoed} {
		for i := range b {
			if b[i] != mine[i%len(mine)] {
				t.Errorf("socket %d got %q", number, b)
				return
			}
		}
	}
}
