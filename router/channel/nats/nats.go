// Package nats joins the nodes of a cluster by pipes of bytes over core NATS.
//
// NATS forgets what it cannot deliver: a slow subscriber, a reconnect or a
// restarted server loses messages without a word. A pipe does not. It leads from
// one life of a node to a port of one life of another, numbers its payloads and
// keeps each until the other end has handled it.
//
//  1. Payloads of one pipe are handled in the order of Send, each exactly once
//     while both lives last, one at a time.
//  2. Send returns when the payload has its place in the window, and waits for one
//     until its context is done. It fails with ErrGone when the peer is not known
//     or has left, with ErrStalled when nothing of what is in flight was
//     acknowledged for Options.Stall (what the pipe has accepted still goes on),
//     with ErrClosed after Close. It never waits for the network. When it fails,
//     done is not called.
//  3. done is called once per payload, in order, one at a time per pipe and
//     without a lock: with nil when the peer's handler has returned, with
//     ErrRefused when that one has not taken it, otherwise with ErrGone or
//     ErrClosed, and then nobody knows whether it was handled.
//     While a done runs no more places of its pipe become free: one that sends
//     there, and has to wait, gets ErrStalled.
//  4. An acknowledgement covers everything up to its number and is sent after the
//     handler has returned. A handler that blocks is the back-pressure. The far end
//     holds no more than its own Window; what is beyond is dropped and comes again.
//  5. What is lost comes again, and everything behind it. The near end asks what
//     has arrived, in a frame behind everything it has sent, and repeats the rest:
//     at once when its connection is new, otherwise when nothing was acknowledged
//     for a while (200 ms, doubling to 2 s, reset by progress and by a far end with
//     a new connection, which speaks up). So a handler that takes its time costs a
//     question, not a window. What has arrived before is acknowledged again, never
//     handled again.
//  6. Frames for another life of this node, or from a life that has left or was
//     followed by a later one, are ignored. A life that has left does not come
//     back; a new one starts at number 1, after the last call for the old one has
//     returned.
//  7. A handler's error is logged, and so is its panic. When it wraps ErrRefused
//     the payload goes back to its sender, otherwise it counts as handled.
//  8. Frames carry the version of their format first. Newer ones are ignored, with
//     a line in the log now and then, and so are those that say to come from
//     another node than their subject does.
//  9. A payload that the server would not take fails in Send with ErrTooLarge.
//
// Memory is bounded by a Window per pipe and end. Flow, in the order of reading:
// bus.go (who there is), sender.go (the near end), publish.go (the way to the
// network, and the clock), receiver.go (the far end), frame.go (the bytes), subject.go
// (who speaks to whom), reasons.go (why there is no connection).
//
// Locks, from the outer to the inner: Bus.mu, sender.mu or receiver.mu,
// publisher.mu. None is held while a handler or done runs or while the network is
// touched: the client dials with its own lock held, so each of its methods may
// take as long as that. (Bus.opening is for that, and comes before all others.)
package nats

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Errors a caller can act on; what a function returns wraps one when it applies.
var (
	ErrGone     = errors.New("the peer is not in the cluster")
	ErrStalled  = errors.New("the peer acknowledges nothing")
	ErrTooLarge = errors.New("payload larger than NATS takes")
	ErrRefused  = errors.New("the peer does not take it")
	ErrClosed   = errors.New("bus closed")
)

// Peer is one life of a process under a node's name; a later life has a larger
// number.
type Peer struct {
	Node        string
	Incarnation uint64
}

// Handler takes what a peer has sent. It may keep payload. ctx is done when Close
// cannot wait any longer; it must return then.
type Handler func(ctx context.Context, from Peer, payload []byte) error

// Window bounds what is in flight on one pipe. Nodes should agree about it.
type Window struct {
	Frames int // default 256, at most 4096
	Bytes  int // default 8 MiB; an empty window takes any one payload
}

// Options make a Bus. It connects to one of URLs, or to Server.
type Options struct {
	URLs        []string                     // nats://host:port, tls://…, with user:password@ or token@ where the server wants it
	Server      natsgo.InProcessConnProvider // one in this process; nil: none
	User        string                       // with Password, where the server wants it
	Password    string
	Cluster     string // first token of all subjects: letters, digits, - and _
	Self        Peer
	TLS         *tls.Config // nil: as the URLs say
	Credentials string      // file; may be empty
	Log         *slog.Logger
	Metrics     prometheus.Registerer // nil: nobody looks
	Window      Window
	Stall       time.Duration // default 3s
	// Dial opens connections, with a context that ends with Dial's and then the
	// Bus's; nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// For tests: what arrives and is to be lost, and how much the client holds.
	lose    func(subject string, frame []byte) bool
	pending int
}

