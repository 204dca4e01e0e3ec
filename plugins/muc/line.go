package muc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/storage"
)

// line is what has its place in a room and is not on its way yet. Who comes while
// nobody commits is the leader, and commits what is there; then the first of those
// who have come meanwhile is. Of what nobody waits for (leaves, presence) the
// leader takes care, because its sender may be the leader itself: what goes out
// can come back on the same goroutine.
type line struct {
	next    []*op
	leading bool
	broken  atomic.Bool // what is in memory is worth nothing: read the room anew
}

// op is one thing that happens in a room.
type op struct {
	rows    storage.WriteSet
	post    *Post // nil: it is no message
	out     []delivery
	settled func(stored bool)           // whether it is committed, for who has rows in it
	done    func()                      // when it is committed, before out goes out: changes what is the leader's
	after   []func(ctx context.Context) // when out is on its way
	redo    *errand                     // what is to be done when it is not committed, and nobody waits for it; nil: nothing
	awaited bool
	signal  chan bool // true: lead; false: it is over
	err     error
}

// delivery is a stanza without 'to' and who gets it, or what only the leader can
// tell.
type delivery struct {
	st    *stanza.Stanza // nil: it tells sessions of ours how far the room has come
	to    []jid.JID
	sure  bool              // blocks do not count: it is about the recipient itself
	asked bool              // the recipient has asked for it by entering, however much it is
	link  *channel.Link     // its place in what the recipients have to hear whole; nil: it has none
	later func() []delivery // in the place of the others
}

// errAgain: the room in memory was worth nothing, and nothing was done.
var errAgain = errors.New("the room has to be read again")

// unawaited is how many times as much may wait of what nobody waits for: when there is
// no place for a leave, it is kept elsewhere meanwhile (chores).
const unawaited = 2

// settleLimit bounds how long a commit may take whose sender has gone.
const settleLimit = 30 * time.Second

// do lets something happen in the room: f, under its lock, checks everything
// before it changes anything. It returns when that is committed and on its way, or
// at once when nobody waits for it (await false).
func (r *room) do(ctx context.Context, await bool, f func(*op) error) error {
	o := &op{awaited: await, signal: make(chan bool, 1)}
	lead, err := r.place(o, f)
	if err != nil {
		return err
	}
	if lead {
		r.lead(ctx)
		if o.redo != nil { // it is seen to
			return nil
		}
		return o.err
	}
	if !await {
		return nil
	}
	if <-o.signal {
		r.lead(ctx)
	}
	return o.err
}

// place gives the operation its place, and reports whether it leads.
func (r *room) place(o *op, f func(*op) error) (lead bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // f may have changed half of what it meant to
			r.line.broken.Store(true)
			panic(p)
		}
	}()
	switch {
	case r.line.broken.Load():
		return false, errAgain
	case len(r.line.next) >= r.s.cfg.Queue && (o.awaited || len(r.line.next) >= unawaited*r.s.cfg.Queue):
		r.s.m.refused.WithLabelValues("queue").Inc()
		return false, stanza.NewError(stanza.ResourceConstraint, "the room is too busy; try again later")
	}
	if err := f(o); err != nil {
		return false, err
	}
	r.line.next = append(r.line.next, o)
	lead = !r.line.leading
	r.line.leading = true
	return lead, nil
}

// lead commits what is there, and goes on while nobody waits who could.
func (r *room) lead(ctx context.Context) {
	for {
		r.mu.Lock()
		group := r.line.next
		r.line.next = nil
		r.mu.Unlock()
		r.settled(ctx, group)
		r.mu.Lock()
		heir := r.heir()
		over := heir == nil && len(r.line.next) == 0
		if over {
			r.line.leading = false
		}
		r.mu.Unlock()
		for _, o := range group {
			if o.err != nil && o.redo != nil {
				r.s.chores.add(r.jid, *o.redo)
			}
			o.signal <- false
		}
		if heir != nil {
			heir.signal <- true
		}
		if heir != nil || over {
			return
		}
	}
}

