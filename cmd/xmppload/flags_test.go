//go:build linux

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/peers"
)

func TestVersus(t *testing.T) {
	o := &options{runs: 1, tls: "none"}
	o.server.Login.Domain = "localhost"
	o.vs = []string{"parley=127.0.0.1:5222:17+18,domain=a.example,rooms=r.example", "floor=[::1]:5322:19"}
	s, err := o.servers()
	if err != nil || len(s) != 2 {
		t.Fatal(s, err)
	}
	if p := s[0]; p.Name != "parley" || p.Login.Addr != "127.0.0.1:5222" || !slices.Equal(p.PIDs, []int{17, 18}) || p.Login.Domain != "a.example" || p.Rooms != "r.example" {
		t.Errorf("%s %s %v %s %s", p.Name, p.Login.Addr, p.PIDs, p.Login.Domain, p.Rooms)
	}
	if p := s[1]; p.Login.Addr != "[::1]:5322" || p.Login.Domain != "localhost" {
		t.Errorf("%s %s", p.Login.Addr, p.Login.Domain)
	}
	for _, bad := range []string{"x", "x=127.0.0.1:5222", "=127.0.0.1:5222:1", "x=127.0.0.1:5222:one", "x=127.0.0.1:5222:1,colour=red"} {
		o.vs = []string{bad}
		if _, err := o.servers(); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// Medians and ratios are those of the runs, and faults are never out of sight.
func TestTable(t *testing.T) {
	run := func(cpu float64, lost int) *scenario.Result {
		return &scenario.Result{Metrics: []scenario.Metric{{Name: "CPU", Unit: "s", Value: cpu}}, Faults: count.Faults{Lost: lost}}
	}
	r := Report{Servers: []ServerReport{
		{Name: "floor", Runs: []*scenario.Result{run(1, 0), run(9, 0), run(2, 0)}},
		{Name: "parley", Runs: []*scenario.Result{run(3, 0), run(4, 2), run(5, 1)}},
	}}
	for i := range r.Servers {
		r.Servers[i].sum()
	}
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Fields(line))
	}
	for i, want := range [][]string{{"floor", "parley", "ratio"}, {"CPU", "(s)", "2.00", "4.00", "2.00"}, {"faults", "none", "lost", "3,", "duplicated", "0,", "reordered", "0"}} {
		if !slices.Equal(got[i], want) {
			t.Errorf("line %d: %q, want %q", i, got[i], want)
		}
	}
}

// Every row has a name of its own and figures of a unit; every server of the
// table can be started when it is installed.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		if seen[r.id] || len(r.of) == 0 || len(r.most) > len(r.of) || r.goal == "" || r.run(scale{by: 0.01}) == nil {
			t.Errorf("row %s", r.id)
		}
		seen[r.id] = true
	}
}

// A goal is a most, a least, or a multiple of the floor.
func TestMissedGoals(t *testing.T) {
	made := func(first, second float64) *ServerReport {
		return &ServerReport{Medians: []scenario.Metric{{Name: "a", Value: first}, {Name: "b", Value: second}}}
	}
	r := row{of: []string{"a", "b"}, most: []float64{2, -10}}
	for _, c := range []struct {
		row    row
		got    *ServerReport
		floor  *ServerReport
		misses bool
	}{
		{r, made(2, 10), nil, false}, {r, made(2.1, 10), nil, true}, {r, made(2, 9), nil, true}, {r, &ServerReport{}, nil, false},
		{row{of: r.of, times: 2}, made(4, 0), made(2, 0), false}, {row{of: r.of, times: 2}, made(4.1, 0), made(2, 0), true}, {row{of: r.of, times: 2}, made(9, 0), nil, false},
	} {
		if got := c.row.misses(c.got, c.floor); got != c.misses {
			t.Errorf("most %v, times %v: %v, want %v", c.row.most, c.row.times, got, c.misses)
		}
	}
}

// A server that is not installed is left out, not an error of the run.
func TestPeerMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := peers.Start(t.Context(), peers.Where{Dir: t.TempDir()}, "parley", "prosody", "", nil); err == nil || !strings.Contains(err.Error(), peers.ErrMissing.Error()) {
		t.Errorf("prosody without PATH: %v", err)
	}
}
