package ledger_test

import (
	"fmt"
	"net"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/storage/storagetest"
)

// natsServer is one that can be restarted where it was.
type natsServer struct {
	opt natsserver.Options
	run *natsserver.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	l := storagetest.Listen(t)
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	n := &natsServer{opt: natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true}}
	n.start(t)
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) address() string { return fmt.Sprintf("%s:%d", n.opt.Host, n.opt.Port) }

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	opt := n.opt
	s, err := natsserver.NewServer(&opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	n.run = s
}

func (n *natsServer) stop() {
	if n.run != nil {
		n.run.Shutdown()
		n.run.WaitForShutdown()
		n.run = nil
	}
}
