package plugins

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"parley/plugins/config"
	"parley/router/channel/nats"
	"parley/router/channel/nats/embedded"
)

// What is wrong with certificates is said by the keys that they come from.
func TestNATSErrorsNameTheKey(t *testing.T) {
	a, addr := exampleNATS(t)
	good := a.settings(addr, "node1")
	mustDialAs(t, good, "node1")

	stranger := newAuthority(t)
	stranger.issue("node1")
	for what, tc := range map[string]struct {
		change func(s *NATSSettings)
		want   []string
	}{
		"another authority":     {func(s *NATSSettings) { s.CA = stranger.path("ca.pem") }, []string{"cluster.nats.ca"}},
		"the system's":          {func(s *NATSSettings) { s.CA = "" }, []string{"cluster.nats.ca"}},
		"no certificate":        {func(s *NATSSettings) { s.Certificate, s.Key = "", "" }, []string{"cluster.nats.certificate"}},
		"a stranger's":          {func(s *NATSSettings) { s.Certificate, s.Key = stranger.path("node1.pem"), stranger.path("node1.key") }, []string{"cluster.nats.certificate"}},
		"no file of authority":  {func(s *NATSSettings) { s.CA = "/nowhere" }, []string{"cluster.nats.ca", "/nowhere"}},
		"no authority in it":    {func(s *NATSSettings) { s.CA = a.path("node1.key") }, []string{"cluster.nats.ca", "no certificate"}},
		"no file of the key":    {func(s *NATSSettings) { s.Key = "/nowhere" }, []string{"cluster.nats.key", "/nowhere"}},
		"another node's key":    {func(s *NATSSettings) { s.Key = a.path("server.key") }, []string{"cluster.nats.certificate", "cluster.nats.key"}},
		"nobody NATS knows":     {func(s *NATSSettings) { s.Certificate, s.Key = a.path("server.pem"), a.path("server.key") }, []string{"cluster.nats.certificate"}},
		"not where it says":     {func(s *NATSSettings) { s.URLs = []string{strings.Replace(s.URLs[0], "127.0.0.1", "localhost", 1)} }, []string{"cluster.nats.ca", "cluster.nats.urls"}},
		"no file with a user":   {func(s *NATSSettings) { s.Credentials = "/nowhere" }, []string{"cluster.nats.credentials", "/nowhere"}},
		"no user in that":       {func(s *NATSSettings) { s.Credentials = a.path("ca.pem") }, []string{"cluster.nats.credentials"}},
		"another node's name":   {func(s *NATSSettings) {}, nil},
		"a prefix of others":    {func(s *NATSSettings) { s.Prefix = "other" }, []string{"cluster.nats.prefix"}},
		"neither a port nor up": {func(s *NATSSettings) { s.URLs = []string{"tls://node1:sesame@127.0.0.1:1"} }, []string{"127.0.0.1:1"}},
	} {
		t.Run(what, func(t *testing.T) {
			s, node := good, "node1"
			if tc.change(&s); tc.want == nil {
				node, tc.want = "node2", []string{"PREFIX.NODE.>", "node2"}
			}
			_, err := dialAs(t, s, node)
			natsRefusal(t, err, tc.want...)
		})
	}
}

// Users with passwords and with credentials, right and wrong.
func TestNATSUsers(t *testing.T) {
	plain := runNATS(t, &natsserver.Options{Host: "127.0.0.1", Port: -1, Username: "node1", Password: "open-sesame"})
	log := &lines{news: make(chan struct{}, 1)}
	listen := func(o *nats.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) }
	mustDialAs(t, NATSSettings{URLs: []string{"node1:open-sesame@" + plain}, Prefix: "parley"}, "node1", listen)
	s := NATSSettings{URLs: []string{plain}, User: "node1", Password: config.NewSecret("open-sesame"), Prefix: "parley"}
	mustDialAs(t, s, "node1", listen)
	log.await(t, "nats: connected", "parley.node1.*.*")
	if log.mu.Lock(); strings.Contains(log.text.String(), "sesame") {
		t.Errorf("the password is logged:\n%s", log.text.String())
	}
	log.mu.Unlock()
	s.Password = config.NewSecret("sesame street")
	_, err := dialAs(t, s, "node1")
	natsRefusal(t, err, "cluster.nats.user", "password")
	s.User, s.Password = "", config.Secret{}
	_, err = dialAs(t, s, "node1")
	natsRefusal(t, err, "cluster.nats.user", "credentials")
	s.URLs = []string{"node1:sesame@" + plain}
	_, err = dialAs(t, s, "node1")
	natsRefusal(t, err, plain)
	s.URLs = []string{"tls://" + plain}
	_, err = dialAs(t, s, "node1")
	natsRefusal(t, err, "cluster.nats.urls has tls://")
}

