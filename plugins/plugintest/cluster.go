package plugintest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/plugins/plugintest/script"
)

// clustered is what the nodes of a house are configured with besides.
const clustered = `
storage: {driver: postgres, dsn: "postgres://unused"}
cluster: {lease: 4s, nats: {%s}}
servers:
  streamer: {deployment: {type: distributed}}
  router: {deployment: {type: distributed}}
`

// meet is what cluster.nats says on each node.
func (h *House) meet(t testing.TB) func(node int) string {
	t.Helper()
	if !h.opt.Mesh {
		url := NATS(t)
		return func(int) string { return fmt.Sprintf("urls: [%q]", url) }
	}
	at := Addresses(t, h.opt.Nodes)
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
