package bosh

import (
	"errors"
	"net/netip"
	"sync"
)

// table are the sessions; it bounds them in all and by address.
type table struct {
	most, each int
	mu         sync.Mutex
	bySID      map[string]*session
	byOrigin   map[netip.Prefix]int
}

var (
	errFull    = errors.New("too many sessions (bosh.sessions)")
	errAddress = errors.New("too many sessions from one address (bosh.per_address)")
)

func (t *table) add(s *session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.bySID) >= t.most:
		return errFull
	case s.origin.IsValid() && t.byOrigin[s.origin] >= t.each:
		return errAddress
	}
	t.bySID[s.sid] = s
	if s.origin.IsValid() {
		t.byOrigin[s.origin]++
	}
	return nil
}

func (t *table) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bySID[s.sid] != s {
		return
	}
	delete(t.bySID, s.sid)
	if !s.origin.IsValid() {
		return
	}
	if t.byOrigin[s.origin]--; t.byOrigin[s.origin] <= 0 {
		delete(t.byOrigin, s.origin)
	}
}

func (t *table) get(sid string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bySID[sid]
}

func (t *table) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*session, 0, len(t.bySID))
	for _, s := range t.bySID {
		list = append(list, s)
	}
	return list
}

func (t *table) len() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(len(t.bySID))
}
