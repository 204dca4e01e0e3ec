package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/router/cluster"
	"parley/storage"
)

// way is a process's way to the database: it may be slow, or shut. world.mu
// guards it.
type way struct {
	shut chan struct{} // not nil: nobody comes through until it is closed
	slow time.Duration // at most so much more for each half of a call
}

// patience is how long a call waits for a database that is out of reach, when its
// context does not end before.
const patience = 2 * time.Second

// through makes one call of a process, named for its dice. What fails on the way
// back has happened.
func (p *process) through(ctx context.Context, call string, do func() error) error {
	if err := p.half(ctx, call+">"); err != nil {
		return err
	}
	err := do()
	if lost := p.half(ctx, call+"<"); lost != nil {
		return lost
	}
	return err
}

func (p *process) half(ctx context.Context, call string) error {
	if !p.awake() {
		return storage.ErrUnavailable
	}
	p.w.mu.Lock()
	shut, slow := p.way.shut, p.way.slow
	p.w.mu.Unlock()
	dice := p.w.dice(p.String() + call)
	d := 200*time.Microsecond + time.Duration(dice.Int64N(int64(time.Millisecond)))
	if slow > 0 {
		d += time.Duration(dice.Int64N(int64(slow)))
	}
	if shut != nil {
		select {
		case <-shut:
		case <-p.died:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", storage.ErrUnavailable, ctx.Err())
		case <-time.After(patience):
			return storage.ErrUnavailable
		}
	}
	if !sleep(ctx, d) {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, ctx.Err())
	}
	if !p.awake() {
		return storage.ErrUnavailable
	}
	return nil
}

// sleep reports whether the time has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lives are the rows of cluster_node, with the rules of cluster's SQL.
type lives struct {
	w    *world
	mu   sync.Mutex
	rows []*life
	last uint64
}

type life struct {
	cluster.Member
	until   time.Time
	ended   bool
	process *process
}

func (l *life) over() bool { return l.ended || l.until.Before(time.Now()) }

func (l *lives) row(node string) *life {
	for _, r := range l.rows {
		if r.Node == node {
			return r
		}
	}
	return nil
}

// alive reports whether the process's life is not over.
func (l *lives) alive(p *process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.row(p.name)
	return r != nil && r.process == p && !r.over()
}

// desk is the lives as one process reaches them.
type desk struct {
	*lives
	process *process
	calls   int
}

var _ cluster.Store = (*desk)(nil)

func (d *desk) through(ctx context.Context, call string, do func()) error {
	d.calls++
	return d.process.through(ctx, fmt.Sprintf("%s%d", call, d.calls), func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		do()
		return nil
	})
}

// Enter implements cluster.Store.
func (d *desk) Enter(ctx context.Context, o cluster.Options) (me cluster.Member, err error) {
	var taken error
	err = d.through(ctx, "enter", func() {
		r := d.row(o.Node)
		switch {
		case r == nil:
			r = &life{Member: cluster.Member{Number: len(d.rows)}}
			d.rows = append(d.rows, r)
		case !r.over():
			taken = fmt.Errorf("%w: %s", cluster.ErrTaken, o.Node)
			return
		case r.process.acts():
			d.w.fail("%s begins a life of %s while %s takes itself for alive", d.process, o.Node, r.process)
		}
		d.last++
		number := r.Number
		*r = life{
			Member: cluster.Member{Node: o.Node, Incarnation: d.last, Number: number, Servers: o.Servers, Version: o.Version, Since: time.Now()},
			until:  time.Now().Add(o.Lease), process: d.process,
		}
		d.process.incarnation = d.last
		me = r.Member
		d.w.begun(d.process, me)
	})
	if err == nil {
		err = taken
	}
	return me, err
}

// Look implements cluster.Store.
func (d *desk) Look(ctx context.Context, me cluster.Member, lease time.Duration) (all []cluster.Member, err error) {
	err = d.through(ctx, "look", func() {
		now := time.Now()
		for _, r := range d.rows {
			switch {
			case r.Node != me.Node:
				r.ended = r.ended || r.until.Before(now)
			case r.Incarnation == me.Incarnation && !r.over():
				r.until = now.Add(lease)
			default:
				continue
			}
			if !r.over() {
				m := r.Member
				m.Servers = slices.Clone(m.Servers)
				all = append(all, m)
			}
		}
	})
	return all, err
}

// Drain implements cluster.Store.
func (d *desk) Drain(ctx context.Context, me cluster.Member, is bool) (ours bool, err error) {
	err = d.through(ctx, "drain", func() {
		r := d.row(me.Node)
		if ours = r.Incarnation == me.Incarnation && !r.ended; ours {
			r.Draining = is
		}
	})
	return ours, err
}

// End implements cluster.Store.
func (d *desk) End(ctx context.Context, me cluster.Member) error {
	return d.through(ctx, "end", func() {
		if r := d.row(me.Node); r.Incarnation == me.Incarnation {
			r.ended = true
		}
	})
}

// String is for the trace.
func (l *lives) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, r := range l.rows {
		fmt.Fprintf(&b, "%s/%d over=%v ", r.Node, r.Incarnation, r.over())
	}
	return b.String()
}
