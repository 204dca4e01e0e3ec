package abuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// upgrade makes a WebSocket of a connection to the HTTP door (RFC 7395 §3.1).
func (p *peer) upgrade(host string) error {
	return p.exchange("GET /xmpp-websocket HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", "\r\n\r\n")
}

// frame is a masked text message (RFC 6455 §5.2); the mask is zero.
func frame(text string) string {
	b := []byte{0x81}
	switch n := len(text); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return string(b) + "\x00\x00\x00\x00" + text
}

// frames makes each line a message.
func frames(lines string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(lines, "\n") {
		b.WriteString(frame(line))
	}
	return b.String()
}

// checkFrames asserts that each message in what the server sent is one
// well-formed element.
func checkFrames(b []byte) error {
	for len(b) > 0 {
		kind, payload, rest, err := splitFrame(b)
		if err != nil {
			return err
		}
		if kind == 1 {
			if err := checkFrame(payload); err != nil {
				return fmt.Errorf("%w in %q", err, payload)
			}
		}
		b = rest
	}
	return nil
}

var errFrame = errors.New("not a frame of a server's")

// splitFrame reads one unmasked, unfragmented frame.
func splitFrame(b []byte) (kind byte, payload, rest []byte, err error) {
	if len(b) < 2 || b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 {
		return 0, nil, nil, errFrame
	}
	kind = b[0] & 0x0f
	n, at := uint64(b[1]), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, at = binary.BigEndian.Uint64(b[2:]), 10
	case n > 125:
		return 0, nil, nil, errFrame
	}
	if uint64(len(b)-at) < n {
		return 0, nil, nil, errFrame
	}
	return kind, b[at : at+int(n)], b[at+int(n):], nil
}

const open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"

// enterWebSocket makes each line of what comes a message.
func enterWebSocket(_ *world, p *peer) (*peer, error) {
	p.wrap, p.check = frames, checkFrames
	err := p.upgrade("localhost")
	p.got, p.seen = p.got[p.seen:], 0
	return p, err
}

// enterBoundWebSocket logs in first.
func enterBoundWebSocket(w *world, p *peer) (*peer, error) {
	return enterBoundWebSocketAs(w, p, "fuzz")
}

func enterBoundWebSocketAs(w *world, p *peer, resource string) (*peer, error) {
	if _, err := enterWebSocket(w, p); err != nil {
		return p, err
	}
	if err := p.exchange(frame(open), "</stream:features>"); err != nil {
		return p, err
	}
	if err := p.say(frame(plain(w.fuzzed, secret))); err != nil {
		return p, err
	}
	if answer, err := p.until(" xmlns='" + nsSASL + "'"); err != nil || !strings.HasSuffix(answer, "<success") {
		return p, fmt.Errorf("%s: %w", answer, errLogin)
	}
	if err := p.exchange(frame(open), "</stream:features>"); err != nil {
		return p, err
	}
	return p, p.exchange(frame("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"+resource+"</resource></bind></iq>"), "</jid></bind></iq>")
}

// enterFrames sends what comes as it is, which is seldom a frame.
func enterFrames(w *world, p *peer) (*peer, error) {
	_, err := enterBoundWebSocket(w, p)
	p.wrap = nil
	return p, err
}

// enterHTTP has not become a WebSocket yet; what comes back is HTTP.
func enterHTTP(_ *world, p *peer) (*peer, error) {
	p.check = func([]byte) error { return nil }
	return p, nil
}
