// Package bosh carries XMPP over pairs of HTTP requests and responses
// (XEP-0124, XEP-0206) on the HTTP doors, at Path.
//
// A session is a stream.Transport with the framing of RFC 7395: what a body of
// the client brings becomes messages of one element each, in the order of the
// requests, the creation and each restart an <open/>, the end a <close/>; and the
// other way round. So the stream above knows nothing of requests, and stream
// management (XEP-0198) is what it is everywhere: requests that are repeated make
// up for a connection that is lost, it makes up for a session that is.
package bosh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
	"parley/plugins/config"
	"parley/stream"
	"parley/stream/web"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "bosh",
	Doc:        "Clients behind proxies that let nothing but HTTP pass connect over BOSH (XEP-0124, XEP-0206).",
	Components: []plugins.Maker{{Server: stream.Name, Defaults: defaults(), New: newListener}},
}

// Path is where sessions are.
const Path = "/http-bind"

// Config is the component's section.
type Config struct {
	Origins        []string       `yaml:"origins" doc:"Web pages that may connect: hosts (web.example.org, *.example.org), origins (https://web.example.org:8443), or * for any. Empty: pages of this server, of the served domains and their subdomains, and of localhost. Clients that are no browsers send no origin and may always connect."`
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies" doc:"Addresses of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."`
	Wait           time.Duration  `yaml:"wait" min:"1s" max:"10m" doc:"For how long a request is held at most while there is nothing to tell. Proxies in between must wait for longer."`
	Inactivity     time.Duration  `yaml:"inactivity" min:"1s" max:"10m" doc:"A client without any request for so long is gone."`
	Polling        time.Duration  `yaml:"polling" min:"1s" max:"1m" doc:"How often a client that does not let requests be held may ask."`
	MaxPause       time.Duration  `yaml:"max_pause" min:"1s" max:"1h" doc:"For how long a client may announce that it will make no request."`
	Body           config.Size    `yaml:"body" min:"16384" doc:"Largest request of a client that has logged in; no smaller than streamer.limits.stanza. Before the login it is 16 KiB."`
	Sessions       int            `yaml:"sessions" min:"1" doc:"Sessions at one time, also those that have ended and whose client has not been told. They count among streamer.connections as well."`
	PerAddress     int            `yaml:"per_address" min:"1" doc:"Sessions at one time from one address (IPv6: one /64). Loopback is not counted."`
}

func defaults() *Config {
	return &Config{
		TrustedProxies: web.TrustedProxies(), Wait: time.Minute, Inactivity: time.Minute, Polling: 5 * time.Second, MaxPause: 2 * time.Minute,
		Body: 512 << 10, Sessions: 20_000, PerAddress: 200,
	}
}

// listener turns HTTP requests into streams.
type listener struct {
	cfg     Config
	log     *slog.Logger
	clock   plugins.Clock
	gate    *web.Gate
	streams *stream.Registrar
	refused *prometheus.CounterVec
	replays prometheus.Counter

	sessions table
	mu       sync.Mutex // guards stopped and the beginning of requests
	stopped  bool
	requests sync.WaitGroup
	kept     atomic.Int64 // bytes of answers that may be asked for again
}

// keptMost bounds them, of all sessions together.
const keptMost = 128 << 20

// keeps reports whether there is room for an answer of so many bytes, and takes it.
func (l *listener) keeps(n int) bool {
	if l.kept.Add(int64(n)) <= keptMost {
		return true
	}
	l.kept.Add(-int64(n))
	return false
}

var _ stream.Component = (*listener)(nil)

func newListener(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	l := &listener{cfg: *defaults(), log: env.Log, clock: env.Clock}
	if err := c.Decode(&l.cfg); err != nil {
		return nil, err
	}
	l.gate = web.NewGate(l.cfg.Origins, env.Domains.List, l.cfg.TrustedProxies)
	l.sessions = table{most: l.cfg.Sessions, each: l.cfg.PerAddress, bySID: map[string]*session{}, byOrigin: map[netip.Prefix]int{}}
	l.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_bosh_refused_total", Help: "BOSH requests that were refused, and sessions ended for one."}, []string{"reason"})
	l.replays = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_bosh_replays_total", Help: "BOSH responses that were sent again because the client had lost its connection."})
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_bosh_sessions", Help: "BOSH sessions."}, l.sessions.len)
	kept := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_bosh_kept_bytes", Help: "BOSH responses that are kept for clients who may have lost them."}, func() float64 { return float64(l.kept.Load()) })
	for _, m := range []prometheus.Collector{l.refused, l.replays, held, kept} {
		if err := env.Metrics.Register(m); err != nil {
			return nil, fmt.Errorf("bosh metrics: %w", err)
		}
	}
	return l, nil
}

