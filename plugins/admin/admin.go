// Package admin is the Server through which a running house is administered:
// HTTP and JSON on the unix socket admin.sock in the data directory, which only
// the user the server runs as (and root) may open.
//
// Routes of its own (routes.go) drive plugins.Control: components, Servers,
// plugins, configuration. Components attached to it bring the routes of their
// feature, such as accounts. Errors are problem documents (RFC 9457).
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/plugins"
)

// Name is the Server's name in configurations.
const Name = "admin"

// Socket is the file in the data directory.
const Socket = "admin.sock"

// Plugin provides the Server.
var Plugin = plugins.Plugin{
	Name:  Name,
	Doc:   "Administration on a unix socket in the data directory.",
	Serve: &plugins.ServerMaker{Name: Name, Defaults: defaults(), New: newServer},
}

// Component adds routes to the administration. It need not import this
// package. Patterns are those of net/http; features stay below /v1/<feature>.
type Component interface {
	plugins.Component
	Routes(*http.ServeMux)
}

// Watcher is a Component that wants to know which Servers run; Watch is called
// once, before Routes.
type Watcher interface {
	Watch(servers func() []plugins.ServerStatus)
}

// Controller is a Component that changes what is set at run time; Control is
// called once, before Routes.
type Controller interface {
	Control(plugins.Control)
}

// Config is the Server's section.
type Config struct {
	Timeout    time.Duration      `yaml:"timeout" min:"1s" reload:"restart" doc:"For one request, draining included."`
	Deployment plugins.Deployment `yaml:"deployment" reload:"restart" doc:"How the Server is joined to the others."`
}

func defaults() *Config {
	return &Config{Timeout: time.Minute, Deployment: plugins.Deployment{Type: "local"}}
}

// Server is the administration.
type Server struct {
	env   plugins.Env
	cfg   Config
	log   *slog.Logger
	links plugins.Links
	core  *http.ServeMux
	since time.Time

	mu    sync.Mutex // guards the replacing of parts
	parts atomic.Pointer[[]*part]
}

var _ plugins.Server = (*Server)(nil)

func newServer(env plugins.Env, c plugins.Config, links plugins.Links) (plugins.Server, error) {
	s := &Server{env: env, cfg: *defaults(), log: env.Log, links: links, since: env.Clock.Now()}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	s.parts.Store(&[]*part{})
	s.core = s.routes()
	return s, nil
}

// Serve implements plugins.Server: it answers until ctx is done, then lets
// requests that have begun finish.
func (s *Server) Serve(ctx context.Context) error {
	l, err := listen(filepath.Join(s.env.DataDir, Socket))
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(plugins.Spared(l, spareLimit)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("administration socket: %w", err)
	case <-ctx.Done():
	}
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer stop()
	err = srv.Shutdown(drain)
	<-ended
	return err
}

// spareLimit is how long a request may take when there is no descriptor left
// (reliability row 35): the next one waits for it.
const spareLimit = 5 * time.Second

// part is an attached component. Requests hold mu for reading, so that
// whoever takes the part away can wait for them.
type part struct {
	name string
	mux  *http.ServeMux
	mu   sync.RWMutex
	gone bool
}

// Attach implements plugins.Server.
func (s *Server) Attach(name string, c plugins.Component) (func(context.Context) error, error) {
	ac, ok := c.(Component)
	if !ok {
		return nil, fmt.Errorf("%s: an admin component needs Routes", name)
	}
	if w, ok := c.(Watcher); ok {
		w.Watch(s.links.Control.Servers)
	}
	if k, ok := c.(Controller); ok {
		k.Control(s.links.Control)
	}
	p := &part{name: name, mux: http.NewServeMux()}
	ac.Routes(p.mux)
	s.replace(func(o *part) bool { return o.name == name }, p)
	return func(context.Context) error {
		s.replace(func(o *part) bool { return o == p }, nil)
		return nil
	}, nil
}

// replace swaps parts and returns when no request runs in an old one.
func (s *Server) replace(old func(*part) bool, fresh *part) {
	s.mu.Lock()
	var keep, gone []*part
	for _, p := range *s.parts.Load() {
		if old(p) {
			gone = append(gone, p)
			continue
		}
		keep = append(keep, p)
	}
	if fresh != nil {
		keep = append(keep, fresh)
	}
	slices.SortFunc(keep, func(a, b *part) int { return strings.Compare(a.name, b.name) })
	s.parts.Store(&keep)
	s.mu.Unlock()
	for _, p := range gone {
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
	}
}

// serve answers the request if it is one of the part's; false when it is not,
// or the part is no longer there.
func (p *part) serve(w http.ResponseWriter, r *http.Request) bool {
	if _, pattern := p.mux.Handler(r); pattern == "" {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.gone {
		return false
	}
	p.mux.ServeHTTP(w, r)
	return true
}

// ServeHTTP gives the request to the component whose it is, else to the
// Server's own routes. What it does goes on when the client hangs up: half a
// change helps nobody.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.Timeout)
	defer stop()
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.Method != http.MethodGet {
		s.log.Info("administration", "method", r.Method, "path", r.URL.Path, "by", r.RemoteAddr)
	}
	for range 2 { // a part that goes while it is asked may have a successor
		for _, p := range *s.parts.Load() {
			if p.serve(w, r) {
				return
			}
		}
	}
	s.core.ServeHTTP(w, r)
}
