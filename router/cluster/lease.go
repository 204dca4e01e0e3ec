package cluster

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// lease is how long we may take ourselves for alive. It never compares times of
// two machines: a renewal counts from before its statement was sent, so the
// database counts from later, and ours is over first.
type lease struct {
	clock Clock
	log   *slog.Logger
	limit time.Duration
	lost  chan struct{}
	over  atomic.Bool // lost, or given back
	from  atomic.Pointer[time.Time]

	mu   sync.Mutex // guards renewing, ending and the timer; no other lock is taken under it but the clock's
	halt func() bool
}

// Why a lease is lost.
const (
	overByClock    = "not renewed in time: the database did not answer, or this process stood still"
	overByDatabase = "the database says that it ran out, or that another process has the node's name"
)

func newLease(c Clock, log *slog.Logger, limit time.Duration, sent time.Time) *lease {
	l := &lease{clock: c, log: log, limit: limit, lost: make(chan struct{})}
	l.from.Store(&sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arm()
	return l
}

// arm sets the only timer; with mu.
func (l *lease) arm() {
	if l.halt != nil {
		l.halt()
	}
	l.halt = l.clock.AfterFunc(l.left(), l.expire)
}

// left is what is left of it.
func (l *lease) left() time.Duration {
	if l.over.Load() {
		return 0
	}
	now := l.clock.Now() // before from: a renewal in between must not look like a delay
	return max(0, l.limit-now.Sub(*l.from.Load()))
}

// held reports whether it is ours, and fences when its time is over.
func (l *lease) held() bool {
	if l.left() > 0 {
		return true
	}
	l.lose(overByClock)
	return false
}

// renewed makes it count from sent, when the statement went out that has now
// returned, unless it was over by then.
func (l *lease) renewed(sent time.Time) bool {
	l.mu.Lock()
	if held := l.left() > 0; !held {
		l.mu.Unlock()
		l.lose(overByClock)
		return false
	}
	l.from.Store(&sent)
	l.arm()
	l.mu.Unlock()
	return true
}

// expire is the timer's.
func (l *lease) expire() {
	if !l.held() {
		return
	}
	l.mu.Lock() // it was renewed meanwhile
	defer l.mu.Unlock()
	if !l.over.Load() {
		l.arm()
	}
}

// lose fences, once.
func (l *lease) lose(why string) {
	if l.end() {
		close(l.lost)
		l.log.Error("cluster: this node is fenced, it must stop", "why", why)
	}
}

// end reports whether it was not over.
func (l *lease) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halt()
	return !l.over.Swap(true)
}
