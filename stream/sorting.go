package stream

import (
	"context"
	"errors"
	"net"
	"sync"
)

// sorting is a listener that looks at connections before it gives them out: one that
// says nothing holds up nobody else.
type sorting struct {
	net.Listener
	look  func(net.Conn) (net.Conn, bool)
	room  chan struct{} // nil: who accepts below bounds how many there are
	ready chan accepted
	once  sync.Once
	tasks sync.WaitGroup // what has begun with the first Accept
	ctx   context.Context
	stop  context.CancelFunc
}

type accepted struct {
	conn net.Conn
	err  error
}

// sorting lets look wait for what a connection says first, at most room of them at a
// time (0: any number). False: the connection is not for who accepts, and look has seen
// to it.
func (s *Server) sorting(ctx context.Context, l net.Listener, room int, look func(net.Conn) (net.Conn, bool)) *sorting {
	u := &sorting{Listener: l, look: look, ready: make(chan accepted)}
	if room > 0 {
		u.room = make(chan struct{}, room)
	}
	u.ctx, u.stop = context.WithCancel(ctx)
	return u
}

// Accept implements net.Listener.
func (u *sorting) Accept() (net.Conn, error) {
	u.once.Do(func() { u.tasks.Go(u.accept) })
	select {
	case a := <-u.ready:
		return a.conn, a.err
	case <-u.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (u *sorting) accept() {
	for {
		c, err := u.Listener.Accept()
		if err != nil {
			if !u.give(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if !u.enter() {
			_ = c.Close()
			return
		}
		u.tasks.Go(func() {
			defer u.leave()
			if c, ok := u.look(c); ok && !u.give(accepted{conn: c}) {
				_ = c.Close()
			}
		})
	}
}

func (u *sorting) enter() bool {
	if u.room == nil {
		return true
	}
	select {
	case u.room <- struct{}{}:
		return true
	case <-u.ctx.Done():
		return false
	}
}

func (u *sorting) leave() {
	if u.room != nil {
		<-u.room
	}
}

func (u *sorting) give(a accepted) bool {
	select {
	case u.ready <- a:
		return true
	case <-u.ctx.Done():
		return false
	}
}

// Close implements net.Listener.
func (u *sorting) Close() error {
	u.stop()
	return u.Listener.Close()
}
