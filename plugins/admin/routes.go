package admin

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"parley/plugins"
)

// Status is the answer of GET /v1/status.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Node    string    `json:"node"`
	Domains []string  `json:"domains"`
	Since   time.Time `json:"since"`
	Config  int64     `json:"config_version"` // of what is set at run time
}

// PluginStatus is a plugin with its components.
type PluginStatus struct {
	Name       string           `json:"name"`
	Doc        string           `json:"doc"`
	Components []plugins.Status `json:"components"`
}

// Settings is the body of PATCH /v1/components/{server}/{name}: keys of the
// component's section with values as YAML text.
type Settings struct {
	Set map[string]string `json:"set"`
}

// Drain is the body of POST /v1/nodes/{name}/drain.
type Drain struct {
	Pace float64 `json:"pace"` // sessions that go in a second
}

// answer is a handler of ours: a value to send (nil: 204), or an error.
type answer func(*http.Request) (any, error)

func (a answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Answer(func(err error) error { return err }, a)(w, r)
}

// Answer is a handler that sends what f returns: a value (nil: 204), or an error to
// which refused has given its status.
func Answer(refused func(error) error, f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		switch {
		case err != nil:
			WriteError(w, refused(err))
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			Write(w, v)
		}
	}
}

// routes are the Server's own.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, a := range map[string]answer{
		"GET /v1/status":                             s.status,
		"GET /v1/components":                         func(*http.Request) (any, error) { return s.links.Control.Components(), nil },
		"PATCH /v1/components/{server}/{name}":       s.reconfigure,
		"POST /v1/components/{server}/{name}/{verb}": s.component,
		"GET /v1/servers":                            func(*http.Request) (any, error) { return s.links.Control.Servers(), nil },
		"POST /v1/servers/{name}/{verb}":             s.server,
		"GET /v1/plugins":                            func(*http.Request) (any, error) { return s.plugins(), nil },
		"POST /v1/plugins/{name}/{verb}":             s.plugin,
		"GET /v1/config":                             func(*http.Request) (any, error) { return s.links.Control.Config(), nil },
		"POST /v1/config/reload":                     func(r *http.Request) (any, error) { return list(s.links.Control.Reload(r.Context())) },
		"DELETE /v1/config/{path}":                   s.unset,
		"GET /v1/config/log":                         s.configLog,
		"GET /v1/config/nodes":                       func(r *http.Request) (any, error) { return list(s.links.Control.ConfigNodes(r.Context())) },
		"GET /v1/nodes":                              func(*http.Request) (any, error) { return s.links.Control.Cluster(), nil },
		"POST /v1/nodes/{name}/drain":                s.drain,
		"POST /v1/nodes/{name}/undrain": func(r *http.Request) (any, error) {
			return nil, s.links.Control.Undrain(r.Context(), r.PathValue("name"))
		},
		"GET /v1/domains": func(*http.Request) (any, error) { return s.env.Domains.List(), nil },
		"PUT /v1/domains/{domain}": func(r *http.Request) (any, error) {
			return s.links.Control.AddDomain(r.Context(), r.RemoteAddr, r.PathValue("domain"))
		},
		"DELETE /v1/domains/{domain}": func(r *http.Request) (any, error) {
			return s.links.Control.RemoveDomain(r.Context(), r.RemoteAddr, r.PathValue("domain"))
		},
		"GET /v1/keys":              func(r *http.Request) (any, error) { return s.links.Control.Keys(r.Context()) },
		"POST /v1/keys/{id}/retire": s.retireKey,
		"/": func(r *http.Request) (any, error) {
			return nil, Fail(http.StatusNotFound, "nothing at %s %s: the component that answers there is stopped, or this program and the server are of different releases; `parley component list` shows which run", r.Method, r.URL.Path)
		},
	} {
		mux.Handle(pattern, a)
	}
	return mux
}

// list never is null in JSON.
func list[T any](l []T, err error) ([]T, error) {
	if l == nil {
		l = []T{}
	}
	return l, err
}

func (s *Server) status(*http.Request) (any, error) {
	return Status{Version: s.env.Version, PID: os.Getpid(), Node: s.env.Node, Domains: s.env.Domains.List(), Since: s.since, Config: s.links.Control.ConfigVersion()}, nil
}

