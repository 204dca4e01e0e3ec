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
	"net/http"
	"net/netip"
	"strings"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
	"parley/stream"
	"parley/stream/web"
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
	return &Config{TrustedProxies: web.TrustedProxies()}
}

// listener turns HTTP requests into streams.
type listener struct {
	log     *slog.Logger
	gate    *web.Gate
	streams *stream.Registrar
	refused *prometheus.CounterVec
}

var _ stream.Component = (*listener)(nil)

func newListener(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg := *defaults()
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	l := &listener{log: env.Log, gate: web.NewGate(cfg.Origins, env.Domains.List, cfg.TrustedProxies)}
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
	case !l.gate.Allows(r):
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
	addr, secure := l.gate.Peer(r)
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

var errNotHijackable = errors.New("the HTTP server does not hand over connections")
