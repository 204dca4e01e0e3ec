package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
)

// patience ends a wait for something that does not come.
const patience = 90 * time.Second

// The people of a world. All but those who are away send from their first
// device to everybody else.
var cast = []struct {
	user    string
	devices []string
	sends   bool
	habit   habit
}{
	{"ann", []string{"phone"}, true, always},
	{"ben", []string{"phone", "desk"}, true, always},
	{"cid", []string{"phone", "desk", "tablet"}, true, always},
	{"dot", []string{"phone"}, true, always},
	{"eve", []string{"phone"}, true, sometimes},
	{"flo", []string{"phone"}, false, never},
}

// habit is when a device is connected.
type habit int

const (
	always    habit = iota
	sometimes       // drops its connection, stays away, and resumes or logs in anew
	never           // until the end
)

// world is a server with its people and their book.
type world struct {
	t      *testing.T
	server house
	book   *book
	seed   uint64
	tasks  sync.WaitGroup
	calm   chan struct{} // closed: nobody says anything new
	cancel context.CancelFunc
	views  *views // what is seen of them from each node; nil: there is one
}

// house is what serves a world.
type house interface {
	start() error
	account(ctx context.Context, user string) error
	// enter waits until there is a door.
	enter(ctx context.Context) (door, error)
	// refused are the ids of the messages that it says it has not stored.
	refused() []string
}

// newWorld starts the server, makes the accounts, and lets everybody talk.
func newWorld(t *testing.T, s house, seed uint64) *world {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	for _, p := range cast {
		if err := s.account(t.Context(), p.user); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, server: s, book: newBook(), seed: seed, calm: make(chan struct{}), cancel: cancel}
	t.Cleanup(w.end)
	if err := w.openHall(ctx); err != nil {
		t.Fatal(err)
	}
	if h, several := s.(*nodes); several {
		w.views = newViews(ctx, w, h)
	}
	for i, p := range cast {
		for j, r := range p.devices {
			if p.habit == never {
				continue
			}
			d := &device{
				world: w, habit: p.habit, sends: p.sends && j == 0,
				client: client{user: p.user, resource: r, book: w.book, sits: true, trace: newTrace(t, p.user+"-"+r)},
				random: rand.New(rand.NewPCG(seed, uint64(i*10+j))),
			}
			w.tasks.Go(func() { d.live(ctx) })
		}
	}
	w.progress("first messages", w.book.now(), len(cast)*10)
	return w
}

// end makes everybody hang up.
func (w *world) end() {
	w.cancel()
	w.tasks.Wait()
}

// progress waits until n more messages are acknowledged than at m.
func (w *world) progress(what string, m mark, n int) {
	w.t.Helper()
	w.await(what, func(now mark) bool { return now.acks >= m.acks+n })
}

func (w *world) await(what string, done func(mark) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.book.await(ctx, what, done); err != nil {
		w.t.Fatal(err)
	}
}

// device is somebody's client with a life of its own.
type device struct {
	client
	world  *world
	habit  habit
	sends  bool
	random *rand.Rand
}

// The pace of a device.
const (
	tick     = 10 * time.Millisecond // between bursts
	maxBurst = 4
	typing   = 4                      // one tick of so many is a chat state
	window   = 24                     // messages that may be unacknowledged
	question = time.Second            // of silence, after which it asks whether the server is there
	deaf     = 10 * time.Second       // of silence, after which it is not
	retry    = 50 * time.Millisecond  // after a login that failed
	moment   = 300 * time.Millisecond // of being here, or away, on average
)

