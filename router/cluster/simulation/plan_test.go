package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
)

type dice = *rand.Rand

// names of the nodes.
var names = [...]string{"a", "b", "c"}

// A run's size.
const (
	users   = 5
	seconds = 2 // of the users have two devices
)

// plan is what happens in a run.
type plan struct {
	seed    uint64
	lease   time.Duration
	window  int
	speeds  [len(names)]float64
	ahead   [len(names)]time.Duration
	length  time.Duration
	whole   bool                  // nothing breaks
	calm    bool                  // and nobody moves
	absent  [users + seconds]bool // in the end
	actions []action
}

type action struct {
	at   time.Duration
	text string
	do   func(*world)
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lease %v, window %d, speeds %v, ahead %v, absent %v\n", p.lease, p.window, p.speeds, p.ahead, p.absent)
	for _, a := range p.actions {
		fmt.Fprintf(&b, "%9.3f  %s\n", a.at.Seconds(), a.text)
	}
	return b.String()
}

// newPlan draws everything from the seed.
func newPlan(seed uint64) *plan {
	d := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a plan's dice
	p := &plan{seed: seed}
	p.lease = []time.Duration{2 * time.Second, 3 * time.Second, 6 * time.Second}[d.IntN(3)]
	p.window = []int{64, 256}[d.IntN(2)]
	p.length = between(d, 10*time.Second, 18*time.Second)
	for i := range names {
		p.speeds[i] = 0.98 + d.Float64()*0.04
		p.ahead[i] = between(d, -time.Second, time.Second)
	}
	p.whole = d.IntN(5) == 0
	p.calm = p.whole && d.IntN(2) == 0
	p.talk(d)
	if !p.calm {
		p.travel(d)
		for i := range p.absent {
			p.absent[i] = d.IntN(6) == 0
		}
	}
	if !p.whole {
		for range 1 + d.IntN(5) {
			p.fault(d)
		}
	}
	if !p.whole && d.IntN(4) == 0 {
		node := d.IntN(len(names))
		p.add(p.length-between(d, 0, 3*time.Second), names[node]+" is killed for good", func(w *world) { w.lost(node) })
	}
	for i, absent := range p.absent {
		if absent {
			p.add(p.length-between(d, 0, 5*time.Second), fmt.Sprintf("device %d goes for good", i), func(w *world) { w.devices[i].retire() })
		}
	}
	slices.SortStableFunc(p.actions, func(a, b action) int { return int(a.at - b.at) })
	return p
}

func between(d dice, least, most time.Duration) time.Duration {
	return least + time.Duration(d.Int64N(int64(most-least)))
}

func (p *plan) add(at time.Duration, text string, do func(*world)) {
	p.actions = append(p.actions, action{at, text, do})
}

func (p *plan) when(d dice) time.Duration { return between(d, 500*time.Millisecond, p.length) }

func user(i int) string { return fmt.Sprintf("u%d", i) }

// talk lets people say things to each other.
func (p *plan) talk(d dice) {
	for range 30 + d.IntN(30) {
		from, to, n := d.IntN(users), d.IntN(users-1), 1+d.IntN(5)
		if to >= from {
			to++
		}
		if d.IntN(40) == 0 {
			n = 120
		}
		p.add(p.when(d), fmt.Sprintf("%s says %d to %s", user(from), n, user(to)), func(w *world) { w.devices[from].say(user(to), n) })
	}
}

// travel lets devices come, go and move. The second devices of some come and go
// most.
func (p *plan) travel(d dice) {
	for range 3 + d.IntN(8) {
		i, node, farewell := d.IntN(users+seconds), d.IntN(len(names)), d.IntN(2) == 0
		p.add(p.when(d), fmt.Sprintf("device %d moves to %s, farewell %v", i, names[node], farewell), func(w *world) { w.devices[i].move(node, farewell) })
	}
	for range 2 + d.IntN(6) {
		i, node, at := d.IntN(users+seconds), d.IntN(len(names)), p.when(d)
		p.add(at, fmt.Sprintf("device %d goes", i), func(w *world) { w.devices[i].goOffline() })
		p.add(at+between(d, 10*time.Millisecond, 4*time.Second), fmt.Sprintf("device %d comes to %s", i, names[node]), func(w *world) { w.devices[i].goOnline(node) })
	}
}

