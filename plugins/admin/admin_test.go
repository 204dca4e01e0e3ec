package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/config"
)

// house is a Control that remembers what it was told.
type house struct {
	plugins.Control // nil: what a test does not expect panics
	calls           []string
	err             error
}

func (h *house) note(format string, args ...any) error {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	return h.err
}

// applied is note for what concerns every node; one of them does not follow.
func (h *house) applied(format string, args ...any) (plugins.Applied, error) {
	return plugins.Applied{Version: 7, Behind: []plugins.Behind{{Node: "verona", Why: "asleep"}}}, h.note(format, args...)
}

func (h *house) Components() []plugins.Status {
	return []plugins.Status{{Server: "a", Name: "x", Plugin: "p"}, {Server: "b", Name: "x", Plugin: "p"}, {Server: "b", Name: "y", Plugin: "q"}}
}
func (h *house) ConfigVersion() int64 { return 7 }
func (h *house) Install(_ context.Context, by, s, n string) (plugins.Applied, error) {
	return h.applied("install %s %s by %s", s, n, by)
}
func (h *house) Start(_ context.Context, by, s, n string) (plugins.Applied, error) {
	return h.applied("start %s %s by %s", s, n, by)
}
func (h *house) Stop(_ context.Context, by, s, n string) (plugins.Applied, error) {
	return h.applied("stop %s %s by %s", s, n, by)
}
func (h *house) Uninstall(_ context.Context, by, s, n string) (plugins.Applied, error) {
	return h.applied("uninstall %s %s by %s", s, n, by)
}
func (h *house) Reconfigure(_ context.Context, by, s, n string, set map[string]string) (plugins.Applied, error) {
	return h.applied("reconfigure %s %s %v by %s", s, n, set, by)
}
func (h *house) Servers() []plugins.ServerStatus {
	return []plugins.ServerStatus{{Name: "a"}, {Name: Name}}
}
func (h *house) StartServer(_ context.Context, n string) error { return h.note("start server %s", n) }
func (h *house) StopServer(_ context.Context, n string) error  { return h.note("stop server %s", n) }
func (h *house) StartPlugin(_ context.Context, by, n string) (plugins.Applied, error) {
	return h.applied("start plugin %s by %s", n, by)
}
func (h *house) StopPlugin(_ context.Context, by, n string) (plugins.Applied, error) {
	return h.applied("stop plugin %s by %s", n, by)
}
func (h *house) Unset(_ context.Context, by, path string) (plugins.Applied, error) {
	return h.applied("unset %s by %s", path, by)
}
func (h *house) ConfigLog(_ context.Context, n int) ([]plugins.ConfigEvent, error) {
	return []plugins.ConfigEvent{{Version: 7}}, h.note("log %d", n)
}
func (h *house) ConfigNodes(context.Context) ([]plugins.ConfigNode, error) {
	return nil, h.note("nodes")
}
func (h *house) Cluster() plugins.Cluster { return plugins.Cluster{Node: "a", Alone: true, Held: true} }
func (h *house) Drain(_ context.Context, node string, pace float64) error {
	return h.note("drain %s %v", node, pace)
}
func (h *house) Undrain(_ context.Context, node string) error { return h.note("undrain %s", node) }
func (h *house) Reload(context.Context) ([]plugins.ConfigChange, error) {
	return nil, h.note("reload")
}

// none is a section without keys.
type none struct{}

func (none) Decode(any) error { return nil }

func newTest(t *testing.T, h *house) *Server {
	t.Helper()
	env := plugins.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: plugins.SystemClock{}, DataDir: t.TempDir()}
	s, err := newServer(env, none{}, plugins.Links{Control: h})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Server)
}

