package stream

import (
	"context"
	"sync"
	"time"

	"parley/router/channel"
	"parley/router/sessions"
)

// ackLinger is how long acknowledged rows wait for company: marks are written
// lazily (design: D2), a crash repeats a message with the same stanza-id.
// ackRetry is when they are passed on again if the house did not take them.
const (
	ackLinger = 20 * time.Millisecond
	ackRetry  = time.Second
)

// acker collects which pending rows recipients have taken, so that a
// delivery never waits for the pipeline. It is bounded by what is pending.
type acker struct {
	mu      sync.Mutex
	rows    map[sessions.Ref][]int64
	passing map[sessions.Ref][]int64 // taken, perhaps not yet heard of
	wake    chan struct{}
}

func (a *acker) add(ref sessions.Ref, rows ...int64) {
	a.put(ref, rows)
	a.kick()
}

func (a *acker) put(ref sessions.Ref, rows []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rows == nil {
		a.rows = map[sessions.Ref][]int64{}
	}
	a.rows[ref] = append(a.rows[ref], rows...)
}

func (a *acker) kick() {
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

func (a *acker) passed() {
	a.mu.Lock()
	defer a.mu.Unlock()
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

// passAcks tells the house. What it does not take now it is told again: a client
// that is being brought what it missed gets more only when this has arrived.
func (s *Server) passAcks() {
	defer s.acks.passed()
	var batch []*channel.Envelope
	for ref, rows := range s.acks.take() {
		batch = append(batch, &channel.Envelope{Kind: channel.Acked, Session: ref, Rows: rows})
	}
	if len(batch) == 0 {
		return
	}
	if err := s.send(context.Background(), batch...); err != nil {
		s.log.Warn("acknowledgements not passed on; the messages stay pending for now", "err", err)
		for _, e := range batch {
			if _, there := s.session(e.Session); there { // else it has told them itself (takeOf)
				s.acks.put(e.Session, e.Rows)
			}
		}
		s.env.Clock.AfterFunc(ackRetry, s.acks.kick)
	}
}