// Register implements stream.Component.
func (l *listener) Register(r *stream.Registrar) {
	l.streams = r
	r.HTTPLasting(Path, l)
}

// Start implements plugins.Component.
func (l *listener) Start(context.Context) error { return nil }

// Stop implements plugins.Component: it ends the sessions, whose requests
// nobody takes any more, and those that are held.
func (l *listener) Stop(ctx context.Context) error {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	for _, s := range l.sessions.all() {
		s.fail(connectionFailed)
	}
	done := make(chan struct{})
	go func() { l.requests.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("bosh: requests are still at work: %w", ctx.Err())
	}
}

// enter counts a request; false: the component stops.
func (l *listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.requests.Add(1)
	return true
}

func (l *listener) stops() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

// How long a request may take to come, and a response to go.
const (
	bodyTime  = 30 * time.Second
	replyTime = 30 * time.Second
)

// ServeHTTP implements http.Handler.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		http.Error(w, "BOSH is being stopped", http.StatusServiceUnavailable)
		return
	}
	defer l.requests.Done()
	if !l.gate.Allows(r) {
		l.refuse(w, r, "origin", "this page may not connect here", http.StatusForbidden)
		return
	}
	h := w.Header()
	h.Set("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
	}
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Content-Type")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "POST, OPTIONS")
		http.Error(w, "BOSH requests are POSTs", http.StatusMethodNotAllowed)
		return
	}
	l.post(w, r)
}

func (l *listener) refuse(w http.ResponseWriter, r *http.Request, reason, text string, code int) {
	l.refused.WithLabelValues(reason).Inc()
	l.log.Info("BOSH refused", "reason", reason, "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"))
	http.Error(w, text, code)
}

// post is one request of a client.
func (l *listener) post(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength > int64(l.cfg.Body) {
		l.refuse(w, r, "size", "the request is too large", http.StatusRequestEntityTooLarge)
		return
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyTime))
	s, q, err := l.read(w, r)
	if err == nil && s == nil && l.streams.Draining() { // a proxy tries another node
		l.refuse(w, r, "draining", "this node is about to stop", http.StatusServiceUnavailable)
		return
	}
	_ = ctl.SetReadDeadline(time.Time{})
	if err == nil && s == nil {
		s, err = l.create(r, q)
	}
	if err != nil {
		var c condition
		if !errors.As(err, &c) { // it has not come; the client will send it again
			l.refuse(w, r, "broken", "the request did not come", http.StatusBadRequest)
			return
		}
		l.refused.WithLabelValues(string(c)).Inc()
		l.log.Debug("BOSH request refused", "remote", r.RemoteAddr, "err", err)
		if s != nil {
			s.fail(c)
		}
		l.answer(w, terminated(c))
		return
	}
	s.serve(r.Context(), q, func(body []byte) error { return l.answer(w, body) })
}

// read takes the request; no session: it wants one.
func (l *listener) read(w http.ResponseWriter, r *http.Request) (*session, *request, error) {
	b := newBodyReader(r.Body, int(l.cfg.Body))
	q, err := b.head()
	if err != nil {
		return nil, nil, err
	}
	if q.sid == "" {
		return nil, q, b.rest(q, headSize)
	}
	s := l.sessions.get(q.sid)
	if _, secure := l.gate.Peer(r); s == nil || s.tls != nil && !secure { // what began encrypted goes on so
		return nil, nil, itemNotFound
	}
	wanted, err := s.arrive(r.Context(), q)
	if err != nil {
		return s, nil, err
	}
	defer s.leave()
	if !wanted { // nothing of it counts but its number
		return s, q, nil
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // it may have waited for its turn
	most := headSize
	if s.loggedIn() {
		most = int(l.cfg.Body)
	}
	return s, q, b.rest(q, most)
}

// answer writes a response. It is XML whatever the client wants it to be
// called: a page it could be taken for would be ours.
func (l *listener) answer(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "text/xml; charset=utf-8") // XEP-0124 §6
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Now().Add(replyTime))
	defer func() { _ = ctl.SetWriteDeadline(time.Time{}) }()
	if _, err := w.Write(body); err != nil {
		return err
	}
	return ctl.Flush()
}

// create begins a session (XEP-0124 §7).
func (l *listener) create(r *http.Request, q *request) (*session, error) {
	if q.to == "" {
		return nil, improperAddressing
	}
	addr, secure := l.gate.Peer(r)
	s := newSession(l, q, addr, secure)
	if err := l.sessions.add(s); err != nil {
		l.log.Info("BOSH session refused", "remote", addr.String(), "err", err)
		return nil, fmt.Errorf("%w: %w", policyViolation, err)
	}
	if l.stops() { // it did not see this one
		s.fail(connectionFailed)
	}
	// The request ends, the stream does not: it is the Server's.
	go l.streams.Serve(context.Background(), s, l.streams.Client())
	return s, nil
}
