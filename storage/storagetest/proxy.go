package storagetest

import (
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/storage"
)

// Proxy is the way of TCP connections to an address. It can be frozen:
// connections stay open, new ones are taken, and nothing answers. It can be slow.
type Proxy struct {
	to       string
	listener net.Listener
	delay    atomic.Int64 // nanoseconds, each way
	tasks    sync.WaitGroup
	mu       sync.Mutex
	moving   chan struct{} // closed while bytes may pass
	open     []net.Conn
	taken    int
}

// Behind puts a Proxy before the Postgres that c names, and changes c.
func Behind(t testing.TB, c *storage.Config) *Proxy {
	t.Helper()
	u, err := url.Parse(c.DSN)
	if err != nil {
		t.Fatal(err)
	}
	p := NewProxy(t, Listen(t), u.Host)
	u.Host = p.Address()
	c.DSN = u.String()
	return p
}

// Listen takes a port of loopback that nobody has.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// NewProxy passes on what comes to l, until the test ends.
func NewProxy(t testing.TB, l net.Listener, to string) *Proxy {
	t.Helper()
	p := &Proxy{to: to, listener: l, moving: make(chan struct{})}
	close(p.moving)
	p.tasks.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Address is where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Slow lets bytes take that much longer, each way.
func (p *Proxy) Slow(d time.Duration) { p.delay.Store(int64(d)) }

// Freeze stops every byte.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moving = make(chan struct{})
}

// Thaw lets them go on.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw()
}

func (p *Proxy) thaw() {
	select {
	case <-p.moving:
	default:
		close(p.moving)
	}
}

// Taken is how many connections were made.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.thaw()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, near, far)
		p.taken++
		p.mu.Unlock()
		p.tasks.Go(func() { p.pass(near, far) })
		p.tasks.Go(func() { p.pass(far, near) })
	}
}

func (p *Proxy) pass(from, to net.Conn) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		moving := p.moving
		p.mu.Unlock()
		<-moving
		if n > 0 {
			time.Sleep(time.Duration(p.delay.Load())) // the fault itself
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