// settled settles a group, whatever becomes of it: others wait for their turn
// (reliability row 38).
func (r *room) settled(ctx context.Context, group []*op) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	err := r.s.protect(func() error { r.settle(ctx, group); return nil })
	if err == nil {
		return
	}
	r.line.broken.Store(true) // nobody knows how far it came
	for _, o := range group {
		if o.err == nil {
			o.err = err
		}
	}
}

// heir is the first of those who have come and wait; nil: nobody.
func (r *room) heir() *op {
	for _, o := range r.line.next {
		if o.awaited {
			return o
		}
	}
	return nil
}

// settle commits a group and sends what it leads to, in order.
func (r *room) settle(ctx context.Context, group []*op) {
	broken := r.line.broken.Load()
	for _, o := range group {
		switch {
		case broken:
			o.err = errAgain
		case o.post != nil:
			if o.err = r.s.protect(func() error { return r.offer(ctx, o.post) }); o.err != nil {
				r.refuse(o.post)
			}
		}
	}
	if !broken {
		r.commit(ctx, group)
	}
	out := outbox{s: r.s, ctx: ctx}
	for _, o := range group {
		if o.settled != nil {
			_ = r.s.protect(func() error { o.settled(o.err == nil); return nil }) // it is logged
		}
		if o.err != nil {
			continue
		}
		if o.done != nil {
			o.done()
		}
		r.joint(o)
		out.add(o.out)
	}
	out.flush()
	for _, o := range group {
		if o.err != nil {
			continue
		}
		if o.post != nil {
			o.after = append(o.after, func(ctx context.Context) { tell(ctx, r.s, Posted, o.post) })
		}
		for _, f := range o.after {
			_ = r.s.protect(func() error { f(ctx); return nil }) // it is logged
		}
	}
}

// commit writes the rows of a group together. When that cannot be, each one's
// alone, up to the one whose fault it is: what has come behind it was made of
// what it would have been.
func (r *room) commit(ctx context.Context, group []*op) {
	var all storage.WriteSet
	r.hold.Guard(all.Add)
	guard := all.Len()
	for _, o := range group {
		if o.err == nil {
			all.Merge(&o.rows)
		}
	}
	if all.Len() == guard {
		return
	}
	err := r.write(ctx, &all)
	if err == nil {
		return
	}
	alone := !errors.Is(err, storage.ErrStale) && !errors.Is(err, storage.ErrUnavailable)
	for _, o := range group {
		if o.err != nil || alone && o.rows.Len() == 0 {
			continue
		}
		if alone {
			var own storage.WriteSet
			r.hold.Guard(own.Add)
			own.Merge(&o.rows)
			if err = r.write(ctx, &own); err == nil {
				continue
			}
			alone = false
			o.err, err = err, errAgain
			continue
		}
		o.err = err
	}
	r.line.broken.Store(true)
	r.s.env.Log.Warn("a room is read again: it could not be written", "room", r.jid.String(), "err", err)
}

// write survives rows that the database's driver panics at.
func (r *room) write(ctx context.Context, w *storage.WriteSet) error {
	err := r.s.protect(func() error { return r.s.env.DB.Commit(ctx, w) })
	if err != nil {
		return fmt.Errorf("room %s: %w", r.jid, err)
	}
	return nil
}

// tell fires a hook that has nothing to say about what has happened.
func tell[E any](ctx context.Context, s *service, h *processor.Hook[E], e E) {
	if _, err := processor.Fire(ctx, s.reg, h, e); err != nil {
		s.env.Log.Error("a hook of the rooms failed", "err", err)
	}
}

// protect keeps what panics from taking others with it (reliability row 38).
func (s *service) protect(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.env.Log.Error("panic in a room", "panic", fmt.Sprint(p))
			err = stanza.NewError(stanza.InternalServerError, "")
		}
	}()
	return do()
}
