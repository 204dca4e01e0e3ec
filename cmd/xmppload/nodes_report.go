//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/scenario"
)

// costRows are a line per layout; the last but one column is how many times the
// first layout's sum it costs.
func costRows(costs []cost) [][]string {
	parts := append(slices.Clone(ordinals), natsPart, postgresPart)
	head := append([]string{"Layout", "messages/s"}, parts...)
	out := [][]string{append(head, "all", "÷ one node", "p50 / p95 / p99 ms")}
	for _, c := range costs {
		r := []string{c.name, figure(c.chat.value("rate"))}
		for _, p := range parts {
			r = append(r, figure(c.chat.value(scenario.PartOf(cpu100k, p))))
		}
		sum, known := c.chat.value(cpu100k)
		first, _ := costs[0].chat.value(cpu100k)
		var times []string
		for _, q := range []string{"p50", "p95", "p99"} {
			times = append(times, figure(c.steady.value(q)))
		}
		out = append(out, append(r, figure(sum, known), figure(sum/first, known && first > 0), strings.Join(times, " / ")))
		if c.chat.Faults.Any() || c.steady.Faults.Any() {
			out[len(out)-1][0] += " !"
		}
	}
	return out
}

// recoveryRows are a line per fault: median and worst of its rounds, and how
// often a session was resumed.
func recoveryRows(list []recovery) [][]string {
	out := [][]string{{"Fault", "contacts know", "session", "message", "resumed", "later: session", "later: resumed"}}
	for _, r := range list {
		out = append(out, []string{
			r.name,
			r.times(func(o round) time.Duration { return o.told }),
			r.times(func(o round) time.Duration { return o.session }),
			r.times(func(o round) time.Duration { return o.message }),
			r.count(func(o round) bool { return o.resumed }),
			r.times(func(o round) time.Duration { return o.late }),
			r.count(func(o round) bool { return o.lateResumed }),
		})
	}
	return out
}

// times are milliseconds.
func (r recovery) times(of func(round) time.Duration) string {
	var ms []float64
	for _, o := range r.rounds {
		ms = append(ms, of(o).Seconds()*1000)
	}
	return figure(count.Median(ms), true) + " / " + figure(slices.Max(ms), true)
}

func (r recovery) count(of func(round) bool) string {
	n := 0
	for _, o := range r.rounds {
		if of(o) {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, len(r.rounds))
}

func (n *nodes) page() string {
	var b strings.Builder
	b.WriteString("# What several nodes cost\n\nWritten by `make bench-nodes`. Every message is archived, so it is in Postgres before it is delivered.\n\n" +
		"All servers of a line, NATS and Postgres among them, share one core of this machine; the generator has another. So **rates do not show how several\n" +
		"nodes scale**: they show what the additional work costs. The figure to reckon with is the CPU per message of each process: a machine of its own for each\n" +
		"of them carries as much as its share of that leaves room for.\n\n")
	if n.scale != 1 {
		fmt.Fprintf(&b, "At %g of the full size. ", n.scale)
	}
	fmt.Fprintf(&b, "%s, in %s. %s.\n%s.\n", time.Now().UTC().Format("2006-01-02"), time.Since(n.began).Round(time.Second), machine(), n.versions())
	fmt.Fprintf(&b, "\n## A message\n\n%d pairs chat, eight messages of each under way: messages a second, and CPU seconds per 100,000 messages of each process, medians of %d runs\n"+
		"(`–`: not there; `!`: lost, duplicated or reordered something). *Apart*: sender and recipient of every pair are on different nodes. Times of delivery are at %d messages a second.\n\n",
		chatPairs, n.runs, steadyRate)
	markdown(&b, costRows(n.costs))
	fmt.Fprintf(&b, "\n## Recovery\n\nMilliseconds, median / worst; `cluster.lease` is %s.\n\n"+
		"- *Contacts know*: from the fault until somebody on another node is told that a user of the node is unavailable.\n"+
		"- *Session*, *message*, *resumed*: another user's client connects to another node at once and asks to resume (XEP-0198). From the fault until it has a session,\n"+
		"  and until it has what was sent to it right after the fault; how often the session was the one that it had. While the node's lease runs nobody can tell\n"+
		"  whether it still goes on with the session, so the client begins a new one. When it is a core that is killed, the client's front lives: its client comes back\n"+
		"  to it when the front has ended its stream.\n"+
		"- *Later*: a third client comes to another node half a second after contacts know, when all nodes do. From its coming until it has a session; how often\n"+
		"  it was the one that it had.\n\n"+
		"A node that was stopped (SIGSTOP) goes on after that, finds its lease over, and ends.\n\n", n.lease)
	markdown(&b, recoveryRows(n.recoveries))
	return b.String()
}
