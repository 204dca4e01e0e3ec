package muc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/sessions"
)

// Who has left without a word. A session of ours that ends says so itself, to every
// room that it has shown itself to (plugins/presence); what remains are those whose
// node has died, and those of before a restart. The room's owner looks who is still
// there, and lets those go that have not come back for a while (XEP-0045 §18.1.2).

const (
	// looksMost and looksLeast are how often rooms look who is there: four times in the
	// time that somebody may be away.
	looksMost, looksLeast = time.Second, 10 * time.Second
	// lostFor is how long it is known that a session was taken out of a room: longer than
	// any may be resumed.
	lostFor = time.Hour
	// seatPage is how many seats are read at a time.
	seatPage = 500
	// maxReturned is how many sessions are remembered that began before the process.
	maxReturned = 100_000
)

type tidy struct {
	tasks   sync.WaitGroup
	cancel  context.CancelFunc
	bell    chan struct{} // somebody may not know how far a room has come
	orphans atomic.Bool   // that nobody owns

	mu       sync.Mutex
	returned map[jid.JID]struct{} // sessions whose rooms presence does not know
}

func (t *tidy) start(ctx context.Context, s *service) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.tasks.Go(func() { t.run(ctx, s) })
	t.tasks.Go(func() { t.marks(ctx, s) })
}

