package bytestreams

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/stream"
)

// Why there is no bytestream, or no place for a connection.
var (
	errUnknown = errors.New("nobody waits for that bytestream")
	errAlone   = errors.New("only one waits for that bytestream")
	errMany    = errors.New("the account has enough bytestreams")
	errFull    = errors.New("there are enough bytestreams")
	errRoom    = errors.New("enough connections wait")
	errThird   = errors.New("two wait for that bytestream already")
	errAsked   = errors.New("enough is asked of the other nodes")
	errEnded   = errors.New("the relay ends")
)

// refusal is what a requester hears (XEP-0065 §6.3.5); what is none of the above stays.
func refusal(err error) error {
	busy := func(text string) error {
		return &stanza.Error{Type: stanza.Wait, Condition: stanza.ResourceConstraint, Text: text}
	}
	switch {
	case errors.Is(err, errUnknown):
		return stanza.NewError(stanza.ItemNotFound, "neither of you is connected: are the sid and both addresses those of the bytestream?")
	case errors.Is(err, errAlone):
		return stanza.NewError(stanza.NotAllowed, "only one of you is connected here: both connect to the address that the relay has named")
	case errors.Is(err, errMany):
		return busy("you have enough bytestreams; end one")
	case errors.Is(err, errFull):
		return busy("the relay has no room for another bytestream at the moment")
	case errors.Is(err, errAsked):
		return busy("the other nodes are still asked for others; try again in a moment")
	case errors.Is(err, errEnded):
		return busy("the relay ends")
	}
	return err
}

// table has the connections to this node: those that wait, and those that are
// relayed.
type table struct {
	clock plugins.Clock
	cfg   func() *Config
	m     *metrics

	ctx    context.Context // of what is relayed
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	ended    bool
	waiters  map[*waiter]struct{}
	origins  map[netip.Prefix]int // of waiters
	meetings map[string][]*waiter // one or two, by destination
	accounts map[string]int       // bytestreams of each, bare
	total    int                  // of accounts
}

// waiter is a connection before its bytestream begins.
type waiter struct {
	net.Conn
	origin      netip.Prefix
	destination string // "": it has not said
	stop        func() bool
}

func newTable(clock plugins.Clock, cfg func() *Config, m *metrics) *table {
	t := &table{
		clock: clock, cfg: cfg, m: m,
		waiters: map[*waiter]struct{}{}, origins: map[netip.Prefix]int{}, meetings: map[string][]*waiter{}, accounts: map[string]int{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// enter lets a connection wait, for the time that it may; errors: errRoom, errEnded.
func (t *table) enter(c net.Conn) (*waiter, error) {
	cfg := t.cfg()
	w := &waiter{Conn: c, origin: stream.OriginOf(c.RemoteAddr())}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
		return nil, errEnded
	case len(t.waiters) >= cfg.Waiting || w.origin.IsValid() && t.origins[w.origin] >= cfg.PerAddress:
		return nil, errRoom
	}
	t.waiters[w] = struct{}{}
	if w.origin.IsValid() {
		t.origins[w.origin]++
	}
	t.m.waiting.Inc()
	w.stop = t.clock.AfterFunc(cfg.Patience, func() {
		if t.leave(w) {
			t.m.refused.WithLabelValues("patience").Inc()
		}
	})
	return w, nil
}

// meet says which bytestream a connection is of; error: errThird, or it has left.
func (t *table) meet(w *waiter, destination string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.waiters[w]; !there {
		return errEnded
	}
	if len(t.meetings[destination]) >= 2 {
		return errThird
	}
	w.destination = destination
	t.meetings[destination] = append(t.meetings[destination], w)
	return nil
}

// leave closes a connection that waits; false: it does not.
func (t *table) leave(w *waiter) bool {
	t.mu.Lock()
	there := t.remove(w)
	t.mu.Unlock()
	if there {
		_ = w.Close()
	}
	return there
}

// remove ends the waiting; t.mu is held.
func (t *table) remove(w *waiter) bool {
	if _, there := t.waiters[w]; !there {
		return false
	}
	delete(t.waiters, w)
	w.stop()
	t.m.waiting.Dec()
	if w.origin.IsValid() {
		if t.origins[w.origin]--; t.origins[w.origin] == 0 {
			delete(t.origins, w.origin)
		}
	}
	if w.destination == "" {
		return true
	}
	var left []*waiter
	for _, other := range t.meetings[w.destination] {
		if other != w {
			left = append(left, other)
		}
	}
	if t.meetings[w.destination] = left; len(left) == 0 {
		delete(t.meetings, w.destination)
	}
	return true
}

// activate begins the bytestream of two connections, on the account's behalf. Errors:
// errUnknown, errAlone, errMany, errFull, errEnded.
func (t *table) activate(destination, account string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	both := t.meetings[destination]
	switch {
	case t.ended:
		return errEnded
	case len(both) == 0:
		return errUnknown
	case len(both) == 1:
		return errAlone
	case t.accounts[account] >= t.cfg().Streams:
		return errMany
	case t.total >= t.cfg().Total:
		return errFull
	}
	for _, w := range both {
		t.remove(w)
	}
	t.accounts[account]++
	t.total++
	t.m.streams.Inc()
	r := &relay{ends: [2]net.Conn{both[0].Conn, both[1].Conn}, cfg: t.cfg(), m: t.m}
	t.tasks.Go(func() {
		r.run(t.ctx)
		t.m.streams.Dec()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.total--
		if t.accounts[account]--; t.accounts[account] == 0 {
			delete(t.accounts, account)
		}
	})
	return nil
}

// close ends everything and waits for it.
func (t *table) close() {
	t.mu.Lock()
	t.ended = true
	all := make([]*waiter, 0, len(t.waiters))
	for w := range t.waiters {
		all = append(all, w)
	}
	t.mu.Unlock()
	for _, w := range all {
		t.leave(w)
	}
	t.cancel()
	t.tasks.Wait()
}
