package simulation

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/router/sessions"
)

// world is one run.
type world struct {
	seed    uint64
	plan    *plan
	start   time.Time
	server  *server
	lives   *lives
	mail    *mail
	devices []*device
	work    sync.WaitGroup

	mu      sync.Mutex
	closing bool
	nodes   [len(names)]*node
	letters map[origin]*letter
	sights  map[sight]*[2]int
	lifes   []begun
	counts  map[string]int
	faults  []string // what must not be and was
	trace   []string
	hash    uint64
}

// node is a name, with whoever lives under it.
type node struct {
	current *process
	all     []*process
	lost    bool // nobody starts it again
	cut     bool
	held    bool
	lossy   float64
	shut    chan struct{}
	slow    time.Duration
}

// sight is what one process saw of a life.
type sight struct {
	by   *process
	node string
	life uint64
}

// begun is a life that has begun.
type begun struct {
	process *process
	life    uint64
	node    string
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, plan: newPlan(seed), start: time.Now(), letters: map[origin]*letter{}, sights: map[sight]*[2]int{}, counts: map[string]int{}}
	w.server = &server{w: w}
	w.lives = &lives{w: w}
	w.mail = &mail{w: w, of: map[origin]*row{}, wait: map[string][]*row{}}
	for i := range w.nodes {
		w.nodes[i] = &node{}
	}
	w.newDevices()
	return w
}

// dice are those of one thing, whatever else happens at the same time.
func (w *world) dice(of string) dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(of))
	return rand.New(rand.NewPCG(w.seed, h.Sum64())) //nolint:gosec // a plan's dice
}

// after lets f be called later, unless the run is over.
func (w *world) after(d time.Duration, f func()) { time.AfterFunc(d, f) }

// traced is how much of what happened is kept.
const traced = 4000

// note keeps what happened.
func (w *world) note(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted(kind, format, args...)
}

func (w *world) noted(kind, format string, args ...any) {
	line := fmt.Sprintf("%11.6f %-6s %s", time.Since(w.start).Seconds(), kind, fmt.Sprintf(format, args...))
	h := fnv.New64a()
	_, _ = h.Write([]byte(line))
	w.hash = w.hash*31 + h.Sum64()
	if len(w.trace) >= traced {
		w.trace = append(w.trace[:0:0], w.trace[traced/2:]...)
	}
	w.trace = append(w.trace, line)
}

// fail notes what must not be.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed(format, args...)
}

