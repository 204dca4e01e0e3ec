package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// What HAProxy, nginx and others put in front of a connection they pass on: who
// is at its other end (https://www.haproxy.org/download/2.3/doc/proxy-protocol.txt).
// Only those of ProxyProtocol may, and they must: else whoever reaches the door
// past its proxy would be counted as the proxy.

// proxied is a connection that a proxy has passed on.
type proxied struct {
	net.Conn
	from net.Addr
}

// RemoteAddr implements net.Conn.
func (p proxied) RemoteAddr() net.Addr { return p.from }

// proxiedTCP is proxied with the socket at hand.
type proxiedTCP struct {
	*net.TCPConn
	from net.Addr
}

// RemoteAddr implements net.Conn.
func (p proxiedTCP) RemoteAddr() net.Addr { return p.from }

// byOne never reads beyond what it was asked for by a byte: what comes behind the
// header is the stream's.
type byOne struct{ io.Reader }

func (r byOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

func (s *Server) proxies(a net.Addr) bool {
	ip := addressOf(a)
	for _, n := range s.cfg.ProxyProtocol {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// unwrap reads the header of a connection from a proxy of ours; others come as
// they are. An error has been logged, and the connection is closed.
func (s *Server) unwrap(ctx context.Context, c net.Conn) (net.Conn, error) {
	if !s.proxies(c.RemoteAddr()) {
		return c, nil
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetReadDeadline(time.Now().Add(s.cfg.Timeouts.Handshake))
	from, err := headerOf(c)
	if err != nil {
		s.metrics.refused.WithLabelValues("proxy").Inc()
		s.log.Warn("connection refused: no PROXY header from an address of servers.streamer.proxy_protocol", "remote", c.RemoteAddr().String(), "err", err)
		_ = c.Close()
		return nil, err
	}
	_ = c.SetReadDeadline(time.Time{})
	if from == nil { // the proxy's own, to see whether we are there
		return c, nil
	}
	if t, ok := c.(*net.TCPConn); ok {
		return proxiedTCP{t, from}, nil
	}
	return proxied{c, from}, nil
}

var errNoTCP = errors.New("the header names no TCP address")

// headerOf reads a header, version 1 or 2; nil: it says that nobody is behind it.
func headerOf(r io.Reader) (net.Addr, error) {
	h, err := proxyproto.Read(bufio.NewReader(byOne{r}))
	switch {
	case err != nil:
		return nil, fmt.Errorf("PROXY header: %w", err)
	case h.Command.IsLocal():
		return nil, nil
	}
	from, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok || !from.AddrPort().IsValid() {
		return nil, errNoTCP
	}
	ap := from.AddrPort()
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())), nil
}

// maxHeaders is how many connections of an HTTP door may be about to say who is
// behind them.
const maxHeaders = 256

// unwrapping is the listener of an HTTP door behind proxies: a header that does
// not come holds up nobody else.
type unwrapping struct {
	net.Listener
	srv   *Server
	ready chan accepted
	once  sync.Once
	ctx   context.Context
	stop  context.CancelFunc
}

type accepted struct {
	conn net.Conn
	err  error
}

func (s *Server) unwrapping(ctx context.Context, l net.Listener) net.Listener {
	if len(s.cfg.ProxyProtocol) == 0 {
		return l
	}
	u := &unwrapping{Listener: l, srv: s, ready: make(chan accepted)}
	u.ctx, u.stop = context.WithCancel(ctx)
	return u
}

// Accept implements net.Listener.
func (u *unwrapping) Accept() (net.Conn, error) {
	u.once.Do(func() { go u.accept() })
	select {
	case a := <-u.ready:
		return a.conn, a.err
	case <-u.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (u *unwrapping) accept() {
	room := make(chan struct{}, maxHeaders)
	for {
		c, err := u.Listener.Accept()
		if err != nil {
			if !u.give(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-u.ctx.Done():
			_ = c.Close()
			return
		}
		go func() {
			defer func() { <-room }()
			if c, err := u.srv.unwrap(u.ctx, c); err == nil && !u.give(accepted{conn: c}) {
				_ = c.Close()
			}
		}()
	}
}

func (u *unwrapping) give(a accepted) bool {
	select {
	case u.ready <- a:
		return true
	case <-u.ctx.Done():
		return false
	}
}

// Close implements net.Listener.
func (u *unwrapping) Close() error {
	u.stop()
	return u.Listener.Close()
}