// The configuration in examples/cluster lets nodes do what they have to, and refuses
// whoever speaks as another or listens to what is another's.
func TestNATSPermissionsOfTheExample(t *testing.T) {
	a, addr := exampleNATS(t)
	names := []string{"node1", "node2", "core1", "front1"}
	buses := map[string]*nats.Bus{}
	for _, name := range names {
		buses[name] = mustDialAs(t, a.settings(addr, name), name)
		receive(t, buses[name], "router", "streamer", "sessions", "notices")
	}
	for _, b := range buses {
		for _, name := range names {
			b.Join(nats.Peer{Node: name, Incarnation: 1})
		}
	}
	for from, b := range buses {
		for _, to := range names {
			for _, port := range []string{"router", "streamer", "sessions", "notices"} {
				if from == to || from == "front1" && port == "router" {
					continue
				}
				if err := inTurn(t, b, to, port); err != nil {
					t.Errorf("%s of %s to %s: %v", port, from, to, err)
				}
			}
		}
	}

	c, err := a.settings(addr, "node2").client()
	if err != nil {
		t.Fatal(err)
	}
	violations := make(chan error, 10)
	nc, err := natsgo.Connect("tls://"+addr, natsgo.Secure(c.TLS), natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { violations <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"parley.node3.node1.router", "parley.node1.node1.ack", "parley.node1", "other.node1.node2.router", "$SYS.REQ.SERVER.PING"} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		violated(t, violations, "publish to "+subject)
	}
	for _, subject := range []string{"parley.node1.>", "parley.*.node2.ack", "parley.>", ">", "_INBOX.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		violated(t, violations, "subscribe to "+subject)
	}
}

func violated(t *testing.T, violations <-chan error, what string) {
	t.Helper()
	select {
	case err := <-violations:
		if !errors.Is(err, natsgo.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(soon):
		t.Errorf("%s is permitted", what)
	}
}

// A node that may not do what it does says so, and its pipe stands still instead of
// losing anything.
func TestNATSPermissionDeniedIsLogged(t *testing.T) {
	a, addr := exampleNATS(t)
	log := &lines{news: make(chan struct{}, 1)}
	front := mustDialAs(t, a.settings(addr, "front1"), "front1", func(o *nats.Options) {
		o.Log, o.Stall = slog.New(slog.NewTextHandler(log, nil)), 300*time.Millisecond
	})
	core := mustDialAs(t, a.settings(addr, "core1"), "core1")
	receive(t, core, "router", "sessions")
	front.Join(nats.Peer{Node: "core1", Incarnation: 1})
	if err := front.Send(t.Context(), "core1", "router", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	log.await(t, "not permitted", "parley.core1.front1.router")
	log.await(t, "peer acknowledges nothing")
	if err := front.Send(t.Context(), "core1", "router", []byte("x"), nil); !errors.Is(err, nats.ErrStalled) {
		t.Errorf("got %v", err)
	}
	if err := inTurn(t, front, "core1", "sessions"); err != nil {
		t.Errorf("other ports: %v", err)
	}
}

// A file with credentials that NATS does not know is told from one that is none.
func TestNATSCredentialsOfAStranger(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nats.creds")
	text := "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.AA\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n" + string(seed) + "\n------END USER NKEY SEED------\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := runNATS(t, &natsserver.Options{Host: "127.0.0.1", Port: -1, Username: "node1", Password: "open sesame"})
	_, err = dialAs(t, NATSSettings{URLs: []string{addr}, Credentials: file, Prefix: "parley"}, "node1")
	natsRefusal(t, err, "see cluster.nats.credentials")
	if strings.Contains(err.Error(), string(seed)) {
		t.Error("the seed is told")
	}
}

// What only shows when the embedded server starts is said by its key too.
func TestEmbeddedAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := NATSSettings{Prefix: "parley", Embedded: EmbeddedSettings{Listen: l.Addr().String()}}
	_, err = embedded.Start(t.Context(), s.mesh(nil))
	natsRefusal(t, named(err), "cluster.nats.embedded.listen", "in use")
}

// Nodes show each other certificates; one with a stranger's stays outside.
func TestEmbeddedNodesShowCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	log := &lines{news: make(chan struct{}, 1)}
	start := func(by *authority, name string, routes ...string) *embedded.Server {
		by.issue(name)
		s := NATSSettings{
			CA: by.path("ca.pem"), Certificate: by.path(name + ".pem"), Key: by.path(name + ".key"), Prefix: "parley",
			Embedded: EmbeddedSettings{Listen: "127.0.0.1:0", Routes: routes},
		}
		c, err := s.client()
		if err != nil {
			t.Fatal(err)
		}
		o := s.mesh(c.TLS)
		o.Log = slog.New(slog.NewTextHandler(log, nil))
		n, err := embedded.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		return n
	}
	one := start(a, "node1")
	two := start(a, "node2", one.Addr())
	tick, late := time.NewTicker(5*time.Millisecond), time.After(soon)
	defer tick.Stop()
	for one.Routes() != 1 || two.Routes() != 1 {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d and %d routes", one.Routes(), two.Routes())
		}
	}
	three := start(stranger, "node3", one.Addr())
	log.await(t, "TLS route handshake error")
	if one.Routes() != 1 || three.Routes() != 0 {
		t.Errorf("a stranger has %d routes", three.Routes())
	}
}

