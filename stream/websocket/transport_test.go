package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// pair returns both ends of a WebSocket.
func pair(t *testing.T) (*transport, *websocket.Conn) {
	t.Helper()
	made := make(chan *transport, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hj := &hijacker{ResponseWriter: w}
		ws, err := websocket.Accept(hj, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
		if err != nil {
			t.Error(err)
			close(made)
			return
		}
		ws.SetReadLimit(-1)
		made <- newTransport(ws, hj.conn, hj.conn.RemoteAddr(), false)
	}))
	t.Cleanup(srv.Close)
	c, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })
	tr := <-made
	if tr == nil {
		t.FailNow()
	}
	t.Cleanup(func() { tr.Close(0) })
	return tr, c
}

// Reliability row 5: a peer that does not read holds nobody up; what waits is
// counted, kept in order, and its end is reported.
func TestReliability05SlowReader(t *testing.T) {
	tr, c := pair(t)
	drained := make(chan struct{}, 1)
	tr.OnDrained(func() {
		select {
		case drained <- struct{}{}:
		default:
		}
	})
	const count = 64
	body := strings.Repeat("x", 256<<10) // in all more than any socket buffer takes
	for i := range count {
		tr.Queue(fmt.Appendf(nil, "<m i='%d'>%s</m>", i, body))
	}
	if tr.Flush() == 0 || tr.Pending() == 0 {
		t.Fatal("nothing is pending")
	}
	for i := range count {
		_, b, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("<m i='%d'>", i); !strings.HasPrefix(string(b), want) {
			t.Fatalf("message %d begins with %.20q", i, b)
		}
	}
	<-drained
	if n := tr.Flush(); n != 0 {
		t.Errorf("%d bytes pending after the last one was read", n)
	}
}

// A peer that does not read does not keep Close waiting for longer than the
// grace.
func TestReliability05CloseCutsSlowReader(t *testing.T) {
	tr, _ := pair(t)
	for range 64 {
		tr.Queue([]byte("<m>" + strings.Repeat("x", 256<<10) + "</m>"))
	}
	tr.Flush()
	tr.Close(time.Millisecond)
	if _, err := tr.Fill(); err == nil {
		t.Error("still open")
	}
	tr.settle(time.Minute) // the writer ends
	if tr.Pending() != 0 {
		t.Error("a dead connection holds memory")
	}
	tr.Queue([]byte("<m/>"))
	if tr.Flush() != -1 || tr.Pending() != 0 {
		t.Error("a dead connection takes more")
	}
}

// A deadline ends reading, not writing: the stream's error still goes out.
func TestDeadline(t *testing.T) {
	tr, c := pair(t)
	tr.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := tr.Fill()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("Fill: %v", err)
	}
	tr.Queue([]byte("<late/>"))
	tr.Flush()
	if _, b, err := c.Read(t.Context()); err != nil || string(b) != "<late/>" {
		t.Errorf("%q %v", b, err)
	}
}

// What the client sends right behind its request is not lost with the HTTP
// server's buffer.
func TestEarlyMessage(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hj := &hijacker{ResponseWriter: w}
		ws, err := websocket.Accept(hj, r, nil)
		if err != nil {
			got <- err.Error()
			return
		}
		_, b, err := ws.Read(context.Background())
		got <- fmt.Sprint(string(b), err)
		_ = ws.CloseNow()
	}))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	frame := "\x81\x84\x00\x00\x00\x00<a/>" // text, masked by zeros
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame)); err != nil {
		t.Fatal(err)
	}
	if g := <-got; g != "<a/><nil>" {
		t.Error(g)
	}
}
