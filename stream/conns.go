package stream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// connSet are the open connections; it bounds them in all and by address.
type connSet struct {
	limits Connections
	mu     sync.Mutex
	open   map[*Conn]struct{}
	byAddr map[netip.Prefix]int // of both
	shakes int                  // TLS handshakes on the way to a connection, and HTTP
	spares int                  // HTTP connections beyond the bounds
	closed bool                 // the Server stops: nobody is let in who would not be told
	gone   sync.WaitGroup
}

var (
	errFull    = errors.New("too many connections (streamer.connections.total)")
	errMemory  = errors.New("memory is short")
	errStopped = errors.New("the server has stopped")
	errAddress = errors.New("too many connections from one address (streamer.connections.per_address)")
)

// begin lets connections in, again.
func (s *connSet) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = false
}

func (s *connSet) add(c *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.count(c.origin); err != nil {
		return err
	}
	s.open[c] = struct{}{}
	s.gone.Add(1)
	return nil
}

// reserve counts a TLS handshake that comes before the stream, so that those
// who never finish theirs are bounded as well, or an HTTP connection
// (reliability row 10).
func (s *connSet) reserve(origin netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.count(origin); err != nil {
		return err
	}
	s.shakes++
	return nil
}

// release gives back what reserve has counted.
func (s *connSet) release(origin netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shakes--
	s.uncount(origin)
}

// spare lets in an HTTP connection beyond the bounds, if there is room for it.
func (s *connSet) spare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.spares >= spareHTTP {
		return false
	}
	s.spares++
	return true
}

func (s *connSet) unspare() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares--
}

// count takes one more from an address if there is room; s.mu is held.
func (s *connSet) count(origin netip.Prefix) error {
	if s.open == nil {
		s.open, s.byAddr = map[*Conn]struct{}{}, map[netip.Prefix]int{}
	}
	switch {
	case s.closed:
		return errStopped
	case len(s.open)+s.shakes >= s.limits.Total:
		return errFull
	case origin.IsValid() && s.byAddr[origin] >= s.limits.PerAddress:
		return errAddress
	}
	if origin.IsValid() {
		s.byAddr[origin]++
	}
	return nil
}

// uncount takes back what count has counted; s.mu is held.
func (s *connSet) uncount(origin netip.Prefix) {
	if !origin.IsValid() {
		return
	}
	if s.byAddr[origin]--; s.byAddr[origin] <= 0 {
		delete(s.byAddr, origin)
	}
}

func (s *connSet) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[c]; !ok {
		return
	}
	delete(s.open, c)
	s.uncount(c.origin)
	s.gone.Done()
}

func (s *connSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *connSet) all() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Conn, 0, len(s.open))
	for c := range s.open {
		list = append(list, c)
	}
	return list
}

// shutdown tells every peer and waits until all have gone, at most for grace;
// then it cuts those that have not.
func (s *connSet) shutdown(grace time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range s.all() {
		c.abort(shutdown())
	}
	done, stop := context.WithTimeout(context.Background(), grace)
	go func() { s.gone.Wait(); stop() }()
	<-done.Done()
	for _, c := range s.all() {
		c.tr.Close(0)
	}
	s.gone.Wait()
}

// OriginOf is what connections are counted by: an IPv4 address or an IPv6 /64;
// invalid for loopback, which is not counted.
func OriginOf(a net.Addr) netip.Prefix {
	ip := addressOf(a)
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// isLoopback reports whether the peer is on this machine.
func isLoopback(a net.Addr) bool { return addressOf(a).IsLoopback() }

// addressOf is the peer's IP address; invalid when it has none.
func addressOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok { // nearly always: no text to write and read
		return t.AddrPort().Addr().Unmap()
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
