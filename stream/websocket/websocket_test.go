package websocket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/stream"
	ws "parley/stream/websocket"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, ws.Plugin}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

const (
	open    = `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>`
	goodbye = `<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>`
)

// limit ends a test that would hang.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

type handshake struct {
	origin   string
	protocol []string
	header   http.Header
}

// dial returns the socket, or the status that the request was refused with.
func dial(t *testing.T, h *plugintest.House, hs handshake) (*websocket.Conn, *http.Response) {
	t.Helper()
	header := http.Header{}
	for k, v := range hs.header {
		header[k] = v
	}
	if hs.origin != "" {
		header.Set("Origin", hs.origin)
	}
	c, resp, err := websocket.Dial(limit(t), "ws://"+h.Door("http")+ws.Path, &websocket.DialOptions{
		Subprotocols: hs.protocol, HTTPHeader: header, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil && resp == nil {
		t.Fatal(err)
	}
	if c != nil {
		t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, resp
}

var xmpp = []string{"xmpp"}

func send(t *testing.T, c *websocket.Conn, kind websocket.MessageType, text string) {
	t.Helper()
	if err := c.Write(limit(t), kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	kind, b, err := c.Read(limit(t))
	if err != nil || kind != websocket.MessageText {
		t.Fatalf("%v %q %v", kind, b, err)
	}
	if !strings.HasPrefix(string(b), "<") { // RFC 7395 §3.3.3
		t.Errorf("message begins with %q", b)
	}
	return string(b)
}

func expect(t *testing.T, c *websocket.Conn, parts ...string) {
	t.Helper()
	got := receive(t, c)
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Fatalf("received %s, want %s", got, p)
		}
	}
}

// RFC 7395 §3.1: the subprotocol is required, and echoed. Reliability row 28:
// no compression, whatever the client offers.
func TestRule25Handshake(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, resp := dial(t, h, handshake{protocol: xmpp})
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "xmpp" || c.Subprotocol() != "xmpp" {
		t.Errorf("subprotocol %q", got)
	}
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("extensions %q", got)
	}
	for _, p := range [][]string{nil, {"mqtt"}} {
		if _, resp := dial(t, h, handshake{protocol: p}); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("subprotocols %q: %s", p, resp.Status)
		}
	}
}

// RFC 7395 §3.2: text only.
func TestRule25BinaryMessage(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	expect(t, c, "<stream:features ")
	send(t, c, websocket.MessageBinary, "<presence xmlns='jabber:client'/>")
	expect(t, c, "<stream:error ", "<bad-format ")
	expect(t, c, goodbye)
}

// RFC 7395 §3.6: the WebSocket is closed after the stream, in the proper way.
func TestRule25CloseHandshake(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	expect(t, c, "<stream:features ")
	send(t, c, websocket.MessageText, goodbye)
	expect(t, c, goodbye)
	if _, _, err := c.Read(limit(t)); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("after the stream: %v", err)
	}
}

// RFC 7395 §3.3.3: nothing at all is no element.
func TestRule25EmptyMessage(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	send(t, c, websocket.MessageText, "")
	expect(t, c, "<open ")
	expect(t, c, "<stream:error ", "<bad-format ")
	expect(t, c, goodbye)
}

