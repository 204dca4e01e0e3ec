package muc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/cluster/owner"
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
	// seatPage is how many seats are read at a time.
	seatPage = 500
	// maxReturned is how many sessions are remembered that began before the process.
	maxReturned = 100_000
)

type tidy struct {
	tasks  sync.WaitGroup
	cancel context.CancelFunc

	mu       sync.Mutex
	returned map[jid.JID]struct{} // sessions whose rooms presence does not know
}

func (t *tidy) start(ctx context.Context, s *service) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.tasks.Go(func() { t.run(ctx, s) })
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
	everywhere := true
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
		})
		s.rooms.sweep(s.env.Clock.Now().Add(-s.cfg.Idle))
		if err := s.rooms.giveBack(ctx); err != nil && ctx.Err() == nil {
			s.env.Log.Warn("rooms that nobody uses are given back later", "err", err)
		}
	}
}

// wakeAll lets every room look that has an occupant whose session is not here.
func (s *service) wakeAll(ctx context.Context) error {
	room, session, last := "", "", jid.JID{}
	for {
		page, err := s.store.seated(ctx, room, session, seatPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, p := range page {
			room, session = p.room.String(), p.name
			at, err := jid.Parse(p.name)
			if err != nil || p.room == last || !s.env.Local(at.Domain()) || !s.env.Owns(room) {
				continue
			}
			if _, bound := s.env.Sessions.Find(at); !bound {
				last = p.room
				s.send(ctx, p.room, errand{what: "look"})
			}
		}
	}
}

// topic is what rooms are told under by other nodes.
const topic = "muc"

// errand is something that a room has to do that no stanza asks for.
type errand struct {
	what string // a key of errands
	arg  string
}

// errands are done where the room is owned.
var errands = map[string]func(ctx context.Context, r *room, arg string) error{
	"missed": func(ctx context.Context, r *room, arg string) error { return r.missed(ctx, arg) },
	"look":   func(ctx context.Context, r *room, _ string) error { return r.look(ctx) },
	"forget": func(ctx context.Context, r *room, arg string) error { return r.forget(ctx, arg) },
}

// send lets the room's owner do it.
func (s *service) send(ctx context.Context, room jid.JID, e errand) {
	_, err := s.env.Owners.Do(ctx, owner.Work{
		Key: room.String(), Topic: topic,
		Here:    func(ctx context.Context, hold *owner.Hold) error { return s.run(ctx, hold, e) },
		Payload: func() []byte { return []byte(e.what + " " + e.arg) },
	})
	if err != nil && ctx.Err() == nil {
		s.env.Log.Warn("a room is not told", "room", room.String(), "what", e.what, "err", err)
	}
}

// sent does what another node has sent; it is an owner.Handler.
func (s *service) sent(ctx context.Context, hold *owner.Hold, payload []byte) ([]byte, error) {
	what, arg, _ := strings.Cut(string(payload), " ")
	return nil, s.run(ctx, hold, errand{what, arg})
}

func (s *service) run(ctx context.Context, hold *owner.Hold, e errand) error {
	f, ok := errands[e.what]
	if !ok {
		return nil
	}
	for range tries {
		r, done, err := s.rooms.get(ctx, hold)
		if err != nil {
			return err
		}
		err = f(ctx, r, e.arg)
		done()
		if !errors.Is(err, errAgain) {
			return err
		}
	}
	return nil
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
			r.out(o, x, nil, told{})
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
		e, bound := s.env.Sessions.Find(at)
		switch {
		case bound && e.Paused: // its client has yet to come: before anything newer it hears what it has missed
			r.keepFrom(x, true)
		case bound:
			x.absent = time.Time{}
			r.keepFrom(x, false)
		case x.absent.IsZero():
			x.absent = now
			r.keepFrom(x, true)
			if x.away.IsZero() {
				x.away = now
			}
		}
	}
}

// keepFrom decides whether what is said is kept from a session for now.
func (r *room) keepFrom(x *session, held bool) {
	if x.held != held {
		x.held, r.cached = held, nil
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
		s.send(ctx, p.room, errand{"missed", e.JID.String()})
	}
	return processor.Continue, err
}

// before is how long before a session was known to be away what it was sent may not
// have got there: its node may have been dead since.
const before = 30 * time.Second

// missed tells a session of ours what was said while it was away, with the ids that it
// knows it by if it has it already (D2), and who is there.
func (r *room) missed(ctx context.Context, session string) error {
	at, err := jid.Parse(session)
	if err != nil {
		return fmt.Errorf("missed by %q: %w", session, err)
	}
	return r.do(ctx, false, func(o *op) error {
		x := r.sessions[at]
		if x == nil {
			return nil
		}
		since := x.away
		if since.IsZero() {
			since = r.s.began
		}
		x.absent, x.away = time.Time{}, time.Time{}
		r.keepFrom(x, false)
		r.roster(o, x, told{})
		if since = since.Add(-before); since.Before(time.UnixMicro(x.since)) {
			since = time.UnixMicro(x.since)
		}
		o.out = append(o.out, delivery{later: func() []delivery {
			said := r.said(ctx, since)
			return said.replay(r, historyWish{chars: -1, stanzas: -1}, missedMost, x.jid)
		}})
		return nil
	})
}

// missedMost is how many messages a session that comes back is told at most; its
// client finds the others in the archive.
const missedMost = 500

// said is what the room was told since then, as far as it is committed.
func (r *room) said(ctx context.Context, since time.Time) *history {
	h := &history{most: missedMost}
	last, err := r.kept.Last(context.WithoutCancel(ctx), missedMost, since)
	if err == nil {
		err = h.fill(last)
	}
	if err != nil {
		r.s.env.Log.Warn("a session is told what the room remembers, and no more", "room", r.jid.String(), "err", err)
		return &r.recent
	}
	return h
}

// undelivered drops what a session has left behind that a room said to all: its
// author is not to hear of it, and the room learns of the end by itself.
func (s *service) undelivered(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if _, ours := s.hosts[f.From.Domain()]; ours && f.Kind == stanza.Message && f.Type == stanza.TypeGroupchat {
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
			s.send(ctx, p.room, errand{what: "look"})
			continue
		}
		at, err := p.room.WithResource(p.name)
		if err == nil {
			s.reg.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnavailable, e.JID, at, ""))
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
		s.send(ctx, at, errand{"forget", account.String()})
	}
	return processor.Continue, nil
}
