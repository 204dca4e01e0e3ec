package plugintest

import (
	"context"
	"net"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/plugins"
	"parley/plugins/plugintest/script"
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

// HostOf returns the Host of one of several nodes.
func (h *House) HostOf(i int) *plugins.Host { return h.node(i).host }

// DoorOf returns the address of a door of one of several nodes.
func (h *House) DoorOf(i int, name string) string { return h.node(i).doors[name] }

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
