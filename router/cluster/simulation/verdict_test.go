package simulation

import (
	"fmt"
	"slices"
	"strings"

	"parley/router/cluster"
	"parley/router/sessions"
)

// What must always hold is said where it happens; the rest here.

func (w *world) letter(o origin, to string) *letter {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &letter{origin: o, to: to, seen: map[*device]int{}}
	w.letters[o] = l
	return l
}

func (w *world) find(o origin) *letter {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.letters[o]
}

// settle notes what a sender was told.
func (w *world) settle(l *letter, refused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if refused {
		l.refused = true
		w.counts["refused"]++
	} else if !l.acked {
		l.acked = true
		w.counts["acked"]++
	}
	w.noted("told", "%s: refused=%v", l.origin, refused)
}

// declined notes that a node could not store a message. When its sender does not
// hear of that and sends it again, it comes behind what was stored meanwhile.
func (w *world) declined(o origin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.letters[o].declined = true
}

// seen notes what a device gets.
func (w *world) seen(d *device, o origin, to string, id int64) {
	w.mail.mu.Lock()
	r := w.mail.of[o]
	w.mail.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.letters[o]
	switch {
	case l == nil:
		w.failed("%s gets %s, which nobody has said", d.at, o)
		return
	case to != d.user || l.to != d.user:
		w.failed("%s gets %s, which is for %s", d.at, o, l.to)
	case r == nil:
		w.failed("%s gets %s, which is not stored", d.at, o)
	case r.id != id:
		w.failed("%s gets %s as %d, it is stored as %d", d.at, o, id, r.id)
	case l.id != 0 && l.id != id:
		w.failed("%s gets %s as %d, before it was %d", d.at, o, id, l.id)
	}
	l.id = id
	l.seen[d]++
	w.noted("got", "%s has %s as %d", d.at, o, id)
	w.counts["received"]++
	if l.seen[d] > 1 {
		w.counts["twice"]++
		if w.plan.calm {
			w.failed("%s gets %s twice, though nobody has moved", d.at, o)
		}
		return
	}
	for _, other := range w.letters {
		if other.from == o.from && other.to == l.to && other.n > o.n && other.seen[d] > 0 {
			w.counts["late"]++
			if w.plan.whole {
				w.failed("%s gets %s after %s, though nothing was broken", d.at, o, other.origin)
			}
			return
		}
	}
}

// begun notes a life.
func (w *world) begun(p *process, m cluster.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifes = append(w.lifes, begun{p, m.Incarnation, m.Node})
	w.noted("node", "%s is life %d", p, m.Incarnation)
}

// saw notes that a process was told of another's coming or going.
func (w *world) saw(by *process, node string, life uint64, what int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := sight{by, node, life}
	n := w.sights[s]
	if n == nil {
		n = &[2]int{}
		w.sights[s] = n
	}
	if what > 0 {
		n[0]++
	} else {
		n[1]++
	}
	if n[0] > 1 || n[1] > 1 || n[1] > n[0] {
		w.failed("%s has seen life %d of %s come %d times and go %d times", by, life, node, n[0], n[1])
	}
}

// judge looks at what must hold a while after everything was mended.
func (w *world) judge() {
	var live []*process
	for _, i := range w.expected() {
		if p := w.at(i); p != nil && p.acts() {
			live = append(live, p)
		}
	}
	if len(live) < len(w.expected()) {
		w.fail("only %d nodes are alive", len(live))
		return
	}
	w.judgeMail()
	w.judgeMembers(live)
	w.judgeSessions(live)
	for _, p := range live {
		w.judgePipes(p)
	}
}

