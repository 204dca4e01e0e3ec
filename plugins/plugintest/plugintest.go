// Package plugintest starts a Host in process and runs protocol scripts
// against it.
//
// A House is a whole server on an ephemeral database, with its doors on
// loopback ports that the system chooses. It is a script.Target: scripts make
// their accounts in it, reload it and restart it.
package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/plugintest/script"
	"parley/router/channel"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// Options make a House; the zero value is the local one on SQLite.
type Options struct {
	Plugins []plugins.Plugin
	Config  string                // YAML, over what a test house needs
	Domain  string                // default: localhost
	Node    func(int) string      // YAML, what a node's file has besides; may be nil
	Storage func() storage.Config // default: SQLite in the house's directory
	Seam    bool                  // every envelope crosses a network on its way to the next stage
	Nodes   int                   // that many nodes on one database, joined by NATS; clients are spread over them
	Fronts  int                   // that many fronts, which have the clients, before …
	Cores   int                   // … that many cores, in the place of Nodes
	Mortal  bool                  // of several nodes each can be killed alone (KillNode)
	Mesh    bool                  // they are joined by NATS servers inside them
	Jitter  time.Duration         // what goes to the next stage takes up to that long: what may overtake, does
	Clock   plugins.Clock
	Log     io.Writer // default: nothing, or standard error with PARLEY_TEST_LOG=1
}

// base is what every test house is configured with.
const base = `
log: {level: debug}
servers:
  streamer:
    c2s: 127.0.0.1:0
    c2s_tls: 127.0.0.1:0
    http: 127.0.0.1:0
    https: ""
    timeouts: {drain: 2s, close: 1s}
    tls: {plain_on_loopback: true}
`

// House is a running server: one process's worth, or several nodes.
type House struct {
	opt   Options
	dir   string
	meets func(node int) string // cluster.nats of each; nil: there is one
	nats  string                // where nodes meet, when it is not inside them

	t testing.TB

	mu    sync.Mutex
	nodes []*node
	dead  []*node
	over  []byte // the script's own configuration
}

// node is one Host with what it runs on.
type node struct {
	host  *plugins.Host
	db    storage.DB
	doors map[string]string
	wires []*storagetest.Proxy // Mortal: to the database and to NATS
}

var (
	_ script.Target     = (*House)(nil)
	_ script.Configurer = (*House)(nil)
	_ script.Killer     = (*House)(nil)
)

// Start starts a house that ends with the test.
func Start(t testing.TB, o Options) *House {
	t.Helper()
	h := &House{opt: o, t: t, dir: t.TempDir()}
	if o.Nodes > 1 || o.Fronts > 0 {
		h.meets = h.meet(t)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := h.start(ctx); err != nil {
		t.Fatalf("house: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		if err := h.Stop(ctx); err != nil {
			t.Errorf("house: %v", err)
		}
	})
	return h
}

// startLimit ends a house that does not start or stop.
const startLimit = time.Minute

// Run starts a house and runs the scripts that glob names.
func Run(t *testing.T, o Options, glob string) {
	t.Helper()
	script.Test(t, &script.Runner{Target: Start(t, o)}, glob)
}

// Host returns the Host, the first node's, for tests that look inside.
func (h *House) Host() *plugins.Host { return h.node(0).host }

// DataDir is the data directory of a house of one node.
func (h *House) DataDir() string { return h.dir }

// DB returns the database.
func (h *House) DB() storage.DB { return h.node(0).db }

// Door returns the address of a door: c2s, c2s-tls, http, https.
func (h *House) Door(name string) string { return h.DoorOf(0, name) }

func (h *House) node(i int) *node {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.nodes) == 0 { // it did not start again
		return &node{}
	}
	return h.nodes[i%len(h.nodes)]
}

func (h *House) start(ctx context.Context) error {
	for _, i := range h.order() {
		n, err := h.startNode(ctx, i)
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.nodes = append(h.nodes, nil)
		copy(h.nodes[1:], h.nodes)
		h.nodes[0] = n
		h.mu.Unlock()
	}
	return nil
}

