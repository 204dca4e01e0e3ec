//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/bulk"
	"parley/cmd/xmppload/internal/chart"
	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
	"parley/cmd/xmppload/peers"
	"parley/storage"
)

// growth is one run of the curves: the same work, measured at several sizes of
// what surrounds it (spec/performance.md: "How cost grows").
type growth struct {
	stage
	out    string
	only   []string
	scale  float64
	runs   int
	common scenario.Common
	began  time.Time
	short  string // why there are not as many sessions as asked for
	topics []topic
}

// topic is one chart and its table.
type topic struct {
	id, text string
	chart.Chart
}

// part measures some topics.
type part struct {
	id, does string
	run      func(*growth, context.Context) error
}

func parts() []part {
	return []part{
		{"chat", "CPU per message by sessions", (*growth).chat},
		{"memory", "memory by sessions", (*growth).memory},
		{"archive", "time of archive pages by rows", (*growth).archives},
		{"start", "time to start by accounts", (*growth).starts},
	}
}

func growthCommand() *cobra.Command {
	g := &growth{}
	cmd := &cobra.Command{
		Use:   "growth",
		Short: "Measure how Parley's costs grow with sessions, archives and accounts; draw the curves",
		Long: `Starts Parley (and, for messages, the floor) pinned to one core and measures
from another: CPU per message and memory among 100 to 50,000 sessions, pages
of archives of 10,000 to 5,000,000 rows, starts with 100 to 100,000 accounts.
Accounts and archives are written into the databases by this program.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.run(cmd.ErrOrStderr(), func() error { return g.all(cmd.Context(), cmd.OutOrStdout()) })
		},
	}
	f := cmd.Flags()
	g.flags(f)
	f.StringVar(&g.out, "out", "", "a folder: growth.md and growth/*.svg go there; with --only, charts alone")
	f.StringSliceVar(&g.only, "only", nil, "chat, memory, archive, start; empty: all")
	f.Float64Var(&g.scale, "scale", 1, "share of the largest sizes, and of the messages")
	f.IntVar(&g.runs, "runs", 3, "runs of each chat; medians are taken")
	f.DurationVar(&g.common.Settle, "settle", time.Second, "between login and measuring")
	g.common.Parallel, g.common.Patience = 16, time.Minute
	return cmd
}

// sizes are those up to the share that is asked for of the largest, in order.
func (g *growth) sizes(full ...int) []int {
	most := max(int(float64(full[len(full)-1])*g.scale), full[0])
	out := slices.DeleteFunc(full, func(n int) bool { return n > most })
	if last := out[len(out)-1]; most > last {
		out = append(out, most)
	}
	return out
}

// crowds are sizes, as far as a process may have that many connections.
func (g *growth) crowds(full ...int) []int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return g.sizes(full...)
	}
	out := g.sizes(full...)
	i := slices.IndexFunc(out, func(n int) bool { return n+spareFiles > int(r.Cur) })
	if i < 0 {
		return out
	}
	g.short = fmt.Sprintf("a process may open %d files here, so there are no %d sessions", r.Cur, out[len(out)-1])
	g.say("%s", g.short)
	return append(out[:i], int(r.Cur)-spareFiles)
}

// spareFiles is what a process opens beside its connections, amply.
const spareFiles = 500

func (g *growth) n(full int) int { return max(int(float64(full)*min(g.scale, 1)), 1000) }

// say tells how far the work is.
func (g *growth) say(format string, args ...any) {
	fmt.Fprintf(g.log, "%7s  %s\n", time.Since(g.began).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

// child starts a server whose accounts are there: 0 to n-1.
func (g *growth) child(ctx context.Context, name, archive string, db *peers.Postgres, accounts int) (*peers.Child, error) {
	c, err := peers.Start(ctx, g.where, g.parley, name, archive, db)
	if err != nil {
		return nil, err
	}
	g.seen[name] = c.Version
	if name != "parley" || accounts == 0 {
		return c, nil
	}
	if err := g.load(ctx, c, func(b *bulk.DB) error {
		return b.Accounts(ctx, domain, scenario.Password, scenario.User, 0, accounts)
	}); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

const domain = "localhost"

// load stops the server, writes into its database, and starts it again.
func (g *growth) load(ctx context.Context, c *peers.Child, write func(*bulk.DB) error) error {
	if err := c.Stop(); err != nil {
		return err
	}
	cfg := storage.Config{Driver: "sqlite", Path: filepath.Join(c.Dir, "data", "parley.db")}
	if c.Archive == "postgres" {
		cfg = storage.Config{Driver: "postgres", DSN: c.DB.URL, StatementTimeout: 10 * time.Minute}
	}
	db, err := bulk.Open(ctx, cfg)
	if err != nil {
		return err
	}
	db.Progress = func(what string, done, all int) { g.say("%s: %d of %d", what, done, all) }
	if err := errors.Join(write(db), db.Close()); err != nil {
		return err
	}
	return c.Again(ctx)
}

// server is a child as a scenario sees it, for so many sessions.
func (g *growth) server(c *peers.Child, tls wire.Security, sessions int) *scenario.Server {
	s := server(c, row{tls: tls})
	s.Register = "none"
	s.Login.Sources = sessions/perSource + 1
	return s
}

// perSource is how many connections one local address carries: it has 28,000
// ports for all servers together.
const perSource = 10_000

// onDatabases runs f with each database that is installed.
func (g *growth) onDatabases(ctx context.Context, f func(driver, title string, db *peers.Postgres) error) error {
	if err := f("sqlite", "SQLite", nil); err != nil {
		return err
	}
	db, err := peers.StartPostgres(ctx, g.where)
	if errors.Is(err, peers.ErrMissing) {
		g.say("skipped: %v", err)
		return nil
	} else if err != nil {
		return err
	}
	g.seen["Postgres"] = db.Version
	return errors.Join(f("postgres", "Postgres", db), db.Stop())
}

// chat: CPU per message, Parley and the floor taking turns with crowds of the
// same size.
func (g *growth) chat(ctx context.Context) (err error) {
	sizes := g.crowds(100, 1000, 10_000, 50_000)
	most := sizes[len(sizes)-1]
	few1 := topic{id: "chat", text: fmt.Sprintf("%d pairs chat, everybody else is there and silent. No archive.", few),
		Chart: chart.Chart{Title: "CPU per message among silent sessions", X: "sessions", Y: "CPU seconds per 100,000 messages"}}
	all := topic{id: "spread", text: fmt.Sprintf("Every session is half of a pair; %d messages a second over all of them. No archive.", spreadRate),
		Chart: chart.Chart{Title: "CPU per message spread over all sessions", X: "sessions", Y: "CPU seconds per 100,000 messages"}}
	var children []*peers.Child
	for _, name := range []string{"parley", "floor"} {
		c, err := g.child(ctx, name, "", nil, most)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Stop()) }()
		children = append(children, c)
	}
	for _, n := range sizes {
		for _, c := range children {
			if err := g.chatAmong(ctx, c, n, &few1, &all); err != nil {
				return fmt.Errorf("%s, %d sessions: %w", c.Name, n, err)
			}
		}
	}
	g.topics = append(g.topics, few1, all)
	return nil
}

// chatAmong brings n sessions in and adds what a message costs among them.
func (g *growth) chatAmong(ctx context.Context, c *peers.Child, n int, few1, all *topic) error {
	crowd, err := g.server(c, wire.Plain, n).Crowd(g.common, scenario.User)
	if err != nil {
		return err
	}
	defer crowd.Close()
	if err := crowd.Grow(ctx, n); err != nil {
		return err
	}
	g.say("%s: %d sessions", c.Name, n)
	for _, k := range []struct {
		*topic
		name string
		chat scenario.Chat
	}{
		{few1, c.Name + ", one outstanding", scenario.Chat{Pairs: few, Window: 1, Messages: g.n(50_000), Body: 100}},
		{few1, c.Name + ", eight outstanding", scenario.Chat{Pairs: few, Window: 8, Messages: g.n(100_000), Body: 100}},
		{all, c.Name, scenario.Chat{Pairs: n / 2, Rate: spreadRate, Messages: g.n(25_000), Body: 100}},
	} {
		var cpu []float64
		for range g.runs {
			r, err := crowd.Chat(k.chat)
			if err != nil {
				return err
			}
			if r.Faults.Any() {
				g.bad = append(g.bad, fmt.Sprintf("%s, %d sessions: %v", k.name, n, r.Faults))
				continue
			}
			v, err := r.Value(cpu100k)
			if err != nil {
				return err
			}
			cpu = append(cpu, v)
		}
		g.point(k.topic, k.name, n, count.Median(cpu), c.Name == "floor")
	}
	return nil
}

// few pairs chat among many sessions.
const few = 50

// spreadRate is the messages a second when all sessions chat.
const spreadRate = 5000

// point adds one to the line of that name.
func (g *growth) point(t *topic, name string, x int, y float64, reference bool) {
	i := slices.IndexFunc(t.Lines, func(l chart.Line) bool { return l.Name == name })
	if i < 0 {
		i = len(t.Lines)
		t.Lines = append(t.Lines, chart.Line{Name: name, Reference: reference})
	}
	l := &t.Lines[i]
	l.X, l.Y = append(l.X, float64(x)), append(l.Y, y)
	g.say("%s: %s at %s: %s %s", t.id, name, chart.Number(float64(x)), figure(y, !math.IsNaN(y)), t.Y)
}

// memory: what a session adds to the resident set, plain and under TLS.
func (g *growth) memory(ctx context.Context) error {
	t := topic{id: "memory", text: "Resident memory beyond that of a server to which people have come and gone, after a garbage collection, by the sessions that are there. The first thousand logins happen before the first collection (64 MiB of room, plugins/memory.go), so what stays of them lies scattered among what does not: 6.6 MB alive in 25 MB of the heap's pages. Later sessions fill the gaps.",
		Chart: chart.Chart{Title: "Memory per session", X: "sessions", Y: "KiB per session"}}
	for _, k := range []struct {
		name  string
		tls   wire.Security
		sizes []int
	}{
		{"plain", wire.Plain, g.crowds(100, 1000, 10_000, 50_000)},
		{"TLS", wire.Direct, g.crowds(100, 1000, 10_000)},
	} {
		if err := g.weigh(ctx, &t, k.name, k.tls, k.sizes); err != nil {
			return err
		}
	}
	g.topics = append(g.topics, t)
	return nil
}

func (g *growth) weigh(ctx context.Context, t *topic, name string, tls wire.Security, sizes []int) (err error) {
	most := sizes[len(sizes)-1]
	child, err := g.child(ctx, "parley", "", nil, most)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.Stop()) }()
	s := g.server(child, tls, most)
	if _, err := (scenario.Login{Common: g.common, Count: 500, Accounts: 100}).Run(ctx, s); err != nil {
		return err
	}
	c, err := s.Crowd(g.common, scenario.User)
	if err != nil {
		return err
	}
	defer c.Close()
	empty, err := c.RSS(ctx)
	if err != nil {
		return err
	}
	for _, n := range sizes {
		if err := c.Grow(ctx, n); err != nil {
			return err
		}
		rss, err := c.RSS(ctx)
		if err != nil {
			return err
		}
		g.point(t, name, n, float64(rss-empty)/1024/float64(n), false)
	}
	return nil
}
