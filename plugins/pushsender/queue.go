package pushsender

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/parser/jid"
	"parley/plugins"
	"parley/processor"
)

// note is what a device is to be told.
type note struct {
	to           registration
	count, calls int
	body, sender string // only if the operator and the client want that
}

// urgent reports whether it cannot wait.
func (n *note) urgent() bool { return n.calls > 0 }

// job is a note, and the request to answer when it is done.
type job struct {
	note
	from, at jid.JID // who asks, and the service that is asked
	id       string
	host     string    // that it goes to
	until    time.Time // when whoever asks waits no longer
}

// margin is what an answer needs on its way back to who asks.
const margin = 5 * time.Second

// When to try again what this node cannot send now.
const (
	retryFull = 5 * time.Second // the queue is full, or the host has enough to do
	retryStop = time.Second     // the service ends, and begins again
)

// maxHosts bounds the hosts that are remembered; one more than that is put off.
const maxHosts = 10_000

// queue lets a few workers send, calls first, and few of them to one host. A note
// that finds no place is put off: whoever asks keeps it. One registration has one
// note under way, so that what comes meanwhile is told together.
type queue struct {
	cfg    *Config
	clock  plugins.Clock
	send   func(context.Context, *job)
	m      *metrics
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex // leaf
	more    *sync.Cond // there is something to do, or a host can take more, or it ends
	ended   bool
	lines   [2][]*job           // what waits: calls, and everything else
	busy    map[string]struct{} // nodes with a note that waits or is sent
	hosts   map[string]*host
	pending int // of the lines
}

// host is what this node has with one host.
type host struct {
	waiting, sending int
	pace             *rate.Limiter
}

func newQueue(cfg *Config, clock plugins.Clock, send func(context.Context, *job), m *metrics) *queue {
	q := &queue{cfg: cfg, clock: clock, send: send, m: m, busy: map[string]struct{}{}, hosts: map[string]*host{}}
	q.more = sync.NewCond(&q.mu)
	return q
}

// put takes a job; false: retry is when to try again.
func (q *queue) put(j *job) (retry time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	if q.ended {
		return retryStop, false
	}
	if _, busy := q.busy[j.to.node]; busy || q.pending >= q.cfg.Queue {
		return retryFull, false
	}
	h := q.host(j.host, now)
	// One host that is slow leaves room for the others.
	if h == nil || h.waiting > q.cfg.Queue/2 || !h.pace.AllowN(now, 1) {
		return retryFull, false
	}
	h.waiting++
	q.busy[j.to.node] = struct{}{}
	q.count(1)
	j.until = now.Add(processor.AskTimeout - margin)
	line := &q.lines[1]
	if j.urgent() {
		line = &q.lines[0]
	}
	*line = append(*line, j)
	q.more.Signal()
	return 0, true
}

func (q *queue) count(more int) {
	q.pending += more
	q.m.waiting.Set(float64(q.pending))
}

// host is what there is with a host; nil: there are too many hosts.
func (q *queue) host(name string, now time.Time) *host {
	h := q.hosts[name]
	if h != nil {
		return h
	}
	if len(q.hosts) >= maxHosts {
		for name, h := range q.hosts {
			if h.waiting+h.sending == 0 && h.pace.TokensAt(now) >= float64(h.pace.Burst()) {
				delete(q.hosts, name)
			}
		}
	}
	if len(q.hosts) >= maxHosts {
		return nil
	}
	h = &host{pace: rate.NewLimiter(rate.Limit(q.cfg.Rate), max(int(q.cfg.Rate), 1))}
	q.hosts[name] = h
	return h
}

// next waits for a job that can be sent; nil: the queue has ended, and is empty.
func (q *queue) next() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for l, line := range q.lines {
			for i, j := range line {
				h := q.hosts[j.host]
				if h.sending >= q.cfg.PerHost && !q.ended {
					continue
				}
				h.waiting--
				h.sending++
				q.count(-1)
				q.lines[l] = slices.Delete(line, i, i+1)
				return j
			}
		}
		if q.ended {
			return nil
		}
		q.more.Wait()
	}
}

// done gives back what the job has had.
func (q *queue) done(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, j.to.node)
	q.hosts[j.host].sending--
	q.more.Signal()
}

func (q *queue) start(ctx context.Context) {
	ctx, q.cancel = context.WithCancel(ctx)
	for range q.cfg.Workers {
		q.tasks.Go(func() {
			for j := q.next(); j != nil; j = q.next() {
				q.send(ctx, j)
			}
		})
	}
}

// stop breaks off what is under way, and returns when everything is answered.
func (q *queue) stop() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.more.Broadcast()
	if q.cancel != nil {
		q.cancel()
	}
	q.tasks.Wait()
}
