package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/storage"
)

// errLate: the database took longer for a round than a lease has time for.
var errLate = fmt.Errorf("%w: no answer in time", storage.ErrUnavailable)

// run renews until ctx is done or this life is over.
func (m *Members) run(ctx context.Context) {
	halt := m.opt.Clock.AfterFunc(m.opt.Renew, m.kick)
	defer func() { halt() }()
	failing := false
	for {
		select {
		case <-m.wake:
			halt() // it may have been woken for another reason
		case <-m.lease.lost:
			return
		case <-ctx.Done():
			return
		}
		pause := m.opt.Renew
		err := m.look(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, ErrFenced):
			return
		case err != nil:
			pause /= 3
			if !failing {
				m.opt.Log.Warn("cluster: the lease is not renewed; trying again", "left", m.lease.left(), "err", err)
			}
		case failing:
			m.opt.Log.Info("cluster: the lease is renewed again")
		}
		failing = err != nil
		halt = m.opt.Clock.AfterFunc(pause, m.kick)
	}
}

func (m *Members) kick() { signal(m.wake) }

// signal never blocks: one that waits is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// look is one round: it renews the lease and sees who is there. Errors wrap
// ErrFenced when this life is over.
func (m *Members) look(ctx context.Context) error {
	if !m.lease.held() { // frozen, perhaps for so long that others have our work
		return ErrFenced
	}
	ctx, done := m.within(ctx, min(m.opt.patience(), m.lease.left()))
	defer done()
	sent := m.opt.Clock.Now()
	all, err := m.store.Look(ctx, m.self, m.opt.Lease)
	if err != nil {
		if !m.lease.held() {
			return ErrFenced
		}
		if errors.Is(context.Cause(ctx), errLate) {
			err = fmt.Errorf("%w (%w)", errLate, err)
		}
		return fmt.Errorf("renew the lease: %w", err)
	}
	if !m.among(all) {
		m.lease.lose(overByDatabase)
		return ErrFenced
	}
	if !m.lease.renewed(sent) {
		return ErrFenced
	}
	m.adopt(all)
	return nil
}

// within bounds ctx by the injected clock. done has to be called.
func (m *Members) within(ctx context.Context, d time.Duration) (bounded context.Context, done func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	halt := m.opt.Clock.AfterFunc(d, func() { cancel(errLate) })
	return bounded, func() {
		halt()
		cancel(nil)
	}
}

// among reports whether this life is one of all.
func (m *Members) among(all []Member) bool {
	for _, a := range all {
		if a.Node == m.self.Node {
			return a.Incarnation == m.self.Incarnation
		}
	}
	return false
}

// adopt makes what a look has seen the view. Lives are numbered in the order of
// their coming, so one that is not new and was not there the last time has ended
// meanwhile, though a renewal that was under way for too long let it seem alive
// again: its node is fenced.
func (m *Members) adopt(all []Member) {
	m.mu.Lock()
	old, newest := m.view.Load(), m.newest
	live := make([]Member, 0, len(all))
	for _, a := range all {
		before, there := old.find(a.Node)
		if a.Incarnation <= newest && (!there || before.Incarnation != a.Incarnation) {
			continue
		}
		if a.Node == m.self.Node {
			a.Draining = m.draining // the look may have been under way when that changed
		}
		live = append(live, a)
		m.newest = max(m.newest, a.Incarnation)
	}
	m.view.Store(newView(live))
	m.mu.Unlock()
	signal(m.news)
}

// report tells Changed until ctx is done. What waits is the difference between
// two views, so it needs no queue.
func (m *Members) report(ctx context.Context) {
	told := newView(nil)
	for {
		select {
		case <-m.news:
		case <-ctx.Done():
			return
		}
		now := m.view.Load()
		if left := told.without(now); len(left) > 0 {
			m.opt.Changed(nil, m.others(left))
		}
		if joined := m.others(now.without(told)); len(joined) > 0 {
			m.opt.Changed(joined, nil)
		}
		told = now
	}
}

// others is all but this life.
func (m *Members) others(all []Member) []Member {
	out := all[:0:0]
	for _, a := range all {
		if a.Node != m.self.Node {
			out = append(out, a)
		}
	}
	return out
}
