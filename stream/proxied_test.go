package stream_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"parley/plugins/plugintest"
)

// journal is a log that is read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.b.String(), text)
}

// say sends to a door, and returns what comes back until the door hangs up, or
// has answered with until.
func say(t *testing.T, address, text, until string) string {
	t.Helper()
	c := knock(t, address)
	defer c.Close()
	return exchange(t, c, text, until)
}

func knock(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func exchange(t *testing.T, c net.Conn, text, until string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 4096)
	for until == "" || !strings.Contains(string(got), until) {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	return string(got)
}

const clientHeader = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

func version2(t *testing.T, from string) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP(from), Port: 4711}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 5222})
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Behind a proxy the client's address is what is logged and counted, at the
// doors for streams and for HTTP.
func TestProxyProtocol(t *testing.T) {
	log := &journal{}
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Log: log, Config: "servers: {streamer: {proxy_protocol: [127.0.0.0/8]}}"})
	for from, text := range map[string]string{
		"198.51.100.7:4711":   "PROXY TCP4 198.51.100.7 192.0.2.1 4711 5222\r\n",
		"[2001:db8::7]:4711":  version2(t, "2001:db8::7"),
		"[2001:db8::99]:4711": "PROXY TCP6 2001:db8::99 2001:db8::1 4711 5222\r\n",
	} {
		if got := say(t, h.Door("c2s"), text+clientHeader, "</stream:features>"); !strings.Contains(got, "<starttls") {
			t.Errorf("%s: %q", from, got)
		}
		if !log.has(from) {
			t.Errorf("%s is not logged", from)
		}
		if got := say(t, h.Door("http"), text+"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", ""); !strings.Contains(got, "404") {
			t.Errorf("HTTP from %s: %q", from, got)
		}
	}
	if got := say(t, h.Door("c2s"), "PROXY UNKNOWN\r\n"+clientHeader, "</stream:features>"); !strings.Contains(got, "<starttls") {
		t.Errorf("the proxy's own: %q", got)
	}
}

// The header comes before TLS at the doors that begin with it, and limits by address are of the client behind it.
func TestProxyProtocolBeforeTLS(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Config: "servers: {streamer: {https: '127.0.0.1:0', proxy_protocol: [127.0.0.0/8], connections: {per_address: 2}}}"})
	open := func(door, from string) net.Conn {
		t.Helper()
		c := knock(t, h.Door(door))
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, version2(t, from)); err != nil {
			t.Fatal(err)
		}
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if got := exchange(t, open("https", "2001:db8::7"), "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", ""); !strings.Contains(got, "404") {
		t.Errorf("HTTPS: %q", got)
	}
	for i, from := range []string{"2001:db8:1::1", "2001:db8:1::2"} {
		if got := exchange(t, open("c2s-tls", from), clientHeader, "</stream:features>"); !strings.Contains(got, "<mechanisms") {
			t.Errorf("client %d of a network: %q", i, got)
		}
	}
	c := knock(t, h.Door("c2s-tls"))
	defer c.Close()
	_, _ = io.WriteString(c, version2(t, "2001:db8:1::3"))
	if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("one more of the same network than may be")
	}
	if got := exchange(t, open("c2s-tls", "2001:db8:2::1"), clientHeader, "</stream:features>"); !strings.Contains(got, "<mechanisms") {
		t.Errorf("another network: %q", got)
	}
}

// A connection from a proxy that does not say who is behind it is refused, and
// the log says why.
func TestProxyProtocolMissing(t *testing.T) {
	log := &journal{}
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Log: log, Config: "servers: {streamer: {timeouts: {handshake: 2s}, proxy_protocol: [127.0.0.0/8]}}"})
	for door, text := range map[string]string{"c2s": clientHeader, "http": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "c2s-tls": "\x16\x03\x01"} {
		if got := say(t, h.Door(door), text, ""); got != "" {
			t.Errorf("%s answers %q", door, got)
		}
	}
	if !log.has("no PROXY header from an address of servers.streamer.proxy_protocol") {
		t.Error("nothing is logged")
	}
}

// Who is no proxy of ours cannot make itself another address.
func TestProxyProtocolSpoofed(t *testing.T) {
	for _, list := range []string{"[]", "[192.0.2.1/32]"} {
		log := &journal{}
		h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Log: log, Config: "servers: {streamer: {proxy_protocol: " + list + "}}"})
		for _, text := range []string{"PROXY TCP4 198.51.100.7 192.0.2.1 4711 5222\r\n", version2(t, "2001:db8::7")} {
			if got := say(t, h.Door("c2s"), text+clientHeader, ""); !strings.Contains(got, "<stream:error>") {
				t.Errorf("%s: %q", list, got)
			}
			if got := say(t, h.Door("http"), text+"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""); !strings.HasPrefix(got, "HTTP/1.1 400") {
				t.Errorf("%s: HTTP answers %q", list, got)
			}
		}
		if log.has("198.51.100.7:") || log.has("2001:db8::7") {
			t.Errorf("%s: the header was believed", list)
		}
	}
}

// A client comes over IPv6.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	_ = l.Close()
	plugintest.Run(t, plugintest.Options{Plugins: parts(), Config: `servers: {streamer: {c2s: "[::1]:0", c2s_tls: "[::1]:0", http: "[::1]:0"}}`}, "testdata/bind.txtar")
}