func (o Options) withDefaults() (Options, error) {
	o.Window.Frames = cmp.Or(o.Window.Frames, 256)
	o.Window.Bytes = cmp.Or(o.Window.Bytes, 8<<20)
	o.Stall = cmp.Or(o.Stall, 3*time.Second)
	o.pending = cmp.Or(o.pending, pendingFrames)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	switch {
	case len(o.URLs) == 0 && o.Server == nil:
		return o, errors.New("no URL of a NATS server")
	case len(o.URLs) > 0 && o.Server != nil:
		return o, errors.New("URLs of NATS servers, and a server in this process")
	case !isToken(o.Cluster):
		return o, fmt.Errorf("the cluster's prefix %q must be letters, digits, - and _", o.Cluster)
	case !isNode(o.Self.Node):
		return o, fmt.Errorf("%q cannot be the name of a node", o.Self.Node)
	case o.Window.Frames < 0 || o.Window.Frames > maxWindow || o.Window.Bytes < 0 || o.Stall < 0:
		return o, fmt.Errorf("a window or a stall below zero, or more than %d frames", maxWindow)
	}
	return o, nil
}

// How patient the client is with a server. Its defaults notice a frozen one after
// minutes.
const (
	dialTimeout   = 2 * time.Second
	writeTimeout  = 2 * time.Second
	pingInterval  = 2 * time.Second
	pingsMissed   = 2
	reconnectWait = 200 * time.Millisecond
	reconnectMore = 100 * time.Millisecond // at most, by chance
)

// What one subscription holds before the client drops. It is emptied without
// waiting for handlers, so it takes a burst, not the windows of all peers.
const (
	pendingFrames = 64 << 10
	pendingBytes  = 64 << 20
)

// Dial connects to the first server that answers. Errors wrap one of those in
// reasons.go when it does not want this node.
func Dial(ctx context.Context, o Options) (*Bus, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	servers, names, err := parseServers(o.URLs)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	if o.Server != nil {
		names = "the server in this process"
	}
	b := newBus(o)
	dial := &dialer{dial: o.Dial}
	dial.until.Store(&ctx)
	nc, err := natsgo.Connect(servers, b.settings(dial)...)
	if err != nil {
		b.cancel()
		return nil, fmt.Errorf("nats: connect to %s: %w", names, cmp.Or(ctx.Err(), reason(err, o.TLS != nil)))
	}
	dial.until.Store(&b.ctx)
	b.start(nc)
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("nats: %w", err), b.Close(ctx))
	}
	b.log.Info("nats: connected", "server", nc.ConnectedAddr(), "inbox", inbox(o.Cluster, o.Self.Node, "*"))
	return b, nil
}

// parseServers returns the URLs as the client wants them, and without what opens
// doors. A part of the URL that says who connects may be a token as a whole.
func parseServers(list []string) (urls, names string, err error) {
	var all, shown []string
	for i, s := range list {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" { // err would show what it could not read
			return "", "", fmt.Errorf("number %d of the URLs is none", i+1)
		}
		all = append(all, s)
		u.User = nil
		shown = append(shown, u.String())
	}
	return strings.Join(all, ","), strings.Join(shown, ", "), nil
}

func (b *Bus) settings(dial *dialer) []natsgo.Option {
	o := []natsgo.Option{
		natsgo.Name(b.o.Self.Node),
		natsgo.NoEcho(),
		natsgo.SetCustomDialer(dial),
		natsgo.Timeout(dialTimeout),
		natsgo.PingInterval(pingInterval),
		natsgo.MaxPingsOutstanding(pingsMissed),
		// A write that did not go through as a whole leaves half a message on the
		// wire: only a new connection helps.
		natsgo.FlusherTimeout(writeTimeout),
		natsgo.ReconnectOnFlusherError(),
		// What was published while there is no server is in a window, and would come
		// twice.
		natsgo.ReconnectBufSize(-1),
		natsgo.MaxReconnects(-1),
		natsgo.IgnoreAuthErrorAbort(),
		natsgo.ReconnectWait(reconnectWait),
		natsgo.ReconnectJitter(reconnectMore, reconnectMore),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			if b.ctx.Err() == nil {
				b.log.Warn("nats: connection lost", "err", err)
			}
		}),
		natsgo.ReconnectHandler(func(nc *natsgo.Conn) {
			b.log.Info("nats: connected again", "server", nc.ConnectedAddr())
			b.reconnected(nc)
		}),
		natsgo.ReconnectErrHandler(func(_ *natsgo.Conn, err error) {
			b.oddities.Do(func() { b.log.Warn("nats: no connection yet", "err", reason(err, b.o.TLS != nil)) })
		}),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) { b.odd(sub, err) }),
		natsgo.ClosedHandler(func(nc *natsgo.Conn) {
			if b.ctx.Err() == nil {
				b.log.Error("nats: the client has given up", "err", nc.LastError())
			}
			close(b.disconnected)
		}),
	}
	if b.o.Server != nil {
		o = append(o, natsgo.InProcessServer(b.o.Server))
	}
	if b.o.TLS != nil {
		o = append(o, natsgo.Secure(b.o.TLS))
	}
	if b.o.User != "" {
		o = append(o, natsgo.UserInfo(b.o.User, b.o.Password))
	}
	if b.o.Credentials != "" {
		o = append(o, natsgo.UserCredentials(b.o.Credentials))
	}
	return o
}

// dialer gives up with a context: Dial's until it has connected, the bus's after
// that. The client itself has no way to be told.
type dialer struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	until atomic.Pointer[context.Context]
}

// Dial implements natsgo.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	return d.dial(*d.until.Load(), network, address)
}
