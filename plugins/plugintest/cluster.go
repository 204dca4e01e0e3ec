package plugintest

import (
	"context"
	"net"
	"slices"
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
cluster: {lease: 4s, nats: {urls: ["%s"]}}
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
	_ script.Spreader = Spread{}
	_ script.Settler  = Spread{}
)

// DialFrom implements script.Spreader.
func (h Spread) DialFrom(ctx context.Context, client int, kind script.DialKind) (net.Conn, error) {
	if h.opt.Fronts > 0 {
		client %= h.opt.Fronts
	}
	return h.node(client).dial(ctx, kind)
}

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

// wire is the next node's way to NATS.
func (h *House) wire() (url string, wires []*storagetest.Proxy) {
	if !h.opt.Mortal {
		return h.nats, nil
	}
	c := storage.Config{DSN: h.nats}
	p := storagetest.Behind(h.t, &c)
	return c.DSN, []*storagetest.Proxy{p}
}

// KillNode ends one of several nodes as the failure of its machine does: nothing
// is heard of it any more, and connections to it stay open. It does not come
// back; those behind it move up.
func (h *House) KillNode(i int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[i]
	for _, w := range n.wires {
		w.Freeze()
	}
	h.nodes = slices.Delete(h.nodes, i, i+1)
	h.dead = append(h.dead, n)
}

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
