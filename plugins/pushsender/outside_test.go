package pushsender

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/config"
)

// clock stands until it is moved.
type clock struct {
	plugins.SystemClock
	now time.Time
}

func (c *clock) Now() time.Time { return c.now }

// serve runs an outside service over TLS and HTTP/2, and trusts it in cfg.
func serve(t *testing.T, cfg *Config, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	cfg.Trust = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cfg.Trust, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func client(t *testing.T, cfg *Config, inner bool) *http.Client {
	t.Helper()
	c, err := outside(cfg, inner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// RFC 8291 §5: the keys of its example.
const (
	testPrivate = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
	testPublic  = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
	testP256dh  = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	testAuth    = "BTBZMqHH6r4Tts7J_aSIgg"
)

func (c *Config) withVAPID() *Config {
	c.WebPush = WebPush{Key: config.NewSecret(testPrivate), Contact: "mailto:admin@example.org"}
	return c
}

func webNote(endpoint string) *note {
	return &note{to: registration{node: "n", kind: kindWebPush, endpoint: endpoint, p256dh: testP256dh, auth: testAuth}, count: 1}
}

// TestReliability20Push: a name that leads inside is not connected to, whatever the
// registration has looked like.
func TestReliability20Push(t *testing.T) {
	var touched atomic.Int32
	cfg := defaults().withVAPID()
	s := serve(t, cfg, func(http.ResponseWriter, *http.Request) { touched.Add(1) })
	w, err := newWebPush(cfg, client(t, cfg, false))
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{s.URL + "/secret", strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/secret"} {
		err := w.send(t.Context(), webNote(endpoint))
		if !errors.Is(err, errInside) {
			t.Errorf("%s: %v", endpoint, err)
		}
		if strings.Contains(err.Error(), "/secret") {
			t.Errorf("the error shows the endpoint: %v", err)
		}
	}
	if touched.Load() > 0 {
		t.Error("it has connected")
	}
}

// What services answer: redirects are not followed, answers are bounded, and each
// status is what RFC 8030 says.
func TestWebPushAnswers(t *testing.T) {
	var status atomic.Int32
	var asked atomic.Int32
	cfg := defaults().withVAPID()
	s := serve(t, cfg, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", "/elsewhere")
		if status.Load() == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "120")
		}
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write(make([]byte, 1<<20))
	})
	w, err := newWebPush(cfg, client(t, cfg, true))
	if err != nil {
		t.Fatal(err)
	}
	if w.public != testPublic {
		t.Errorf("the public key is %s", w.public)
	}
	for code, want := range map[int]func(error) bool{
		200: func(err error) bool { return err == nil },
		201: func(err error) bool { return err == nil },
		307: func(err error) bool { return err != nil && !errors.Is(err, errGone) },
		403: func(err error) bool { return err != nil && !errors.Is(err, errGone) },
		404: func(err error) bool { return errors.Is(err, errGone) },
		410: func(err error) bool { return errors.Is(err, errGone) },
		429: func(err error) bool {
			var l *laterError
			return errors.As(err, &l) && l.after == 2*time.Minute
		},
		503: func(err error) bool { return err != nil && !errors.Is(err, errGone) },
	} {
		status.Store(int32(code))
		before := asked.Load()
		if err := w.send(t.Context(), webNote(s.URL+"/x")); !want(err) {
			t.Errorf("%d: %v", code, err)
		}
		if n := asked.Load() - before; n != 1 {
			t.Errorf("%d: %d requests", code, n)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "x": 0, "-1": 0, "0": 0, "90": 90 * time.Second, "99999999": maxAfter, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func TestKeys(t *testing.T) {
	for name, k := range keyForms(t) {
		got, err := curveKey(k.text)
		if (err == nil) != k.good {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(k.text) > 20 && strings.Contains(err.Error(), k.text[:20]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
		if k.good {
			if b, err := got.Bytes(); err != nil || encode64(b) != testPrivate {
				t.Errorf("%s: another key", name)
			}
		}
	}
}
