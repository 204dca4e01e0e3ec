package web

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func request(remote string, header ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// Only what a trusted proxy has written itself is believed.
func TestPeer(t *testing.T) {
	g := NewGate(nil, nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")})
	for _, tt := range []struct {
		r      *http.Request
		addr   string
		secure bool
	}{
		{request("192.0.2.1:99"), "192.0.2.1:99", false},
		{request("192.0.2.1:99", "X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https"), "192.0.2.1:99", false},
		{request("10.1.2.3:99", "X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https"), "198.51.100.7:0", true},
		{request("[::1]:99", "X-Forwarded-For", "203.0.113.9, 198.51.100.7, 10.0.0.2"), "198.51.100.7:0", false},
		{request("10.1.2.3:99", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "198.51.100.7"), "198.51.100.7:0", false},
		{request("10.1.2.3:99", "X-Forwarded-For", "nonsense"), "10.1.2.3:99", false},
		{request("[::ffff:10.1.2.3]:99", "X-Forwarded-For", "[2001:db8::7]"), "[2001:db8::7]:0", false},
		{request("10.1.2.3:99", "X-Forwarded-For", "10.0.0.9, 10.0.0.2"), "10.0.0.9:0", false},
	} {
		addr, secure := g.Peer(tt.r)
		if addr.String() != tt.addr || secure != tt.secure {
			t.Errorf("%v %v: %s %v, want %s %v", tt.r.RemoteAddr, tt.r.Header, addr, secure, tt.addr, tt.secure)
		}
	}
}

// Whatever the headers say, there is an address to count by, and an origin
// from nowhere is not let in.
func FuzzHeaders(f *testing.F) {
	f.Add("https://localhost:1", "192.0.2.1, 10.0.0.1")
	f.Add("null", "[::1%lo]:3")
	f.Add("https://user@localhost@evil.example", ",")
	g := NewGate([]string{"good.example", "*.good.example"}, nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	f.Fuzz(func(t *testing.T, origin, forwarded string) {
		r := request("10.0.0.1:5", "Origin", origin, "X-Forwarded-For", forwarded)
		r.Host = "good.example"
		if g.Allows(r) && origin != "" && !strings.Contains(strings.ToLower(origin), "good.example") {
			t.Errorf("%q is let in", origin)
		}
		addr, _ := g.Peer(r)
		if _, err := netip.ParseAddrPort(addr.String()); err != nil {
			t.Errorf("%q: %v", forwarded, err)
		}
	})
}
