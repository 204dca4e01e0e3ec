package s2s

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/router/channel"
	"parley/stream"
)

// Between tries to reach a server: the first soon, for it may only have been
// restarted; then each twice as long, and half of it at random, so that many who
// wait for one do not come together.
const (
	retryFirst = time.Second
	retryMost  = time.Minute
	// refuseFor is how long what cannot be helped (no such server, no proof) is
	// answered at once, without trying again.
	refuseFor = 30 * time.Second
)

// item is a stanza on its way to another server.
type item struct {
	env   *channel.Envelope // to answer it
	raw   []byte            // as it goes out
	since time.Time
}

// route is the way from a domain of ours to another server's. What is sent is
// written in order; what waits is bounded by Queue:
//
//  1. nothing is dropped without an error to its sender, if there is to be one
//  2. what the other side has not acknowledged, where it acknowledges (XEP-0198), goes
//     out first on the next stream
//  3. beyond the bound, and what has waited too long, is refused
//  4. so is all of it, what is not acknowledged as well, when the route is closed: at the
//     end, and when the two may not talk any more
type route struct {
	out *outbound
	pair
	log *slog.Logger

	mu      sync.Mutex
	queue   []item
	bytes   int           // of queue
	link    *link         // our own stream; nil: there is none
	on      *carrier      // what takes the stanzas; nil: nothing does
	shown   shown         // on it
	busy    bool          // a stream is being made
	next    time.Time     // no try before
	tries   int           // that have failed in a row
	trouble string        // of the last of them
	refused *stanza.Error // what everybody hears until next; nil: they wait
	used    time.Time
	gone    bool
	closed  *stanza.Error // what everybody hears whose stanza is not delivered for sure, when gone
}

// add takes a stanza. False: the route is not there any more.
func (r *route) add(it item) (added bool, why *stanza.Error) {
	q := &r.out.cfg.Load().Queue
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone:
		return false, nil
	case r.refused != nil && it.since.Before(r.next):
		return true, r.refused
	case len(r.queue) >= q.Stanzas || len(r.queue) > 0 && r.bytes+len(it.raw) > int(q.Bytes):
		return true, errQueue
	}
	r.used = it.since
	r.push(it)
	r.pump(it.since)
	return true, nil
}

// push puts a stanza behind the others; r.mu is held.
func (r *route) push(it item) {
	r.queue = append(r.queue, it)
	r.bytes += len(it.raw)
	r.out.metrics.waiting.Inc()
}

// take removes the first n; r.mu is held.
func (r *route) take(n int) []item {
	out := r.queue[:n:n]
	for _, it := range out {
		r.bytes -= len(it.raw)
	}
	r.out.metrics.waiting.Sub(float64(n))
	if r.queue = r.queue[n:]; len(r.queue) == 0 {
		r.queue = nil
	}
	return out
}

// pump writes what waits, as far as there is room for it; r.mu is held.
func (r *route) pump(now time.Time) {
	if r.on == nil {
		r.connect(now)
		return
	}
	wrote := false
	for len(r.queue) > 0 && r.on.write(r, r.queue[0]) {
		r.take(1)
		wrote = true
	}
	if wrote {
		r.on.request(now)
		r.on.conn.Transport().Flush()
	}
}

// connect begins to make a stream, if it is time; r.mu is held.
func (r *route) connect(now time.Time) {
	if r.busy || now.Before(r.next) || r.gone {
		return
	}
	r.busy, r.refused = true, nil
	r.out.tasks.Go(func() { r.reach(r.out.ctx) })
}

// reach makes a stream, if there is none of theirs that goes both ways.
func (r *route) reach(ctx context.Context) {
	o := r.out
	if o.board(r) {
		return
	}
	if o.connects.Acquire(ctx, 1) != nil {
		return
	}
	defer o.connects.Release(1)
	within, cancel := context.WithTimeout(ctx, o.cfg.Load().Connect)
	tr, err := o.dial(within, r.pair)
	cancel()
	if err != nil {
		r.failed(err)
		return
	}
	l := newLink(r)
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		tr.Close(0)
		return
	}
	r.link = l
	r.mu.Unlock()
	o.streams.Serve(ctx, tr, l) // until it is ready or has ended
}

// opened says that the link takes stanzas.
func (r *route) opened(l *link, how shown) {
	now := r.out.env.Clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == l {
		r.settle(&l.carrier, how, now)
	}
}

// board lets stanzas out on a stream of the other side.
func (r *route) board(b back) bool {
	how := shown{by: Dialback, tls: true, both: true}
	if b.sure {
		how.by = Certificate
	}
	now := r.out.env.Clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.gone && r.on == nil && r.settle(b.carrier, how, now)
}

// settle goes on with what takes the stanzas; false: it has ended. r.mu is held.
func (r *route) settle(c *carrier, how shown, now time.Time) bool {
	if !c.join(r) {
		return false
	}
	how.at = now
	r.on, r.shown, r.busy, r.tries, r.next, r.refused, r.trouble, r.used = c, how, false, 0, time.Time{}, nil, "", now
	r.pump(now)
	return true
}

// invited says that there is a stream of theirs that goes both ways: who waits for
// another try need not.
func (r *route) invited(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on != nil || r.busy || r.gone {
		return
	}
	r.next, r.refused, r.tries = time.Time{}, nil, 0
	if len(r.queue) > 0 {
		r.connect(now)
	}
}