func (w *world) failed(format string, args ...any) {
	w.noted("WRONG", format, args...)
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// begin starts a process under a node's name.
func (w *world) begin(i int) {
	w.mu.Lock()
	n := w.nodes[i]
	if w.closing || n.lost {
		w.mu.Unlock()
		return
	}
	p := &process{w: w, name: names[i], number: len(n.all), registry: sessions.NewRegistry(), metrics: prometheus.NewRegistry(), died: make(chan struct{}), left: make(chan struct{})}
	p.clock = &clock{process: p, begin: w.start, speed: w.plan.speeds[i], ahead: w.plan.ahead[i]}
	p.ctx, p.kill = context.WithCancel(context.Background())
	p.desk = &desk{lives: w.lives, process: p}
	p.registry.Adopted(func(e *sessions.Entry) { w.note("sight", "%s sees %s", p, look(e.Ref, e.Available)) })
	p.streamer = &streamer{process: p, all: map[uint64]*session{}}
	p.archive = &archive{process: p, busy: map[sessions.Ref]bool{}}
	p.link.cut, p.link.lossy = n.cut, n.lossy
	if n.held {
		p.link.holds, p.link.held = 1, true
	}
	p.way.shut, p.way.slow = n.shut, n.slow
	n.current = p
	n.all = append(n.all, p)
	w.mu.Unlock()
	w.note("node", "%s is started", p)
	w.work.Go(func() {
		p.live()
		w.ended(i, p)
	})
}

// ended has a process started again, unless there is one of its name.
func (w *world) ended(i int, p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.nodes[i]
	if n.current != p || w.closing {
		return
	}
	for _, other := range n.all {
		if !other.over() {
			n.current = other
			return
		}
	}
	pause := between(w.dice("pause"+p.String()), 50*time.Millisecond, 1500*time.Millisecond)
	w.after(pause, func() { w.begin(i) })
}

// lost kills a node that does not come back.
func (w *world) lost(i int) {
	w.mu.Lock()
	w.nodes[i].lost = true
	w.mu.Unlock()
	w.each(i, func(p *process) { p.crash("killed for good") })
}

// expected are the nodes that are there in the end.
func (w *world) expected() (all []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range names {
		if !w.nodes[i].lost {
			all = append(all, i)
		}
	}
	return all
}

// at is the process that clients of the node reach; nil: there is none.
func (w *world) at(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.nodes[i].current; p != nil && !p.over() {
		return p
	}
	return nil
}

// each calls f for the processes of a node that have not died.
func (w *world) each(i int, f func(*process)) {
	w.mu.Lock()
	all := append([]*process(nil), w.nodes[i].all...)
	w.mu.Unlock()
	for _, p := range all {
		if !p.over() {
			f(p)
		}
	}
}

func (w *world) cut(i int, on bool) {
	w.mu.Lock()
	w.nodes[i].cut = on
	w.mu.Unlock()
	w.each(i, func(p *process) { w.server.cut(p, on) })
}

func (w *world) hold(i int, on bool) {
	w.mu.Lock()
	was := w.nodes[i].held
	w.nodes[i].held = on
	w.mu.Unlock()
	if was != on {
		w.each(i, func(p *process) { w.server.hold(p, on) })
	}
}

func (w *world) lose(i int, on bool, share float64) {
	if !on {
		share = 0
	}
	w.mu.Lock()
	w.nodes[i].lossy = share
	w.mu.Unlock()
	w.each(i, func(p *process) {
		w.server.mu.Lock()
		defer w.server.mu.Unlock()
		p.link.lossy = share
	})
}

func (w *world) shut(i int, on bool) {
	w.mu.Lock()
	n := w.nodes[i]
	switch {
	case on && n.shut == nil:
		n.shut = make(chan struct{})
	case !on && n.shut != nil:
		close(n.shut)
		n.shut = nil
	}
	shut := n.shut
	w.mu.Unlock()
	w.each(i, func(p *process) {
		w.mu.Lock()
		defer w.mu.Unlock()
		p.way.shut = shut
	})
}

func (w *world) slow(i int, on bool, by time.Duration) {
	if !on {
		by = 0
	}
	w.mu.Lock()
	w.nodes[i].slow = by
	w.mu.Unlock()
	w.each(i, func(p *process) {
		w.mu.Lock()
		defer w.mu.Unlock()
		p.way.slow = by
	})
}

// How long everything may take when nothing is broken any more.
const (
	mended  = 60 * time.Second // until all nodes run and all devices are there
	settled = 15 * time.Second // and after that until everybody knows everything
)

// run carries the plan out, and returns what must not be and was.
func run(t *testing.T, seed uint64) (w *world) {
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed)
		for i := range names {
			w.begin(i)
		}
		for i, d := range w.devices {
			node := w.dice(fmt.Sprint("home", i)).IntN(len(names))
			w.after(time.Duration(i)*time.Millisecond+time.Second/10, func() { d.goOnline(node) })
		}
		for _, a := range w.plan.actions {
			time.Sleep(time.Until(w.start.Add(a.at)))
			w.note("plan", "%s", a.text)
			a.do(w)
		}
		w.mend()
		if w.await(mended, w.whole) {
			time.Sleep(settled)
			w.judge()
		} else {
			w.fail("not everybody is back %v after everything was mended: %s", mended, w.missing())
		}
		w.end()
	})
	return w
}

// mend ends everything that is broken.
func (w *world) mend() {
	time.Sleep(time.Until(w.start.Add(w.plan.length)))
	w.note("plan", "everything is mended")
	for i := range names {
		w.cut(i, false)
		w.hold(i, false)
		w.lose(i, false, 0)
		w.shut(i, false)
		w.slow(i, false, 0)
	}
	for i, d := range w.devices {
		d.goOnline(i % len(names))
	}
}

// await reports whether ok becomes true in time.
func (w *world) await(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// whole reports whether all nodes run and all devices are there.
func (w *world) whole() bool { return w.missing() == "" }

func (w *world) missing() string {
	var b strings.Builder
	for _, i := range w.expected() {
		p := w.at(i)
		ok := p != nil
		if ok {
			p.mu.Lock()
			ok = p.open && p.thawed == nil
			p.mu.Unlock()
		}
		if !ok {
			fmt.Fprintf(&b, " node %s", names[i])
		}
	}
	for _, d := range w.devices {
		d.mu.Lock()
		if !d.retired && (!d.bound || len(d.unsure) > 0) {
			fmt.Fprintf(&b, " %s bound=%v unsure=%d", d.at, d.bound, len(d.unsure))
		}
		d.mu.Unlock()
	}
	return b.String()
}

// end ends all processes in order; synctest sees to it that nothing is left.
func (w *world) end() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	for _, d := range w.devices {
		d.goOffline()
	}
	time.Sleep(time.Second)
	for i := range names {
		w.each(i, (*process).leave)
	}
	w.work.Wait()
}
