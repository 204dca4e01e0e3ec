package stream

import (
	"crypto/tls"
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
		s, origin := l.srv, originOf(c.RemoteAddr())
		if err := l.take(origin); err != nil {
			s.log.Info("connection refused", "remote", c.RemoteAddr().String(), "err", err)
			_ = c.Close()
			continue
		}
		return &counted{c, sync.OnceFunc(func() { s.conns.release(origin) })}, nil
	}
}

// take counts a connection from the address.
func (l bounded) take(origin netip.Prefix) error {
	if l.srv.shed.short.Load() {
		l.srv.metrics.refused.WithLabelValues("memory").Inc()
		return errMemory
	}
	err := l.srv.conns.reserve(origin)
	if err != nil {
		l.srv.metrics.refused.WithLabelValues("connections").Inc()
	}
	return err
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
