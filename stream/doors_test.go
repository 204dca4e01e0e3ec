package stream

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"parley/router/channel"
)

// servable makes a house that can be served, with doors of the test's choice.
func servable(t *testing.T, change func(*Config)) *house {
	t.Helper()
	h := newHouse(t, func(c *Config) {
		c.C2S, c.C2STLS, c.HTTP, c.HTTPS = "127.0.0.1:0", "", "", ""
		c.Timeouts.Drain = time.Second
		change(c)
	})
	h.env.DataDir = t.TempDir()
	certs, err := newCertificates(h.cfg.TLS, h.env)
	if err != nil {
		t.Fatal(err)
	}
	h.certs, h.links.In, h.open, h.conns.limits = certs, channel.NewInline(), make(chan struct{}), h.cfg.Connections
	return h
}

// A door that cannot be opened ends the Server, also when others could: it
// does not go on half open.
func TestDoorTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := servable(t, func(c *Config) { c.C2STLS = taken.Addr().String() })
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the Server goes on with one of two doors")
	}
	if a := h.Addresses(); len(a) != 0 {
		t.Errorf("said to be open: %v", a)
	}
}

// A connection that was accepted before the Server stopped, and comes to its
// stream after, is not served: nobody would ever end it.
func TestConnectionAfterShutdown(t *testing.T) {
	h := servable(t, func(*Config) {})
	for range 2 { // it can be served again
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Serve(ctx) }()
		if _, err := h.Doors(ctx); err != nil {
			t.Fatal(err)
		}
		open := newConn(h.Server, newPipe(), clientProfile{})
		if err := h.conns.add(open); err != nil {
			t.Fatalf("served, and refused: %v", err)
		}
		h.conns.remove(open)
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		late := newConn(h.Server, newPipe(), clientProfile{})
		if err := h.conns.add(late); !errors.Is(err, errStopped) {
			t.Fatalf("got %v, want %v", err, errStopped)
		}
	}
}

// A TLS handshake that is under way when the Server stops ends with it.
func TestHandshakeEndsWithTheServer(t *testing.T) {
	h := servable(t, func(c *Config) { c.C2STLS, c.Timeouts.Handshake = "127.0.0.1:0", time.Hour })
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx) }()
	doors, err := h.Doors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", doors["c2s-tls"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := 0; n == 0; runtime.Gosched() {
		h.conns.mu.Lock()
		n = h.conns.shakes
		h.conns.mu.Unlock()
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	h.conns.mu.Lock()
	defer h.conns.mu.Unlock()
	if h.conns.shakes != 0 {
		t.Error("it goes on without a Server")
	}
}
