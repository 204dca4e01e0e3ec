package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrNoUpgrade says that a transport cannot start TLS.
var ErrNoUpgrade = errors.New("this transport cannot start TLS")

// readSize is what one read takes at most; TLS records are no larger.
const readSize = 16 << 10

// buffers are shared by all connections: an idle one holds none.
var buffers = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// socket is a TCP connection whose Write never blocks: what the kernel does
// not take at once waits in memory and is written by a goroutine that exists
// only as long as something waits. The caller bounds what it queues by Pending.
//
// It begins as the net.Conn that was accepted, whose reader waits in Read. Once
// a poller watches it (see watchBy) Read does not wait any more: it returns
// errQuiet, and Close leaves the descriptor to release.
type socket struct {
	remote, local net.Addr
	conn          net.Conn        // nil: watched
	raw           syscall.RawConn // of conn; nil: it has none
	dry           bool            // watched: the last read took everything; the reader's

	mu      sync.Mutex
	watch   *watch // nil: not watched, or released
	fd      int    // of watch
	waiting []byte // not yet taken by the kernel
	writing int    // what the writer goroutine has taken of that and not written
	busy    bool   // there is one
	failed  error
	drained func()
	idle    chan struct{} // closed by the writer when it ends; nil when none runs
	due     time.Time     // the deadline of reading; zero: none
	alarm   *time.Timer   // watched: gives the reader a turn when it is due; nil: none is set

	deadline atomic.Int32 // watched: unset, pending or passed
	backlog  atomic.Int64 // of waiting and writing, in bytes; -1: failed
}

func newSocket(c net.Conn) *socket {
	s := &socket{conn: c, remote: c.RemoteAddr(), local: c.LocalAddr()}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

// Write implements net.Conn; it never blocks and fails only when the
// connection is known to be dead.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	n := 0
	if !s.busy {
		n = s.try(p)
		if s.failed != nil {
			s.tally()
			return n, s.failed
		}
	}
	if n < len(p) {
		s.waiting = append(s.waiting, p[n:]...)
		s.tally()
		if !s.busy {
			s.busy = true
			s.idle = make(chan struct{})
			go s.drain()
		}
	}
	return len(p), nil
}

// try writes what the kernel takes without waiting; s.mu is held.
func (s *socket) try(p []byte) (n int) {
	switch {
	case s.conn == nil:
		return s.give(s.fd, p)
	case s.raw == nil:
		return 0
	}
	err := s.raw.Write(func(fd uintptr) bool {
		n = s.give(int(fd), p)
		return true
	})
	if err != nil && s.failed == nil {
		s.failed = err
	}
	return n
}

