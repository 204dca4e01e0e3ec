package nats

import (
	"net"
	"sync"
	"testing"
)

// proxy is a link that can stand still.
type proxy struct {
	t    testing.TB
	l    net.Listener
	to   string
	wg   sync.WaitGroup
	mu   sync.Mutex
	gate chan struct{} // closed while things move
	all  []net.Conn
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, l: l, to: to, gate: make(chan struct{})}
	p.thaw()
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.gate)
}

func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	for _, c := range p.all {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.all = append(p.all, near, far)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(near, far) })
		p.wg.Go(func() { p.copy(far, near) })
	}
}

// copy forwards what it has read before the link stood still when it moves again,
// even if the reader has gone since.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		<-gate
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
