package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"golang.org/x/time/rate"
)

// Bus is one node's connection to the others. All methods may be called from many
// goroutines, also from handlers and done, except Close.
type Bus struct {
	o       Options
	log     *slog.Logger
	nc      *natsgo.Conn
	out     *publisher
	biggest atomic.Int64 // frame that the server takes; asking the client may block

	ctx          context.Context // of handlers and of reconnecting
	cancel       context.CancelFunc
	pipes        sync.WaitGroup // goroutines of senders and receivers
	loops        sync.WaitGroup // publisher and clock
	subs         sync.WaitGroup // goroutines of the client that call us
	quit         chan struct{}  // ends loops
	disconnected chan struct{}  // the client has said its last word
	shown        bool           // metrics are registered

	oddities  rate.Sometimes // log lines about the connection
	forbidden rate.Sometimes // log lines about permissions
	strange   rate.Sometimes // log lines about frames

	opening    sync.Mutex // around what Handle and Close do with the client; nothing else asks for it
	mu         sync.RWMutex
	closed     bool
	neighbours map[string]*neighbour
	departed   []string // nodes that have left, the latest last
	ports      map[string]bool
}

func newBus(o Options) *Bus {
	b := &Bus{
		o: o, log: o.Log,
		quit: make(chan struct{}), disconnected: make(chan struct{}),
		oddities: rate.Sometimes{Interval: time.Minute}, forbidden: rate.Sometimes{Interval: time.Minute}, strange: rate.Sometimes{Interval: time.Minute},
		neighbours: map[string]*neighbour{}, ports: map[string]bool{},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.out = newPublisher(b)
	return b
}

// start begins to use the connection.
func (b *Bus) start(nc *natsgo.Conn) {
	b.nc = nc
	b.biggest.Store(nc.MaxPayload())
	b.loops.Go(b.out.run)
	b.loops.Go(b.clock)
}

// open listens for acknowledgements, asks whether that is permitted, and shows the
// metrics.
func (b *Bus) open(ctx context.Context) error {
	if err := b.subscribe(ackPort, b.acknowledged); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("no answer behind a subscription: %w", err)
	}
	if err := b.nc.LastError(); errors.Is(err, natsgo.ErrPermissionViolation) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	if b.o.Metrics == nil {
		return nil
	}
	if err := b.o.Metrics.Register(metrics{b}); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	b.shown = true
	return nil
}

// subscribe is called with opening held, and by Dial.
func (b *Bus) subscribe(port string, f func(frame)) error {
	name := inbox(b.o.Cluster, b.o.Self.Node, port)
	sub, err := b.nc.Subscribe(name, func(m *natsgo.Msg) {
		if b.o.lose != nil && b.o.lose(m.Subject, m.Data) {
			return
		}
		in, err := parse(m.Data)
		if err == nil && !sentBy(m.Subject, name, in.node) {
			err = errSpeaker
		}
		switch {
		case err != nil:
			b.strange.Do(func() { b.log.Warn("nats: ignored", "subject", m.Subject, "size", len(m.Data), "err", err) })
		case in.to == b.o.Self.Incarnation:
			f(in)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", name, err)
	}
	b.subs.Add(1)
	sub.SetClosedHandler(func(string) { b.subs.Done() })
	if err := sub.SetPendingLimits(b.o.pending, pendingBytes); err != nil {
		return fmt.Errorf("limits of %s: %w", name, err)
	}
	return nil
}

// Handle makes h take what peers send to port, one call at a time and in order per
// peer. Until then it comes again and again, so call it before Join.
func (b *Bus) Handle(port string, h Handler) error {
	if !isToken(port) || port == ackPort {
		return fmt.Errorf("nats: %q cannot be a port", port)
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	closed, taken := b.closed, b.ports[port]
	b.ports[port] = true
	b.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("nats: port %s: %w", port, ErrClosed)
	case taken:
		return fmt.Errorf("nats: port %s has a handler", port)
	}
	err := b.subscribe(port, func(f frame) {
		if r := b.receiver(&f, port, h); r != nil {
			r.take(&f)
		}
	})
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	return nil
}

// Send gives payload to the handler of a port of a node. It is copied. See the
// package comment for what it fails with, and for done, which may be nil.
func (b *Bus) Send(ctx context.Context, node, port string, payload []byte, done func(error)) error {
	s, err := b.sender(node, port)
	if err == nil {
		err = s.send(ctx, payload, done)
	}
	if err != nil {
		return fmt.Errorf("nats: send to %s of %s: %w", port, node, err)
	}
	return nil
}

// Close ends all pipes: who waits, and what is not acknowledged, gets ErrClosed.
// It returns when every handler and done has; handlers are told by their context
// when ctx is done first. Neither may call it.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	for _, n := range b.neighbours {
		n.end(ErrClosed)
	}
	b.mu.Unlock()
	if !first {
		<-b.disconnected
		return nil
	}
	if b.shown {
		b.o.Metrics.Unregister(metrics{b})
	}
	patient := context.AfterFunc(ctx, b.cancel)
	b.pipes.Wait()
	inTime := patient()
	b.cancel() // a client that dials does not listen
	close(b.quit)
	b.loops.Wait()   // the last acknowledgements included
	b.opening.Lock() // a handler that is being installed has its goroutine counted
	b.nc.Close()
	b.opening.Unlock()
	<-b.disconnected
	b.subs.Wait()
	if !inTime {
		return fmt.Errorf("nats: handlers were cut short: %w", ctx.Err())
	}
	return nil
}
