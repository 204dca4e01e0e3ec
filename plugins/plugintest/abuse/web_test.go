package abuse

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Pages of strangers get no WebSocket, and nobody gets compression.
func TestReliability28Handshake(t *testing.T) {
	const rounds = 30
	w := start(t, configured([]string{unlimited}, nil))
	request := func(header string) string {
		w.Helper()
		p, err := dialPeer(w.Door("http"))
		w.must(err)
		defer p.drop()
		w.must(p.say("GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n" + header + "\r\n"))
		answer, err := p.until("\r\n\r\n")
		w.must(err)
		return answer
	}
	foreign := []string{"https://evil.example", "https://localhost.evil.example", "https://evil.example/localhost", "null", "file://", "chrome-extension://localhost.x"}
	w.during(16, func() {
		for range rounds {
			for _, origin := range foreign {
				if got := request("Origin: " + origin + "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
					t.Errorf("%s gets %s", origin, got)
				}
			}
			got := request("Origin: https://localhost\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 101 ") || strings.Contains(strings.ToLower(got), "extensions") {
				t.Errorf("a client that would compress gets %s", got)
			}
		}
	})
	if n := w.metric(`parley_websocket_refused_total{reason="origin"}`); int(n) != rounds*len(foreign) {
		t.Errorf("%v refusals are counted", n)
	}
}

// A message may be as large as a stanza, in however many frames it comes and
// whatever its first one announces; a compressed one is none.
func TestReliability28Frames(t *testing.T) {
	const size, each = 300 << 10, 3  // beyond limits.stanza
	const protocolError = "\x03\xea" // 1002 (RFC 6455 §7.4.1)
	w := start(t, configured([]string{unlimited}, nil))
	w.account(fuzzed, secret)
	w.fuzzed = fuzzed
	body := "<message xmlns='jabber:client' to='" + w.bob.JID.String() + "' id='huge'><body>"
	piece := func(first byte, text string) string { return string(first) + frame(text)[1:] }
	announced := func(n uint64) string {
		return "\x01\xff" + string(binary.BigEndian.AppendUint64(nil, n)) + "\x00\x00\x00\x00"
	}
	var drops strings.Builder // a fragment for each few bytes
	drops.WriteString(piece(0x01, body))
	for range size / 8 {
		drops.WriteString(piece(0x00, "drops..."))
	}
	w.during(16, func() {
		var work sync.WaitGroup
		for i, row := range []struct {
			name, bytes string
			ends        string
			before      bool // login
		}{
			{"one frame", frame(body + strings.Repeat("x", size)), "<policy-violation ", false},
			{"many frames", drops.String(), "<policy-violation ", false},
			{"a frame of a terabyte", announced(1<<40) + body + strings.Repeat("x", size), "<policy-violation ", false},
			{"a frame before login", frame("<auth xmlns='" + nsSASL + "'>" + strings.Repeat("A", size)), "<policy-violation ", true},
			{"a compressed frame", "\xc1" + frame(body + "</body></message>")[1:], protocolError, false},          // RFC 6455 §5.2, no extension was agreed on
			{"a long ping", "\x89\xfe\x10\x00\x00\x00\x00\x00" + strings.Repeat("p", 4096), protocolError, false}, // §5.5
		} {
			for j := range each {
				work.Go(func() {
					p, err := dialPeer(w.Door("http"))
					if err != nil {
						t.Error(err)
						return
					}
					defer p.drop()
					if row.before {
						if _, err = enterWebSocket(w, p); err == nil {
							err = p.exchange(frame(open), "</stream:features>")
						}
					} else {
						_, err = enterBoundWebSocketAs(w, p, fmt.Sprintf("web%d-%d", i, j))
					}
					if err != nil {
						t.Errorf("%s: %v", row.name, err)
						return
					}
					_ = p.say(row.bytes)
					if got, err := p.rest(); err != nil || !strings.Contains(got, row.ends) {
						t.Errorf("%s: ends with %q, %v", row.name, tail(got), err)
					}
				})
			}
		}
		work.Wait()
	})
	for _, el := range w.until(w.bob) {
		if el.Get("id") == "huge" {
			t.Errorf("bob got %.200s", el.Bytes(""))
		}
	}
}

// One address gets so many connections, another one as many, whatever is in
// front of the server; loopback would not be counted.
func TestReliability10PerAddress(t *testing.T) {
	const each, flood = 5, 30
	w := start(t, configured([]string{unlimited, fmt.Sprintf("connections: {per_address: %d}", each)}, nil))
	connect := func(from string) bool {
		w.Helper()
		p, err := dialPeer(w.Door("http"))
		w.must(err)
		t.Cleanup(p.drop)
		w.must(p.exchange("GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Forwarded-For: "+from+"\r\nX-Forwarded-Proto: https\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", "\r\n\r\n"))
		_ = p.say(frame(open))
		before, err := p.until("</stream:") // features, or error
		return err == nil && !strings.Contains(before, "<stream:error")
	}
	w.during(16, func() {
		for _, from := range []func(int) string{
			func(int) string { return "192.0.2.1" },
			func(int) string { return "192.0.2.2" },
			func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, // one customer's
		} {
			in := 0
			for i := range flood {
				if connect(from(i)) {
					in++
				}
			}
			if in != each {
				t.Errorf("%d connections from %s and its like", in, from(1))
			}
		}
		if !connect("192.0.2.3") {
			t.Error("an address with room for it is turned away")
		}
	})
}
