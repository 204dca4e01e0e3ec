//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/peers"
)

// The halves of a pair are on different nodes when they are to be, and on one
// when not; every node has as many senders as another, and as many receivers.
func TestPlace(t *testing.T) {
	for _, doors := range []int{1, 2, 3} {
		for _, apart := range []bool{false, true} {
			senders, receivers := make([]int, doors), make([]int, doors)
			for pair := range 60 {
				from, to := place(2*pair, doors, apart), place(2*pair+1, doors, apart)
				if (from != to) != (apart && doors > 1) {
					t.Fatalf("%d nodes, apart %v: pair %d is on %d and %d", doors, apart, pair, from, to)
				}
				senders[from]++
				receivers[to]++
			}
			for i := range doors {
				if senders[i] != 60/doors || receivers[i] != 60/doors {
					t.Errorf("%d nodes, apart %v: senders %v, receivers %v", doors, apart, senders, receivers)
				}
			}
		}
	}
}

// Every layout has a door and names for its nodes, and a front has a core that
// starts before it.
func TestLayouts(t *testing.T) {
	check := func(name string, roles []peers.Role, least int) {
		doors := 0
		for i, r := range roles {
			if r != peers.Core {
				doors++
			}
			if r == peers.Front && !slices.Contains(roles[:i], peers.Core) {
				t.Errorf("%s: a front starts before its core", name)
			}
		}
		if doors < least {
			t.Errorf("%s: %d doors", name, doors)
		}
	}
	for _, l := range layouts() {
		least := 1
		if l.apart {
			least = 2
		}
		check(l.name, l.roles, least)
		if len(l.roles) > len(ordinals) {
			t.Errorf("%s: no names for %d nodes", l.name, len(l.roles))
		}
	}
	if first := layouts()[0]; !slices.Equal(first.roles, []peers.Role{peers.Alone}) {
		t.Errorf("the others are compared with %s", first.name)
	}
	for _, f := range faults() {
		check(f.name, f.roles, 2)
		if !slices.Contains(f.roles, f.victim) {
			t.Errorf("%s: nobody fails", f.name)
		}
	}
}

// After every round, with the new node at the end, the one that fails is the one
// that the people are at: itself, or the core that their front has taken.
func TestVictims(t *testing.T) {
	for _, f := range faults() {
		c := &peers.Cluster{}
		add := func(r peers.Role) {
			c.Nodes = append(c.Nodes, &peers.Child{Config: peers.Config{Node: peers.Node{Role: r}}})
		}
		for _, r := range f.roles {
			add(r)
		}
		for range 5 {
			hit, doors := f.hit(c), f.doors(c)
			if hit.Node.Role != f.victim || hit == doors[1] || (f.victim != peers.Core) != (hit == doors[0]) {
				t.Fatalf("%s: the wrong node fails", f.name)
			}
			if f.victim == peers.Core && (doors[0].Node.Role != peers.Front || doors[1].Node.Role != peers.Whole) {
				t.Fatalf("%s: people are at a %s and a %s", f.name, doors[0].Node.Role, doors[1].Node.Role)
			}
			c.Nodes = slices.DeleteFunc(c.Nodes, func(n *peers.Child) bool { return n == hit })
			add(f.victim)
		}
	}
}

func TestCostRows(t *testing.T) {
	ran := func(l layout, lost int, parts map[string]float64) cost {
		r := &scenario.Result{Metrics: []scenario.Metric{{Name: "rate", Value: 5000}}, Faults: count.Faults{Lost: lost}}
		sum := 0.0
		for name, v := range parts {
			r.Metrics = append(r.Metrics, scenario.Metric{Name: scenario.PartOf(cpu100k, name), Value: v})
			sum += v
		}
		r.Metrics = append(r.Metrics, scenario.Metric{Name: cpu100k, Value: sum})
		c := cost{layout: l}
		c.chat.Runs = []*scenario.Result{r}
		c.steady.Runs = []*scenario.Result{{Metrics: []scenario.Metric{{Name: "p50", Value: 1}, {Name: "p95", Value: 2}, {Name: "p99", Value: 3}}}}
		c.chat.sum()
		c.steady.sum()
		return c
	}
	rows := costRows([]cost{
		ran(layout{name: "one"}, 0, map[string]float64{"first": 3, postgresPart: 1}),
		ran(layout{name: "two"}, 1, map[string]float64{"first": 2, "second": 2.5, natsPart: 0.5, postgresPart: 1}),
	})
	for i, want := range []string{
		"Layout|messages/s|first|second|third|NATS|Postgres|all|÷ one node|p50 / p95 / p99 ms",
		"one|5000|3.00|–|–|–|1.00|4.00|1.00|1.00 / 2.00 / 3.00",
		"two !|5000|2.00|2.50|–|0.50|1.00|6.00|1.50|1.00 / 2.00 / 3.00",
	} {
		if got := strings.Join(rows[i], "|"); got != want {
			t.Errorf("line %d:\n%s, want\n%s", i, got, want)
		}
	}
}

func TestRecoveryRows(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	rows := recoveryRows([]recovery{{fault{name: "kill"}, []round{
		{ms(6000), ms(3000), ms(3200), false, ms(4), true},
		{ms(7000), ms(3100), ms(3300), true, ms(6), true},
		{ms(5000), ms(3500), ms(3400), false, ms(50), true},
	}}})
	if got, want := strings.Join(rows[1], "|"), "kill|6000 / 7000|3100 / 3500|3300 / 3400|1 of 3|6.00 / 50.0|3 of 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
