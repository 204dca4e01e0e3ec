//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
	"parley/cmd/xmppload/peers"
)

// row is one line of the table: a scenario, what is read off it, and the goal.
type row struct {
	id, name  string
	goal      string
	of        []string  // metrics of one figure, joined with " / "
	most      []float64 // what meets the goal, of each; negative: at least; 0: all do
	times     float64   // what meets the goal, of the first, as multiple of the floor's; 0: all do
	floor     bool      // the floor can do it
	archive   string
	tls       wire.Security
	mechanism string
	runs      int // 0: once
	run       func(scale) runner
	fill      bool // Parley's archive is filled up before
	fresh     bool // servers are started for this row alone: memory once used does not come back
}

// scale makes a run short or long.
type scale struct {
	scenario.Common
	by float64
}

func (s scale) n(full int) int { return max(int(float64(full)*s.by), 1) }

const cpu100k = "CPU per 100,000 messages"

// rows are those of the specification's table, in its order.
func rows() []row {
	chat := func(pairs, window, messages int) func(scale) runner {
		return func(s scale) runner {
			return scenario.Chat{Common: s.Common, Pairs: pairs, Window: window, Messages: s.n(messages), Body: 100}
		}
	}
	archive := func(s scale) runner {
		return scenario.Chat{Common: s.Common, Pairs: 500, Window: 1, Messages: s.n(20_000), Body: 100, Pages: s.n(200)}
	}
	login := func(s scale) runner {
		return scenario.Login{Common: s.Common, Count: s.n(3000), Accounts: 500}
	}
	idle := func(sessions int) func(scale) runner {
		return func(s scale) runner { return scenario.Idle{Common: s.Common, Sessions: s.n(sessions)} }
	}
	room := func(occupants, posts int) func(scale) runner {
		return func(s scale) runner {
			return scenario.Room{Common: s.Common, Occupants: occupants, Posts: s.n(posts), Window: 1, Body: 100}
		}
	}
	return []row{
		{id: "chat1", name: "1:1 chat, 500 pairs, one outstanding: CPU-s per 100k", goal: "≤ 1.9 × floor", times: 1.9, of: []string{cpu100k}, floor: true, runs: 5, run: chat(500, 1, 100_000)},
		{id: "chat8", name: "1:1 chat, 500 pairs, eight outstanding: CPU-s per 100k", goal: "≤ 0.45", most: []float64{0.45}, of: []string{cpu100k}, floor: true, runs: 3, run: chat(500, 8, 200_000)},
		{id: "rate", name: "1:1 chat at 1,000/s: p50 / p95 / p99 ms", goal: "≤ 0.25 / 0.6 / 3", most: []float64{0.25, 0.6, 3}, of: []string{"p50", "p95", "p99"}, floor: true, run: func(s scale) runner {
			return scenario.Chat{Common: s.Common, Pairs: 500, Rate: 1000, Messages: s.n(10_000), Body: 100}
		}},
		{id: "tls", name: "1:1 chat under TLS, 100 pairs: CPU-s per 100k", goal: "≤ 1.8", most: []float64{1.8}, of: []string{cpu100k}, tls: wire.Direct, runs: 3, run: chat(100, 1, 50_000)},
		{id: "sqlite", name: "1:1 chat, archive on, SQLite: CPU-s per 100k (messages/s)", goal: "≤ 12 (≥ 5,000), durable, on 1M rows", most: []float64{12, -5000}, of: []string{cpu100k, "rate"}, archive: "sqlite", fill: true, run: archive},
		{id: "postgres", name: "1:1 chat, archive on, Postgres, its CPU counted in (messages/s)", goal: "≤ 20 (≥ 5,000), durable", most: []float64{20, -5000}, of: []string{cpu100k, "rate"}, archive: "postgres", run: archive},
		{id: "scram", name: "login, TLS + SCRAM-SHA-1 against stored keys: CPU-s per 1,000", goal: "≤ 0.6", most: []float64{0.6}, of: []string{"CPU per 1,000 logins"}, tls: wire.Direct, mechanism: "SCRAM-SHA-1", run: login},
		{id: "plain", name: "login, SASL PLAIN against stored keys: CPU-s per 1,000, later / first", goal: "≤ 0.25 / –", most: []float64{0.25}, of: []string{"CPU per 1,000 logins", "CPU per 1,000 first logins"}, floor: true, run: login},
		{id: "idle", name: "idle session, plain, 16,000 of them: RSS, KiB", goal: "≤ 8", most: []float64{8}, of: []string{"RSS per session"}, floor: true, fresh: true, run: idle(16_000)},
		{id: "idletls", name: "idle session, TLS, 10,000 of them: RSS, KiB", goal: "≤ 18", most: []float64{18}, of: []string{"RSS per session"}, tls: wire.Direct, fresh: true, run: idle(10_000)},
		{id: "muc200", name: "room of 200, one post to all: CPU-s per 100k deliveries", goal: "≤ 0.3", most: []float64{0.3}, of: []string{"CPU per 100,000 deliveries"}, floor: true, run: room(200, 500)},
		{id: "muc1000", name: "room of 1,000: CPU-s per 100k deliveries", goal: "≤ 0.35", most: []float64{0.35}, of: []string{"CPU per 100,000 deliveries"}, floor: true, run: room(1000, 200)},
		{id: "joins", name: "1,000 people joining one room (1M stanzas): CPU-s per 1M stanzas", goal: "≤ 3", most: []float64{3}, of: []string{"CPU per 1,000,000 stanzas of joins"}, floor: true, run: func(s scale) runner {
			return scenario.Joins{Common: s.Common, Occupants: s.n(1000)}
		}},
		{id: "presence", name: "presence, 200 contacts: CPU-s per 100k stanzas", goal: "≤ 0.4", most: []float64{0.4}, of: []string{"CPU per 100,000 presences"}, floor: true, run: func(s scale) runner {
			return scenario.Presence{Common: s.Common, Contacts: 200, Changes: s.n(500), Window: 1}
		}},
		{id: "offline", name: "offline: store / deliver, CPU-s per 100k", goal: "≤ 8 / ≤ 1, durable", most: []float64{8, 1}, of: []string{"CPU per 100,000 stored", "CPU per 100,000 delivered"}, run: func(s scale) runner {
			return scenario.Offline{Common: s.Common, Pairs: 100, Each: s.n(100), Body: 100}
		}},
	}
}

