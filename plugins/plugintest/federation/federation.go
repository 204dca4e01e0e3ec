// Package federation lets servers of several domains meet on loopback: a name
// server and an authority of the test's own, Parley houses, and Prosody and ejabberd
// as they come with Debian.
package federation

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"

	"parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/storage"
)

// World is what servers find each other by.
type World struct {
	Zone *Zone
	CA   *Authority
	t    testing.TB
}

// New makes an empty world, which ends with the test.
func New(t testing.TB) *World {
	t.Helper()
	z, err := newZone()
	if err != nil {
		t.Fatalf("name server: %v", err)
	}
	t.Cleanup(z.close)
	ca, err := NewAuthority(t.TempDir())
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	return &World{z, ca, t}
}

// Below are the domains of a domain's services.
func Below(domain string) []string {
	return []string{"conference." + domain, "pubsub." + domain, "upload." + domain, "proxy." + domain, "search." + domain}
}

// House is a Parley server of a domain.
type House struct {
	*plugintest.House
	Files Files
}

// Options make a House.
type Options struct {
	Config  string // YAML, over what it needs
	Foreign bool   // its certificate is one of an authority that nobody knows
	Hidden  bool   // DNS does not know it
	Plugins []plugins.Plugin
	Nodes   int
	Storage func() storage.Config // default: SQLite
	Log     io.Writer
}

// settings is what a house of a world needs; doors are where the system chooses.
const settings = `
servers:
  streamer:
    tls: {certificate: %q, key: %q}
    components:
      accounts: {iterations: 4096}
      s2s: {address: 127.0.0.1:0, direct_tls: 127.0.0.1:0, dns: %q, private_addresses: true, ca: %q}
`

// House starts a Parley server.
func (w *World) House(domain string, o Options) *House {
	w.t.Helper()
	ca := w.CA
	if o.Foreign {
		var err error
		if ca, err = NewAuthority(w.t.TempDir()); err != nil {
			w.t.Fatal(err)
		}
	}
	files, err := ca.Issue(w.t.TempDir(), Leaf{Names: []string{domain, "*." + domain}})
	if err != nil {
		w.t.Fatal(err)
	}
	if o.Plugins == nil {
		o.Plugins = all.Plugins()
	}
	own := fmt.Sprintf(settings, files.Certificate, files.Key, w.Zone.Address(), w.CA.File)
	h := plugintest.Start(w.t, plugintest.Options{
		Domain: domain, Plugins: o.Plugins, Log: o.Log, Nodes: o.Nodes, Storage: o.Storage, Config: own, Node: func(int) string { return o.Config },
	})
	if !o.Hidden {
		w.Announce(domain, h.Door("s2s"))
	}
	return &House{h, files}
}

// host is where servers are: ejabberd asks the system for addresses, whatever else
// it asks the name server for.
const host = "localhost"

// Announce lets DNS know where a domain and its services are: STARTTLS at a port of
// this machine.
func (w *World) Announce(domain, address string) {
	w.t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		w.t.Fatalf("address of %s: %v", domain, err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		w.t.Fatalf("port of %s: %v", domain, err)
	}
	w.Zone.Host(host, "127.0.0.1")
	for _, d := range append([]string{domain}, Below(domain)...) {
		w.Zone.Move("_xmpp-server._tcp."+d, host, port)
	}
}
