package stream

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

// Whatever comes, an address comes of it or an error.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 198.51.100.7 192.0.2.1 4711 5222\r\n<stream"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xc0\x00\x02\x01\x12\x67\x14\x66<stream"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, came []byte) {
		r := bytes.NewReader(came)
		from, err := headerOf(r)
		if err == nil && from != nil && !addressOf(from).IsValid() {
			t.Errorf("address %v", from)
		}
		if err == nil && r.Len() == len(came) {
			t.Error("a header of no bytes")
		}
	})
}

// What is counted by address is counted by /64 when it is IPv6, and loopback is
// not counted.
func TestOriginOf(t *testing.T) {
	for at, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64",
		"127.0.0.1:5": "invalid Prefix", "[::1]:5": "invalid Prefix",
	} {
		if got := OriginOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))); got.String() != want {
			t.Errorf("%s is counted as %s, want %s", at, got, want)
		}
	}
}