// unmade says that the link has ended before it took stanzas.
func (r *route) unmade(l *link) {
	r.mu.Lock()
	mine := r.link == l
	if mine {
		r.link = nil
	}
	r.mu.Unlock()
	if mine {
		r.failed(l.why())
	}
}

// lost says that the stream has ended: what it has not delivered for sure is first
// in the queue again. err is why, when it was no farewell.
func (r *route) lost(c *carrier, back []item, err error) {
	r.mu.Lock()
	if r.on != c {
		r.mu.Unlock()
		return
	}
	if r.gone {
		r.mu.Unlock()
		r.out.refuse(back, cmp.Or(r.closed, timeout()))
		return
	}
	r.on, r.link, r.busy = nil, nil, err != nil // see failed
	r.next = r.out.env.Clock.Now().Add(jitter(retryFirst))
	if len(back) > 0 {
		for _, it := range back {
			r.bytes += len(it.raw)
		}
		r.out.metrics.waiting.Add(float64(len(back)))
		r.queue = append(back, r.queue...)
	}
	r.mu.Unlock()
	if err != nil {
		r.failed(err)
		return
	}
	r.log.Info("stream to another server has ended")
}

// failed says that the server was not reached.
func (r *route) failed(err error) {
	if r.out.board(r) {
		return
	}
	now := r.out.env.Clock.Now()
	final := finalError(err)
	r.mu.Lock()
	r.busy, r.trouble = false, err.Error()
	var all []item
	if final != nil {
		r.next, r.refused = now.Add(jitter(refuseFor)), final
		all = r.take(len(r.queue))
	} else {
		r.next = now.Add(jitter(min(retryFirst<<min(r.tries, 10), retryMost)))
		r.tries++
	}
	next := r.next
	r.mu.Unlock()
	r.out.metrics.connects.WithLabelValues(outcome(final)).Inc()
	if r.out.ctx.Err() == nil {
		r.log.Info("another server is not reached", "err", err, "refused", len(all), "next", next)
	}
	r.out.refuse(all, final)
}

func outcome(final *stanza.Error) string {
	if final != nil {
		return "refused"
	}
	return "failed"
}

// finalError is what senders hear at once, because trying again does not help soon;
// nil: it may.
func finalError(err error) *stanza.Error {
	var policy *policyError
	switch {
	case errors.Is(err, errNowhere), errors.Is(err, errPrivate):
		return stanza.NewError(stanza.RemoteServerNotFound, "") // RFC 6120 §10.4.3
	case errors.As(err, &policy):
		return &stanza.Error{Type: stanza.Cancel, Condition: stanza.RemoteServerTimeout, Text: "that server does not meet what is asked of it"}
	}
	return nil
}

// timeout is what senders hear of what has waited too long (RFC 6120 §10.4.3).
func timeout() *stanza.Error { return stanza.NewError(stanza.RemoteServerTimeout, "") }

// tend does what the time has come for; false: the route is not needed any more.
func (r *route) tend(now time.Time) (needed bool) {
	cfg := r.out.cfg.Load()
	r.mu.Lock()
	late := 0
	for late < len(r.queue) && now.Sub(r.queue[late].since) >= cfg.Queue.Patience {
		late++
	}
	all := r.take(late)
	switch {
	case r.on != nil:
		if r.on.late(now) {
			r.on.conn.Abort(&stanza.StreamError{Condition: stanza.StreamConnectionTimeout})
		} else if len(r.queue) == 0 && now.Sub(r.used) >= cfg.Idle {
			r.rest(now, cfg)
		}
	case r.link != nil:
		r.link.tend(now, cfg)
	case len(r.queue) > 0:
		r.connect(now)
	case !r.busy && !now.Before(r.next):
		r.gone = true
	}
	needed = !r.gone
	r.mu.Unlock()
	r.out.refuse(all, timeout())
	return needed
}

// rest closes a stream on which nobody says anything, or leaves one of theirs; r.mu
// is held.
func (r *route) rest(now time.Time, cfg *settings) {
	used := r.link != nil && (now.UnixNano()-r.link.heard.Load() < int64(cfg.Idle) || r.on.shared())
	if used || !r.on.leave(r) {
		return
	}
	if r.link != nil {
		r.link.conn.Goodbye()
	}
	r.on, r.link = nil, nil
}

// leave gives the route up, if nothing waits on it and there is no stream.
func (r *route) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = r.gone || r.link == nil && r.on == nil && !r.busy && len(r.queue) == 0
	return r.gone
}

// purge ends the stream if it brings what may not come (XEP-0288); the next one is for
// what waits.
func (r *route) purge(cfg *settings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil && r.link.conn != nil && r.link.in.trespasses(cfg) {
		r.link.conn.Goodbye()
	}
}

// close ends the stream and refuses what waits, for that reason.
func (r *route) close(why *stanza.Error) {
	r.mu.Lock()
	r.gone, r.closed = true, why
	all := r.take(len(r.queue))
	var conn *stream.Conn
	if r.link != nil {
		conn = r.link.conn
	}
	r.mu.Unlock()
	r.out.refuse(all, why)
	if conn != nil {
		conn.Goodbye()
	}
}
