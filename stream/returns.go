package stream

import (
	"context"
	"sync"

	"parley/router/channel"
	"parley/router/sessions"
)

// returns are what came for sessions that take nothing any more, on its way back
// into the house, in order. One errand hands it back: who delivers must not wait
// for that. Beyond the bound
//
//   - what is stored stays pending: a device that comes gets it;
//   - what is not stored is lost, and counted, at twice the bound.
type returns struct {
	mu   sync.Mutex
	list []*channel.Envelope
	size int  // bytes in list
	busy bool // the errand is under way
}

// The bound of returns, and how much is handed back at a time.
const (
	returnsMost  = 5000    // stanzas
	returnsBytes = 8 << 20 // of them
	returnsBatch = 100     // stanzas
)

// add reports whether the stanza is taken, and whether an errand has to begin.
func (r *returns) add(e *channel.Envelope) (taken, begin bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	most := 1
	if e.Pending == 0 {
		most = 2
	}
	if len(r.list) > 0 && (len(r.list) >= most*returnsMost || r.size+len(e.Raw) > most*returnsBytes) {
		return false, false
	}
	r.list = append(r.list, e)
	r.size += len(e.Raw)
	begin = !r.busy
	r.busy = true
	return true, begin
}

// take returns what is to be handed back next; nil: nothing, the errand is over.
func (r *returns) take() []*channel.Envelope {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		r.list, r.busy = nil, false
		return nil
	}
	n := min(len(r.list), returnsBatch)
	batch := append([]*channel.Envelope(nil), r.list[:n]...)
	clear(r.list[:n])
	r.list = r.list[n:]
	for _, e := range batch {
		r.size -= len(e.Raw)
	}
	return batch
}

// bounce hands back what came for a session that takes nothing any more.
func (s *Server) bounce(ref sessions.Ref, d delivery) {
	for _, e := range appendLeftover(nil, ref, d) {
		taken, begin := s.returns.add(e)
		if !taken {
			s.metrics.unreturned.Inc()
		}
		if begin {
			s.later(s.handBack)
		}
	}
}

func (s *Server) handBack(ctx context.Context) {
	for batch := s.returns.take(); batch != nil; batch = s.returns.take() {
		if err := s.send(ctx, batch...); err != nil {
			s.unsent("stanzas not handed back", err, "stanzas", len(batch), "first", batch[0].Session.JID.String())
		}
	}
}

// appendLeftover leaves out what nobody misses: presence, chat states, and the
// answers to what the client itself had asked (XEP-0198 §5).
func appendLeftover(list []*channel.Envelope, ref sessions.Ref, d delivery) []*channel.Envelope {
	if len(d.raw) == 0 || d.class != channel.Urgent || d.solicited && d.row == 0 {
		return list
	}
	return append(list, &channel.Envelope{Kind: channel.Undelivered, Session: ref, Raw: d.whole(), Pending: d.row, Stamp: d.stamp, Hops: d.hops})
}
