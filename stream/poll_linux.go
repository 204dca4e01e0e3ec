package stream

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// pollEvents is how many sockets one question to the system can bring.
const pollEvents = 256

// edge is EPOLLET as the kernel's 32 bits have it.
const edge = 1 << 31

// system is epoll. Its own descriptor waits in the Go runtime's, so that a
// poller with nothing to do is an ordinary parked goroutine.
type system struct {
	fd     int
	file   *os.File
	raw    syscall.RawConn
	count  int32
	buffer [pollEvents]syscall.EpollEvent
	events [pollEvents]event
}

// event is what has become of one socket.
type event struct {
	fd               int
	number           int32
	read, write, hup bool
}

func (s *system) open() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // os.NewFile hands over what does not block
		_ = syscall.Close(fd)
		return fmt.Errorf("epoll: %w", err)
	}
	s.fd, s.file = fd, os.NewFile(uintptr(fd), "epoll")
	if err := s.file.SetDeadline(time.Time{}); err != nil { // the runtime cannot wait for it either
		_ = s.file.Close()
		return fmt.Errorf("epoll: %w", err)
	}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (s *system) close() { _ = s.file.Close() }

// next numbers the watches; the poller's lock is held.
func (s *system) next() int32 {
	s.count++
	return s.count
}

func (s *system) add(fd int, number int32) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: int32(fd), Pad: number}
	if err := syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (s *system) remove(fd int) {
	_ = syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{})
}

// wait returns what has become ready; it waits when nothing is. The slice is
// valid until the next call. Nothing: the system is closed.
func (s *system) wait() []event {
	n := 0
	err := s.raw.Read(func(uintptr) bool {
		var err error
		for {
			n, err = syscall.EpollWait(s.fd, s.buffer[:], 0)
			if err != syscall.EINTR {
				return n != 0
			}
		}
	})
	if err != nil || n < 0 {
		return nil
	}
	for i, e := range s.buffer[:n] {
		s.events[i] = event{
			fd: int(e.Fd), number: e.Pad,
			read:  e.Events&syscall.EPOLLIN != 0,
			write: e.Events&syscall.EPOLLOUT != 0,
			hup:   e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0,
		}
	}
	return s.events[:n]
}

// duplicate returns a second descriptor of the connection, which the runtime
// does not watch.
func duplicate(raw syscall.RawConn) (fd int, err error) {
	fd = -1
	var errno syscall.Errno
	err = raw.Control(func(of uintptr) {
		var r uintptr
		r, _, errno = syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		fd = int(r)
	})
	switch {
	case err != nil:
		return -1, fmt.Errorf("descriptor: %w", err)
	case errno != 0:
		return -1, fmt.Errorf("descriptor: %w", errno)
	}
	return fd, nil
}
