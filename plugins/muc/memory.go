package muc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/cluster/owner"
)

// memory is the rooms that this node has in memory, those that are not there
// included as long as somebody asks for them.
type memory struct {
	s *service

	mu    sync.Mutex
	rooms map[string]*room
	spare []*owner.Hold // of rooms that were forgotten; bounded as holds are
}

func newMemory(s *service) *memory { return &memory{s: s, rooms: map[string]*room{}} }

// get returns the room that hold is about. done lets it go.
func (m *memory) get(ctx context.Context, hold *owner.Hold) (r *room, done func(), err error) {
	r, err = m.enter(hold)
	if err != nil {
		return nil, nil, err
	}
	done = func() { m.leave(r) }
	r.load.Do(func() { r.bad = m.s.protect(func() error { return r.fill(ctx) }) })
	if r.bad != nil {
		r.line.broken.Store(true)
		done()
		return nil, nil, r.bad
	}
	return r, done, nil
}

func (m *memory) enter(hold *owner.Hold) (*room, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rooms[hold.Key]
	if r == nil || r.hold != hold || r.line.broken.Load() {
		at, err := jid.Parse(hold.Key)
		if err != nil {
			return nil, stanza.NewError(stanza.JIDMalformed, "")
		}
		if r == nil && len(m.rooms) >= m.s.cfg.Rooms && !m.makeRoom() {
			m.s.m.refused.WithLabelValues("rooms").Inc()
			return nil, stanza.NewError(stanza.ResourceConstraint, "too many rooms are in use here; try again later")
		}
		r = &room{s: m.s, jid: at, hold: hold}
		m.rooms[hold.Key] = r
	}
	r.users++
	return r, nil
}

func (m *memory) leave(r *room) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.used = m.s.env.Clock.Now()
	if r.users--; r.users == 0 && m.rooms[r.hold.Key] == r && !r.there.Load() {
		m.forget(r)
	}
}

// makeRoom forgets the room that has not been used for longest of some; m.mu is
// held.
func (m *memory) makeRoom() bool {
	const looked = 64
	var oldest *room
	seen := 0
	for _, r := range m.rooms {
		if r.users > 0 {
			continue
		}
		if oldest == nil || r.used.Before(oldest.used) {
			oldest = r
		}
		if seen++; seen == looked {
			break
		}
	}
	if oldest == nil {
		return false
	}
	m.forget(oldest)
	return true
}

// sweep forgets rooms that are another node's now, and those that nobody has used
// since the time.
func (m *memory) sweep(since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, r := range m.rooms {
		if r.users > 0 {
			continue
		}
		lost := false
		select {
		case <-r.hold.Lost():
			lost = true
		default:
		}
		switch {
		case lost:
			delete(m.rooms, key)
		case r.used.Before(since):
			m.forget(r)
		}
	}
}

// forget takes a room that nobody uses out of memory; m.mu is held.
func (m *memory) forget(r *room) {
	delete(m.rooms, r.hold.Key)
	m.spare = append(m.spare, r.hold)
}

// giveBack lets go of what forgotten rooms were held by, so that made-up addresses
// use up nothing for long.
func (m *memory) giveBack(ctx context.Context) error {
	m.mu.Lock()
	spare := m.spare
	m.spare = nil
	spare = slices.DeleteFunc(spare, func(h *owner.Hold) bool { return m.rooms[h.Key] != nil })
	m.mu.Unlock()
	for i, h := range spare {
		if err := h.Release(ctx); err != nil {
			m.mu.Lock()
			m.spare = append(m.spare, spare[i:]...)
			m.mu.Unlock()
			return fmt.Errorf("hold of %s: %w", h.Key, err)
		}
	}
	return nil
}

// each calls f with every room that has occupants, and does not count as use.
func (m *memory) each(f func(*room)) {
	m.mu.Lock()
	all := make([]*room, 0, len(m.rooms))
	for _, r := range m.rooms {
		if r.seats.Load() > 0 {
			r.users++
			all = append(all, r)
		}
	}
	m.mu.Unlock()
	for _, r := range all {
		f(r)
		m.mu.Lock()
		r.users--
		m.mu.Unlock()
	}
}

// unmark lets a room that is in memory say how far it has come.
func (m *memory) unmark(at jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rooms[at.String()]; r != nil {
		r.unmarked.Store(true)
	}
}

func (m *memory) unmarkAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rooms {
		r.unmarked.Store(true)
	}
}

// count is how many rooms and occupants there are in memory.
func (m *memory) count() (rooms, occupants float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rooms {
		if r.there.Load() {
			rooms++
			occupants += float64(r.seats.Load())
		}
	}
	return rooms, occupants
}
