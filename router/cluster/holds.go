package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"parley/router/channel"
	"parley/router/sessions"
)

// handedWithin is how long an acknowledgement waits for the hand-over of what it
// is for; the message is in the database anyhow.
const handedWithin = time.Second

// holds are what tells this node's clients how far the house has come (Handled)
// and waits until what it is about was handed over to other nodes: of what is
// acknowledged nothing is lost with this node on its way to another one, where
// newer messages, sent by a third, would overtake it. What comes later for a
// session waits behind what is held for it.
type holds struct {
	n   atomic.Int32 // of all: nearly always none
	mu  sync.Mutex
	all map[sessions.Ref]*hold
}

// hold is one session's.
type hold struct {
	open int // hand-overs that are waited for
	held []*channel.Envelope
}

func told(e *channel.Envelope) bool {
	return e.Kind == channel.Handled && e.Reason == "" && e.Seq != 0
}

// behind takes out of a batch what has to wait behind what is held.
func (h *holds) behind(batch []*channel.Envelope) []*channel.Envelope {
	if h.n.Load() == 0 {
		return batch
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := make([]*channel.Envelope, 0, len(batch))
	for _, e := range batch {
		if s := h.all[e.Session]; s != nil && told(e) {
			s.held = append(s.held, e)
			continue
		}
		now = append(now, e)
	}
	return now
}

// begin takes out of a batch what is told, and holds it until release is called
// with where it goes.
func (h *holds) begin(batch []*channel.Envelope) (now []*channel.Envelope, release func(to func([]*channel.Envelope))) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := map[sessions.Ref]struct{}{}
	for _, e := range batch {
		if !told(e) {
			now = append(now, e)
			continue
		}
		if h.all == nil {
			h.all = map[sessions.Ref]*hold{}
		}
		s := h.all[e.Session]
		if s == nil {
			s = &hold{}
			h.all[e.Session] = s
		}
		s.held = append(s.held, e)
		if _, twice := of[e.Session]; !twice {
			of[e.Session] = struct{}{}
			s.open++
		}
	}
	h.n.Store(int32(len(h.all))) //nolint:gosec // no more than there are sessions
	return now, func(to func([]*channel.Envelope)) {
		if out := h.end(of); len(out) > 0 {
			to(out)
		}
	}
}

func (h *holds) end(of map[sessions.Ref]struct{}) (out []*channel.Envelope) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ref := range of {
		s := h.all[ref]
		if s.open--; s.open > 0 {
			continue
		}
		out = append(out, s.held...)
		delete(h.all, ref)
	}
	h.n.Store(int32(len(h.all))) //nolint:gosec // no more than there are sessions
	return out
}
