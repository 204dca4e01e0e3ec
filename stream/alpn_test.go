package stream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/plugins/plugintest"
)

// asks begins TLS at a door, offering protocols.
func asks(t *testing.T, address string, offered ...string) (*tls.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: offered})
	return conn, conn.Handshake()
}

// status is what a request at an HTTPS door is answered with.
func status(t *testing.T, address string, offered ...string) int {
	t.Helper()
	c, err := asks(t, address, offered...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET /nothing-is-here HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	return a.StatusCode
}

// One port takes XMPP from who asks for it by ALPN, and HTTPS from all others
// (XEP-0368 §3); one that says nothing holds up nobody. Unless it is configured XMPP is
// not taken.
func TestXMPPAtTheHTTPSDoor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Config: "servers: {streamer: {https: \"127.0.0.1:0\", https_xmpp: true}}"})
	at := h.Door("https")
	for range 3 {
		silent, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	if err := h.Account(ctx, "juliet", plugintest.Password); err != nil {
		t.Fatal(err)
	}
	conn, err := asks(t, at, "xmpp-client")
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != "xmpp-client" {
		t.Errorf("negotiated %q", got)
	}
	c, err := plugintest.Authenticate(ctx, conn, h.Domain(), "juliet", plugintest.Password)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Bind(ctx, "r"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // read by who binds it, and then by whoever watches it
		if err := c.Send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
			t.Fatal(err)
		}
		if a, err := c.Next(ctx); err != nil || a.Get("type") != "result" {
			t.Fatalf("%v, %v", a, err)
		}
	}
	for _, offered := range [][]string{nil, {"http/1.1"}, {"h2", "http/1.1"}} {
		if got := status(t, at, offered...); got != http.StatusNotFound {
			t.Errorf("HTTPS with %v: %d", offered, got)
		}
	}
	if got := say(t, at, "GET / HTTP/1.0\r\n\r\n", ""); !strings.HasPrefix(got, "HTTP/1.0 400") {
		t.Errorf("HTTP without TLS: %q", got)
	}
	off := plugintest.Start(t, plugintest.Options{Plugins: parts(), Config: "servers: {streamer: {https: \"127.0.0.1:0\"}}"})
	if _, err := asks(t, off.Door("https"), "xmpp-client"); err == nil {
		t.Error("XMPP is taken")
	}
}

// Behind a proxy both come with their headers.
func TestXMPPAtTheHTTPSDoorBehindAProxy(t *testing.T) {
	log := &journal{}
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Log: log, Config: "servers: {streamer: {https: \"127.0.0.1:0\", https_xmpp: true, proxy_protocol: [127.0.0.0/8]}}"})
	c, err := net.Dial("tcp", h.Door("https"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n")); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"xmpp-client"}})
	if _, err := conn.Write([]byte(clientHeader)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 4096)); err != nil || n == 0 {
		t.Fatal(err)
	}
	if !log.has("198.51.100.7:4711") {
		t.Error("the client's address is not known")
	}
}
