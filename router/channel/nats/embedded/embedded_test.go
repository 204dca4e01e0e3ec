package embedded

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must not take long; only a test that fails waits for it.
const soon = 30 * time.Second

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Cluster: "c", Listen: "10.0.0.1:6222", Routes: []string{"10.0.0.2:6222"}, Secret: "s"}
	for _, tc := range []struct {
		field  string // that is wrong; empty: none
		change func(o *Options)
	}{
		{"", func(*Options) {}},
		{"", func(o *Options) { o.Secret, o.Listen = "", "127.0.0.1:6222" }},
		{"", func(o *Options) { o.Secret, o.Listen = "", "[::1]:6222" }},
		{"", func(o *Options) { o.Secret, o.Listen = "", "localhost:6222" }},
		{"", func(o *Options) { o.Secret, o.TLS = "", &tls.Config{} }},
		{"secret", func(o *Options) { o.Secret = "" }},
		{"secret", func(o *Options) { o.Secret, o.Listen = "", ":6222" }},
		{"secret", func(o *Options) { o.Secret, o.Listen = "", "node1:6222" }},
		{"listen", func(o *Options) { o.Listen = "" }},
		{"listen", func(o *Options) { o.Listen = "10.0.0.1" }},
		{"listen", func(o *Options) { o.Listen = "10.0.0.1:70000" }},
		{"routes", func(o *Options) { o.Routes = []string{"10.0.0.2:6222", ":6222"} }},
		{"routes", func(o *Options) { o.Routes = []string{"nats://10.0.0.2:6222"} }},
		{"advertise", func(o *Options) { o.Advertise = "node1" }},
	} {
		o := good
		tc.change(&o)
		err := o.Validate()
		var wrong *FieldError
		if errors.As(err, &wrong); tc.field == "" && err != nil || tc.field != "" && (wrong == nil || wrong.Field != tc.field) {
			t.Errorf("listen %q secret %q: %v, want an error of %q", o.Listen, o.Secret, err, tc.field)
		}
	}
}

// A frozen peer must not go unnoticed for minutes, and nothing but routes is open.
func TestSettings(t *testing.T) {
	s := settings(Options{Cluster: "c", Listen: "127.0.0.1:6222", Routes: []string{"127.0.0.2:6222"}, Secret: "secret"})
	if s.PingInterval > PingInterval || s.MaxPingsOut > PingsMissed || s.Cluster.PingInterval > PingInterval || s.Cluster.MaxPingsOut > PingsMissed || s.Cluster.WriteDeadline > writeDeadline {
		t.Errorf("patient: %v × %d, routes %v × %d", s.PingInterval, s.MaxPingsOut, s.Cluster.PingInterval, s.Cluster.MaxPingsOut)
	}
	if s.JetStream || s.HTTPPort != 0 {
		t.Error("more than routes is open")
	}
}

// Only this process has a client.
func TestClientsOfOthersAreRefused(t *testing.T) {
	s := start(t, newSaid(), Options{Cluster: "c", Listen: "127.0.0.1:0"})
	if nc, err := natsgo.Connect(s.nats.ClientURL()); !errors.Is(err, natsgo.ErrAuthorization) {
		nc.Close()
		t.Errorf("by a socket: %v", err)
	}
	nc, err := natsgo.Connect(natsgo.DefaultURL, natsgo.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

// said is a log that a test reads.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func newSaid() *said { return &said{news: make(chan struct{}, 1)} }

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *said) await(t *testing.T, what string) {
	t.Helper()
	late := time.After(soon)
	for {
		s.mu.Lock()
		text := s.text.String()
		s.mu.Unlock()
		if strings.Contains(text, what) {
			return
		}
		select {
		case <-s.news:
		case <-late:
			t.Fatalf("nobody says %q:\n%s", what, text)
		}
	}
}

func start(t *testing.T, log *said, o Options) *Server {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// joined waits until a server has as many routes.
func joined(t *testing.T, s *Server, n int) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(soon)
	defer tick.Stop()
	for s.Routes() != n {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d routes, not %d", s.Routes(), n)
		}
	}
}

// Who knows one learns of the others; a stranger, or one of another cluster, stays
// outside, and no secret is in any log.
func TestMesh(t *testing.T) {
	log := newSaid()
	one := start(t, log, Options{Cluster: "c", Listen: "127.0.0.1:0", Secret: "open sesame"})
	know := []string{one.Addr()}
	two := start(t, log, Options{Cluster: "c", Listen: "127.0.0.1:0", Routes: know, Secret: "open sesame"})
	three := start(t, log, Options{Cluster: "c", Listen: "127.0.0.1:0", Routes: know, Secret: "open sesame"})
	for _, s := range []*Server{one, two, three} {
		joined(t, s, 2)
	}
	stranger := newSaid()
	start(t, stranger, Options{Cluster: "c", Listen: "127.0.0.1:0", Routes: know, Secret: "open barley"})
	log.await(t, "authentication error")
	other := newSaid()
	start(t, other, Options{Cluster: "d", Listen: "127.0.0.1:0", Routes: know, Secret: "open sesame"})
	log.await(t, "Cluster Name Conflict")
	joined(t, one, 2)
	for _, l := range []*said{log, stranger, other} {
		l.mu.Lock()
		if strings.Contains(l.text.String(), "sesame") || strings.Contains(l.text.String(), "barley") {
			t.Errorf("the secret is told:\n%s", l.text.String())
		}
		l.mu.Unlock()
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Start(t.Context(), Options{Cluster: "c", Listen: l.Addr().String()})
	var wrong *FieldError
	if !errors.As(err, &wrong) || wrong.Field != "listen" || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