// live comes back until the world ends, or there is nothing left to do.
func (d *device) live(ctx context.Context) {
	defer func() { d.drop() }()
	for ctx.Err() == nil {
		in, err := d.world.server.enter(ctx)
		if err != nil {
			return
		}
		if err := d.connect(ctx, in); err != nil {
			wait(ctx, retry)
			continue
		}
		if d.resumed && d.habit == always {
			d.book.mu.Lock()
			d.book.resumed++
			d.book.mu.Unlock()
		}
		err = d.stay(ctx)
		d.drop()
		if errors.Is(err, errAway) {
			wait(ctx, time.Duration(d.random.Int64N(int64(2*moment))))
			if d.random.IntN(2) == 0 {
				d.previd = "" // has forgotten: logs in anew, the old session is still there
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// errAway is why a device leaves by itself.
var errAway = errors.New("away")

// stay talks and listens while the connection lasts.
func (d *device) stay(ctx context.Context) error {
	pace := time.NewTicker(tick)
	defer pace.Stop()
	var leave <-chan time.Time
	if d.habit == sometimes {
		t := time.NewTimer(time.Duration(d.random.Int64N(int64(2 * moment))))
		defer t.Stop()
		leave = t.C
	}
	heard, asked := time.Now(), time.Now()
	for {
		select {
		case el, ok := <-d.elements:
			if !ok {
				return errGone
			}
			heard = time.Now()
			if err := d.take(el); err != nil {
				return err
			}
		case now := <-pace.C:
			if now.Sub(heard) > deaf { // a link that is cut tells nobody
				return errGone
			}
			if now.Sub(heard) > question && now.Sub(asked) > question {
				asked = now
				if err := d.ask(); err != nil {
					return err
				}
			}
			if err := d.talk(); err != nil {
				return err
			}
		case <-leave:
			if d.concludes() {
				leave = time.After(moment)
				continue
			}
			return errAway
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// concludes reports whether the device waits for the last answers: nobody says
// anything new, and who leaves before they have come only says the same again.
func (d *device) concludes() bool {
	select {
	case <-d.world.calm:
		return len(d.waiting)+len(d.unheard) > 0
	default:
		return false
	}
}

func (d *device) take(el *stanza.Element) error {
	m, err := d.handle(el)
	if m == nil || err != nil {
		return err
	}
	if s, ok := d.sight(m); ok {
		d.book.received(d.user, d.name(), s)
	}
	return nil
}

// talk sends a burst to people chosen at random, and the room, unless too much is open, or is
// seen to type: how far its session has come waits to be written then, while what
// it says next is stored. What it types may be lost (D4), so nobody notes it.
func (d *device) talk() error {
	if d.outside && len(d.waiting) < window {
		d.outside = false
		d.book.mu.Lock()
		d.book.sat(d.name())
		d.book.mu.Unlock()
		return d.client.send([]outgoing{{raw: d.enterHall()}})
	}
	select {
	case <-d.world.calm:
		return nil
	default:
	}
	if !d.sends || len(d.waiting) >= window {
		return nil
	}
	if to := cast[d.random.IntN(len(cast))].user; d.random.IntN(typing) == 0 && to != d.user {
		return d.client.send([]outgoing{{raw: fmt.Sprintf("<message to='%s@localhost' type='chat' id='%s'><composing xmlns='%s'/></message>", to, typingID, stanza.NSChatStates)}})
	}
	var burst []outgoing
	for range 1 + d.random.IntN(maxBurst) {
		to, at, kind := hall, hallJID, stanza.TypeGroupchat
		n := len(cast)
		if d.sits {
			n++
		}
		if n = d.random.IntN(n); n < len(cast) {
			to, at, kind = cast[n].user, cast[n].user+"@localhost", stanza.TypeChat
		}
		if to == d.user {
			continue
		}
		oid := d.book.send(pair{d.user, to})
		burst = append(burst, outgoing{oid, fmt.Sprintf(
			"<message to='%s' type='%s' id='%s'><body>number %s</body><origin-id xmlns='urn:xmpp:sid:0' id='%s'/></message>", at, kind, oid, oid, oid)})
	}
	if len(burst) == 0 {
		return nil
	}
	return d.client.send(burst)
}

// settle lets everybody stop talking, waits until nothing is open, and has
// everybody fetch what waits and what is archived; then it audits the book.
func (w *world) settle() verdict {
	w.t.Helper()
	close(w.calm)
	w.answered()
	w.lastWord()
	w.end()
	devices := map[string][]string{}
	for _, p := range cast {
		names, err := w.fetch(p.user)
		if err != nil {
			w.t.Fatalf("%s: %v", p.user, err)
		}
		devices[p.user] = names
		for _, r := range p.devices {
			devices[p.user] = append(devices[p.user], p.user+"/"+r)
		}
	}
	for _, oid := range w.server.refused() {
		w.book.refusedOnce(oid)
	}
	return w.book.audit(devices)
}

// answered waits until nothing is open.
func (w *world) answered() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.book.await(ctx, "an answer to everything", func(mark) bool { return len(w.book.open()) == 0 }); err != nil {
		w.t.Fatalf("%v: open are %s", err, some(w.book.open()))
	}
}

// open are the messages that were sent and not acknowledged.
func (b *book) open() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for oid, e := range b.entries {
		if !e.acked {
			ids = append(ids, oid)
		}
	}
	return ids
}
