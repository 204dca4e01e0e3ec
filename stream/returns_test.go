package stream

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"parley/router/channel"
)

// slowRoad takes nothing until it may.
type slowRoad struct {
	house *house
	may   chan struct{}
}

func (r slowRoad) Send(ctx context.Context, batch []*channel.Envelope) error {
	<-r.may
	return r.house.Send(ctx, batch)
}

// TestFault5EndedSessionsCostOneErrand: what comes for a session that has ended
// goes back in order, on one goroutine, however slow the house is.
func TestFault5EndedSessionsCostOneErrand(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.bound(t, "a")
	c.session.end(t.Context())
	road := slowRoad{h, make(chan struct{})}
	open := h.links.Out
	h.links.Out = func(string) channel.MessageChannel { return road }
	const n = 3*returnsBatch + 1
	for i := range n {
		h.message(c.session, fmt.Sprint(i))
	}
	h.errands.mu.Lock()
	errands := h.errands.n
	h.errands.mu.Unlock()
	close(road.may)
	if errands != 1 {
		t.Errorf("%d goroutines", errands)
	}
	back := h.sent(channel.Undelivered)
	h.links.Out = open
	if len(back) != n {
		t.Fatalf("%d of %d handed back", len(back), n)
	}
	for i, e := range back {
		want(t, string(e.Raw), fmt.Sprintf("<message id='%d'/>", i))
	}
}

// What waits to be handed back is bounded; what is stored gives way first.
func TestFault5ReturnsAreBounded(t *testing.T) {
	for name, c := range map[string]struct{ raw, stored, others int }{
		"stanzas": {1, returnsMost, returnsMost},
		"bytes":   {returnsBytes / 8, 8, 8},
		"one":     {3 * returnsBytes, 1, 0}, // nothing is too large for an empty list
	} {
		t.Run(name, func(t *testing.T) {
			var r returns
			raw := make([]byte, c.raw)
			fill := func(row int64) (n int) {
				for {
					taken, begin := r.add(&channel.Envelope{Raw: raw, Pending: row})
					if !taken {
						return n
					}
					if begin != (len(r.list) == 1) {
						t.Fatalf("an errand begins at %d: %v", len(r.list), begin)
					}
					n++
				}
			}
			if n := fill(1); n != c.stored {
				t.Errorf("%d stored ones are taken, want %d", n, c.stored)
			}
			if n := fill(0); n != c.others {
				t.Errorf("%d others are taken, want %d", n, c.others)
			}
			for r.take() != nil {
			}
			if r.size != 0 || r.busy {
				t.Errorf("%d bytes are left, busy: %v", r.size, r.busy)
			}
		})
	}
}

// TestFault5FloodBeforeItOpens: what comes before a client knows of its session is
// bounded as what it does not read, but for what it asked for.
func TestFault5FloodBeforeItOpens(t *testing.T) {
	flood := func(h *house, s *Session, n int, solicited bool) {
		for i := range n {
			h.send1(s, channel.Envelope{Raw: fmt.Appendf(nil, "<message id='%d'/>", i), Solicited: solicited, Pending: int64(i + 1)})
		}
	}
	reopen := func(s *Session) {
		s.mu.Lock()
		s.opening = true
		s.mu.Unlock()
	}
	t.Run("resumable", func(t *testing.T) {
		h := newHouse(t, nil)
		c, p := h.bound(t, "a")
		id := enable(t, c, p)
		over := serve(c)
		reopen(c.session)
		n := h.cfg.Resumption.Unacked + 1
		flood(h, c.session, n, false)
		comesBack(t, h, p, over, id, n)
	})
	t.Run("not resumable", func(t *testing.T) {
		h := newHouse(t, nil)
		c, p := h.bound(t, "a")
		over := serve(c)
		reopen(c.session)
		n := 10 * h.cfg.Resumption.Unacked
		flood(h, c.session, n, false)
		c.session.mu.Lock()
		kept := len(c.session.early)
		c.session.mu.Unlock()
		<-over
		if kept > h.cfg.Resumption.Unacked+1 || !p.closed {
			t.Errorf("%d are kept, closed: %v", kept, p.closed)
		}
		if back := len(h.sent(channel.Undelivered)); back != n {
			t.Errorf("%d of %d handed back", back, n)
		}
	})
	t.Run("solicited", func(t *testing.T) {
		h := newHouse(t, nil)
		c, p := h.bound(t, "a")
		reopen(c.session)
		n := 10 * h.cfg.Resumption.Unacked
		flood(h, c.session, n, true)
		c.session.open()
		c.session.flush()
		if got := strings.Count(p.read(), "<message"); got != n || p.closed {
			t.Errorf("%d of %d sent, closed: %v", got, n, p.closed)
		}
	})
}
