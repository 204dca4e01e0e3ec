package sessions

import (
	"slices"
	"time"

	"parley/parser/jid"
)

// awaiting is somebody who waits for a session to be known.
type awaiting struct {
	at    jid.JID
	bound int64 // unix microseconds, as times travel
	known chan struct{}
}

// Await returns what is closed when a session with the full JID is known here that was
// bound then or later; stop ends the wait, and is called in every case.
func (r *Registry) Await(full jid.JID, bound time.Time) (known <-chan struct{}, stop func()) {
	bare := full.Bare().String()
	a := &awaiting{at: full, bound: bound.UnixMicro(), known: make(chan struct{})}
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.accounts[bare], a.met) {
		close(a.known)
		return a.known, func() {}
	}
	if s.awaited == nil {
		s.awaited = map[*awaiting]struct{}{}
	}
	s.awaited[a] = struct{}{}
	return a.known, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.awaited, a)
	}
}

func (a *awaiting) met(e *Entry) bool { return e.JID == a.at && e.BoundAt.UnixMicro() >= a.bound }

// came tells who waits for one of the sessions; the shard's lock is held.
func (s *shard) came(some ...*Entry) {
	for a := range s.awaited { // few, and seldom any
		if slices.ContainsFunc(some, a.met) {
			close(a.known)
			delete(s.awaited, a)
		}
	}
}