func call(s http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "juliet"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		err                error
		status             int
		does               string // what Control is told
	}{
		{"POST", "/v1/components/a/x/install", "", nil, 200, "install a x by juliet"},
		{"POST", "/v1/components/a/x/start", "", nil, 200, "start a x by juliet"},
		{"POST", "/v1/components/a/x/stop", "", plugins.ErrRequired, 409, "stop a x by juliet"},
		{"POST", "/v1/components/a/x/uninstall", "", nil, 200, "uninstall a x by juliet"},
		{"POST", "/v1/components/a/z/start", "", fmt.Errorf("%w: z", plugins.ErrUnknown), 404, "start a z by juliet"},
		{"POST", "/v1/components/a/x/install", "", plugins.ErrPhase, 409, "install a x by juliet"},
		{"POST", "/v1/components/a/x/explode", "", nil, 404, ""},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"v"}}`, nil, 200, "reconfigure a x map[k:v] by juliet"},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"v"}}`, config.Findings{{Message: "no"}}, 422, "reconfigure a x map[k:v] by juliet"},
		{"PATCH", "/v1/components/a/x", `{"set":{}}`, nil, 400, ""},
		{"PATCH", "/v1/components/a/x", `{"sett":{}}`, nil, 400, ""},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"v"}} {}`, nil, 400, ""},
		{"PATCH", "/v1/components/a/x", `{"set":`, nil, 400, ""},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"` + strings.Repeat("v", maxBody) + `"}}`, nil, 400, ""},
		{"POST", "/v1/servers/a/stop", "", nil, 204, "stop server a"},
		{"POST", "/v1/servers/a/start", "", errors.New("no"), 500, "start server a"},
		{"POST", "/v1/servers/admin/stop", "", nil, 409, ""},
		{"POST", "/v1/servers/z/stop", "", nil, 404, ""},
		{"POST", "/v1/plugins/p/stop", "", context.DeadlineExceeded, 504, "stop plugin p by juliet"},
		{"POST", "/v1/plugins/p/start", "", nil, 200, "start plugin p by juliet"},
		{"POST", "/v1/config/reload", "", nil, 200, "reload"},
		{"DELETE", "/v1/config/a.b", "", nil, 200, "unset a.b by juliet"},
		{"GET", "/v1/nodes", "", nil, 200, ""},
		{"POST", "/v1/nodes/a/drain", `{"pace":2.5}`, nil, 204, "drain a 2.5"},
		{"POST", "/v1/nodes/a/drain", `{"pace":0}`, nil, 400, ""},
		{"POST", "/v1/nodes/a/drain", `{"pace":1}`, fmt.Errorf("a: %w", plugins.ErrAlone), 409, "drain a 1"},
		{"POST", "/v1/nodes/z/undrain", "", fmt.Errorf("%w: z", plugins.ErrNode), 404, "undrain z"},
		{"POST", "/v1/nodes/a/undrain", "", nil, 204, "undrain a"},
		{"DELETE", "/v1/config/a.b", "", plugins.ErrOvertaken, 409, "unset a.b by juliet"},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"v"}}`, plugins.ErrOvertaken, 409, "reconfigure a x map[k:v] by juliet"},
		{"GET", "/v1/config/log", "", nil, 200, "log 100"},
		{"GET", "/v1/config/log?n=3", "", nil, 200, "log 3"},
		{"GET", "/v1/config/log?n=all", "", nil, 400, ""},
		{"GET", "/v1/config/nodes", "", nil, 200, "nodes"},
		{"GET", "/v1/nothing", "", nil, 404, ""},
		{"GET", "/v1/components", "", nil, 200, ""},
		{"GET", "/v1/status", "", nil, 200, ""},
	} {
		h := &house{err: c.err}
		w := call(newTest(t, h), c.method, c.path, c.body)
		if w.Code != c.status || strings.Join(h.calls, ";") != c.does {
			t.Errorf("%s %s: %d %v, wanted %d %q; %s", c.method, c.path, w.Code, h.calls, c.status, c.does, w.Body)
		}
		if w.Code >= 400 {
			var p Problem // RFC 9457 §3
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Title == "" || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s: not a problem document: %s", c.method, c.path, w.Body)
			}
		}
	}
}

// Who changes something hears which nodes do not follow.
func TestBehindIsTold(t *testing.T) {
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/components/a/x/stop", ""},
		{"PATCH", "/v1/components/a/x", `{"set":{"k":"v"}}`},
		{"POST", "/v1/plugins/p/stop", ""},
		{"DELETE", "/v1/config/a.b", ""},
	} {
		var got plugins.Applied
		w := call(newTest(t, &house{}), c.method, c.path, c.body)
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Version != 7 || len(got.Behind) != 1 || got.Behind[0].Node != "verona" {
			t.Errorf("%s %s: %s (%v)", c.method, c.path, w.Body, err)
		}
	}
}

func TestPluginsAreGrouped(t *testing.T) {
	var got []PluginStatus
	if err := json.Unmarshal(call(newTest(t, &house{}), "GET", "/v1/plugins", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "p" || len(got[0].Components) != 2 || len(got[1].Components) != 1 {
		t.Errorf("%+v", got)
	}
}

// guest is a component whose one route waits until it may go on.
type guest struct {
	entered, leave chan struct{}
	servers        func() []plugins.ServerStatus
}

func (*guest) Start(context.Context) error                   { return nil }
func (*guest) Stop(context.Context) error                    { return nil }
func (g *guest) Watch(servers func() []plugins.ServerStatus) { g.servers = servers }
func (g *guest) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/guest", func(w http.ResponseWriter, _ *http.Request) {
		close(g.entered)
		<-g.leave
		Write(w, "served")
	})
}

// TestDetachWaits: a component goes when nothing runs in it any more, and its
// routes with it.
func TestDetachWaits(t *testing.T) {
	s := newTest(t, &house{})
	g := &guest{entered: make(chan struct{}), leave: make(chan struct{})}
	detach, err := s.Attach("guest", g)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.servers()) != 2 {
		t.Errorf("it sees the Servers %v", g.servers())
	}
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() { answered <- call(s, "GET", "/v1/guest", "") }()
	<-g.entered
	detached := make(chan error, 1)
	go func() { detached <- detach(t.Context()) }()
	for len(*s.parts.Load()) > 0 {
	}
	select {
	case <-detached:
		close(g.leave)
		t.Fatal("detached while a request runs in it")
	default:
	}
	if w := call(s, "GET", "/v1/guest", ""); w.Code != http.StatusNotFound {
		t.Errorf("a request after the detachment has begun: %d", w.Code)
	}
	close(g.leave)
	if w := <-answered; w.Code != http.StatusOK {
		t.Errorf("the request that was under way: %d", w.Code)
	}
	if err := <-detached; err != nil {
		t.Error(err)
	}
	if _, err := s.Attach("nobody", plugins.Component(nil)); err == nil {
		t.Error("a component without routes was taken")
	}
}

func TestSocketBelongsToItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), Socket)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", st.Mode(), err)
	}
	if _, err := listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("a second server: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".s*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
}

// TestSocketOfACrashedServer: what it left behind is replaced.
func TestSocketOfACrashedServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), Socket)
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestSocketPathTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(filepath.Join(dir, Socket)); err == nil || !strings.Contains(err.Error(), "shorter data directory") {
		t.Errorf("got %v", err)
	}
}

// TestServeKnowsItsCaller: the kernel says who changes something.
func TestServeKnowsItsCaller(t *testing.T) {
	h := &house{}
	s := newTest(t, h)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	path := filepath.Join(s.env.DataDir, Socket)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
		}
	}}, Timeout: time.Minute}
	req, err := http.NewRequest("PATCH", "http://x/v1/components/a/x", strings.NewReader(`{"set":{"k":"v"}}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(h.calls) != 1 || strings.HasSuffix(h.calls[0], "by ") || strings.HasSuffix(h.calls[0], "by @") {
		t.Errorf("%q", h.calls)
	}
}
