package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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

// headerOf reads a header, version 1 or 2, and not a byte more; nil: it says
// that nobody is behind it.
func headerOf(r io.Reader) (net.Addr, error) {
	raw, err := rawHeader(r)
	if err != nil {
		return nil, fmt.Errorf("PROXY header: %w", err)
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
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

// Sizes of headers, in bytes.
const (
	shortest1 = len("PROXY UNKNOWN\r\n")
	longest1  = 107
	fixed2    = 16
	longest2  = 4 << 10 // with what proxies tell besides
)

// rawHeader are the bytes of a header.
func rawHeader(r io.Reader) ([]byte, error) {
	b := make([]byte, shortest1, longest1)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	more := func(n int) error {
		b = append(b, make([]byte, n)...)
		_, err := io.ReadFull(r, b[len(b)-n:])
		return err
	}
	switch {
	case bytes.HasPrefix(b, proxyproto.SIGV1):
		for b[len(b)-1] != '\n' {
			if len(b) == longest1 {
				return nil, proxyproto.ErrVersion1HeaderTooLong
			}
			if err := more(1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case bytes.HasPrefix(b, proxyproto.SIGV2):
		if err := more(fixed2 - shortest1); err != nil {
			return nil, err
		}
		n := int(binary.BigEndian.Uint16(b[fixed2-2:]))
		if n > longest2 {
			return nil, proxyproto.ErrInvalidLength
		}
		return b, more(n)
	}
	return nil, proxyproto.ErrNoProxyProtocol
}

// maxHeaders is how many connections of an HTTP door may be about to say who is
// behind them.
const maxHeaders = 256

// unwrapping is the listener of an HTTP door behind proxies.
func (s *Server) unwrapping(ctx context.Context, l net.Listener) net.Listener {
	if len(s.cfg.ProxyProtocol) == 0 {
		return l
	}
	return s.sorting(ctx, l, maxHeaders, func(c net.Conn) (net.Conn, bool) {
		c, err := s.unwrap(ctx, c)
		return c, err == nil
	})
}