// give writes until the kernel takes no more; s.mu is held.
func (s *socket) give(fd int, p []byte) (n int) {
	for n < len(p) {
		m, err := syscall.Write(fd, p[n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return n
		case err != nil:
			s.failed = err
			return n
		default:
			n += m
		}
	}
	return n
}

// drain is the writer on demand.
func (s *socket) drain() {
	for {
		s.mu.Lock()
		p := s.waiting
		s.waiting = nil
		if len(p) == 0 || s.failed != nil {
			s.busy = false
			close(s.idle)
			s.idle = nil
			f := s.drained
			s.mu.Unlock()
			if f != nil {
				f()
			}
			return
		}
		s.writing = len(p)
		s.tally()
		conn := s.conn
		s.mu.Unlock()
		err := error(nil)
		if conn != nil {
			_, err = conn.Write(p)
		} else {
			err = s.insist(p)
		}
		s.mu.Lock()
		s.writing = 0
		if err != nil {
			s.failed = err
			s.waiting = nil
		}
		s.tally()
		s.mu.Unlock()
	}
}

// tally is called with s.mu after a change of what waits: who asks for it does
// not need the lock.
func (s *socket) tally() {
	n := len(s.waiting) + s.writing
	if s.failed != nil {
		n = -1
	}
	s.backlog.Store(int64(n))
}

func (s *socket) pending() int { return max(s.left(), 0) }

// left is pending, or -1 when what was written since may be lost.
func (s *socket) left() int { return int(s.backlog.Load()) }

// settle waits until nothing is pending, at most for d.
func (s *socket) settle(d time.Duration) {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
}

// tcp is the Transport over TCP, with TLS from the start or later.
type tcp struct {
	sock *socket
	name string

	mu   sync.Mutex // guards out, conn and the order of writes
	conn net.Conn   // sock, or the TLS connection on top of it
	tls  *tls.Conn
	out  *[]byte      // nil: nothing is queued
	size atomic.Int64 // of out

	held *[]byte // the buffer Fill returned last
}

// NewTCP returns the transport of an accepted connection.
func NewTCP(c net.Conn) Transport {
	s := newSocket(c)
	return &tcp{sock: s, conn: s, name: "tcp"}
}

func (t *tcp) Fill() ([]byte, error) {
	t.giveBack()
	if t.tls == nil && t.sock.conn != nil && t.sock.raw != nil {
		buf, n, err := t.sock.readPooled()
		t.held = buf
		if err != nil {
			return nil, err
		}
		return (*buf)[:n], nil
	}
	t.held = buffers.Get().(*[]byte)
	n, err := t.conn.Read(*t.held)
	switch {
	case n > 0:
		return (*t.held)[:n], nil
	case err == nil:
		return nil, io.ErrNoProgress
	case errors.Is(err, errQuiet):
		buffers.Put(t.held)
		t.held = nil
	}
	return nil, err
}

// Watch implements watchable.
func (t *tcp) Watch(p *poller, turn func()) bool { return t.sock.watchBy(p, turn) }

// giveBack ends the use of what Fill returned last; the reader calls it.
func (t *tcp) giveBack() {
	if t.held != nil {
		buffers.Put(t.held)
		t.held = nil
	}
}

// Release implements watchable.
func (t *tcp) Release(grace time.Duration) {
	t.finish(grace)
	t.giveBack()
	t.sock.leave()
}

func (t *tcp) Queue(p []byte) {
	t.mu.Lock()
	t.room(len(p))
	*t.out = append(*t.out, p...)
	t.size.Store(int64(len(*t.out)))
	t.mu.Unlock()
}

// room makes out ready for n bytes more: when it would be too large to be kept,
// what is there is written; t.mu is held.
func (t *tcp) room(n int) {
	if t.out != nil && len(*t.out)+n > keptOut {
		t.give()
	}
	if t.out == nil {
		t.out = outs.Get().(*[]byte)
	}
}

// QueueSpliced implements splicer.
func (t *tcp) QueueSpliced(p []byte, at int, attr string) {
	t.mu.Lock()
	t.room(len(p) + len(attr))
	*t.out = spliced(*t.out, p, at, attr)
	t.size.Store(int64(len(*t.out)))
	t.mu.Unlock()
}

// outs are what is queued between two flushes, shared by all connections.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// keptOut is the largest of them that is kept.
const keptOut = 32 << 10

func (t *tcp) Flush() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.give()
	return t.sock.left()
}

// give writes out; t.mu is held.
func (t *tcp) give() {
	if t.out == nil {
		return
	}
	_, _ = t.conn.Write(*t.out) // a dead peer is the reader's to find out
	if cap(*t.out) <= keptOut {
		*t.out = (*t.out)[:0]
		outs.Put(t.out)
	}
	t.out = nil
	t.size.Store(0)
}

func (t *tcp) Pending() int { return t.sock.pending() + int(t.size.Load()) }

func (t *tcp) OnDrained(f func()) {
	t.sock.mu.Lock()
	t.sock.drained = f
	t.sock.mu.Unlock()
}

func (t *tcp) SetReadDeadline(d time.Time) { _ = t.sock.SetReadDeadline(d) }

func (t *tcp) Close(grace time.Duration) {
	t.finish(grace)
	_ = t.sock.Close()
}

// finish waits until what is pending has been written, and ends TLS.
func (t *tcp) finish(grace time.Duration) {
	t.Flush()
	t.sock.settle(grace)
	t.mu.Lock()
	if t.tls != nil {
		_ = t.tls.SetWriteDeadline(time.Now().Add(grace))
		_ = t.tls.CloseWrite() // RFC 6120 §4.4: close_notify
	}
	t.mu.Unlock()
	t.sock.settle(grace)
}

func (t *tcp) RemoteAddr() net.Addr { return t.sock.RemoteAddr() }
func (t *tcp) Framed() bool         { return false }
func (t *tcp) Name() string         { return t.name }

func (t *tcp) TLS() *tls.ConnectionState {
	if t.tls == nil {
		return nil
	}
	st := t.tls.ConnectionState()
	return &st
}

func (t *tcp) StartTLS(cfg *tls.Config, limit time.Duration) error {
	t.giveBack() // plaintext that was pipelined behind <starttls/> ends here
	t.Flush()
	return t.secure(tls.Server(t.sock, cfg), limit)
}

// InitiateTLS implements initiating.
func (t *tcp) InitiateTLS(cfg *tls.Config, limit time.Duration) error {
	t.giveBack()
	t.Flush()
	return t.secure(tls.Client(t.sock, cfg), limit)
}

// secure puts TLS on top of the socket.
func (t *tcp) secure(conn *tls.Conn, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_ = t.sock.SetReadDeadline(time.Time{})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	t.mu.Lock()
	t.conn, t.tls = conn, conn
	t.mu.Unlock()
	return nil
}