// ring lets rooms say how far they have come soon.
func (t *tidy) ring() {
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

// marks does what ring asks for, until ctx is done.
func (t *tidy) marks(ctx context.Context, s *service) {
	for {
		select {
		case <-t.bell:
		case <-ctx.Done():
			return
		}
		if t.orphans.Swap(false) {
			if err := s.adopt(ctx); err != nil && ctx.Err() == nil {
				s.env.Log.Warn("rooms whose owner is gone are looked for when somebody asks for them", "err", err)
			}
		}
		s.rooms.each(func(r *room) { r.markIfDue(ctx) })
	}
}

// missed is told when nodes may not have heard each other, or one is gone: somebody may
// have missed something, of rooms too that nobody owns now.
func (s *service) missed(key string) {
	if key != "" { // one account, of which a node did not know that it is here: rooms mark themselves before long
		return
	}
	s.rooms.unmarkAll()
	s.tidy.orphans.Store(true)
	s.tidy.ring()
}

// adopt lets rooms go on that have occupants, and whose owner has died: this node, as
// far as they are meant for it.
func (s *service) adopt(ctx context.Context) error {
	return s.eachSeat(ctx, func(p place) (enough bool, err error) {
		node, err := s.env.Owners.Owner(ctx, p.room.String())
		if err != nil {
			return false, fmt.Errorf("owner of %s: %w", p.room, err)
		}
		if s.env.Notices == nil || node == "" || !s.env.Notices.Alive(node) {
			s.chores.add(p.room, errand{what: "look"})
		}
		return true, nil
	})
}

// eachSeat calls f with who sits where in the rooms that are meant for this node, room
// by room, until f has seen enough of a room.
func (s *service) eachSeat(ctx context.Context, f func(place) (enough bool, err error)) error {
	room, session, done := "", "", jid.JID{}
	for {
		page, err := s.store.seated(ctx, room, session, seatPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, p := range page {
			room, session = p.room.String(), p.name
			if p.room == done || !s.env.Owns(room) {
				continue
			}
			enough, err := f(p)
			if err != nil {
				return err
			}
			if enough {
				done = p.room
			}
		}
	}
}

func (t *tidy) stop() {
	if t.cancel != nil {
		t.cancel()
	}
	t.tasks.Wait()
}

// run looks until ctx is done. The first time, everywhere: what was killed has left
// occupants in rooms that nobody has in memory.
func (t *tidy) run(ctx context.Context, s *service) {
	wake := make(chan struct{}, 1)
	everywhere, forgot := true, s.env.Clock.Now()
	for {
		halt := s.env.Clock.AfterFunc(min(max(s.cfg.Grace/4, looksMost), looksLeast), func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		select {
		case <-ctx.Done():
			halt()
			return
		case <-wake:
		}
		if everywhere {
			if err := s.wakeAll(ctx); err != nil {
				s.env.Log.Warn("who has left rooms meanwhile is looked for again later", "err", err)
			} else {
				everywhere = false
			}
		}
		s.rooms.each(func(r *room) {
			if err := r.look(ctx); err != nil && ctx.Err() == nil {
				s.env.Log.Warn("who has left a room is looked for again later", "room", r.jid.String(), "err", err)
			}
			r.markIfDue(ctx)
		})
		if now := s.env.Clock.Now(); s.env.Owns(Name) && now.Sub(forgot) > lostFor {
			forgot = now
			if err := s.store.forgetLost(ctx, now.Add(-lostFor)); err != nil && ctx.Err() == nil {
				s.env.Log.Warn("what is left of occupants that were lost stays for now", "err", err)
			}
		}
		s.rooms.sweep(s.env.Clock.Now().Add(-s.cfg.Idle))
		if err := s.rooms.giveBack(ctx); err != nil && ctx.Err() == nil {
			s.env.Log.Warn("rooms that nobody uses are given back later", "err", err)
		}
	}
}

// wakeAll lets every room look that has an occupant whose session is not here.
func (s *service) wakeAll(ctx context.Context) error {
	return s.eachSeat(ctx, func(p place) (enough bool, err error) {
		at, err := jid.Parse(p.name)
		if err != nil || !s.env.Local(at.Domain()) {
			return false, nil //nolint:nilerr // nobody's address: no session to look for
		}
		if _, bound := s.env.Sessions.Find(at); bound {
			return false, nil
		}
		s.chores.add(p.room, errand{what: "look"})
		return true, nil
	})
}

// look lets those go that have been away for too long.
func (r *room) look(ctx context.Context) error {
	return r.do(ctx, false, func(o *op) error {
		now := r.s.env.Clock.Now()
		r.s.absences(r, now)
		var gone []*session
		for _, x := range r.sessions {
			if !x.absent.IsZero() && now.Sub(x.absent) >= r.s.cfg.Grace {
				gone = append(gone, x)
			}
		}
		for _, x := range gone {
			r.s.m.ghosts.Inc()
			r.out(o, x, nil, told{lost: true})
		}
		return nil
	})
}

// absences notes whose session is not known to be bound, and since when; r.mu is
// held, or nobody else has the room.
func (s *service) absences(r *room, now time.Time) {
	for at, x := range r.sessions {
		if !s.env.Local(at.Domain()) {
			continue
		}
		_, bound := s.env.Sessions.Find(at)
		switch {
		case bound && !x.absent.IsZero(): // what was said meanwhile did not go to it
			x.absent = time.Time{}
			r.unmarked.Store(true)
		case !bound && x.absent.IsZero():
			x.absent = now
		}
	}
}

// came notes sessions that were there before this process was, or on another node:
// their directed presence is not known here.
func (s *service) came(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Paused {
		s.tidy.mu.Lock()
		defer s.tidy.mu.Unlock()
		if s.tidy.returned == nil {
			s.tidy.returned = map[jid.JID]struct{}{}
		}
		if len(s.tidy.returned) < maxReturned { // else look finds them
			s.tidy.returned[e.JID] = struct{}{}
		}
	}
	return processor.Continue, nil
}

// resumed lets a session that goes on after its node has died, or been restarted, know
// what it may have missed.
func (s *service) resumed(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if !e.Paused {
		return processor.Continue, nil
	}
	seats, err := s.store.seats(ctx, e.JID)
	for _, p := range seats {
		s.chores.add(p.room, errand{"back", e.JID.String()})
	}
	return processor.Continue, err
}

// undelivered drops what a session has left behind that a room said to all: its
// author is not to hear of it, and the room learns of the end by itself. When it has
// not ended, but its node did not take it, it hears how far the room has come.
func (s *service) undelivered(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if _, ours := s.hosts.Of(f.From.Domain()); ours && f.Kind == stanza.Message && f.Type == stanza.TypeGroupchat {
		s.rooms.unmark(f.From.Bare())
		return processor.Stop, nil
	}
	return processor.Continue, nil
}

// ended lets the rooms know of a session's end when nobody else does.
func (s *service) ended(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Kind != sessions.Client || e.Paused {
		return processor.Continue, nil
	}
	s.tidy.mu.Lock()
	_, returned := s.tidy.returned[e.JID]
	delete(s.tidy.returned, e.JID)
	s.tidy.mu.Unlock()
	gone := e.Buried || e.Node != s.env.Node // it may come back
	if !returned && !gone {
		return processor.Continue, nil
	}
	ctx = context.WithoutCancel(ctx)
	seats, err := s.store.seats(ctx, e.JID)
	if err != nil {
		return processor.Continue, err
	}
	for _, p := range seats {
		if gone {
			s.chores.add(p.room, errand{what: "look"})
			continue
		}
		at, err := p.room.WithResource(p.name)
		if err == nil {
			s.reg.SubmitFor(ctx, e, stanza.Make(stanza.Presence, stanza.TypeUnavailable, e.JID, at, ""))
		}
	}
	return processor.Continue, nil
}

// accountRemoved takes an account's name off the rooms' lists.
func (s *service) accountRemoved(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	rooms, err := s.store.standings(ctx, account)
	if err != nil {
		return processor.Continue, err
	}
	for _, at := range rooms {
		s.chores.add(at, errand{"forget", account.String()})
	}
	return processor.Continue, nil
}
