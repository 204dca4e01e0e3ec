package channel

import (
	"context"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"parley/parser/jid"
	"parley/router/sessions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func from(conn uint64, seq uint64) *Envelope {
	return &Envelope{Kind: Stanza, Session: sessions.Ref{Node: "n", Conn: conn, JID: jid.MustParse("a@b/c")}, Seq: seq}
}

type both interface {
	MessageChannel
	DataReceiver
	Close()
}

func kinds() map[string]func() both {
	return map[string]func() both{
		"inline": func() both { return NewInline() },
		"queue":  func() both { return NewQueue(3) },
	}
}

// receive runs a receiver until stop is called, which waits for it.
func receive(t *testing.T, c both, h Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Receive(ctx, h) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Receive: %v", err)
		}
	}
}

func TestOrderPerLane(t *testing.T) {
	const lanes, each = 8, 500
	for name, mk := range kinds() {
		t.Run(name, func(t *testing.T) {
			c := mk()
			var mu sync.Mutex
			last := map[uint64]uint64{}
			var seen sync.WaitGroup
			seen.Add(lanes * each)
			stop := receive(t, c, func(_ context.Context, batch []*Envelope) error {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range batch {
					if e.Seq != last[e.Session.Conn]+1 {
						t.Errorf("lane %d: %d after %d", e.Session.Conn, e.Seq, last[e.Session.Conn])
					}
					last[e.Session.Conn] = e.Seq
					seen.Done()
				}
				return nil
			})
			var senders sync.WaitGroup
			for lane := range uint64(lanes) {
				senders.Go(func() {
					for seq := uint64(1); seq <= each; seq += 5 {
						batch := make([]*Envelope, 0, 5)
						for i := range uint64(5) {
							batch = append(batch, from(lane+1, seq+i))
						}
						if err := c.Send(context.Background(), batch); err != nil {
							t.Error(err)
						}
					}
				})
			}
			senders.Wait()
			seen.Wait()
			stop()
			c.Close()
		})
	}
}

// A sender waits while nobody receives, and nothing is lost over a restart of
// the receiving stage.
func TestSenderWaitsForReceiver(t *testing.T) {
	for name, mk := range kinds() {
		t.Run(name, func(t *testing.T) {
			c := mk()
			defer c.Close()
			got := make(chan uint64, 100)
			h := func(_ context.Context, batch []*Envelope) error {
				for _, e := range batch {
					got <- e.Seq
				}
				return nil
			}
			stop := receive(t, c, h)
			if err := c.Send(context.Background(), []*Envelope{from(1, 1)}); err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != 1 {
				t.Fatalf("got %d", n)
			}
			stop()
			sent := make(chan error, 1)
			go func() { sent <- c.Send(context.Background(), []*Envelope{from(1, 2)}) }()
			stop = receive(t, c, h)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != 2 {
				t.Fatalf("got %d", n)
			}
			stop()
		})
	}
}

func TestCloseReleasesSenders(t *testing.T) {
	for name, mk := range kinds() {
		t.Run(name, func(t *testing.T) {
			c := mk()
			done := make(chan error, 1)
			go func() {
				var err error
				for err == nil { // a queue takes some before it is full
					err = c.Send(context.Background(), []*Envelope{from(1, 1)})
				}
				done <- err
			}()
			c.Close()
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		})
	}
}

// What is sent to a channel that is closed is refused, not swallowed.
func TestSendAfterClose(t *testing.T) {
	for name, mk := range kinds() {
		t.Run(name, func(t *testing.T) {
			c := mk()
			c.Close()
			if err := c.Send(context.Background(), []*Envelope{from(1, 1)}); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		})
	}
}

// A stage that ends has handled what it had accepted.
func TestReceiveHandlesWhatWasAccepted(t *testing.T) {
	const n = 100
	q := NewQueue(1)
	defer q.Close()
	inside, release := make(chan struct{}), make(chan struct{})
	got := 0
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- q.Receive(ctx, func(_ context.Context, b []*Envelope) error {
			if got += len(b); got == 1 { // one worker: no lock
				close(inside)
				<-release
			}
			return nil
		})
	}()
	for i := range n {
		if err := q.Send(context.Background(), []*Envelope{from(1, 1)}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-inside
		}
	}
	stop()
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got != n || q.Len() != 0 {
		t.Errorf("%d of %d handled, %d held", got, n, q.Len())
	}
}

func TestSendGivesUpWithItsContext(t *testing.T) {
	for name, mk := range kinds() {
		t.Run(name, func(t *testing.T) {
			c := mk()
			defer c.Close()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var err error
			for range 2 * QueueDepth {
				if err = c.Send(ctx, []*Envelope{from(1, 1)}); err != nil {
					break
				}
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
		})
	}
}

// A full shard makes its senders wait; two that want half of it each do not
// wait for each other forever.
func TestQueueIsBounded(t *testing.T) {
	q := NewQueue(1)
	defer q.Close()
	batch := func() []*Envelope {
		b := make([]*Envelope, QueueDepth*2/3)
		for i := range b {
			b[i] = from(1, 1)
		}
		return b
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := q.Send(context.Background(), batch()); err != nil {
				t.Error(err)
			}
		})
	}
	release := make(chan struct{})
	left := 6 * len(batch())
	all := make(chan struct{})
	stop := receive(t, q, func(_ context.Context, b []*Envelope) error {
		<-release
		if q.Len() > QueueDepth {
			t.Errorf("%d envelopes held, the bound is %d", q.Len(), QueueDepth)
		}
		if left -= len(b); left == 0 { // one worker: no lock
			close(all)
		}
		return nil
	})
	close(release)
	wg.Wait()
	<-all
	stop()
}
