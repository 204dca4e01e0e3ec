// Package web tells, of a request at an HTTP door, whether the page that makes
// it may talk to us (RFC 6454), and who is at the other end of it.
package web

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Gate is who may come, and which proxies are believed. It is immutable.
type Gate struct {
	origins []string        // patterns, see Allows
	domains func() []string // whose pages may come as well; nil: none
	proxies []netip.Prefix
}

// TrustedProxies are the proxies believed by default: this machine's.
func TrustedProxies() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// NewGate lets pages of these origins in: hosts (web.example.org,
// *.example.org), origins (https://web.example.org:8443), or * for any; none
// of them: pages of the domains and their subdomains, and of localhost.
func NewGate(origins []string, domains func() []string, proxies []netip.Prefix) *Gate {
	if len(origins) > 0 {
		return &Gate{origins: origins, proxies: proxies}
	}
	return &Gate{origins: []string{"localhost", "127.0.0.1", "[::1]"}, domains: domains, proxies: proxies}
}

// Allows checks where the page comes from (RFC 6455 §10.2). What is no browser
// sends no origin; a page of the host that is asked may always connect.
func (g *Gate) Allows(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	if u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, pattern := range g.origins {
		if matches(pattern, origin, u) {
			return true
		}
	}
	if g.domains == nil {
		return false
	}
	return slices.ContainsFunc(g.domains(), func(d string) bool { return matches(d, origin, u) || matches("*."+d, origin, u) })
}

func matches(pattern, origin string, u *url.URL) bool {
	host := hostname(u)
	switch {
	case pattern == "*" || strings.EqualFold(pattern, origin):
		return true
	case host == "" || strings.Contains(pattern, "://"):
		return false
	case strings.HasPrefix(pattern, "*."):
		return len(host) >= len(pattern) && strings.EqualFold(host[len(host)-len(pattern)+1:], pattern[1:])
	}
	return strings.EqualFold(host, pattern) || strings.EqualFold(u.Host, pattern)
}

// hostname is u's host without the port, IPv6 addresses in brackets.
func hostname(u *url.URL) string {
	if h := u.Hostname(); !strings.Contains(h, ":") {
		return h
	}
	return "[" + u.Hostname() + "]"
}

// Peer returns the client's address and whether its way here is encrypted.
func (g *Gate) Peer(r *http.Request) (addr net.Addr, secure bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return &net.TCPAddr{}, r.TLS != nil
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	secure = r.TLS != nil
	if g.trusts(ap.Addr()) {
		secure = secure || strings.EqualFold(strings.TrimSpace(r.Header.Get("X-Forwarded-Proto")), "https")
		if a, ok := g.forwardedFor(r); ok {
			ap = netip.AddrPortFrom(a, 0)
		}
	}
	return net.TCPAddrFromAddrPort(ap), secure
}

func (g *Gate) trusts(a netip.Addr) bool {
	for _, p := range g.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor is the last address in X-Forwarded-For that is not a trusted
// proxy's own: what stands before it anybody could have written.
func (g *Gate) forwardedFor(r *http.Request) (netip.Addr, bool) {
	list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(list) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(list[i]), "[]"))
		if err != nil {
			return netip.Addr{}, false
		}
		a = a.Unmap().WithZone("")
		if i == 0 || !g.trusts(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}
