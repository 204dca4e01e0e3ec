package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/stream"
)

// certificateFor makes a self-signed certificate that begins a day ago.
func certificateFor(t *testing.T, until time.Time, names ...string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: until.Add(-1000 * 24 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, "c.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(t, "k.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	return cert, key
}

func TestCheckCertificates(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	e := &examination{now: now}
	for _, c := range []struct {
		name  string
		until time.Time
		names []string
		state severity
		says  string
	}{
		{"good", now.Add(90 * 24 * time.Hour), []string{"example.org"}, good, "is good until 2026-07-30"},
		{"ends soon", now.Add(10 * 24 * time.Hour), []string{"example.org"}, warning, "ends on"},
		{"ended", now.Add(-time.Hour), []string{"example.org"}, bad, "ended on"},
		{"not yet", now.Add(2000 * 24 * time.Hour), []string{"example.org"}, bad, "begins only"},
		{"other name", now.Add(90 * 24 * time.Hour), []string{"example.com"}, bad, "is not for example.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, key := certificateFor(t, c.until, c.names...)
			expect(t, e.certificate(cert, key, []string{"example.org"}), c.state, c.says)
		})
	}
	cert, key := certificateFor(t, now.Add(90*24*time.Hour), "example.org")
	dir := t.TempDir()
	for from, to := range map[string]string{cert: "example.org.crt", key: "example.org.key"} {
		if err := os.Link(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	several := &examination{now: now, domains: []string{"example.org", "example.net"}, streamer: stream.Config{TLS: stream.TLS{Directory: dir}}}
	expect(t, several.certificates(t.Context()), good, filepath.Join(dir, "example.org.crt")+" is good until")
	expect(t, several.certificates(t.Context()), warning, "is self-signed")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, e.certificate(cert, key, nil), warning, "can read the key")
	expect(t, e.certificate(cert, cert, nil), bad, "private key")
	expect(t, e.acme([]string{"localhost"}), bad, "no authority")
}

// expect finds a result with the state and the words; what is no ok has a fix.
func expect(t *testing.T, all []result, state severity, says string) {
	t.Helper()
	found := false
	for _, r := range all {
		found = found || r.State == state && strings.Contains(r.Message, says)
		if r.State != good && r.Fix == "" {
			t.Errorf("no fix for %q", r.Message)
		}
	}
	if !found {
		t.Errorf("no %s with %q in %+v", state, says, all)
	}
}

// zone is a resolver with fixed answers.
type zone struct {
	srv     map[string][]*net.SRV
	hosts   map[string][]string
	offline bool
}

func (z zone) missing(name string) error {
	if z.offline {
		return &net.DNSError{Err: "timeout", Name: name, IsTimeout: true}
	}
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if l, ok := z.srv["_"+service+"._"+proto+"."+name]; ok {
		return name, l, nil
	}
	return "", nil, z.missing(name)
}

func (z zone) LookupHost(_ context.Context, host string) ([]string, error) {
	if l, ok := z.hosts[host]; ok {
		return l, nil
	}
	return nil, z.missing(host)
}

func TestCheckRecords(t *testing.T) {
	s, err := read("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := streamConfig(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	const name = "_xmpp-client._tcp.example.org"
	host := map[string][]string{"example.org": {"192.0.2.1"}}
	for _, tc := range []struct {
		name  string
		zone  zone
		state severity
		says  string
		fix   string
	}{
		{"nothing", zone{}, warning, "there is none", name + ". 3600 IN SRV 0 5 5222 example.org."},
		{"offline", zone{offline: true}, warning, "does not answer", "example.org. 3600 IN A "},
		{"right", zone{srv: map[string][]*net.SRV{name: {{Target: "example.org", Port: 5222}}}, hosts: host}, good, name + " leads to example.org port 5222", ""},
		{"port", zone{srv: map[string][]*net.SRV{name: {{Target: "example.org", Port: 5269}}}, hosts: host}, warning, "leads to port 5269", "5222"},
		{"target", zone{srv: map[string][]*net.SRV{name: {{Target: "x.example.org", Port: 5222}}}, hosts: host}, warning, "has no address", ""},
		{"refused", zone{srv: map[string][]*net.SRV{name: {{Target: "."}}}, hosts: host}, warning, "no such service", "5222"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := &examination{setup: s, streamer: c, domains: []string{"example.org"}, dns: tc.zone}
			all := e.records(t.Context())
			expect(t, all, tc.state, tc.says)
			if !anyFix(all, tc.fix) {
				t.Errorf("no fix with %q in %+v", tc.fix, all)
			}
		})
	}
	expect(t, (&examination{setup: s, streamer: c, domains: []string{"localhost"}, dns: zone{}}).records(t.Context()), good, "needs no records")
}

// What other servers look for: with no records the domain's address and the usual port
// are enough; a service of rooms has a name of its own.
func TestCheckRecordsForServers(t *testing.T) {
	const domain, rooms, client = "example.org", "conference.example.org", "_xmpp-client._tcp.example.org"
	srv := func(name string, port uint16) map[string][]*net.SRV {
		return map[string][]*net.SRV{client: {{Target: domain, Port: 5222}}, name: {{Target: domain, Port: port}}}
	}
	both := map[string][]string{domain: {"192.0.2.1"}, rooms: {"192.0.2.1"}, "pubsub.example.org": {"192.0.2.1"}}
	for _, tc := range []struct {
		name, config string
		zone         zone
		state        severity
		says, fix    string
	}{
		{"by address", "", zone{hosts: both}, good, "other servers look for example.org at its address, port 5269", ""},
		{"rooms by address", "", zone{hosts: both}, good, "other servers look for conference.example.org", ""},
		{"rooms nowhere", "", zone{hosts: map[string][]string{domain: {"192.0.2.1"}}}, warning, "other servers do not find conference.example.org", "_xmpp-server._tcp.conference.example.org. 3600 IN SRV 0 5 5269 example.org."},
		{"rooms by record", "", zone{srv: srv("_xmpp-server._tcp."+rooms, 5269), hosts: both}, good, "_xmpp-server._tcp.conference.example.org leads to example.org port 5269", ""},
		{"another port", "{address: ':5299'}", zone{hosts: both}, warning, "look for example.org at port 5269, this one listens for them on 5299", "SRV 0 5 5299 example.org."},
		{"a record to another port", "", zone{srv: srv("_xmpp-server._tcp."+domain, 5299), hosts: both}, warning, "_xmpp-server._tcp.example.org leads to port 5299", "SRV 0 5 5269 example.org."},
		{"offline", "", zone{offline: true}, warning, "what other servers find of example.org is not known", ""},
		{"a record to a closed door", "{direct_tls: ''}", zone{srv: srv("_xmpps-server._tcp."+domain, 5270), hosts: both}, warning, "_xmpps-server._tcp.example.org leads to a door that is closed", ""},
		{"a service's record", "", zone{srv: srv("_xmpp-server._tcp."+rooms, 5299), hosts: both}, warning, "leads to port 5299", "_xmpp-server._tcp.conference.example.org. 3600 IN SRV 0 5 5269 example.org."},
		{"direct TLS alone", "{address: ''}", zone{hosts: both}, warning, "_xmpps-server._tcp.example.org (other servers, direct TLS, XEP-0368 §3): there is none", "5270"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := ""
			if tc.config != "" {
				file = write(t, "parley.yaml", "servers: {streamer: {components: {s2s: "+tc.config+"}}}\n")
			}
			s, err := read(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			all := (&examination{setup: s, domains: []string{domain}, dns: tc.zone}).records(t.Context())
			expect(t, all, tc.state, tc.says)
			if !anyFix(all, tc.fix) {
				t.Errorf("no fix with %q in %+v", tc.fix, all)
			}
		})
	}
	s, err := read(write(t, "parley.yaml", "servers: {streamer: {components: {s2s: {enabled: false}}}, router: {components: {s2s: {enabled: false}}}}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range (&examination{setup: s, domains: []string{domain}, dns: zone{}}).records(t.Context()) {
		if strings.Contains(r.Message, "server") {
			t.Errorf("nobody talks to other servers: %+v", r)
		}
	}
}

func anyFix(all []result, part string) bool {
	for _, r := range all {
		if strings.Contains(r.Fix, part) {
			return true
		}
	}
	return false
}

func TestCheckCommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	data := filepath.Join(t.TempDir(), "data")
	args := []string{"check", "--json", "--data", data, "--c2s-tls", "", "--http", "", "--https", "", "--c2s"}
	states := func(out string) map[string]severity {
		var all []result
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		worst := map[string]severity{}
		for _, r := range all {
			if worst[r.Area] != bad && (worst[r.Area] != warning || r.State == bad) {
				worst[r.Area] = r.State
			}
		}
		return worst
	}

	fresh := states(must(t, append(args, "127.0.0.1:0")...))
	for _, area := range []string{"configuration", "data", "certificate", "dns", "ports", "database", "clock"} {
		if fresh[area] != good {
			t.Errorf("%s of a fresh installation: %q", area, fresh[area])
		}
	}
	out, _, err := parley(t, "", append(args, l.Addr().String())...)
	if !errors.Is(err, errSaid) || states(out)["ports"] != bad {
		t.Errorf("a port that is taken: %v\n%s", err, out)
	}
	encrypted := write(t, "encrypted.yaml", "storage: {encryption: {keys_file: "+filepath.Join(t.TempDir(), "keys")+"}}\n")
	with := append(slices.Clone(args), "127.0.0.1:0", "--config", encrypted)
	if out, _, err := parley(t, "", with...); !errors.Is(err, errSaid) || states(out)["keys"] != bad || !strings.Contains(out, "parley keys new") {
		t.Errorf("without the keys file: %v\n%s", err, out)
	}
	must(t, "keys", "new", "--data", data, "--config", encrypted)
	if with := states(must(t, with...)); with["keys"] != good {
		t.Errorf("with the keys file: %v", with)
	}
	must(t, "account", "list", "--data", data) // makes the database
	if after := states(must(t, append(args, "127.0.0.1:0")...)); after["database"] != good || after["disk"] == "" {
		t.Errorf("with a database: %v", after)
	}
	if err := os.WriteFile(filepath.Join(data, "parley.db"), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"-wal", "-shm"} {
		_ = os.Remove(filepath.Join(data, "parley.db"+f))
	}
	out, _, err = parley(t, "", append(args, "127.0.0.1:0")...)
	if !errors.Is(err, errSaid) || states(out)["database"] != bad {
		t.Errorf("a damaged database: %v\n%s", err, out)
	}
	out, _, err = parley(t, "", "check", "--config", write(t, "parley.yaml", "domain: x\n"))
	if !errors.Is(err, errSaid) {
		t.Errorf("a wrong configuration: %v", err)
	}
	contains(t, out, "error", "parley.yaml:1:1", "^", "→")
}

func TestCheckSecrets(t *testing.T) {
	dsn := write(t, "dsn", "postgres://x@127.0.0.1:1/x")
	file := write(t, "parley.yaml", "storage: {driver: postgres, dsn_file: "+dsn+"}\n")
	for mode, want := range map[os.FileMode]bool{0o644: true, 0o640: false} {
		if err := os.Chmod(dsn, mode); err != nil {
			t.Fatal(err)
		}
		out, _, _ := parley(t, "", "check", "--config", file, "--data", t.TempDir())
		if got := strings.Contains(out, "every user of this machine can read "+dsn); got != want {
			t.Errorf("%v: %v\n%s", mode, got, out)
		}
	}
}

// A core has no doors, and a way to other nodes.
func TestCheckOfACore(t *testing.T) {
	for more, says := range map[string]string{
		"ca: /nofile": "cluster.nats.ca",
		"":            "no NATS server answers",
	} {
		file := write(t, "core.yaml", `storage: {driver: postgres, dsn: 'postgres://x@127.0.0.1:1/x'}
cluster: {nats: {urls: ['tls://127.0.0.1:1'], `+more+`}}
servers:
  streamer: {enabled: false}
  processor: {deployment: {type: distributed}}
  router: {deployment: {type: distributed}}
`)
		out, _, err := parley(t, "", "check", "--config", file, "--data", t.TempDir())
		if !errors.Is(err, errSaid) {
			t.Errorf("%v", err)
		}
		contains(t, out, says, "database")
		for _, foreign := range []string{"certificate  ", "ports  ", "limits  ", "dns  "} {
			if strings.Contains(out, foreign) {
				t.Errorf("a core has no %s:\n%s", foreign, out)
			}
		}
	}
}

func TestCheckClock(t *testing.T) {
	built := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for now, want := range map[time.Time]severity{
		built.Add(time.Hour):  good,
		built.Add(-time.Hour): bad,
		time.Unix(0, 0):       bad,
	} {
		if got := (&examination{now: now, built: built}).clock(t.Context()); got[0].State != want {
			t.Errorf("%s: %+v", now, got)
		}
	}
}