// faults, and how one is planned: at, for how long, where.
var faults = []struct {
	name string
	plan func(p *plan, d dice, at time.Duration, node int)
}{
	{"crash", func(p *plan, d dice, at time.Duration, node int) {
		p.add(at, names[node]+" is killed", func(w *world) { w.each(node, func(x *process) { x.crash("killed") }) })
	}},
	{"leave", func(p *plan, d dice, at time.Duration, node int) {
		p.add(at, names[node]+" is restarted", func(w *world) {
			w.each(node, func(x *process) { w.work.Go(x.leave) })
		})
	}},
	{"freeze", func(p *plan, d dice, at time.Duration, node int) {
		long := between(d, 100*time.Millisecond, p.lease*7/10)
		if d.IntN(2) == 0 {
			long = between(d, p.lease*8/10, p.lease*5/2)
		}
		impatient, again := between(d, 300*time.Millisecond, 3*time.Second), d.IntN(4) == 0
		p.add(at, fmt.Sprintf("%s is frozen for %v, its clients go after %v, started again %v", names[node], long, impatient, again), func(w *world) {
			w.each(node, func(x *process) {
				x.freeze(long)
				for i, dev := range w.devices {
					w.after(impatient+time.Duration(i)*time.Millisecond, func() { dev.impatient(x) })
				}
			})
			if again {
				w.after(impatient, func() { w.begin(node) })
			}
		})
	}},
	{"cut off from the bus", func(p *plan, d dice, at time.Duration, node int) {
		p.spell(d, at, 8*time.Second, names[node]+" has no way to NATS", func(w *world, on bool) { w.cut(node, on) })
	}},
	{"bus stands still", func(p *plan, d dice, at time.Duration, node int) {
		p.spell(d, at, 8*time.Second, "what is between "+names[node]+" and NATS stands still", func(w *world, on bool) { w.hold(node, on) })
	}},
	{"frames get lost", func(p *plan, d dice, at time.Duration, node int) {
		share := d.Float64() / 2
		p.spell(d, at, 5*time.Second, fmt.Sprintf("%s loses %.2f of its frames", names[node], share), func(w *world, on bool) { w.lose(node, on, share) })
	}},
	{"NATS restarts", func(p *plan, d dice, at time.Duration, node int) {
		long := between(d, 10*time.Millisecond, 6*time.Second)
		p.add(at, fmt.Sprintf("NATS is away for %v", long), func(w *world) { w.server.restart(long) })
	}},
	{"no database", func(p *plan, d dice, at time.Duration, node int) {
		p.spell(d, at, 2*p.lease, names[node]+" has no database", func(w *world, on bool) { w.shut(node, on) })
	}},
	{"no database, no bus", func(p *plan, d dice, at time.Duration, node int) {
		p.spell(d, at, 2*p.lease, names[node]+" reaches nobody", func(w *world, on bool) {
			w.shut(node, on)
			w.hold(node, on)
		})
	}},
	{"clock is set", func(p *plan, d dice, at time.Duration, node int) {
		by := between(d, -3*time.Second, 3*time.Second)
		p.add(at, fmt.Sprintf("%s's clock is set by %v", names[node], by), func(w *world) {
			w.each(node, func(x *process) { x.clock.set.Store(int64(by)) })
		})
	}},
	{"slow database", func(p *plan, d dice, at time.Duration, node int) {
		by := between(d, 20*time.Millisecond, 1500*time.Millisecond)
		p.spell(d, at, 6*time.Second, fmt.Sprintf("%s's database is slower by up to %v", names[node], by), func(w *world, on bool) { w.slow(node, on, by) })
	}},
}

func (p *plan) fault(d dice) {
	f := faults[d.IntN(len(faults))]
	f.plan(p, d, between(d, time.Second, p.length-time.Second), d.IntN(len(names)))
}

// spell is something that begins and ends.
func (p *plan) spell(d dice, at, most time.Duration, text string, do func(w *world, on bool)) {
	long := between(d, 50*time.Millisecond, most)
	p.add(at, text, func(w *world) { do(w, true) })
	p.add(at+long, "no longer: "+text, func(w *world) { do(w, false) })
}

// newDevices are everybody's; where they begin comes from the seed.
func (w *world) newDevices() {
	for i := range users + seconds {
		resource := "first"
		if i >= users {
			resource = "second"
		}
		u := user(i % users)
		w.devices = append(w.devices, &device{w: w, user: u, at: jid.MustParse(u + "@" + domain + "/" + resource)})
	}
}