// bench is one run of the table.
type bench struct {
	stage
	out        string
	only, skip []string // rows
	servers    []string
	scale      scale
	fill       int
	lines      [][]string
}

func benchCommand() *cobra.Command {
	b := &bench{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Run every scenario against Parley, what peers are installed, and the floor; print the table",
		Long: `Starts each server as a child of its own, pinned to one core, and measures
from another. Peers that are not installed are left out (apt-get install
ejabberd prosody; their own services need not run). Rows that a server cannot
do yet say so.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.ErrOrStderr(), func() error { return b.all(cmd.Context(), cmd.OutOrStdout()) })
		},
	}
	f := cmd.Flags()
	b.flags(f)
	f.StringVar(&b.out, "out", "", "a Markdown file to write")
	f.StringSliceVar(&b.only, "only", nil, "rows by id; empty: all. With some only, --out is not written")
	f.StringSliceVar(&b.skip, "skip", nil, "rows to leave out, by id")
	f.StringSliceVar(&b.servers, "servers", []string{"parley", "floor", "ejabberd", "prosody"}, "servers to start")
	f.Float64Var(&b.scale.by, "scale", 1, "share of the full size of each scenario; the sizes in the names of rows are the full ones")
	f.IntVar(&b.fill, "fill", 500_000, "messages (two rows each) that Parley's archive holds before the row with SQLite")
	f.DurationVar(&b.scale.Settle, "settle", time.Second, "between login and measuring")
	b.scale.Parallel, b.scale.Patience = 16, time.Minute
	return cmd
}

func (b *bench) all(ctx context.Context, w io.Writer) error {
	if err := b.known(); err != nil {
		return err
	}
	columns := append([]string{"id", "Scenario"}, b.servers...)
	b.lines = [][]string{append(columns, "parley/floor", "Goal")}
	for _, todo := range b.groups() {
		if err := b.group(ctx, todo[0].archive, todo); err != nil {
			return err
		}
	}
	order := map[string]int{"id": -1}
	for i, r := range rows() {
		order[r.id] = i
	}
	slices.SortStableFunc(b.lines, func(x, y []string) int { return order[x[0]] - order[y[0]] })
	if err := table(w, b.lines); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\nparley/floor: Parley's figure divided by that of a server that only moves the same bytes. Goal: of Parley's figure; ≤ is at most.\n"); err != nil {
		return err
	}
	if b.out != "" && len(b.only) == 0 {
		if err := os.WriteFile(b.out, []byte(b.markdown()), 0o644); err != nil {
			return err
		}
	}
	if len(b.bad) > 0 {
		return fmt.Errorf("%w: %s", errFaults, strings.Join(b.bad, "; "))
	}
	return nil
}

// known refuses rows and a binary that are not there: an empty table looks like a
// result.
func (b *bench) known() error {
	var ids []string
	for _, r := range rows() {
		ids = append(ids, r.id)
	}
	for _, id := range slices.Concat(b.only, b.skip) {
		if !slices.Contains(ids, id) {
			return fmt.Errorf("there is no row %q; rows are %s", id, strings.Join(ids, ", "))
		}
	}
	if !slices.Contains(b.servers, "parley") {
		return nil
	}
	if _, err := exec.LookPath(b.parley); err != nil {
		return fmt.Errorf("%w: make build makes it, --parley names another, and --servers leaves it out", err)
	}
	return nil
}

// groups are the rows that are asked for, by the servers that they need.
func (b *bench) groups() [][]row {
	var out [][]row
	shared := map[string]int{}
	for _, r := range rows() {
		switch {
		case len(b.only) > 0 && !slices.Contains(b.only, r.id), slices.Contains(b.skip, r.id):
			continue
		case r.fresh:
			out = append(out, []row{r})
			continue
		}
		i, ok := shared[r.archive]
		if !ok {
			i = len(out)
			shared[r.archive] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], r)
	}
	return out
}

// group runs the rows of one kind of storage: their servers stay for all of them.
func (b *bench) group(ctx context.Context, archive string, todo []row) (err error) {
	var db *peers.Postgres
	if archive == "postgres" {
		db, err = peers.StartPostgres(ctx, b.where)
		if errors.Is(err, peers.ErrMissing) {
			fmt.Fprintln(b.log, "skipped:", err)
			return nil
		} else if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Stop()) }()
		b.seen["Postgres"] = db.Version
	}
	var children []*peers.Child
	defer func() {
		for _, c := range children {
			err = errors.Join(err, c.Stop())
		}
	}()
	for _, name := range b.servers {
		if name == "floor" && archive != "" {
			continue
		}
		c, err := peers.Start(ctx, b.where, b.parley, name, archive, db)
		if errors.Is(err, peers.ErrMissing) {
			fmt.Fprintln(b.log, "skipped:", err)
			continue
		} else if err != nil {
			return err
		}
		b.seen[name] = c.Version
		children = append(children, c)
	}
	for _, r := range todo {
		if err := b.row(ctx, r, children); err != nil {
			return err
		}
	}
	return nil
}

// row measures one row, the servers taking turns.
func (b *bench) row(ctx context.Context, r row, children []*peers.Child) error {
	got := map[string]*ServerReport{}
	var names []string
	for range max(r.runs, 1) {
		for _, c := range children {
			if c.Name == "floor" && !r.floor {
				continue
			}
			s := server(c, r)
			if r.fill && c.Name == "parley" && b.fill > 0 {
				fill := scenario.Chat{Common: b.scale.Common, Pairs: 500, Window: 8, Messages: b.fill, Body: 100}
				if _, err := fill.Run(ctx, s); err != nil {
					return fmt.Errorf("filling %s: %w", c.Name, err)
				}
			}
			fmt.Fprintf(b.log, "%s: %s\n", r.id, c.Name)
			res, err := r.run(b.scale).Run(ctx, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil { // the others' figures are worth having
				fmt.Fprintf(b.log, "%s: %s: %v\n", r.id, c.Name, err)
				continue
			}
			if got[c.Name] == nil {
				got[c.Name] = &ServerReport{Name: c.Name}
				names = append(names, c.Name)
			}
			got[c.Name].Runs = append(got[c.Name].Runs, res)
		}
	}
	for _, n := range names {
		got[n].sum()
		if f := got[n].Faults; f.Any() {
			b.bad = append(b.bad, fmt.Sprintf("%s, %s: %v", r.id, n, f))
		}
	}
	b.line(r, got)
	return nil
}

// server is a child as a scenario sees it.
func server(c *peers.Child, r row) *scenario.Server {
	port := c.Port
	if r.tls == wire.Direct {
		port = c.Direct
	}
	s := &scenario.Server{
		Name: c.Name, PIDs: c.PIDs, Rooms: "conference.localhost", Register: "0077",
		Login: wire.Login{
			Addr: "127.0.0.1:" + strconv.Itoa(port), Domain: "localhost", TLS: r.tls, Mechanism: r.mechanism,
			Keys: &wire.Keys{}, Timeout: time.Minute, Sources: 1,
		},
	}
	if s.Login.Mechanism == "" {
		s.Login.Mechanism = "PLAIN"
	}
	if c.Name == "parley" {
		s.Collect = "curl -sfX POST http://127.0.0.1:" + strconv.Itoa(c.Port+2) + "/debug/free"
	}
	return s
}

func (b *bench) line(r row, got map[string]*ServerReport) {
	cells := []string{r.id, r.name}
	for _, name := range b.servers {
		s := got[name]
		if s == nil {
			cells = append(cells, "–")
			continue
		}
		var parts []string
		for _, m := range r.of {
			v, ok := s.value(m)
			parts = append(parts, figure(v, ok))
		}
		cell := strings.Join(parts, " / ")
		if s.Faults.Any() {
			cell += " !"
		}
		if name == "parley" && r.misses(s, got["floor"]) {
			cell += " ✗"
		}
		cells = append(cells, cell)
	}
	ratio := "–"
	if p, f := got["parley"], got["floor"]; p != nil && f != nil {
		x, _ := p.value(r.of[0])
		if y, ok := f.value(r.of[0]); ok && y > 0 {
			ratio = figure(x/y, true)
		}
	}
	b.lines = append(b.lines, append(cells, ratio, r.goal))
	fmt.Fprintln(b.log, strings.Join(b.lines[len(b.lines)-1], " | "))
}

// misses reports whether a figure does not meet the row's goal.
func (r row) misses(s, floor *ServerReport) bool {
	for i, most := range r.most {
		v, ok := s.value(r.of[i])
		if ok && (most > 0 && v > most || v < -most) {
			return true
		}
	}
	if r.times == 0 || floor == nil {
		return false
	}
	v, ok := s.value(r.of[0])
	least, there := floor.value(r.of[0])
	return ok && there && v > r.times*least
}

func (b *bench) markdown() string {
	var t strings.Builder
	t.WriteString("# Performance\n\nWritten by `make bench`; what is measured and why is in its rows. CPU is the server's own, user and system,\n" +
		"its children and its database counted in; servers run on one core, the generator on another, and take turns.\n" +
		"*Floor* (`xmppload floor`) only moves the same bytes between the same sockets: the machine's limit. `–`: cannot do it, or was not there; `!`: lost, duplicated or reordered something; `✗`: Parley misses the goal.\n\n")
	if b.scale.by != 1 {
		fmt.Fprintf(&t, "At %g of the full size. ", b.scale.by)
	}
	fmt.Fprintf(&t, "%s. %s.\n", time.Now().UTC().Format("2006-01-02"), machine())
	fmt.Fprintf(&t, "%s.\n\n", b.versions())
	var lines [][]string
	for _, l := range b.lines {
		lines = append(lines, l[1:])
	}
	markdown(&t, lines)
	t.WriteString("\nSeveral nodes: [nodes.md](nodes.md) (`make bench-nodes`).\n")
	return t.String()
}