// What cannot be right is found before anything starts, at the key that is wrong.
func TestNATSSettingsAreChecked(t *testing.T) {
	schema, err := Schema(nil)
	if err != nil {
		t.Fatal(err)
	}
	const pg = "storage: {driver: postgres, dsn: 'postgres://x'}\n"
	for _, tc := range []struct{ key, text string }{
		{"", pg + "cluster: {nats: {urls: ['nats://node1:open-sesame@x']}}"},
		{"", pg + "cluster: {nats: {embedded: {listen: '127.0.0.1:6222'}}}"},
		{"", pg + "cluster: {nats: {embedded: {listen: ':6222', secret: sesame, routes: ['x:6222']}}}"},
		{"", pg + "cluster: {nats: {ca: a, certificate: b, key: c, embedded: {listen: ':6222'}}}"},
		{"cluster.nats.urls", "cluster: {nats: {urls: ['nats://node1:sesame@x']}}"},
		{"cluster.nats.embedded.listen", "cluster: {nats: {embedded: {listen: '127.0.0.1:6222'}}}"},
		{"cluster.nats.embedded.listen", pg + "cluster: {nats: {urls: ['nats://node1:sesame@x'], embedded: {listen: '127.0.0.1:6222'}}}"},
		{"cluster.nats.embedded.listen", pg + "cluster: {nats: {embedded: {routes: ['x:6222']}}}"},
		{"cluster.nats.embedded.listen", pg + "cluster: {nats: {embedded: {secret: sesame}}}"},
		{"cluster.nats.embedded.listen", pg + "cluster: {nats: {user: node1, embedded: {listen: '127.0.0.1:6222'}}}"},
		{"cluster.nats.embedded.listen", pg + "cluster: {nats: {embedded: {listen: '10.0.0.1'}}}"},
		{"cluster.nats.embedded.secret", pg + "cluster: {nats: {embedded: {listen: '10.0.0.1:6222'}}}"},
		{"cluster.nats.embedded.routes", pg + "cluster: {nats: {embedded: {listen: '127.0.0.1:6222', routes: ['10.0.0.2']}}}"},
		{"cluster.nats.embedded.advertise", pg + "cluster: {nats: {embedded: {listen: '127.0.0.1:6222', advertise: x}}}"},
		{"cluster.nats.ca", pg + "cluster: {nats: {certificate: b, key: c, embedded: {listen: ':6222'}}}"},
		{"cluster.nats.certificate", pg + "cluster: {nats: {urls: [x], certificate: b}}"},
		{"cluster.nats.password", pg + "cluster: {nats: {urls: [x], password: sesame}}"},
		{"cluster.nats.credentials", pg + "cluster: {nats: {urls: [x], user: u, credentials: b}}"},
	} {
		tree, err := config.Parse(schema, "parley.yaml", []byte(tc.text), config.Inputs{})
		if tc.key != "" {
			natsRefusal(t, err, tc.key)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		for _, e := range tree.Show() {
			if strings.Contains(e.Value, "sesame") {
				t.Errorf("%s is shown: %s", e.Path, e.Value)
			}
		}
	}
}
