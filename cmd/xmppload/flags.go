//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
)

// runner is a scenario with its options.
type runner interface {
	Run(context.Context, *scenario.Server) (*scenario.Result, error)
}

// options are the flags that all scenarios share.
type options struct {
	scenario.Common
	server  scenario.Server
	vs      []string
	runs    int
	procs   int
	json    bool
	tls     string
	timeout time.Duration
}

// command makes a scenario's command; made is called when flags are known.
func command(use, short string, flags func(*cobra.Command, *options), made func(*options) runner) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.procs > 0 {
				runtime.GOMAXPROCS(o.procs)
			}
			raiseFiles()
			servers, err := o.servers()
			if err != nil {
				return err
			}
			return report(cmd.Context(), cmd.OutOrStdout(), o, servers, func() runner { return made(o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server.Login.Addr, "server", "127.0.0.1:5222", "host:port")
	f.StringVar(&o.server.Login.Domain, "domain", "localhost", "domain of the accounts")
	f.IntSliceVar(&o.server.PIDs, "pid", nil, "the server's process, children included (repeatable: its database)")
	f.StringVar(&o.server.Rooms, "rooms", "conference.localhost", "domain of the rooms")
	f.StringVar(&o.server.Register, "register", "0077", "how accounts are made: 0077 (in band; the server has to allow it), \"command add '{user}' '{domain}' '{password}'\" (sh runs it, and passwords have blanks: quote them), none")
	f.StringVar(&o.server.Collect, "collect", "", "a command that lets the server give back unused memory (idle)")
	f.StringVar(&o.tls, "tls", "none", "none, starttls, direct; a Parley wants starttls, unless it runs with examples/interop.yaml")
	f.StringVar(&o.server.Login.Mechanism, "mechanism", "PLAIN", "PLAIN, SCRAM-SHA-1, SCRAM-SHA-256")
	f.BoolVar(&o.server.Login.SM, "sm", false, "with stream management (XEP-0198)")
	f.IntVar(&o.server.Login.Sources, "sources", 0, "local addresses 127.0.0.x to connect from (one is good for 28,000 connections)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "for a login")
	f.IntVar(&o.Parallel, "parallel", 16, "logins under way")
	f.DurationVar(&o.Patience, "patience", 20*time.Second, "when nothing has come for so long, the rest is lost")
	f.DurationVar(&o.Settle, "settle", 500*time.Millisecond, "between login and measuring")
	f.StringArrayVar(&o.vs, "vs", nil, "NAME=HOST:PORT:PID[+PID…][,domain=…][,mechanism=…][,rooms=…][,register=…][,collect=…]: servers in turn; the first is what others are compared with")
	f.IntVar(&o.runs, "runs", 1, "runs of each server; medians are printed")
	f.IntVar(&o.procs, "procs", 0, "GOMAXPROCS of the generator")
	f.BoolVar(&o.json, "json", false, "print JSON")
	flags(cmd, o)
	return cmd
}

// servers are those of --vs, or the one of --server.
func (o *options) servers() ([]*scenario.Server, error) {
	if o.runs < 1 {
		return nil, errors.New("--runs: at least 1")
	}
	o.server.Name = "server"
	o.server.Login.TLS = wire.Security(o.tls)
	o.server.Login.Timeout = o.timeout
	o.server.Login.Keys = &wire.Keys{}
	if !slices.Contains([]wire.Security{wire.Plain, wire.StartTLS, wire.Direct}, o.server.Login.TLS) {
		return nil, fmt.Errorf("--tls %s: none, starttls or direct", o.tls)
	}
	if len(o.vs) == 0 {
		return []*scenario.Server{&o.server}, nil
	}
	var out []*scenario.Server
	for _, v := range o.vs {
		s, err := o.parse(v)
		if err != nil {
			return nil, fmt.Errorf("--vs %s: %w", v, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// parse reads one --vs.
func (o *options) parse(v string) (*scenario.Server, error) {
	s := &scenario.Server{Login: o.server.Login, Rooms: o.server.Rooms, Register: o.server.Register, Collect: o.server.Collect}
	parts := strings.Split(v, ",")
	name, at, ok := strings.Cut(parts[0], "=")
	i := strings.LastIndexByte(at, ':')
	if !ok || name == "" || i < 0 || !strings.Contains(at[:i], ":") {
		return nil, errors.New("write NAME=HOST:PORT:PID")
	}
	s.Name, s.Login.Addr = name, at[:i]
	for p := range strings.SplitSeq(at[i+1:], "+") {
		pid, err := strconv.Atoi(p)
		if err != nil {
			return nil, fmt.Errorf("process id: %w", err)
		}
		s.PIDs = append(s.PIDs, pid)
	}
	keys := map[string]*string{"domain": &s.Login.Domain, "mechanism": &s.Login.Mechanism, "rooms": &s.Rooms, "register": &s.Register, "collect": &s.Collect}
	for _, p := range parts[1:] {
		k, val, _ := strings.Cut(p, "=")
		if keys[k] == nil {
			return nil, fmt.Errorf("%s is no option", k)
		}
		*keys[k] = val
	}
	return s, nil
}

// Report is what is printed with --json.
type Report struct {
	Servers []ServerReport `json:"servers"`
}

// ServerReport is one server's medians, and its runs.
type ServerReport struct {
	Name    string             `json:"name"`
	Medians []scenario.Metric  `json:"medians"`
	Faults  count.Faults       `json:"faults"`
	Runs    []*scenario.Result `json:"runs"`
}

// rounds runs every server once per round, in turn.
func rounds(ctx context.Context, runs int, servers []*scenario.Server, made func() runner) (*Report, error) {
	rep := &Report{Servers: make([]ServerReport, len(servers))}
	for range runs {
		for i, s := range servers {
			r, err := made().Run(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			rep.Servers[i].Name = s.Name
			rep.Servers[i].Runs = append(rep.Servers[i].Runs, r)
		}
	}
	for i := range rep.Servers {
		rep.Servers[i].sum()
	}
	return rep, nil
}

// sum takes the medians, in the order of the first run.
func (s *ServerReport) sum() {
	values := map[string][]float64{}
	for _, r := range s.Runs {
		s.Faults = s.Faults.Plus(r.Faults)
		for _, m := range r.Metrics {
			values[m.Name] = append(values[m.Name], m.Value)
		}
	}
	for _, m := range s.Runs[0].Metrics {
		s.Medians = append(s.Medians, scenario.Metric{Name: m.Name, Unit: m.Unit, Value: count.Median(values[m.Name])})
	}
}

func (s *ServerReport) value(name string) (float64, bool) {
	i := slices.IndexFunc(s.Medians, func(m scenario.Metric) bool { return m.Name == name })
	if i < 0 {
		return 0, false
	}
	return s.Medians[i].Value, true
}

func report(ctx context.Context, w io.Writer, o *options, servers []*scenario.Server, made func() runner) error {
	rep, err := rounds(ctx, o.runs, servers, made)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		err = enc.Encode(rep)
	} else {
		err = rep.print(w)
	}
	for _, s := range rep.Servers {
		if s.Faults.Any() {
			err = errors.Join(err, fmt.Errorf("%s: %w: %v", s.Name, errFaults, s.Faults))
		}
	}
	return err
}

// print writes a table: a row per figure, a column per server, and how many
// times the first server's figure each other one's is.
func (r *Report) print(w io.Writer) error {
	rows := [][]string{{""}}
	for i, s := range r.Servers {
		rows[0] = append(rows[0], s.Name)
		if i > 0 {
			rows[0] = append(rows[0], "ratio")
		}
	}
	first := r.Servers[0]
	for _, m := range first.Medians {
		name := m.Name
		if m.Unit != "" {
			name += " (" + m.Unit + ")"
		}
		row := []string{name}
		for i, s := range r.Servers {
			v, ok := s.value(m.Name)
			row = append(row, figure(v, ok))
			if i > 0 {
				row = append(row, figure(v/m.Value, ok && m.Value != 0))
			}
		}
		rows = append(rows, row)
	}
	faults := []string{"faults"}
	for i, s := range r.Servers {
		text := "none"
		if s.Faults.Any() {
			text = s.Faults.String()
		}
		if faults = append(faults, text); i > 0 {
			faults = append(faults, "")
		}
	}
	return table(w, append(rows, faults))
}

// figure is a number with three digits that matter.
func figure(v float64, ok bool) string {
	switch {
	case !ok:
		return "–"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func table(w io.Writer, rows [][]string) error {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i == 0 {
				b.WriteString(c + pad)
			} else {
				b.WriteString("  " + pad + c)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// markdown writes a table whose first row is its head.
func markdown(b *strings.Builder, rows [][]string) {
	for i, r := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(r, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(r)) + "|\n")
		}
	}
}
