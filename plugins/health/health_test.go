package health

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
	"parley/storage"
)

// database answers pings.
type database struct {
	storage.DB
	err error
}

func (d *database) Ping(context.Context) error { return d.err }

func newTest(db *database) (*routes, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	env := plugins.Env{DB: db, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: reg}
	return &routes{env: env, cfg: *defaults(), house: newHouse(env)}, reg
}

func ask(h http.HandlerFunc, from string, header http.Header) (int, string) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = from
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	h(w, r)
	return w.Code, w.Body.String()
}

func TestReady(t *testing.T) {
	db := &database{}
	r, _ := newTest(db)
	if code, body := ask(r.ready, "192.0.2.1:1", nil); code != http.StatusOK {
		t.Errorf("all is well: %d %s", code, body)
	}
	servers := []plugins.ServerStatus{{Name: "router", Running: true}, {Name: "parser"}}
	(&watcher{r.house}).Watch(func() []plugins.ServerStatus { return servers })
	if code, body := ask(r.ready, "192.0.2.1:1", nil); code != http.StatusServiceUnavailable || body != "server parser does not run\n" {
		t.Errorf("a Server is stopped: %d %s", code, body)
	}
	servers[1].Running = true
	db.err = errors.New("password=secret")
	code, body := ask(r.ready, "192.0.2.1:1", nil)
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "database") || strings.Contains(body, "secret") {
		t.Errorf("the database is gone: %d %s", code, body)
	}
	if code, _ := ask(r.alive, "192.0.2.1:1", nil); code != http.StatusOK {
		t.Errorf("alive: %d", code)
	}
}

func TestMetricsAreForTheConfigured(t *testing.T) {
	r, reg := newTest(&database{})
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total"})
	reg.MustRegister(c)
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		from    string
		header  http.Header
		allowed []netip.Prefix
		code    int
	}{
		{"127.0.0.1:9", nil, r.cfg.MetricsFrom, 200},
		{"127.1.2.3:9", nil, r.cfg.MetricsFrom, 200},
		{"[::1]:9", nil, r.cfg.MetricsFrom, 200},
		{"[::ffff:127.0.0.1]:9", nil, r.cfg.MetricsFrom, 200},
		{"192.0.2.1:9", nil, r.cfg.MetricsFrom, 403},
		{"[2001:db8::1]:9", nil, r.cfg.MetricsFrom, 403},
		{"127.0.0.1:9", http.Header{"X-Forwarded-For": {"192.0.2.1"}}, r.cfg.MetricsFrom, 403},
		{"127.0.0.1:9", http.Header{"Forwarded": {"for=192.0.2.1"}}, r.cfg.MetricsFrom, 403},
		{"@", nil, r.cfg.MetricsFrom, 403},
		{"10.1.1.1:9", nil, ten, 200},
		{"127.0.0.1:9", nil, ten, 403},
		{"127.0.0.1:9", nil, nil, 403},
	} {
		r.cfg.MetricsFrom = tc.allowed
		code, body := ask(r.metrics, tc.from, tc.header)
		if code != tc.code || (code == 200) != strings.Contains(body, "test_total") {
			t.Errorf("%s %v: %d %s", tc.from, tc.header, code, body)
		}
	}
	r.house.gather = nil
	r.cfg.MetricsFrom = ten
	if code, _ := ask(r.metrics, "10.0.0.1:1", nil); code != http.StatusNotImplemented {
		t.Errorf("without metrics: %d", code)
	}
}
