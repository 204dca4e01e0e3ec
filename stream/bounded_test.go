package stream

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// Reliability row 10: connections to the HTTP door that never say anything are
// bounded like streams, and make room when they end or are taken over.
func TestReliability10HTTPConnections(t *testing.T) {
	h := servable(t, func(c *Config) { c.C2S, c.HTTP, c.Connections.Total = "", "127.0.0.1:0", 2 })
	taken := make(chan net.Conn, 1)
	if _, err := h.Attach("web", web(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		taken <- c
	})); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	doors, err := h.Doors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", doors["http"])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	serves := func(c net.Conn) bool {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	first, second := dial(), dial()
	if !serves(first) {
		t.Fatal("not served at all")
	}
	for range spareHTTP { // for those who look after the server
		if !serves(dial()) {
			t.Fatal("a full server does not tell how it is")
		}
	}
	if serves(dial()) {
		t.Fatal("one connection more is served than there may be")
	}
	if _, err := io.WriteString(second, "GET /take HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	hijacked := <-taken // counted by whoever has it now
	defer hijacked.Close()
	if !serves(dial()) {
		t.Error("no room after one was taken over")
	}
	_ = first
}

// web serves /take.
type web http.HandlerFunc

func (web) Start(context.Context) error { return nil }
func (web) Stop(context.Context) error  { return nil }
func (f web) Register(r *Registrar)     { r.HTTP("/take", http.HandlerFunc(f)) }
