//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
	"parley/cmd/xmppload/peers"
)

// nodes is one run of what several nodes cost, and of how long they take to
// recover.
type nodes struct {
	stage
	out    string
	only   []string
	scale  float64
	runs   int
	rounds int
	lease  time.Duration
	common scenario.Common
	began  time.Time

	costs      []cost
	recoveries []recovery
}

func nodesCommand() *cobra.Command {
	n := &nodes{}
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "Measure what a message costs on several nodes, and how long they take to recover",
		Long: `Starts Parley as one node, as several and as a front with a core, on a Postgres
and a NATS of their own, all pinned to one core, and measures from another:
CPU per message of each process, and times of delivery. Then it kills and
freezes nodes, and takes the time until contacts know and clients go on.
nats-server is expected beside the binary (make bench-nodes builds both).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return n.run(cmd.ErrOrStderr(), func() error { return n.all(cmd.Context(), cmd.OutOrStdout()) })
		},
	}
	f := cmd.Flags()
	n.flags(f)
	f.StringVar(&n.out, "out", "", "a Markdown file to write; not with --only")
	f.StringSliceVar(&n.only, "only", nil, "cost, recovery; empty: both")
	f.Float64Var(&n.scale, "scale", 1, "share of the messages and of the rounds")
	f.IntVar(&n.runs, "runs", 3, "runs of each chat; medians are taken")
	f.IntVar(&n.rounds, "rounds", 8, "faults of each kind")
	f.DurationVar(&n.lease, "lease", 6*time.Second, "cluster.lease of the nodes")
	f.DurationVar(&n.common.Settle, "settle", time.Second, "between login and measuring")
	n.common.Parallel, n.common.Patience = 16, time.Minute
	return cmd
}

func (n *nodes) all(ctx context.Context, w io.Writer) error {
	n.began = time.Now()
	parts := map[string]func(context.Context) error{"cost": n.cost, "recovery": n.recovery}
	for _, id := range n.only {
		if parts[id] == nil {
			return fmt.Errorf("--only %s: cost or recovery", id)
		}
	}
	for _, id := range []string{"cost", "recovery"} {
		if len(n.only) > 0 && !slices.Contains(n.only, id) {
			continue
		}
		if err := parts[id](ctx); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	for _, rows := range [][][]string{costRows(n.costs), recoveryRows(n.recoveries)} {
		if len(rows) == 1 {
			continue
		}
		if err := table(w, rows); err != nil {
			return err
		}
	}
	if n.out != "" && len(n.only) == 0 {
		if err := os.WriteFile(n.out, []byte(n.page()), 0o644); err != nil {
			return err
		}
	}
	if len(n.bad) > 0 {
		return fmt.Errorf("%w: %s", errFaults, strings.Join(n.bad, "; "))
	}
	return nil
}

// say tells how far the work is.
func (n *nodes) say(format string, args ...any) {
	fmt.Fprintf(n.log, "%7s  %s\n", time.Since(n.began).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

// messages is a share of so many.
func (n *nodes) messages(full int) int { return max(int(float64(full)*n.scale), 1000) }

// layout is nodes, and where the halves of each pair are.
type layout struct {
	name  string
	roles []peers.Role // in the order of their start: a front waits for its core
	apart bool
}

func layouts() []layout {
	return []layout{
		{"one node, in no cluster", []peers.Role{peers.Alone}, false},
		{"one node in a cluster", []peers.Role{peers.Whole}, false},
		{"two nodes, pairs together", []peers.Role{peers.Whole, peers.Whole}, false},
		{"two nodes, pairs apart", []peers.Role{peers.Whole, peers.Whole}, true},
		{"three nodes, pairs apart", []peers.Role{peers.Whole, peers.Whole, peers.Whole}, true},
		{"a core (first) and a front (second)", []peers.Role{peers.Core, peers.Front}, false},
	}
}

// chatPairs are the pairs that chat on every layout.
const chatPairs = 200

// steadyRate is the messages a second whose times are taken.
const steadyRate = 500

// place is which of the doors the n-th session comes in by; the halves of pair
// i are sessions 2i, which sends, and 2i+1. Every door has as many of either,
// as near as that goes.
func place(n, doors int, apart bool) int {
	if pair := n / 2; apart && n%2 == 1 {
		return (pair + 1) % doors
	} else {
		return pair % doors
	}
}

// cost is what one layout has shown.
type cost struct {
	layout
	chat, steady ServerReport
}

// ordinals name a layout's nodes.
var ordinals = []string{"first", "second", "third"}

const (
	natsPart     = "NATS"
	postgresPart = "Postgres"
)

func (n *nodes) cost(ctx context.Context) error {
	for _, l := range layouts() {
		n.say("cost: %s", l.name)
		c, err := n.costOf(ctx, l)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		n.costs = append(n.costs, c)
		n.say("%s", strings.Join(costRows(n.costs)[len(n.costs)], " | "))
	}
	return nil
}

func (n *nodes) costOf(ctx context.Context, l layout) (c cost, err error) {
	c.layout = l
	cluster, err := n.cluster(ctx, l.roles...)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	s := n.server(cluster, l)
	if err := s.Accounts(ctx, 2*chatPairs, n.common.Parallel); err != nil {
		return c, err
	}
	crowd, err := s.Crowd(n.common, scenario.User)
	if err != nil {
		return c, err
	}
	defer crowd.Close()
	if err := crowd.Grow(ctx, 2*chatPairs); err != nil {
		return c, err
	}
	for range n.runs {
		r, err := crowd.Chat(scenario.Chat{Pairs: chatPairs, Window: 8, Messages: n.messages(40_000), Body: 100})
		if err != nil {
			return c, err
		}
		c.chat.Runs = append(c.chat.Runs, r)
	}
	r, err := crowd.Chat(scenario.Chat{Pairs: chatPairs, Rate: steadyRate, Messages: n.messages(2500), Body: 100})
	if err != nil {
		return c, err
	}
	c.steady.Runs = append(c.steady.Runs, r)
	for _, rep := range []*ServerReport{&c.chat, &c.steady} {
		if rep.sum(); rep.Faults.Any() {
			n.bad = append(n.bad, fmt.Sprintf("%s: %v", l.name, rep.Faults))
		}
	}
	return c, nil
}

// cluster starts nodes.
func (n *nodes) cluster(ctx context.Context, roles ...peers.Role) (*peers.Cluster, error) {
	c, err := peers.StartCluster(ctx, n.where, n.parley, n.lease)
	if err != nil {
		return nil, err
	}
	n.seen["Postgres"], n.seen["NATS"] = c.DB.Version, c.NATS.Version
	for _, r := range roles {
		child, err := c.Node(ctx, r)
		if err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		n.seen["parley"] = child.Version
	}
	return c, nil
}

// server is a cluster as a scenario sees it.
func (n *nodes) server(c *peers.Cluster, l layout) *scenario.Server {
	s := &scenario.Server{Name: l.name, Register: "0077"}
	var doors []string
	for i, child := range c.Nodes {
		s.PIDs = append(s.PIDs, child.PIDs[0])
		s.Parts = append(s.Parts, scenario.Part{Name: ordinals[i], PID: child.PIDs[0]})
		if l.roles[i] != peers.Core {
			doors = append(doors, door(child))
		}
	}
	s.PIDs = append(s.PIDs, c.DB.PID)
	s.Parts = append(s.Parts, scenario.Part{Name: postgresPart, PID: c.DB.PID})
	if l.roles[0] != peers.Alone {
		s.PIDs = append(s.PIDs, c.NATS.PIDs[0])
		s.Parts = append(s.Parts, scenario.Part{Name: natsPart, PID: c.NATS.PIDs[0]})
	}
	s.Login = login(doors[0])
	s.Place = func(i int) string { return doors[place(i, len(doors), l.apart)] }
	return s
}

// door is where a node's clients connect.
func door(c *peers.Child) string { return "127.0.0.1:" + strconv.Itoa(c.Port) }

func login(addr string) wire.Login {
	return wire.Login{Addr: addr, Domain: domain, TLS: wire.Plain, Mechanism: "PLAIN", Keys: &wire.Keys{}, Timeout: time.Minute}
}
