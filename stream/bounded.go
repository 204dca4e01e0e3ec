package stream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// bounded is the listener of an HTTP door: its connections count among the
// others, from before their TLS handshake until they end or become a WebSocket,
// which is counted as a stream (reliability row 10).
type bounded struct {
	net.Listener
	srv *Server
}

// Accept implements net.Listener.
func (l bounded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s, origin := l.srv, OriginOf(c.RemoteAddr())
		release, err := l.take(origin)
		if err != nil {
			s.log.Info("connection refused", "remote", c.RemoteAddr().String(), "err", err)
			_ = c.Close()
			continue
		}
		return &counted{c, sync.OnceFunc(release)}, nil
	}
}

// spareHTTP is how many HTTP connections are let in when nobody else is: a
// server that is full answers those who ask for its health and its metrics.
const spareHTTP = 16

// take counts a connection from the address.
func (l bounded) take(origin netip.Prefix) (release func(), err error) {
	why := "connections"
	if l.srv.shed.short.Load() {
		why, err = "memory", errMemory
	} else {
		err = l.srv.conns.reserve(origin)
	}
	switch {
	case err == nil:
		return func() { l.srv.conns.release(origin) }, nil
	case !errors.Is(err, errAddress) && l.srv.conns.spare():
		return l.srv.conns.unspare, nil
	}
	l.srv.metrics.refused.WithLabelValues(why).Inc()
	return nil, err
}

// counted gives back once what was counted.
type counted struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}

// hijacked is the http.Server's ConnState: what is no HTTP any more is counted
// by whoever has it.
func hijacked(c net.Conn, st http.ConnState) {
	if st != http.StateHijacked {
		return
	}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if own, ok := c.(*counted); ok {
		own.release()
	}
}
