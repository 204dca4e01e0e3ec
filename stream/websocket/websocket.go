// Package websocket carries XMPP over WebSocket (RFC 7395) on the HTTP doors,
// at Path.
//
// A request that asks for the subprotocol xmpp, from an origin that is
// allowed, becomes a WebSocket without compression and then a stream like any
// other: the Transport gives the stream's reader each message in pieces as
// they come, so that its limits hold while reading, and sends each element as
// a text message of its own. Who is at the other end of a proxy that is
// trusted, and whether over TLS, is what the proxy says.
package websocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
	"parley/stream"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "websocket",
	Doc:        "Clients in browsers connect over WebSocket (RFC 7395).",
	Components: []plugins.Maker{{Server: stream.Name, Defaults: defaults(), New: newListener}},
}

// Path is where WebSockets are opened.
const Path = "/xmpp-websocket"

// subprotocol is RFC 7395 §3.1.
const subprotocol = "xmpp"

// Config is the component's section.
type Config struct {
	Origins        []string       `yaml:"origins" doc:"Web pages that may connect: hosts (web.example.org, *.example.org), origins (https://web.example.org:8443), or * for any. Empty: pages of this server, of the served domains and their subdomains, and of localhost. Clients that are no browsers send no origin and may always connect."`
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies" doc:"Addresses of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."`
}

func defaults() *Config {
	return &Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

// listener turns HTTP requests into streams.
type listener struct {
	log     *slog.Logger
	origins []string // patterns, see allows
	proxies []netip.Prefix
	streams *stream.Registrar
	refused *prometheus.CounterVec
}

var _ stream.Component = (*listener)(nil)

func newListener(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg := *defaults()
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	l := &listener{log: env.Log, origins: cfg.Origins, proxies: cfg.TrustedProxies}
	if len(l.origins) == 0 {
		l.origins = []string{"localhost", "127.0.0.1", "[::1]"}
		for _, d := range env.Domains {
			l.origins = append(l.origins, d, "*."+d)
		}
	}
	l.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_websocket_refused_total", Help: "Requests for a WebSocket that were refused."}, []string{"reason"})
	if err := env.Metrics.Register(l.refused); err != nil {
		return nil, fmt.Errorf("websocket metrics: %w", err)
	}
	return l, nil
}

// Register implements stream.Component.
func (l *listener) Register(r *stream.Registrar) {
	l.streams = r
	r.HTTP(Path, l)
}

// Start implements plugins.Component.
func (l *listener) Start(context.Context) error { return nil }

// Stop implements plugins.Component. Streams that are open go on: they belong
// to the Server.
func (l *listener) Stop(context.Context) error { return nil }

// ServeHTTP implements http.Handler.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !l.allows(r):
		l.refuse(w, r, "origin", "this page may not connect here", http.StatusForbidden)
		return
	case isUpgrade(r) && !speaksXMPP(r): // RFC 7395 §3.1
		l.refuse(w, r, "subprotocol", "Sec-WebSocket-Protocol: xmpp is missing", http.StatusBadRequest)
		return
	case l.streams.Draining(): // a proxy tries another node
		l.refuse(w, r, "draining", "this node is about to stop", http.StatusServiceUnavailable)
		return
	}
	hj := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(hj, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the origin has been checked above
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil { // it has been answered
		l.refused.WithLabelValues("handshake").Inc()
		l.log.Debug("no WebSocket", "remote", r.RemoteAddr, "err", err)
		return
	}
	ws.SetReadLimit(-1) // the stream's reader has the limits
	addr, secure := l.peer(r)
	// The request ends with this call, the stream does not: it is the Server's,
	// and whoever replaces this component does not wait for it.
	go l.streams.Serve(context.Background(), newTransport(ws, hj.conn, addr, secure), l.streams.Client())
}

func (l *listener) refuse(w http.ResponseWriter, r *http.Request, reason, text string, code int) {
	l.refused.WithLabelValues(reason).Inc()
	l.log.Info("WebSocket refused", "reason", reason, "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"))
	http.Error(w, text, code)
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

func speaksXMPP(r *http.Request) bool {
	for _, list := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(p), subprotocol) {
				return true
			}
		}
	}
	return false
}

// allows checks where the page comes from (RFC 6455 §10.2).
func (l *listener) allows(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" { // no browser
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	if u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, pattern := range l.origins {
		if matches(pattern, origin, u) {
			return true
		}
	}
	return false
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

// peer returns the client's address and whether its way here is encrypted.
func (l *listener) peer(r *http.Request) (addr net.Addr, secure bool) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return &net.TCPAddr{}, r.TLS != nil
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	secure = r.TLS != nil
	if l.trusts(ap.Addr()) {
		secure = secure || strings.EqualFold(strings.TrimSpace(r.Header.Get("X-Forwarded-Proto")), "https")
		if a, ok := l.forwardedFor(r); ok {
			ap = netip.AddrPortFrom(a, 0)
		}
	}
	return net.TCPAddrFromAddrPort(ap), secure
}

func (l *listener) trusts(a netip.Addr) bool {
	for _, p := range l.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor is the last address in X-Forwarded-For that is not a trusted
// proxy's own: what stands before it anybody could have written.
func (l *listener) forwardedFor(r *http.Request) (netip.Addr, bool) {
	list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(list) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(list[i]), "[]"))
		if err != nil {
			return netip.Addr{}, false
		}
		a = a.Unmap().WithZone("")
		if i == 0 || !l.trusts(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

var errNotHijackable = errors.New("the HTTP server does not hand over connections")
