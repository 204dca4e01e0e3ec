package nats

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// flood sends numbers from every bus to each port and keeps a ledger of what is
// handled and one of what done says; half is closed when half of it has arrived.
func flood(t *testing.T, to *Bus, from []*Bus, ports []string, each int) (half <-chan struct{}, wait func()) {
	t.Helper()
	total := len(from) * len(ports) * each
	handled, told := newLedger(t, total), newLedger(t, total)
	var mu sync.Mutex
	count, reached := 0, make(chan struct{})
	for _, port := range ports {
		h := handled.handler(port)
		handle(t, to, port, func(ctx context.Context, from Peer, p []byte) error {
			mu.Lock()
			if count++; count == total/2 {
				close(reached)
			}
			mu.Unlock()
			return h(ctx, from, p)
		})
	}
	var senders sync.WaitGroup
	for i, b := range from {
		for _, port := range ports {
			who := strconv.Itoa(i) + " " + port
			senders.Go(func() {
				for n := uint64(1); n <= uint64(each); n++ {
					err := b.Send(t.Context(), south.Node, port, binary.BigEndian.AppendUint64(nil, n), func(err error) {
						if err != nil {
							t.Error(err)
						}
						told.note(who, n)
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	return reached, func() { senders.Wait(); handled.wait(); told.wait() }
}

// MUST 1, 3, 5: a NATS server that restarts costs time, no payload and no order.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	srv := serve(t, -1)
	url, at := srv.ClientURL(), port(t, srv)
	s := dial(t, url, south)
	var from []*Bus
	for i := range 2 {
		b := dial(t, url, Peer{"north " + strconv.Itoa(i), 1})
		b.Join(south)
		from = append(from, b)
	}
	half, wait := flood(t, s, from, []string{"a", "b", "c"}, 3000)
	await(t, half)
	stop(srv)
	serve(t, at)
	wait()
}

// The same when frames and acknowledgements are lost one by one.
func TestLossyNetwork(t *testing.T) {
	t.Parallel()
	lossy := func(seed uint64) func(o *Options) {
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(seed, 0))
		return func(o *Options) {
			o.lose = func(string, []byte) bool { mu.Lock(); defer mu.Unlock(); return r.IntN(100) == 0 }
		}
	}
	url := serve(t, -1).ClientURL()
	s, n := dial(t, url, south, lossy(1)), dial(t, url, north, lossy(2))
	n.Join(south)
	_, wait := flood(t, s, []*Bus{n}, []string{"a", "b"}, 1000)
	wait()
}

// The same when the client drops what it cannot hold, as it does with a slow
// consumer.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	url := serve(t, -1).ClientURL()
	s, n := dial(t, url, south, func(o *Options) { o.pending = 50 }), dial(t, url, north)
	n.Join(south)
	_, wait := flood(t, s, []*Bus{n}, []string{"a", "b"}, 1000)
	wait()
	t.Log(near(t, n, south.Node, "a").retries+near(t, n, south.Node, "b").retries, "retries")
}

// MUST 2, 5: a server that stands still, with the socket full, keeps nobody waiting.
// What half went through does no harm, nor do frames that come late and past others.
func TestServerStandsStill(t *testing.T) {
	t.Parallel()
	url := serve(t, -1).ClientURL()
	p := newProxy(t, strings.TrimPrefix(url, "nats://"))
	s, n := dial(t, url, south), dial(t, p.url(), north, func(o *Options) { o.Stall = 500 * time.Millisecond })
	n.Join(south)
	l := newLedger(t, 1)
	handle(t, s, "p", l.handler("p"))
	payload := make([]byte, 64<<10)
	told := make(chan error, 1000)
	sent := uint64(0)
	send := func() error {
		binary.BigEndian.PutUint64(payload, sent+1)
		err := n.Send(t.Context(), south.Node, "p", payload, func(err error) { told <- err })
		if err == nil {
			sent++
		}
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	expectErr(t, told, nil)
	l.left.Add(cap(told)) // more than comes
	p.freeze()
	err := send()
	for err == nil {
		err = send()
	}
	if !errors.Is(err, ErrStalled) || sent < 100 {
		t.Fatalf("after %d: %v", sent, err)
	}
	eventually(t, "a write was given up", func() bool { return !n.nc.IsConnected() })
	p.thaw()
	for range sent - 1 {
		expectErr(t, told, nil)
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	expectErr(t, told, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	if got := l.last[north.Node+" p"]; got != sent {
		t.Errorf("%d of %d handled", got, sent)
	}
}

// Close does not wait for a server to come back.
func TestCloseWithoutServer(t *testing.T) {
	srv := serve(t, -1)
	n := dial(t, srv.ClientURL(), north)
	n.Join(south)
	done, told := results()
	stop(srv)
	mustSend(t, n, south, "p", "1", done)
	shut(t, n)
	expectErr(t, told, ErrClosed)
}

// A handler that takes long is asked about, not sent everything again.
func TestSlowHandlerIsNotFlooded(t *testing.T) {
	n, s := pair(t)
	inside, proceed := make(chan struct{}, 1000), make(chan struct{})
	handle(t, s, "p", func(context.Context, Peer, []byte) error {
		give(t, inside, struct{}{})
		take(t, proceed)
		return nil
	})
	mustSend(t, n, south, "p", "1", nil)
	await(t, inside)
	for range 100 {
		mustSend(t, n, south, "p", "2", nil)
	}
	near := near(t, n, south.Node, "p")
	eventually(t, "asked twice", func() bool { near.mu.Lock(); defer near.mu.Unlock(); return near.question > 1 })
	close(proceed)
	eventually(t, "all handled", func() bool { near.mu.Lock(); defer near.mu.Unlock(); return near.freed == 101 })
	if near.retries > 0 {
		t.Errorf("%d frames came again", near.retries)
	}
}
