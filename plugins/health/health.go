// Package health tells machines how the house is, on the streamer's HTTP doors:
//
//	/healthz   200 while the process answers at all
//	/readyz    200 when the database takes reads and writes, every Server runs,
//	           the node does not drain and a front has a core; else 503 with what
//	           is wrong, one line each
//	/metrics   Prometheus, to the addresses that may have it
//
// The component in the streamer has the routes. Which Servers run only the
// administration knows, so a second component attaches there and listens; the
// two share the plugin's contract.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/stream"
)

// Plugin provides the components.
var Plugin = plugins.Plugin{
	Name:     "health",
	Doc:      "Health, readiness and metrics over HTTP.",
	Requires: []string{admin.Name},
	Components: []plugins.Maker{
		{Server: stream.Name, Defaults: defaults(), New: newRoutes},
		{Server: admin.Name, Name: "health-watch", New: newWatcher},
	},
	Contract: func(env plugins.Env) (any, error) { return newHouse(env), nil },
}

// Config is the section of the component in the streamer.
type Config struct {
	MetricsFrom []netip.Prefix `yaml:"metrics_from" doc:"Networks that may read /metrics. A request that came through a proxy on this machine (it has X-Forwarded-For or Forwarded) is not from this machine."`
	Timeout     time.Duration  `yaml:"timeout" min:"100ms" doc:"How long /readyz waits for the database."`
}

func defaults() *Config {
	return &Config{
		MetricsFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Timeout:     3 * time.Second,
	}
}

// house is what the two components share.
type house struct {
	gather  prometheus.Gatherer // nil: this house keeps no metrics
	servers atomic.Pointer[func() []plugins.ServerStatus]
}

func newHouse(env plugins.Env) *house {
	h := &house{}
	h.gather, _ = env.Metrics.(prometheus.Gatherer)
	return h
}

// stopped names the Servers that do not run.
func (h *house) stopped() []string {
	f := h.servers.Load()
	if f == nil { // no administration in this process
		return nil
	}
	var out []string
	for _, s := range (*f)() {
		if !s.Running {
			out = append(out, s.Name)
		}
	}
	return out
}

// watcher is the component in the administration.
type watcher struct{ house *house }

var (
	_ admin.Component = (*watcher)(nil)
	_ admin.Watcher   = (*watcher)(nil)
)

func newWatcher(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	h, err := plugins.Need[*house](env, "health")
	return &watcher{h}, err
}

// Start implements plugins.Component.
func (*watcher) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*watcher) Stop(context.Context) error { return nil }

// Watch implements admin.Watcher.
func (w *watcher) Watch(servers func() []plugins.ServerStatus) { w.house.servers.Store(&servers) }

// Routes implements admin.Component: it has none.
func (*watcher) Routes(*http.ServeMux) {}

// routes is the component in the streamer.
type routes struct {
	env     plugins.Env
	cfg     Config
	house   *house
	streams *stream.Registrar
}

var _ stream.Component = (*routes)(nil)

func newRoutes(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	r := &routes{env: env, cfg: *defaults()}
	if err := c.Decode(&r.cfg); err != nil {
		return nil, err
	}
	h, err := plugins.Need[*house](env, "health")
	r.house = h
	return r, err
}

// Start implements plugins.Component.
func (*routes) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*routes) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (r *routes) Register(reg *stream.Registrar) {
	r.streams = reg
	reg.HTTP("GET /healthz", http.HandlerFunc(r.alive))
	reg.HTTP("GET /readyz", http.HandlerFunc(r.ready))
	reg.HTTP("GET /metrics", http.HandlerFunc(r.metrics))
}

func (r *routes) alive(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") }

func (r *routes) ready(w http.ResponseWriter, req *http.Request) {
	if err := r.check(req.Context()); err != nil {
		say(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	say(w, http.StatusOK, "ready")
}

// check returns what is wrong; what the database says goes to the log alone,
// for anybody may ask.
func (r *routes) check(ctx context.Context) error {
	probe := ctx
	ctx, stop := context.WithTimeout(ctx, r.cfg.Timeout)
	defer stop()
	var errs []error
	if err := r.env.DB.Ping(ctx); err != nil {
		r.env.Log.Log(ctx, levelOf(probe), "not ready: the database does not answer", "err", err)
		errs = append(errs, errors.New("the database does not answer"))
	}
	for _, name := range r.house.stopped() {
		errs = append(errs, fmt.Errorf("server %s does not run", name))
	}
	if r.streams != nil && r.streams.Draining() {
		errs = append(errs, errors.New("this node drains: clients go to others"))
	}
	if h := r.env.Halves; h != nil && h.Front() && !h.HasCore() {
		errs = append(errs, errors.New("no core is there"))
	}
	return errors.Join(errs...)
}

// levelOf: a probe that has given up says nothing about the database.
func levelOf(probe context.Context) slog.Level {
	if probe.Err() != nil {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (r *routes) metrics(w http.ResponseWriter, req *http.Request) {
	switch {
	case !r.mayMeasure(req):
		say(w, http.StatusForbidden, "metrics are not for this address (health.metrics_from)")
	case r.house.gather == nil:
		say(w, http.StatusNotImplemented, "this server keeps no metrics")
	default:
		promhttp.HandlerFor(r.house.gather, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, req)
	}
}

// mayMeasure compares the address with the networks. Behind a proxy the
// address is the proxy's: then nobody knows.
func (r *routes) mayMeasure(req *http.Request) bool {
	from, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil {
		return false
	}
	addr := from.Addr().Unmap().WithZone("")
	if addr.IsLoopback() && (req.Header.Get("X-Forwarded-For") != "" || req.Header.Get("Forwarded") != "") {
		return false
	}
	return slices.ContainsFunc(r.cfg.MetricsFrom, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client has hung up: nobody to tell
}
