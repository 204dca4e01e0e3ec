package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/router/sessions"
)

// archivist keeps sessions and writes down what it hears.
type archivist struct {
	Resumptions // nil: what a test does not expect panics
	busy        chan struct{}
	mu          sync.Mutex
	lines       []string
}

func (a *archivist) hears(format string, args ...any) {
	a.mu.Lock()
	a.lines = append(a.lines, fmt.Sprintf(format, args...))
	a.mu.Unlock()
}

func (a *archivist) heard() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.lines)
}

func (a *archivist) Begin(l Lasting) { a.hears("begin at %d", l.Base) }

func (a *archivist) Keeps(sessions.Ref) bool { return true }

// Away waits as long as busy is open, as a front does whose core is slow.
func (a *archivist) Away(_ sessions.Ref, since time.Time) {
	if a.busy != nil {
		<-a.busy
	}
	a.hears("away %v", !since.IsZero())
}

func (a *archivist) Sync(context.Context, sessions.Ref) error { return nil }

func (h *house) keptBy(a *archivist) { h.table.Store(newTable([]*Registrar{{resumptions: a}})) }

// Who has to wait until it can tell how a session fares holds nobody else up:
// not who delivers to the session, and not who looks at it.
func TestFault5ASlowKeeperHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		a := &archivist{busy: make(chan struct{})}
		h.keptBy(a)
		c, p := h.bound(t, "a")
		id := enable(t, c, p)
		p.stuck = true
		done := false
		go func() {
			for i := range h.cfg.Resumption.Unacked + 1 {
				h.message(c.session, fmt.Sprint(i))
			}
			c.session.check(context.Background(), h.clock.Now())
			c.session.buffered()
			done = true
		}()
		synctest.Wait()
		if !done {
			t.Error("deliveries wait")
		}
		close(a.busy)
		h.errands.wait()
		c.detach(context.Background())
		resume(t, h, id, 0)
		if got := a.heard(); !slices.Equal(got, []string{"begin at 0", "away true", "away false"}) {
			t.Errorf("%q", got)
		}
	})
}