// judgeMail: D1, D2 and D3 of the promise.
func (w *world) judgeMail() {
	there := map[string]bool{}
	gone := map[*letter]bool{} // and will not be sent again
	for _, d := range w.devices {
		d.mu.Lock()
		there[d.user] = there[d.user] || !d.retired
		for _, l := range d.unsure {
			gone[l] = d.retired
		}
		d.mu.Unlock()
	}
	w.mail.mu.Lock()
	defer w.mail.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	stored := map[origin]int{}
	last := map[[2]string]int{}
	for _, r := range w.mail.rows {
		stored[r.origin]++
		l := w.letters[r.origin]
		if pair := [2]string{r.from, r.to}; !l.declined {
			if r.n < last[pair] {
				w.failed("%s is stored after %s/%d", r.origin, r.from, last[pair])
			}
			last[pair] = r.n
		}
		switch {
		case r.pending && !there[r.to]:
		case r.pending:
			w.failed("%s waits for %s, who is there", r.origin, r.to)
		case len(l.seen) == 0:
			w.failed("%s counts as delivered, and nobody has got it", r.origin)
		}
	}
	for o, l := range w.letters {
		switch n := stored[o]; {
		case n > 1:
			w.failed("%s is stored %d times", o, n)
		case l.acked && !l.refused && n == 0:
			w.failed("%s was acknowledged and is lost", o)
		case !l.acked && !l.refused && !gone[l]:
			w.failed("nobody tells the sender of %s anything", o)
		}
	}
	w.counts["said"] = len(w.letters)
	w.counts["stored"] = len(stored)
}

// judgeMembers: everybody sees those that are there, and saw every other life end once.
func (w *world) judgeMembers(live []*process) {
	now := map[uint64]bool{}
	for _, p := range live {
		now[p.incarnation] = true
	}
	for _, p := range live {
		for _, m := range p.node.Members().Live() {
			if !now[m.Incarnation] {
				w.fail("%s takes life %d of %s for alive", p, m.Incarnation, m.Node)
			}
		}
		if n := len(p.node.Members().Live()); n != len(live) {
			w.fail("%s sees %d nodes", p, n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, n := range w.sights {
		if !s.by.over() && !now[s.life] && n[0] == 1 && n[1] != 1 {
			w.failed("%s has not seen life %d of %s end", s.by, s.life, s.node)
		}
	}
}

// judgeSessions: what every node believes of every other is so.
func (w *world) judgeSessions(live []*process) {
	for _, of := range live {
		var truth []string
		for _, x := range of.streamer.sessions() {
			truth = append(truth, look(x.ref, true))
		}
		slices.Sort(truth)
		for _, by := range live {
			var seen []string
			for _, e := range by.registry.On(of.name) {
				seen = append(seen, look(e.Ref, e.Available))
			}
			slices.Sort(seen)
			if !slices.Equal(seen, truth) {
				w.fail("%s believes of %s\n  %s\nand true is\n  %s", by, of, strings.Join(seen, "\n  "), strings.Join(truth, "\n  "))
			}
		}
	}
	for _, by := range live {
		for i, name := range names {
			if ghosts := by.registry.On(name); !slices.Contains(w.expected(), i) && len(ghosts) > 0 {
				w.fail("%s believes in %d sessions of %s, which is gone", by, len(ghosts), name)
			}
		}
	}
	const nowhere = "nowhere"
	for _, d := range w.devices {
		is := nowhere
		d.mu.Lock()
		if d.session != nil {
			is = look(d.session.ref, true)
		}
		d.mu.Unlock()
		for _, by := range live {
			at := nowhere
			if e, ok := by.registry.Find(d.at); ok {
				at = look(e.Ref, e.Available)
			}
			if at != is {
				w.fail("%s finds %s at %s, and it is %s", by, d.at, at, is)
			}
		}
	}
}

func look(ref sessions.Ref, available bool) string {
	return fmt.Sprintf("%s at %s #%d available=%v", ref.JID, ref.Node, ref.Conn, available)
}

// judgePipes: nothing is left in a window, and nothing was put back for good.
func (w *world) judgePipes(p *process) {
	families, err := p.metrics.Gather()
	if err != nil {
		w.fail("metrics of %s: %v", p, err)
	}
	for _, f := range families {
		if f.GetName() != "parley_lane_in_flight" {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := m.GetGauge().GetValue(); n != 0 {
				w.fail("%s: %v payloads are in flight", p, n)
			}
		}
	}
}