// order is how nodes are started, the first one last: it is the one that a test
// looks at and dials, and a front waits for its core.
func (h *House) order() []int {
	n := h.count()
	out := make([]int, n)
	for i := range out {
		out[i] = n - 1 - i
	}
	return out
}

// count is how many nodes there are.
func (h *House) count() int {
	if h.opt.Fronts > 0 {
		return h.opt.Fronts + h.opt.Cores
	}
	return max(h.opt.Nodes, 1)
}

// nodeName is what a node is called.
func (h *House) nodeName(i int) string {
	if h.meets == nil {
		return "test"
	}
	return fmt.Sprintf("node%d", i+1)
}

func (h *House) startNode(ctx context.Context, i int) (*node, error) {
	schema, err := plugins.Schema(h.opt.Plugins)
	if err != nil {
		return nil, err
	}
	meets, wires := h.wire(i)
	load := func() (*config.Tree, error) { return h.load(schema, i, meets) }
	tree, err := load()
	if err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	log := slog.New(slog.NewTextHandler(h.logTo(), &slog.HandlerOptions{Level: level}))
	if h.meets != nil {
		log = log.With("node", h.nodeName(i))
	}
	reg := prometheus.NewRegistry()
	sc := storage.Config{Driver: "sqlite", Path: filepath.Join(h.dir, "parley.db")}
	if h.opt.Storage != nil {
		sc = h.opt.Storage()
	}
	if h.opt.Mortal {
		wires = append(wires, storagetest.Behind(h.t, &sc))
	}
	db, err := storage.Open(ctx, sc, log, reg)
	if err != nil {
		return nil, err
	}
	clock := h.opt.Clock
	if clock == nil {
		clock = plugins.SystemClock{}
	}
	var wrap func(channel.MessageChannel) channel.MessageChannel
	switch {
	case h.opt.Seam:
		wrap = func(c channel.MessageChannel) channel.MessageChannel { return network{c} }
	case h.opt.Jitter > 0:
		wrap = func(c channel.MessageChannel) channel.MessageChannel { return jittery{c, h.opt.Jitter} }
	}
	host, err := plugins.New(ctx, plugins.Options{Wrap: wrap, Plugins: h.opt.Plugins, Tree: tree, Reload: load, DB: db, Log: log, Level: level, Clock: clock, Metrics: reg, Version: "test", Node: h.nodeName(i)})
	if err == nil {
		err = host.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	n := &node{host: host, db: db, wires: wires}
	if h.core(i) {
		return n, nil // it has no doors
	}
	if n.doors, err = doors(ctx, host); err != nil {
		return nil, errors.Join(err, host.Stop(ctx), db.Close())
	}
	return n, nil
}

// doors waits until they are open.
func doors(ctx context.Context, host *plugins.Host) (map[string]string, error) {
	srv, ok := host.Server(stream.Name)
	if !ok {
		return nil, errors.New("a house needs a streamer")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-host.Fatal():
			cancel(err)
		case <-ctx.Done():
		}
	}()
	open, err := srv.(*stream.Server).Doors(ctx)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	return open, nil
}

func (h *House) logTo() io.Writer {
	switch {
	case h.opt.Log != nil:
		return h.opt.Log
	case os.Getenv("PARLEY_TEST_LOG") != "":
		return os.Stderr
	}
	return io.Discard
}

