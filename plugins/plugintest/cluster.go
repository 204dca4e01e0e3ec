package plugintest

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
)

// clustered is what the nodes of a house are configured with besides.
const clustered = `
storage: {driver: postgres, dsn: "postgres://unused"}
cluster: {lease: 4s, nats: {urls: ["%s"]}}
servers:
  streamer: {deployment: {type: distributed}}
  router: {deployment: {type: distributed}}
`

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

// Spread is a house of several nodes over which a script's clients are spread:
// neighbours in the script are on different nodes.
type Spread struct{ *House }

var (
	_ script.Spreader = Spread{}
	_ script.Settler  = Spread{}
)

// DialFrom implements script.Spreader.
func (h Spread) DialFrom(ctx context.Context, client int, kind script.DialKind) (net.Conn, error) {
	return h.node(client).dial(ctx, kind)
}

// Settled implements script.Settler: what one node has sent to another may lead
// to something for a third.
func (h Spread) Settled(ctx context.Context) error {
	for range min(h.opt.Nodes, 2) {
		for i := range h.opt.Nodes {
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

// NodeDoor is Door of one of several nodes.
func (h *House) NodeDoor(i int, name string) string { return h.node(i).doors[name] }

// StopNode ends one of several nodes in order. It does not come back; those
// behind it move up.
func (h *House) StopNode(ctx context.Context, i int) error {
	h.mu.Lock()
	n := h.nodes[i]
	h.nodes = slices.Delete(h.nodes, i, i+1)
	h.mu.Unlock()
	return errors.Join(n.host.Stop(ctx), n.db.Close())
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
