package stream

import (
	"context"
	"slices"
	"sync"
	"time"

	"parley/router/channel"
	"parley/router/sessions"
)

// ackLinger is how long acknowledged rows wait for company: marks are written
// lazily (design: D2), a crash repeats a message with the same stanza-id.
const ackLinger = 20 * time.Millisecond

// ackMemory is how long what the house has heard of is remembered, at least.
const ackMemory = time.Second

// acker collects which pending rows recipients have taken, so that a
// delivery never waits for the pipeline. It is bounded by what is pending.
type acker struct {
	mu      sync.Mutex
	rows    map[sessions.Ref][]int64
	passing map[sessions.Ref][]int64 // taken, perhaps not yet heard of
	wake    chan struct{}

	// What the house has heard of lately: what it looked up in the archive just
	// before may still be on its way here. now and before it, each for ackMemory.
	remembers   bool // it looks for what it has looked for already: in a cluster
	now, before map[sessions.Ref][]int64
	since       time.Time // of now
}

func (a *acker) add(ref sessions.Ref, rows ...int64) {
	a.mu.Lock()
	if a.rows == nil {
		a.rows = map[sessions.Ref][]int64{}
	}
	a.rows[ref] = append(a.rows[ref], rows...)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *acker) take() map[sessions.Ref][]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passing, a.rows = a.rows, nil
	return a.passing
}

// takeOf is what a session that ends has taken: whoever comes after it must
// not get that again. What is on its way is told twice rather than late.
func (a *acker) takeOf(ref sessions.Ref) []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	rows := append(a.rows[ref], a.passing[ref]...)
	delete(a.rows, ref)
	return rows
}

// holds reports whether a row is collected, or on its way, or the house has heard of
// it lately.
func (a *acker) holds(ref sessions.Ref, row int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, all := range [...]map[sessions.Ref][]int64{a.rows, a.passing, a.now, a.before} {
		if slices.Contains(all[ref], row) {
			return true
		}
	}
	return false
}

func (a *acker) passed(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.remembers {
		if a.now == nil || at.Sub(a.since) >= ackMemory {
			a.now, a.before, a.since = map[sessions.Ref][]int64{}, a.now, at
		}
		for ref, rows := range a.passing {
			a.now[ref] = append(a.now[ref], rows...)
		}
	}
	a.passing = nil
}

// sendAcks runs until ctx is done and everything collected is on its way.
func (s *Server) sendAcks(ctx context.Context) {
	for {
		select {
		case <-s.acks.wake:
			select {
			case <-time.After(ackLinger):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		s.passAcks()
		if ctx.Err() != nil {
			return
		}
	}
}

func (s *Server) passAcks() {
	defer func() { s.acks.passed(s.env.Clock.Now()) }()
	var batch []*channel.Envelope
	for ref, rows := range s.acks.take() {
		batch = append(batch, &channel.Envelope{Kind: channel.Acked, Session: ref, Rows: rows})
	}
	if len(batch) == 0 {
		return
	}
	if err := s.send(context.Background(), batch...); err != nil {
		s.log.Warn("acknowledgements not passed on; the messages stay pending", "err", err)
	}
}
