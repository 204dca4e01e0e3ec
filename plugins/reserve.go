package plugins

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Reserve is a file descriptor that a listener keeps for the time when the
// process has none left (reliability row 35): whoever comes then is accepted on
// it, gets a word, and makes room for the next.
type Reserve struct {
	mu   sync.Mutex
	held *os.File // nil: it is in use, or there was none to be had
	over bool
}

// reserveWait is how long the descriptor is open to a connection at a time:
// without one, the system says that there are none before it looks who waits.
const reserveWait = 100 * time.Millisecond

// NewReserve takes the descriptor; Close gives it back.
func NewReserve() *Reserve {
	r := &Reserve{}
	r.take()
	return r
}

func (r *Reserve) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil && !r.over {
		r.held, _ = os.Open(os.DevNull) // tried again with the next connection
	}
}

// give lets go of the descriptor and reports whether there was one.
func (r *Reserve) give() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		return false
	}
	_ = r.held.Close()
	r.held = nil
	return true
}

// Close ends the reserve.
func (r *Reserve) Close() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.give()
}

// Accept is l.Accept. last reports that the connection is the last there can
// be: until it is closed nobody else gets in. An error wraps what Exhausted
// recognises when there is no descriptor.
func (r *Reserve) Accept(l net.Listener) (c net.Conn, last bool, err error) {
	r.take()
	if c, err = l.Accept(); !Exhausted(err) || !r.give() {
		return c, false, err
	}
	if t, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		_ = t.SetDeadline(time.Now().Add(reserveWait))
		defer func() { _ = t.SetDeadline(time.Time{}) }()
	}
	short := err
	if c, err = l.Accept(); err != nil {
		r.take()
		if errors.Is(err, os.ErrDeadlineExceeded) { // nobody waits
			err = short
		}
		return nil, false, err
	}
	return &lastConn{Conn: c, back: sync.OnceFunc(r.take)}, true, nil
}

// Exhausted reports whether the process, or the machine, has no descriptor left.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

type lastConn struct {
	net.Conn
	back func()
}

// Close implements net.Conn.
func (c *lastConn) Close() error {
	defer c.back()
	return c.Conn.Close()
}

// Spared wraps a listener so that it accepts one connection at a time when
// there is no descriptor left, and closes it after limit: for doors through
// which operators look and act.
func Spared(l net.Listener, limit time.Duration) net.Listener {
	return &spared{Listener: l, reserve: NewReserve(), limit: limit}
}

type spared struct {
	net.Listener
	reserve *Reserve
	limit   time.Duration
}

// Accept implements net.Listener.
func (s *spared) Accept() (net.Conn, error) {
	c, last, err := s.reserve.Accept(s.Listener)
	if last {
		time.AfterFunc(s.limit, func() { _ = c.Close() })
	}
	return c, err
}

// Close implements net.Listener.
func (s *spared) Close() error {
	s.reserve.Close()
	return s.Listener.Close()
}
