//go:build linux

// Package wire is the generator's side of the sockets: one thread, one epoll,
// no goroutine and no buffer per connection, so that its ceiling is the
// kernel's. Connections log in on goroutines of their own (client.go) and come
// here when they are bound.
//
// A Loop and everything attached to it belong to the goroutine that calls Run.
package wire

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// Loop is one epoll and its connections.
type Loop struct {
	// Tick, when set, is called once per turn; the loop then never sleeps, so
	// that what is due goes out on time.
	Tick func()
	// Now is when the bytes that a handler gets were read.
	Now time.Time

	ep     int
	table  []polled // by descriptor
	dirty  []*Conn
	buf    []byte
	events [256]syscall.EpollEvent
}

// polled is what an epoll event is about.
type polled interface{ ready(l *Loop, events uint32) }

// NewLoop opens an epoll.
func NewLoop() (*Loop, error) {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &Loop{ep: ep, buf: make([]byte, 256<<10)}, nil
}

// Close closes every connection.
func (l *Loop) Close() {
	for _, p := range l.table {
		if c, ok := p.(*Conn); ok {
			c.Close()
		}
	}
	_ = syscall.Close(l.ep)
}

func (l *Loop) add(fd int, p polled) error {
	for fd >= len(l.table) {
		l.table = append(l.table, make([]polled, max(64, len(l.table)))...)
	}
	l.table[fd] = p
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_ADD, fd, &ev))
}

func (l *Loop) watch(fd int, events uint32) {
	ev := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	_ = syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_MOD, fd, &ev)
}

// ErrStalled says that nothing came for too long.
var ErrStalled = errors.New("nothing more came")

// Run turns until done, or until nothing has come for patience.
func (l *Loop) Run(done func() bool, patience time.Duration) error {
	l.flush()
	last := time.Now()
	for !done() {
		wait := 100
		if l.Tick != nil {
			wait = 0
			l.Now = time.Now()
			l.Tick()
			l.flush()
		}
		n, err := l.turn(wait)
		if err != nil {
			return err
		}
		if n > 0 {
			last = l.Now
		} else if time.Since(last) > patience {
			return ErrStalled
		}
	}
	return nil
}

// Serve turns until an error.
func (l *Loop) Serve() error {
	for {
		if _, err := l.turn(-1); err != nil {
			return err
		}
	}
}

func (l *Loop) turn(wait int) (int, error) {
	n, err := syscall.EpollWait(l.ep, l.events[:], wait)
	if err != nil && err != syscall.EINTR {
		return 0, fmt.Errorf("epoll_wait: %w", err)
	}
	if n > 0 {
		l.Now = time.Now()
	}
	for i := range max(n, 0) {
		ev := &l.events[i]
		if p := l.table[ev.Fd]; p != nil {
			p.ready(l, ev.Events)
			l.flush()
		}
	}
	return max(n, 0), nil
}

// flush writes what handlers have left on connections: what one read led to
// goes out as one write.
func (l *Loop) flush() {
	for _, c := range l.dirty {
		c.queued = false
		c.flush()
	}
	l.dirty = l.dirty[:0]
}

// rawRead and rawWrite are for sockets that never block: the scheduler need
// not know.
func rawRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}
