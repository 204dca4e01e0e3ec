package simulation

import (
	"sync"
	"sync/atomic"
	"time"
)

// clock is a process's: it has a speed of its own, and it may be ahead of the
// others, or behind. While the process is frozen time goes on, but nobody is told.
type clock struct {
	process *process
	begin   time.Time
	speed   float64
	ahead   time.Duration
	set     atomic.Int64 // by somebody, forward or back, while it runs
}

// wall is the time of day, which may be set; leases ask for what cannot be.
type wall struct{ *clock }

// Now implements plugins.Clock.
func (w wall) Now() time.Time { return w.clock.Now().Add(time.Duration(w.set.Load())) }

// Now implements cluster.Clock.
func (c *clock) Now() time.Time {
	return c.begin.Add(c.ahead + time.Duration(float64(time.Since(c.begin))*c.speed))
}

// AfterFunc implements cluster.Clock.
func (c *clock) AfterFunc(d time.Duration, f func()) func() bool {
	a := &alarm{f: f}
	t := time.AfterFunc(time.Duration(float64(d)/c.speed)+1, func() { // never before its time
		if c.process.awake() {
			a.ring()
		}
	})
	return func() bool {
		t.Stop()
		return a.stop()
	}
}

// alarm is a timer that may be stopped until its function begins.
type alarm struct {
	mu   sync.Mutex
	over bool
	f    func()
}

func (a *alarm) ring() {
	if a.stop() {
		a.f()
	}
}

func (a *alarm) stop() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.over
	a.over = true
	return !was
}
