package ledger_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/storage/storagetest"
)

// nodeConfiguration is what every node under test has.
const nodeConfiguration = `
domains: [localhost]
node: %s
data: %s
storage: {driver: postgres, statement_timeout: 1s, dsn: %q}
cluster: {lease: %s, nats: {urls: [%q]}}
servers:
  streamer:
    deployment: {type: distributed}
    c2s: %q
    c2s_tls: %q
    http: ""
    https: ""
    tls: {plain_on_loopback: true}
    rate: {bytes: 0, stanzas: 0}
    components:
      accounts: {iterations: 4096}
  router: {deployment: {type: distributed}}
  processor:
    components:
      archive: {max_pending: 1000000}
      muc: {messages: {every: 0s}, presences: {every: 0s}, entries: {every: 0s}}
`

// lease is how long a dead node counts as alive.
const lease = 3 * time.Second

// site is where a node runs, and what it finds there.
type site struct {
	dsn, nats string // address of NATS
	c2s, tls  string // where clients come in
	prefix    []string
	dial      dialer
}

// town is three nodes, what they share, and what can be done to it.
type town struct {
	nodes    *nodes
	database *postgres
	nats     *natsServer
	way      *storagetest.Proxy // of all to the database; nil: there is nothing between
	network  *network           // nil: they are on loopback
}

// direct lets nodes reach everything on loopback.
func direct(_ *testing.T, w *town, u *url.URL) (all []site) {
	for range 3 {
		all = append(all, site{dsn: u.String(), nats: w.nats.address(), c2s: "127.0.0.1:0", dial: dialTCP})
	}
	return all
}

// far puts a way between nodes and the database.
func far(t *testing.T, w *town, u *url.URL) []site {
	t.Helper()
	w.way = storagetest.NewProxy(t, storagetest.Listen(t), u.Host)
	u.Host = w.way.Address()
	return direct(t, w, u)
}

// apart gives each node a network of its own.
func apart(t *testing.T, w *town, u *url.URL) (all []site) {
	t.Helper()
	const n = 3
	w.network = newNetwork(t, n)
	port := func(to string) string {
		_, p, _ := strings.Cut(storagetest.NewProxy(t, w.network.listen(), to).Address(), ":")
		return p
	}
	database, nats := port(u.Host), port(w.nats.address())
	for i := range n {
		at := subnets(i)
		u.Host = at[mainRoad] + "1:" + database
		all = append(all, site{
			dsn: u.String(), nats: at[natsRoad] + "1:" + nats, tls: at[mainRoad] + "2:0",
			prefix: []string{"ip", "netns", "exec", w.network.node(i)}, dial: w.network.dial,
		})
	}
	return all
}

// nodes are several servers that are one. Whoever connects gets the next one
// that has a door, so people move between them. One that ends by itself is
// started again.
type nodes struct {
	t     *testing.T
	all   []*server
	next  atomic.Uint64
	ctx   context.Context
	tasks sync.WaitGroup // that start nodes again
	fell  atomic.Int32   // how many have ended by themselves
}

func newNodes(t *testing.T, program string, sites []site) *nodes {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &nodes{t: t, ctx: ctx}
	for i, at := range sites {
		name := fmt.Sprintf("node%d", i+1)
		s := configured(t, program, fmt.Sprintf(nodeConfiguration, name, t.TempDir(), at.dsn, lease, "nats://"+at.nats, at.c2s, at.tls))
		s.prefix, s.dial = at.prefix, at.dial
		s.ended = func(l *life) { h.tasks.Go(func() { h.again(s, l) }) }
		h.all = append(h.all, s)
		if dumps() != "" {
			t.Cleanup(func() { dump(t, name+".log", s.log.tail(1<<20)) })
		}
	}
	t.Cleanup(func() {
		cancel()
		for _, s := range h.all {
			s.kill()
		}
		h.tasks.Wait()
	})
	return h
}

// again is what an operator has for a node that ends: it may only do so when
// the others may take it for dead.
func (h *nodes) again(s *server, l *life) {
	if h.ctx.Err() != nil {
		return
	}
	h.fell.Add(1)
	if l.err == nil || !s.log.said(l.from, "lost its place") {
		h.t.Errorf("a node has ended: %v", l.err)
	}
	for h.ctx.Err() == nil && s.start() != nil {
		wait(h.ctx, retry) // what it needs may not be there
	}
}

func (h *nodes) start() error {
	for _, s := range h.all {
		if err := s.start(); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until every node has a door.
func (h *nodes) whole(w *world) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for i, s := range h.all {
		if _, err := s.enter(ctx); err != nil {
			w.t.Fatalf("node %d does not run: %v", i+1, err)
		}
	}
}

func (h *nodes) account(ctx context.Context, user string) error { return h.all[0].account(ctx, user) }

func (h *nodes) enter(ctx context.Context) (door, error) {
	for range h.all {
		s := h.all[h.next.Add(1)%uint64(len(h.all))]
		if s.open() {
			return s.enter(ctx)
		}
	}
	return h.all[0].enter(ctx)
}

func (h *nodes) refused() (ids []string) {
	for _, s := range h.all {
		ids = append(ids, s.refused()...)
	}
	return ids
}

// severalNodes is the database's name in the rows of several nodes, allGone a fault of
// theirs that is for make soak alone.
const (
	severalNodes = "3 nodes"
	allGone      = "NATS restarted and database frozen"
)

// nodes is the ledger over three nodes.
func (l *long) nodes(t *testing.T) {
	p := startPostgres(t)
	for _, c := range []struct {
		name   string
		sites  func(*testing.T, *town, *url.URL) []site
		f      func(*town) fault
		excuse excuse
	}{
		{"node killed", direct, killNode, late},
		{"node frozen", direct, freezeNode, strict},
		{"NATS restarted", direct, restartNATS, late},
		{allGone, direct, restartBoth, late},
		{"database restarted", direct, restartDatabase, late},
		{"database killed", direct, murderDatabase, late},
		{"database slow", far, func(w *town) fault { return slowDatabase(w.way) }, strict},
		{"link down", apart, cutNode, late},
		{"link down for a moment", apart, cutForAMoment, strict},
		{"link to NATS down", apart, cutFromNATS, late},
	} {
		if c.name == allGone && l.rounds == shortRun {
			continue // every process begins again: too much for a short run beside other tests
		}
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			w, u := &town{database: p, nats: startNATS(t)}, p.database(t)
			if at := *u; dumps() != "" {
				t.Cleanup(func() { dumpArchive(t, &at) })
			}
			w.nodes = newNodes(t, l.program, c.sites(t, w, u))
			o := &outcome{database: severalNodes, fault: c.name, rounds: l.rounds/2 + 1, excuse: c.excuse}
			l.play(t, o, w.nodes, c.f(w))
		})
	}
}
