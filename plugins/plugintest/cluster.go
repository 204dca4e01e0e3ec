package plugintest

import (
	"context"
	"errors"
	"net"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/plugins"
	"parley/plugins/plugintest/script"
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

// HostAt is the Host of a node, from 0.
func (h *House) HostAt(i int) *plugins.Host { return h.node(i).host }

// DoorAt is Door of a node; "": it is closed.
func (h *House) DoorAt(i int, name string) string {
	srv, ok := h.HostAt(i).Server(stream.Name)
	if !ok {
		return ""
	}
	return srv.(*stream.Server).Addresses()[name]
}

// RestartAt stops one node in order and starts it again.
func (h *House) RestartAt(ctx context.Context, i int) error {
	n := h.node(i)
	if err := errors.Join(n.host.Stop(ctx), n.db.Close()); err != nil {
		return err
	}
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
