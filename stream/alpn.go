package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// XMPP and HTTPS on one port: what a client wants to speak it says in its first
// message, by ALPN (XEP-0368 §3, RFC 7301). That is read before anything else, and put
// back for whoever goes on with the connection.

// replayed is a connection of which something has been read already.
type replayed struct {
	net.Conn
	first []byte // the reader's
}

// Read implements net.Conn.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}

// replayedSocket is replayed with the socket at hand.
type replayedSocket struct {
	*replayed
	syscall.Conn
}

// replay returns c as if nothing of it had been read.
func replay(c net.Conn, first []byte) net.Conn {
	r := &replayed{c, first}
	if s, ok := c.(syscall.Conn); ok {
		return replayedSocket{r, s}
	}
	return r
}

// overheard keeps what is read, and says nothing.
type overheard struct {
	net.Conn
	first []byte
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	o.first = append(o.first, p[:n]...)
	return n, err
}

func (o *overheard) Write(p []byte) (int, error) { return len(p), nil }

// errHeard ends a handshake whose first message is known.
var errHeard = errors.New("heard")

// protocols reads what a client offers by ALPN; none when it does not speak TLS. The
// connection that is returned takes the place of c.
func protocols(c net.Conn) (offered []string, again net.Conn, err error) {
	o := &overheard{Conn: c}
	listening := tls.Server(o, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = hello.SupportedProtos
		return nil, errHeard
	}})
	err = listening.Handshake()
	var no net.Error
	switch {
	case errors.Is(err, errHeard):
	case len(o.first) == 0, errors.As(err, &no) && no.Timeout():
		return nil, nil, err
	}
	return offered, replay(c, o.first), nil
}

// byProtocol is the listener of an HTTPS door on which XMPP may come as well: it
// keeps that from who accepts HTTP.
func (s *Server) byProtocol(ctx context.Context, l net.Listener) *sorting {
	return s.sorting(ctx, l, 0, func(c net.Conn) (net.Conn, bool) {
		own := c.(*counted) // bounded has: it bounds how many there are here
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		_ = own.Conn.SetReadDeadline(time.Now().Add(s.cfg.Timeouts.Handshake))
		offered, again, err := protocols(own.Conn)
		if err != nil {
			s.log.Debug("HTTPS connection ended before it began", "remote", c.RemoteAddr().String(), "err", err)
			_ = c.Close()
			return nil, false
		}
		_ = own.Conn.SetReadDeadline(time.Time{})
		if !slices.Contains(offered, xmppClient()[0]) {
			own.Conn = again
			return own, true
		}
		own.release() // it is counted as a stream
		stop()
		s.serveSocket(ctx, again, true)
		return nil, false
	})
}