// A message in many fragments is one message; the limit for elements before
// login holds while it comes (reliability row 28), so that it need not end.
func TestReliability28Fragments(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	w, err := c.Writer(limit(t), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(open) {
		if _, err := w.Write([]byte{open[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "<open ")
	expect(t, c, "<stream:features ")

	if w, err = c.Writer(limit(t), websocket.MessageText); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("<presence xmlns='jabber:client'><status>")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(strings.Repeat("x", 40000))); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "<stream:error ", "<policy-violation ")
	expect(t, c, goodbye)
}

// A stream that is not logged in within its time gets an error, and the socket
// can still carry it.
func TestLoginDeadline(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {streamer: {timeouts: {login: 50ms}}}"})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	expect(t, c, "<open ")
	expect(t, c, "<stream:error ", "<connection-timeout ")
	expect(t, c, goodbye)
}

// Reliability row 28: pages of strangers may not connect.
func TestReliability28Origin(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	listed := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: `
servers: {streamer: {components: {websocket: {origins: ["https://web.example.org:8443", app.example.org, "*.apps.example.org"]}}}}`})
	open := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: `servers: {streamer: {components: {websocket: {origins: ["*"]}}}}`})
	for _, tt := range []struct {
		house  *plugintest.House
		origin string
		ok     bool
	}{
		{h, "", true},
		{h, "http://localhost", true},
		{h, "http://localhost:3000", true},
		{h, "https://chat.localhost", true},
		{h, "https://evil.example", false},
		{h, "https://notlocalhost", false},
		{h, "https://localhost.evil.example", false},
		{h, "null", false},
		{h, "file://", false},
		{h, "http://" + h.Door("http"), true}, // the page came from here
		{listed, "https://web.example.org:8443", true},
		{listed, "http://web.example.org:8443", false},
		{listed, "https://web.example.org", false},
		{listed, "https://app.example.org", true},
		{listed, "https://APP.example.org:99", true},
		{listed, "https://x.apps.example.org", true},
		{listed, "https://apps.example.org", false},
		{listed, "http://localhost:3000", false},
		{open, "https://evil.example", true},
		{open, "null", true},
	} {
		_, resp := dial(t, tt.house, handshake{origin: tt.origin, protocol: xmpp})
		want := http.StatusForbidden
		if tt.ok {
			want = http.StatusSwitchingProtocols
		}
		if resp.StatusCode != want {
			t.Errorf("origin %q: %s", tt.origin, resp.Status)
		}
	}
}

// RFC 7395 §3.9: TLS is a matter of the WebSocket; who is encrypted is what a
// trusted proxy says.
func TestTLSRequired(t *testing.T) {
	const strict = "tls: {plain_on_loopback: false, required: true}"
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {streamer: {" + strict + "}}"})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	expect(t, c, "<stream:error ", "<policy-violation ")

	proxied := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.7"}}
	c, _ = dial(t, h, handshake{protocol: xmpp, header: proxied})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	if f := receive(t, c); !strings.Contains(f, "<mechanism>SCRAM-SHA-256</mechanism>") || strings.Contains(f, "-PLUS") || strings.Contains(f, "starttls") {
		t.Errorf("features %s", f)
	}

	distrusting := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {streamer: {" + strict + ", components: {websocket: {trusted_proxies: [192.0.2.1/32]}}}}"})
	c, _ = dial(t, distrusting, handshake{protocol: xmpp, header: proxied})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	expect(t, c, "<stream:error ", "<policy-violation ")
}

// RFC 7395 §3.9: wss, over the door with TLS. Nothing can be bound to a channel
// that browsers do not know and proxies may cut in two.
func TestSecureDoor(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: `servers: {streamer: {https: "127.0.0.1:0", tls: {plain_on_loopback: false, required: true}}}`})
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	c, _, err := websocket.Dial(limit(t), "wss://"+h.Door("https")+ws.Path, &websocket.DialOptions{Subprotocols: xmpp, HTTPClient: hc})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	if f := receive(t, c); !strings.Contains(f, "<mechanism>SCRAM-SHA-256</mechanism>") || strings.Contains(f, "-PLUS") || strings.Contains(f, "channel-binding") || strings.Contains(f, "starttls") {
		t.Errorf("features %s", f)
	}
}

// When the Server stops, every client is told.
func TestShutdown(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	c, _ := dial(t, h, handshake{protocol: xmpp})
	send(t, c, websocket.MessageText, open)
	expect(t, c, "<open ")
	expect(t, c, "<stream:features ")
	stopped := make(chan error, 1)
	go func() { stopped <- h.Stop(limit(t)) }()
	expect(t, c, "<stream:error ", "<system-shutdown ")
	expect(t, c, goodbye)
	send(t, c, websocket.MessageText, goodbye)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(limit(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}