func (s *Server) component(r *http.Request) (any, error) {
	c := s.links.Control
	verbs := map[string]func(context.Context, string, string, string) (plugins.Applied, error){
		"install": c.Install, "start": c.Start, "stop": c.Stop, "uninstall": c.Uninstall,
	}
	f, ok := verbs[r.PathValue("verb")]
	if !ok {
		return nil, Fail(http.StatusNotFound, "a component can be installed, started, stopped or uninstalled, not %q", r.PathValue("verb"))
	}
	return f(r.Context(), r.RemoteAddr, r.PathValue("server"), r.PathValue("name"))
}

func (s *Server) reconfigure(r *http.Request) (any, error) {
	var in Settings
	if err := Read(r, &in); err != nil {
		return nil, err
	}
	if len(in.Set) == 0 {
		return nil, Fail(http.StatusBadRequest, "nothing to set")
	}
	applied, err := s.links.Control.Reconfigure(r.Context(), r.RemoteAddr, r.PathValue("server"), r.PathValue("name"), in.Set)
	var p *Problem
	if err != nil && !known(err) && !errors.As(err, &p) {
		return nil, Fail(http.StatusUnprocessableEntity, "%s", err.Error()) // the component does not take it
	}
	return applied, err
}

func (s *Server) unset(r *http.Request) (any, error) {
	return s.links.Control.Unset(r.Context(), r.RemoteAddr, r.PathValue("path"))
}

// lastEvents is how many changes are told of, unless n says otherwise.
const lastEvents = 100

func (s *Server) configLog(r *http.Request) (any, error) {
	n := lastEvents
	if text := r.URL.Query().Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			return nil, Fail(http.StatusBadRequest, "%q is not a number of changes", text)
		}
	}
	return list(s.links.Control.ConfigLog(r.Context(), n))
}

func (s *Server) drain(r *http.Request) (any, error) {
	var in Drain
	if err := Read(r, &in); err != nil {
		return nil, err
	}
	if in.Pace <= 0 {
		return nil, Fail(http.StatusBadRequest, "pace is how many sessions go in a second, more than 0")
	}
	return nil, s.links.Control.Drain(r.Context(), r.PathValue("name"), in.Pace)
}

func (s *Server) retireKey(r *http.Request) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, Fail(http.StatusBadRequest, "%q is not a key's id", r.PathValue("id"))
	}
	return nil, s.links.Control.RetireKey(r.Context(), id)
}

func (s *Server) server(r *http.Request) (any, error) {
	name, c := r.PathValue("name"), s.links.Control
	if !slices.ContainsFunc(c.Servers(), func(x plugins.ServerStatus) bool { return x.Name == name }) {
		return nil, Fail(http.StatusNotFound, "no Server %s here", name)
	}
	switch verb := r.PathValue("verb"); {
	case verb == "start":
		return nil, c.StartServer(r.Context(), name)
	case verb == "stop" && name == Name: // it would wait for this very request
		return nil, Fail(http.StatusConflict, "the administration cannot stop itself: end the process")
	case verb == "stop":
		return nil, c.StopServer(r.Context(), name)
	default:
		return nil, Fail(http.StatusNotFound, "a Server can be started or stopped, not %q", verb)
	}
}

func (s *Server) plugin(r *http.Request) (any, error) {
	name, c := r.PathValue("name"), s.links.Control
	switch verb := r.PathValue("verb"); verb {
	case "start":
		return c.StartPlugin(r.Context(), r.RemoteAddr, name)
	case "stop":
		return c.StopPlugin(r.Context(), r.RemoteAddr, name)
	default:
		return nil, Fail(http.StatusNotFound, "a plugin can be started or stopped, not %q", verb)
	}
}

// plugins groups the components by plugin, in the order of the Repository.
func (s *Server) plugins() []PluginStatus {
	out := []PluginStatus{}
	for _, c := range s.links.Control.Components() {
		i := slices.IndexFunc(out, func(p PluginStatus) bool { return p.Name == c.Plugin })
		if i < 0 {
			i = len(out)
			out = append(out, PluginStatus{Name: c.Plugin, Doc: c.Doc})
		}
		out[i].Components = append(out[i].Components, c)
	}
	return out
}