// load merges the house's layers: its own, the test's, the script's.
func (h *House) load(schema *config.Schema, i int, meets string) (*config.Tree, error) {
	h.mu.Lock()
	over := h.over
	h.mu.Unlock()
	dir, cluster := h.dir, ""
	if h.meets != nil {
		dir = filepath.Join(dir, h.nodeName(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		cluster = fmt.Sprintf(clustered, meets)
	}
	own := ""
	if h.opt.Node != nil {
		own = h.opt.Node(i)
	}
	merged, err := merge([]byte(base), fmt.Appendf(nil, "data: %q\nstorage: {files: {path: %q}}\ndomains: [%s]\n", dir, filepath.Join(h.dir, "files"), h.Domain()), []byte(cluster), h.half(i), []byte(h.opt.Config), []byte(own), over)
	if err != nil {
		return nil, err
	}
	return config.Parse(schema, "test.yaml", merged, config.Inputs{})
}

// take returns the nodes, which are no longer the house's.
func (h *House) take() []*node {
	h.mu.Lock()
	defer h.mu.Unlock()
	nodes := h.nodes
	h.nodes = nil
	return nodes
}

// Stop ends the house.
func (h *House) Stop(ctx context.Context) (err error) {
	for _, n := range h.take() {
		err = errors.Join(err, n.end(ctx))
	}
	h.clear(ctx)
	return err
}

func (n *node) end(ctx context.Context) error {
	if n.host == nil { // it was ended before
		return nil
	}
	return errors.Join(n.host.Stop(ctx), n.db.Close())
}

// Domain implements script.Target.
func (h *House) Domain() string {
	if h.opt.Domain != "" {
		return h.opt.Domain
	}
	return "localhost"
}

// creator is what the house asks of the accounts plugin.
type creator interface {
	Create(ctx context.Context, account jid.JID, password string) error
}

// Account implements script.Target.
func (h *House) Account(ctx context.Context, user, password string) error {
	return h.AccountAt(ctx, h.Domain(), user, password)
}

// AccountAt makes an account at one of several domains.
func (h *House) AccountAt(ctx context.Context, domain, user, password string) error {
	host := h.Host()
	if host == nil {
		return errors.New("the house is not running")
	}
	c, _ := host.Contract("accounts")
	mk, ok := c.(creator)
	if !ok {
		return fmt.Errorf("accounts contract is %T", c)
	}
	at, err := jid.Parse(user + "@" + domain)
	if err != nil {
		return err
	}
	return mk.Create(ctx, at, password)
}

// Dial implements script.Target.
func (h *House) Dial(ctx context.Context, kind script.DialKind) (net.Conn, error) {
	return h.node(0).dial(ctx, kind)
}

func (n *node) dial(ctx context.Context, kind script.DialKind) (net.Conn, error) {
	var d net.Dialer
	switch kind {
	case script.DirectTLS:
		return d.DialContext(ctx, "tcp", n.doors["c2s-tls"])
	case script.WebSocket:
		return script.DialWebSocket(ctx, "ws://"+n.doors["http"]+"/xmpp-websocket", nil)
	case script.BOSH:
		return script.DialBOSH("http://"+n.doors["http"]+"/http-bind", nil), nil
	}
	return d.DialContext(ctx, "tcp", n.doors["c2s"])
}

// service is where one that scripts name is, below the domain, and the plugin that has it.
func service(name string) (at, plugin string) {
	switch name {
	case "muc":
		return "conference", "muc"
	case "pubsub", "upload":
		return name, name
	case "search":
		return "search", "usersearch"
	case "proxy":
		return "proxy", "bytestreams"
	}
	return "", ""
}

// Service implements script.Target.
func (h *House) Service(name string) string {
	at, plugin := service(name)
	if at == "" || !slices.ContainsFunc(h.opt.Plugins, func(p plugins.Plugin) bool { return p.Name == plugin }) {
		return ""
	}
	return at + "." + h.Domain()
}

// Restart implements script.Target.
func (h *House) Restart(ctx context.Context) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	return h.start(ctx)
}

// Kill implements script.Killer: the database is cut off first, so that the
// house ends with what is committed at that moment.
func (h *House) Kill(ctx context.Context) error {
	nodes := h.take()
	for _, n := range nodes {
		if err := n.db.Close(); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		_ = n.host.Stop(ctx) // it complains of the database
	}
	return h.start(ctx)
}

// Reload implements script.Target.
func (h *House) Reload(ctx context.Context) error {
	for i := range h.count() {
		if _, err := h.node(i).host.Control().Reload(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Configure implements script.Configurer: a restart with the script's own
// configuration on top, or without one if the last script had any.
func (h *House) Configure(ctx context.Context, overlay []byte) error {
	h.mu.Lock()
	same := string(h.over) == string(overlay)
	h.over = overlay
	h.mu.Unlock()
	if same {
		return nil
	}
	return h.Restart(ctx)
}
