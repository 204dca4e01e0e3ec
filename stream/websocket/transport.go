package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"

	"parley/parser/stanza"
	"parley/stream"
)

// pieceSize is what Fill returns at most.
const pieceSize = 16 << 10

// pieces are shared by all connections: one that waits for a message holds none.
var pieces = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}

// transport is a stream.Transport over one WebSocket. Writing never blocks:
// messages wait in memory for a goroutine that exists only as long as
// something waits. The stream bounds what it queues by Pending.
type transport struct {
	ws   *websocket.Conn
	conn net.Conn // below ws
	addr net.Addr
	tls  *tls.ConnectionState

	msg  io.Reader // the message being read; nil between messages
	held *[]byte   // the piece that Fill returned last

	mu      sync.Mutex
	out     [][]byte // messages that the writer has not begun
	pending int      // bytes of them and of the one being written
	busy    bool     // a writer runs
	idle    chan struct{}
	failed  bool
	drained func()
}

var _ stream.Transport = (*transport)(nil)

func newTransport(ws *websocket.Conn, conn net.Conn, addr net.Addr, secure bool) *transport {
	t := &transport{ws: ws, conn: conn, addr: addr}
	if secure {
		// There is TLS, but not necessarily between us and the client: no
		// channel binding can come of it.
		t.tls = &tls.ConnectionState{HandshakeComplete: true}
	}
	return t
}

// Fill returns pieces of messages; the last one of each is followed by an
// empty one, at which Partial is false.
func (t *transport) Fill() ([]byte, error) {
	if t.msg == nil {
		t.release()
		kind, msg, err := t.ws.Reader(context.Background()) // deadlines are on conn
		if err != nil {
			return nil, ended(err)
		}
		t.msg = msg
		if kind != websocket.MessageText { // RFC 7395 §3.2
			return nil, &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "text messages only"}
		}
	}
	if t.held == nil {
		t.held = pieces.Get().(*[]byte)
	}
	n, err := t.msg.Read(*t.held)
	switch {
	case errors.Is(err, io.EOF):
		t.msg = nil
	case err != nil:
		return nil, ended(err)
	}
	return (*t.held)[:n], nil
}

// Partial reports whether the message goes on.
func (t *transport) Partial() bool { return t.msg != nil }

func (t *transport) release() {
	if t.held != nil {
		pieces.Put(t.held)
		t.held = nil
	}
}

// ended is io.EOF for a WebSocket that the peer has closed in the proper way
// (RFC 7395 §3.6: the stream is implicitly closed).
func ended(err error) error {
	if websocket.CloseStatus(err) != -1 {
		return io.EOF
	}
	return err
}

// Queue implements stream.Transport: p becomes one message.
func (t *transport) Queue(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed {
		return
	}
	t.out = append(t.out, p)
	t.pending += len(p)
}

// Flush implements stream.Transport.
func (t *transport) Flush() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.out) > 0 && !t.busy {
		t.busy, t.idle = true, make(chan struct{})
		go t.write()
	}
	if t.failed {
		return -1
	}
	return t.pending
}

// write is the writer on demand.
func (t *transport) write() {
	for {
		t.mu.Lock()
		if len(t.out) == 0 {
			f, ok := t.drained, !t.failed
			t.busy = false
			close(t.idle)
			t.mu.Unlock()
			if f != nil && ok {
				f()
			}
			return
		}
		batch := t.out
		t.out = nil
		t.mu.Unlock()
		for _, p := range batch {
			err := t.ws.Write(context.Background(), websocket.MessageText, p) // Close cuts it off
			t.mu.Lock()
			t.pending -= len(p)
			if err != nil { // a dead peer is the reader's to find out
				t.failed, t.out, t.pending = true, nil, 0
			}
			t.mu.Unlock()
			if err != nil {
				break
			}
		}
	}
}

func (t *transport) Pending() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending
}

func (t *transport) OnDrained(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drained = f
}

func (t *transport) SetReadDeadline(d time.Time) { _ = t.conn.SetReadDeadline(d) }

// lastWords is what the writer, a goroutine, gets even when there is no grace:
// a stream that is taken over is told why (XEP-0198 §5).
const lastWords = 100 * time.Millisecond

// Close implements stream.Transport: the WebSocket is closed after the stream
// (RFC 7395 §3.6).
func (t *transport) Close(grace time.Duration) {
	t.Flush()
	t.settle(max(grace, lastWords))
	if grace <= 0 {
		_ = t.conn.Close()
		return
	}
	_ = t.conn.SetReadDeadline(time.Time{})
	cut := time.AfterFunc(grace, func() { _ = t.conn.Close() })
	defer cut.Stop()
	_ = t.ws.Close(websocket.StatusNormalClosure, "")
}

// settle waits until nothing is pending, at most for d.
func (t *transport) settle(d time.Duration) {
	t.mu.Lock()
	busy, idle := t.busy, t.idle
	t.mu.Unlock()
	if !busy {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		_ = t.conn.Close() // the writer holds the WebSocket: no closing handshake can follow
	}
}

func (t *transport) RemoteAddr() net.Addr      { return t.addr }
func (t *transport) Framed() bool              { return true }
func (t *transport) Name() string              { return "websocket" }
func (t *transport) TLS() *tls.ConnectionState { return t.tls }

// StartTLS implements stream.Transport (RFC 7395 §3.9).
func (t *transport) StartTLS(*tls.Config, time.Duration) error { return stream.ErrNoUpgrade }
