//go:build linux

package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Role is what a Parley of a cluster does.
type Role string

// The roles (docs/cluster.md).
const (
	Alone Role = "alone" // in no cluster
	Whole Role = "node"  // everything
	Front Role = "front" // streamer and parser
	Core  Role = "core"  // parser, processor and router
)

// MaxNames is how many names of nodes a cluster takes within a day.
const MaxNames = 32

// Node is what a configuration says of a cluster; the zero value: there is none.
type Node struct {
	Name  string
	NATS  int // the port
	Lease time.Duration
	Role  Role
}

// Front and Core are for the template.
func (n Node) Front() bool { return n.Role == Front }
func (n Node) Core() bool  { return n.Role == Core }

// Cluster is a Postgres and a NATS of their own, and the nodes that use them.
type Cluster struct {
	DB    *Postgres
	NATS  *Child
	Nodes []*Child // those that run, by their start

	where   Where
	parley  string
	lease   time.Duration
	started int
}

// StartCluster starts what nodes need. nats-server is beside the binary.
func StartCluster(ctx context.Context, w Where, parley string, lease time.Duration) (*Cluster, error) {
	c := &Cluster{where: w, parley: parley, lease: lease}
	var err error
	if c.DB, err = StartPostgres(ctx, w); err != nil {
		return nil, err
	}
	if c.NATS, err = made(ctx, w, parley, "nats", Config{}); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.NATS.answers = func(port int) bool { return says(port, "", "INFO ") }
	if err := c.NATS.Again(ctx); err != nil {
		c.NATS = nil // it has been stopped
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Node starts a node of a new name and returns when it serves. A front waits
// for a core.
func (c *Cluster) Node(ctx context.Context, role Role) (*Child, error) {
	c.started++
	node := Node{Role: role}
	if role != Alone {
		node.Name, node.NATS, node.Lease = fmt.Sprintf("%s%d", role, c.started), c.NATS.Port, c.lease
	}
	ch, err := made(ctx, c.where, c.parley, "parley", Config{Archive: "postgres", DB: c.DB.Database, Node: node})
	if err != nil {
		return nil, err
	}
	if role == Core {
		ready, err := notified(filepath.Join(ch.Dir, "notify"))
		if err != nil {
			return nil, err
		}
		defer ready.Close()
		ch.env = append(ch.env, "NOTIFY_SOCKET="+filepath.Join(ch.Dir, "notify"))
		ch.answers = func(int) bool { return ready.said("READY=1") }
	}
	if err := ch.Again(ctx); err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, ch)
	return ch, nil
}

// Lose waits until a node that was killed, or will end by itself, has ended, and
// takes it off the list; one that does not is an error.
func (c *Cluster) Lose(ch *Child, within time.Duration) error {
	for i, n := range c.Nodes {
		if n == ch {
			c.Nodes = append(c.Nodes[:i:i], c.Nodes[i+1:]...)
			break
		}
	}
	select {
	case <-ch.done:
		return nil
	case <-time.After(within):
		return errors.Join(fmt.Errorf("%s does not end by itself", ch.Config.Node.Name), ch.Stop())
	}
}

// Stop ends everything.
func (c *Cluster) Stop() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Stop())
	}
	if c.NATS != nil {
		errs = append(errs, c.NATS.Stop())
	}
	return errors.Join(append(errs, c.DB.Stop())...)
}

// Signal sends the server's process a signal.
func (c *Child) Signal(s syscall.Signal) error { return c.cmd.Process.Signal(s) }

// notices is what a service says to who started it (sd_notify(3)).
type notices struct{ *net.UnixConn }

func notified(path string) (notices, error) {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	return notices{l}, err
}

// said reports whether it has come by now.
func (n notices) said(what string) bool {
	_ = n.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 256)
	m, err := n.Read(b)
	return err == nil && strings.Contains(string(b[:m]), what)
}
