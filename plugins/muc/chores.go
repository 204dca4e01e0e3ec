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
	"parley/router/cluster/owner"
)

// topic is what rooms are told under by other nodes.
const topic = "muc"

// errand is something that a room has to do that no stanza asks for, or that nobody
// waits for any more who has asked for it.
type errand struct {
	what string // a key of errandTable
	arg  string
}

// errandTable is how they are done, where the room is owned.
func errandTable() map[string]func(ctx context.Context, r *room, arg string) error {
	return map[string]func(ctx context.Context, r *room, arg string) error{
		"look":     func(ctx context.Context, r *room, _ string) error { return r.look(ctx) },
		"forget":   func(ctx context.Context, r *room, arg string) error { return r.forget(ctx, arg) },
		"back":     func(ctx context.Context, r *room, arg string) error { return r.back(ctx, arg) },
		"behind":   func(ctx context.Context, r *room, arg string) error { return r.behind(ctx, arg) },
		"stranger": func(ctx context.Context, r *room, arg string) error { return r.stranger(ctx, arg) },
		"left":     func(ctx context.Context, r *room, arg string) error { return r.left(ctx, arg) },
	}
}

// chore is an errand for one room.
type chore struct {
	room jid.JID
	errand
}

// chores are errands that are done as soon as that can be: one that fails is tried
// again, until it is done or the process ends.
type chores struct {
	s     *service
	ctx   context.Context //nolint:containedctx // of start
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu     sync.Mutex
	known  map[chore]int // how often each was tried; those under way included
	queue  []chore
	hands  int
	closed bool
}

const (
	// maxChores bounds what a node remembers; what is beyond is lost, and counted.
	maxChores = 20_000
	// choreHands is how many are done side by side.
	choreHands = 16
	// choreAgain is how long after a failure it is tried again, up to choreTries times.
	choreAgain = time.Second
	choreTries = 900
)

func newChores(s *service) *chores {
	c := &chores{s: s, known: map[chore]int{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// end waits for those under way, and forgets the others.
func (c *chores) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.tasks.Wait()
}

// add does not wait. What is there already is not done twice.
func (c *chores) add(room jid.JID, e errand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := chore{room, e}
	if _, twice := c.known[one]; twice || c.closed {
		return
	}
	if len(c.known) >= maxChores {
		c.s.m.refused.WithLabelValues("chores").Inc()
		return
	}
	c.known[one] = 0
	c.put(one)
}

// put is called with mu.
func (c *chores) put(one chore) {
	c.queue = append(c.queue, one)
	if c.hands < choreHands {
		c.hands++
		c.tasks.Go(c.work)
	}
}

// work does what there is.
func (c *chores) work() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.ctx.Err() != nil {
			c.hands--
			c.mu.Unlock()
			return
		}
		one := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		err := c.s.send(c.ctx, one.room, one.errand)
		c.mu.Lock()
		tries := c.known[one] + 1
		c.known[one] = tries
		if err == nil || tries == choreTries {
			delete(c.known, one)
		}
		c.mu.Unlock()
		switch {
		case err == nil || c.ctx.Err() != nil:
		case tries == choreTries:
			c.s.env.Log.Error("a room is not told", "room", one.room.String(), "what", one.what, "err", err)
		default:
			if tries == 1 {
				c.s.env.Log.Warn("a room is told later", "room", one.room.String(), "what", one.what, "err", err)
			}
			c.s.env.Clock.AfterFunc(choreAgain, func() { c.again(one) })
		}
	}
}

func (c *chores) again(one chore) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.put(one)
	}
}

// send lets the room's owner do it.
func (s *service) send(ctx context.Context, room jid.JID, e errand) error {
	_, err := s.env.Owners.Do(ctx, owner.Work{
		Key: room.String(), Topic: topic,
		Here:    func(ctx context.Context, hold *owner.Hold) error { return s.run(ctx, hold, e) },
		Payload: func() []byte { return []byte(e.what + " " + e.arg) },
	})
	if err != nil {
		return fmt.Errorf("%s of %s: %w", e.what, room, err)
	}
	return nil
}

// sent does what another node has sent; it is an owner.Handler.
func (s *service) sent(ctx context.Context, hold *owner.Hold, payload []byte) ([]byte, error) {
	if !s.begun.Load() {
		return nil, fmt.Errorf("rooms have not begun here: %w", owner.ErrNobody)
	}
	what, arg, _ := strings.Cut(string(payload), " ")
	return nil, s.run(ctx, hold, errand{what, arg})
}

// run does an errand here.
func (s *service) run(ctx context.Context, hold *owner.Hold, e errand) error {
	f, ok := s.errands[e.what]
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
	return errAgain
}

// failed keeps that somebody has left from being forgotten: whoever has sent it may not
// be there any more, and nobody else says it (processor.Owned).
func (s *service) failed(st *stanza.Stanza, began, bound time.Time, why error) {
	var e *stanza.Error
	if errors.As(why, &e) && e.Type != stanza.Wait { // it will not be otherwise
		return
	}
	if st.Kind == stanza.Presence && st.Type == stanza.TypeUnavailable && !st.From.IsZero() {
		s.chores.add(st.To.Bare(), leaving(st, began, bound))
	}
}
