package stream

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Reading, deadlines and the end of a socket, before a poller watches it and
// while it does.

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

// Read implements net.Conn. A watched socket returns errQuiet instead of
// waiting, and knows without asking when the last read took everything: what
// has come since gives the reader another turn. A peer that closes its end may
// share the news with its last bytes, so then the read is repeated.
func (s *socket) Read(p []byte) (int, error) {
	if s.conn != nil {
		return s.conn.Read(p)
	}
	if s.deadline.Load() == passed {
		return 0, os.ErrDeadlineExceeded
	}
	if s.dry && !s.watch.hup.Load() {
		return 0, errQuiet
	}
	for {
		n, err := syscall.Read(s.fd, p)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errQuiet
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			s.dry = n < len(p)
			return n, nil
		}
	}
}

// watchBy leaves the waiting to p, which gives turn a run now and whenever
// there is something to read. The reader calls it; false: it has to go on
// waiting itself.
func (s *socket) watchBy(p *poller, turn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil || s.raw == nil || s.busy || s.failed != nil {
		return false
	}
	// The runtime's poller would be woken along with ours, so the descriptor is
	// taken out of it.
	fd, err := duplicate(s.raw)
	if err != nil {
		return false
	}
	conn, raw := s.conn, s.raw
	s.conn, s.raw, s.fd = nil, nil, fd
	s.watch = &watch{poller: p, fd: fd, turn: func() {
		s.dry = false
		turn()
	}}
	if err = s.watch.begin(); err != nil {
		s.conn, s.raw, s.fd, s.watch = conn, raw, 0, nil
		_ = syscall.Close(fd)
		return false
	}
	_ = conn.Close()
	s.arm() // somebody may be closing the stream by now
	return true
}

// The states of a watched socket's deadline.
const (
	unset int32 = iota
	pending
	passed
)

// SetReadDeadline implements net.Conn. At the deadline of a watched socket its
// reader gets a turn.
func (s *socket) SetReadDeadline(d time.Time) error {
	if d.IsZero() && s.deadline.Load() == unset && s.conn == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = d
	if s.conn != nil {
		return s.conn.SetReadDeadline(d)
	}
	s.arm()
	return nil
}

// arm makes due the deadline of a watched socket; s.mu is held. That it has
// passed is what the alarm says, not the wall clock, which may be set back.
func (s *socket) arm() {
	if s.alarm != nil {
		s.alarm.Stop()
		s.alarm = nil
	}
	s.deadline.Store(unset)
	if s.watch == nil || s.due.IsZero() {
		return
	}
	s.deadline.Store(pending)
	var alarm *time.Timer
	alarm = time.AfterFunc(time.Until(s.due), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.alarm == alarm { // else it is stopped, or another's turn
			s.deadline.Store(passed)
			s.watch.wake()
		}
	})
	s.alarm = alarm
}

// SetWriteDeadline implements net.Conn: writing does not wait.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(d time.Time) error { return s.SetReadDeadline(d) }

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// Close implements net.Conn. A watched socket is cut, and its reader, which
// may be using the descriptor, gets a turn to find that out and release it.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.conn.Close()
	}
	if s.failed == nil {
		s.failed = net.ErrClosed
	}
	s.waiting = nil
	s.tally()
	if s.watch == nil {
		return nil
	}
	s.watch.hup.Store(true)
	_ = syscall.Shutdown(s.fd, syscall.SHUT_RDWR)
	s.watch.writable()
	s.watch.wake()
	return nil
}

// leave is Close for the reader: nothing uses a watched socket's descriptor any
// more.
func (s *socket) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close()
		return
	}
	if s.watch == nil {
		return
	}
	s.waiting = nil
	if s.alarm != nil {
		s.alarm.Stop()
		s.alarm = nil
	}
	if s.failed == nil {
		s.failed = net.ErrClosed
	}
	s.tally()
	s.watch.forget()
	s.watch.writable()
	_ = syscall.Close(s.fd)
	s.watch, s.fd = nil, -1
}

// insist writes all of p to a watched socket, waiting for room.
func (s *socket) insist(p []byte) error {
	for {
		s.mu.Lock()
		if s.failed != nil {
			err := s.failed
			s.mu.Unlock()
			return err
		}
		room := s.watch.waitsForRoom() // before asking: what becomes free meanwhile is told
		p = p[s.give(s.fd, p):]
		s.writing = len(p)
		err := s.failed
		s.tally()
		s.mu.Unlock()
		if err != nil || len(p) == 0 {
			return err
		}
		<-room
	}
}
