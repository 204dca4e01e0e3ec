//go:build linux

package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// Conn is a connection on a Loop.
type Conn struct {
	// On gets each element; what it gets is valid until it returns.
	On func(el []byte)
	// Chunk, when set, gets what a read brought before it is cut into
	// elements; true: it has been dealt with.
	Chunk func(p []byte) bool
	// Gone is called when the connection ends, once.
	Gone func(err error)

	loop   *Loop
	sock   *socket
	tls    *tls.Conn // nil: plain
	plain  []byte    // TLS: not encrypted yet
	scan   Scanner
	queued bool
	closed bool
}

// Attach puts a socket on the loop. The descriptor is the loop's from here on.
func (l *Loop) Attach(fd int) (*Conn, error) {
	c := &Conn{sock: &socket{fd: fd}}
	return c, l.attach(c)
}

func (l *Loop) attach(c *Conn) error {
	c.loop = l
	return l.add(c.sock.fd, c)
}

// Send queues bytes; they go out when the handler that called it returns, or
// when Run begins.
func (c *Conn) Send(b ...[]byte) {
	if c.closed {
		return
	}
	to := &c.sock.out
	if c.tls != nil {
		to = &c.plain
	}
	for _, p := range b {
		*to = append(*to, p...)
	}
	if !c.queued {
		c.queued = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// SendString is Send.
func (c *Conn) SendString(s string) { c.Send([]byte(s)) }

// Forward writes b at once, without a copy when the kernel takes all of it.
func (c *Conn) Forward(b []byte) {
	if c.closed {
		return
	}
	if len(c.sock.out) == 0 && c.tls == nil {
		n, errno := rawWrite(c.sock.fd, b)
		if errno == 0 && n == len(b) {
			return
		}
		if errno == 0 {
			b = b[n:]
		}
	}
	c.Send(b)
}

// Closed reports whether the connection has ended.
func (c *Conn) Closed() bool { return c.closed }

// Close ends the connection at once.
func (c *Conn) Close() { c.end(nil) }

func (c *Conn) end(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.loop.table[c.sock.fd] = nil
	_ = syscall.Close(c.sock.fd)
	if c.Gone != nil {
		c.Gone(err)
	}
}

func (c *Conn) flush() {
	if c.closed {
		return
	}
	if c.tls != nil && len(c.plain) > 0 {
		_, err := c.tls.Write(c.plain)
		c.plain = c.plain[:0]
		if err != nil {
			c.end(err)
			return
		}
	}
	if err := c.sock.drain(); err != nil {
		c.end(err)
		return
	}
	if blocked := len(c.sock.out) > 0; blocked != c.sock.waiting {
		c.sock.waiting = blocked
		events := uint32(syscall.EPOLLIN)
		if blocked {
			events |= syscall.EPOLLOUT
		}
		c.loop.watch(c.sock.fd, events)
	}
}

func (c *Conn) ready(l *Loop, events uint32) {
	if events&syscall.EPOLLOUT != 0 {
		c.flush()
	}
	if events&^uint32(syscall.EPOLLOUT) == 0 || c.closed {
		return
	}
	if c.tls == nil {
		c.readOnce(l.buf)
		return
	}
	for !c.closed { // what tls.Conn holds already raises no event
		n, err := c.tls.Read(l.buf)
		if n > 0 {
			c.feed(l.buf[:n])
		}
		if err == error(again) {
			return
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// readOnce reads once: epoll is level-triggered, so nothing is missed and
// nobody asks in vain.
func (c *Conn) readOnce(buf []byte) {
	n, errno := rawRead(c.sock.fd, buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		c.end(errno)
	case n == 0:
		c.end(io.EOF)
	default:
		c.feed(buf[:n])
	}
}

func (c *Conn) feed(p []byte) {
	if c.Chunk == nil || !c.Chunk(p) {
		c.scan.Feed(p, c.emit)
	}
}

func (c *Conn) emit(el []byte) {
	if c.On != nil && !c.closed {
		c.On(el)
	}
}

// socket is a connection's descriptor: Go's own while the client logs in, then
// the loop's. It is the net.Conn beneath tls.Conn in both lives.
type socket struct {
	net.Conn // while it logs in
	out      []byte
	fd       int
	waiting  bool // for room to write
}

// errAgain is a temporary error, which tls.Conn survives.
type errAgain struct{}

func (errAgain) Error() string   { return "nothing to read" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

var again net.Error = errAgain{}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if s.Conn != nil {
		return s.Conn.Read(p)
	}
	n, errno := rawRead(s.fd, p)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return 0, again
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	if s.Conn != nil {
		return s.Conn.Write(p)
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// drain writes what is queued as far as the kernel takes it.
func (s *socket) drain() error {
	for len(s.out) > 0 {
		n, errno := rawWrite(s.fd, s.out)
		switch {
		case errno == syscall.EAGAIN:
			return nil
		case errno == syscall.EINTR:
		case errno != 0:
			return errno
		case n == len(s.out):
			s.out = s.out[:0]
		default:
			s.out = append(s.out[:0], s.out[n:]...)
		}
	}
	return nil
}

// adopt takes the descriptor out of Go's hands.
func (s *socket) adopt() error {
	tcp, ok := s.Conn.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(old uintptr) {
		r, _, errno := syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			dupErr = errno
		}
		fd = int(r)
	}); err != nil {
		return err
	}
	if dupErr != nil {
		return dupErr
	}
	_ = tcp.Close() // the duplicate lives on, non-blocking as it was
	s.Conn, s.fd = nil, fd
	return nil
}
