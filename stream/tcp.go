package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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
type socket struct {
	net.Conn
	raw syscall.RawConn

	mu      sync.Mutex
	waiting []byte // not yet taken by the kernel
	busy    bool   // a writer goroutine runs
	failed  error
	drained func()
	idle    chan struct{} // closed by the writer when it ends; nil when none runs
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
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
			return n, s.failed
		}
	}
	if n < len(p) {
		s.waiting = append(s.waiting, p[n:]...)
		if !s.busy {
			s.busy = true
			s.idle = make(chan struct{})
			go s.drain()
		}
	}
	return len(p), nil
}

// try writes what the kernel takes without waiting.
func (s *socket) try(p []byte) (n int) {
	if s.raw == nil {
		return 0
	}
	err := s.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			m, err := syscall.Write(int(fd), p[n:])
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return true
			case err != nil:
				s.failed = err
				return true
			default:
				n += m
			}
		}
		return true
	})
	if err != nil && s.failed == nil {
		s.failed = err
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
		s.mu.Unlock()
		if _, err := s.Conn.Write(p); err != nil {
			s.mu.Lock()
			s.failed = err
			s.waiting = nil
			s.mu.Unlock()
		}
	}
}

func (s *socket) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// dead reports whether what was written since may be lost.
func (s *socket) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed != nil
}

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

// readPooled waits until the socket is readable without holding a buffer, then
// reads into a pooled one.
func (s *socket) readPooled() (buf *[]byte, n int, err error) {
	rerr := s.raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			n, err = syscall.Read(int(fd), *buf)
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			buffers.Put(buf)
			buf, err = nil, nil
			return false
		}
		return true
	})
	switch {
	case rerr != nil:
		err = rerr
	case err == nil && n == 0:
		err = io.EOF
	}
	if n < 0 {
		n = 0
	}
	return buf, n, err
}

// tcp is the Transport over TCP, with TLS from the start or later.
type tcp struct {
	sock *socket
	name string

	mu   sync.Mutex // guards out, conn and the order of writes
	conn net.Conn   // sock, or the TLS connection on top of it
	tls  *tls.Conn
	out  []byte

	held *[]byte // the buffer Fill returned last
}

// NewTCP returns the transport of an accepted connection.
func NewTCP(c net.Conn) Transport {
	s := newSocket(c)
	return &tcp{sock: s, conn: s, name: "tcp"}
}

func (t *tcp) Fill() ([]byte, error) {
	if t.held != nil {
		buffers.Put(t.held)
		t.held = nil
	}
	if t.tls == nil && t.sock.raw != nil {
		buf, n, err := t.sock.readPooled()
		t.held = buf
		if err != nil {
			return nil, err
		}
		return (*buf)[:n], nil
	}
	t.held = buffers.Get().(*[]byte)
	n, err := t.conn.Read(*t.held)
	if n > 0 {
		return (*t.held)[:n], nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return nil, err
}

func (t *tcp) Queue(p []byte) {
	t.mu.Lock()
	t.out = append(t.out, p...)
	t.mu.Unlock()
}

// keptBuffer is the largest queue that is kept for the next stanza.
const keptBuffer = 512

func (t *tcp) Flush() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.out) > 0 {
		_, _ = t.conn.Write(t.out) // a dead peer is the reader's to find out
		if cap(t.out) > keptBuffer {
			t.out = nil
		} else {
			t.out = t.out[:0]
		}
	}
	if t.sock.dead() {
		return -1
	}
	return t.sock.pending()
}

func (t *tcp) Pending() int {
	t.mu.Lock()
	n := len(t.out)
	t.mu.Unlock()
	return n + t.sock.pending()
}

func (t *tcp) OnDrained(f func()) {
	t.sock.mu.Lock()
	t.sock.drained = f
	t.sock.mu.Unlock()
}

func (t *tcp) SetReadDeadline(d time.Time) { _ = t.sock.SetReadDeadline(d) }

func (t *tcp) Close(grace time.Duration) {
	t.Flush()
	t.sock.settle(grace)
	t.mu.Lock()
	if t.tls != nil {
		_ = t.tls.SetWriteDeadline(time.Now().Add(grace))
		_ = t.tls.CloseWrite() // RFC 6120 §4.4: close_notify
	}
	t.mu.Unlock()
	t.sock.settle(grace)
	_ = t.sock.Close()
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
	if t.held != nil { // plaintext that was pipelined behind <starttls/> ends here
		buffers.Put(t.held)
		t.held = nil
	}
	t.Flush()
	conn := tls.Server(t.sock, cfg)
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
