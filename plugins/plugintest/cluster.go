package plugintest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/plugins"
	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// clustered is what the nodes of a house are configured with besides.
const clustered = `
storage: {driver: postgres, dsn: "postgres://unused"}
cluster: {lease: 4s, nats: {%s}}
servers:
  streamer: {deployment: {type: distributed}}
  router: {deployment: {type: distributed}}
`

// core reports whether the node is one that fronts go to.
func (h *House) core(i int) bool { return h.opt.Fronts > 0 && i >= h.opt.Fronts }

// half is what a front or a core is configured with besides.
func (h *House) half(i int) []byte {
	switch {
	case h.opt.Fronts == 0:
		return nil
	case h.core(i):
		return []byte("servers: {streamer: {enabled: false}, processor: {deployment: {type: distributed}}}")
	}
	return []byte("servers: {processor: {enabled: false}, router: {enabled: false}}")
}

// meet is what cluster.nats says on each node.
func (h *House) meet(t testing.TB) func(node int) string {
	t.Helper()
	if !h.opt.Mesh {
		h.nats = NATS(t)
		return func(int) string { return fmt.Sprintf("urls: [%q]", h.nats) }
	}
	at := Addresses(t, h.count())
	return func(node int) string {
		return fmt.Sprintf("embedded: {listen: %q, routes: ['%s'], secret: of the test}", at[node], strings.Join(at, "', '"))
	}
}

// Addresses are n places on loopback where nobody listens.
func Addresses(t testing.TB, n int) (at []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // when all are chosen, so that they differ
		at = append(at, l.Addr().String())
	}
	return at
}

// NATS starts a server that ends with the test and returns its URL.
func NATS(t testing.TB) string {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatalf("NATS: %v", err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(startLimit) {
		t.Fatal("NATS does not start")
	}
	return s.ClientURL()
}

// HostOf returns the Host of one of several nodes.
func (h *House) HostOf(i int) *plugins.Host { return h.node(i).host }

// DoorOf returns the address of a door of one of several nodes; "": it is closed.
func (h *House) DoorOf(i int, name string) string {
	n := h.node(i)
	if n.host == nil { // EndNode
		return ""
	}
	srv, ok := n.host.Server(stream.Name)
	if !ok {
		return ""
	}
	return srv.(*stream.Server).Addresses()[name]
}

// EndNode ends one of several nodes, until BeginNode or the end of the house.
func (h *House) EndNode(ctx context.Context, i int) error {
	h.mu.Lock()
	n := h.nodes[i]
	h.nodes[i] = &node{}
	h.mu.Unlock()
	return n.end(ctx)
}

// BeginNode starts again a node that EndNode has ended.
func (h *House) BeginNode(ctx context.Context, i int) error {
	n, err := h.startNode(ctx, i)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes[i] = n
	return nil
}

// Spread is a house of several nodes over which a script's clients are spread:
// neighbours in the script are on different nodes.
type Spread struct{ *House }

var (
	_ script.Spreader  = Spread{}
	_ script.Settler   = Spread{}
	_ script.Scattered = Spread{}
)

// DialFrom implements script.Spreader.
func (h Spread) DialFrom(ctx context.Context, client int, kind script.DialKind) (net.Conn, error) {
	if h.opt.Fronts > 0 {
		client %= h.opt.Fronts
	}
	return h.node(client).dial(ctx, kind)
}

// Scattered implements script.Scattered: a room is on one of several nodes.
func (h Spread) Scattered() bool { return h.count()-h.opt.Fronts > 1 }

// Settled implements script.Settler: what one node has sent to another may lead
// to something for a third.
func (h Spread) Settled(ctx context.Context) error {
	for range 2 {
		for i := range h.count() {
			if err := h.node(i).host.Settled(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// wire is a node's way to the others.
func (h *House) wire(i int) (meets string, wires []*storagetest.Proxy) {
	switch {
	case h.meets == nil:
		return "", nil
	case !h.opt.Mortal:
		return h.meets(i), nil
	}
	c := storage.Config{DSN: h.nats}
	p := storagetest.Behind(h.t, &c)
	return fmt.Sprintf("urls: [%q]", c.DSN), []*storagetest.Proxy{p}
}

// KillNode ends one of several nodes as the failure of its machine does: nothing
// is heard of it any more, and connections to it stay open. It does not come
// back; those behind it move up.
func (h *House) KillNode(i int) {
	h.CrashNode(i)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes = slices.Delete(h.nodes, i, i+1)
}

// CrashNode is KillNode for one that comes back with BeginNode, under its name.
func (h *House) CrashNode(i int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[i]
	for _, w := range n.wires {
		w.Freeze()
	}
	h.nodes[i] = &node{}
	h.dead = append(h.dead, n)
}

// Wire is what a node of a Mortal house reaches others by.
type Wire int

// The wires of a node.
const (
	ToNATS Wire = iota
	ToDatabase
)

// Cut lets nothing through a node's wire any more, until Mend: connections stay
// open, and nothing is heard on them.
func (h *House) Cut(i int, w Wire) { h.node(i).wires[w].Freeze() }

// Mend takes Cut back.
func (h *House) Mend(i int, w Wire) { h.node(i).wires[w].Thaw() }

// clear takes away what is left of nodes that were killed.
func (h *House) clear(ctx context.Context) {
	h.mu.Lock()
	dead := h.dead
	h.dead = nil
	h.mu.Unlock()
	for _, n := range dead {
		for _, w := range n.wires {
			w.Thaw()
		}
		_ = n.db.Close()
		_ = n.host.Stop(ctx) // it complains of the database
	}
}
