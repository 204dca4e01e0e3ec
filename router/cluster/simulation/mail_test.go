package simulation

import (
	"context"
	"fmt"
	"sync"
)

// mail is the archive's tables: every message once, in the order of commits, and
// which wait for their recipients.
type mail struct {
	w    *world
	mu   sync.Mutex
	rows []*row // row n is rows[n-1]
	of   map[origin]*row
	wait map[string][]*row // by recipient, in order
}

// origin is a message as its sender's client names it.
type origin struct {
	from string // a user
	n    int    // counts from 1 per sender
}

func (o origin) String() string { return fmt.Sprintf("%s/%d", o.from, o.n) }

type row struct {
	origin
	id      int64
	to      string
	pending bool
}

// commit stores a message, unless it is there. It is refused when the process's
// lease is over (storage.Fencer).
func (m *mail) commit(ctx context.Context, p *process, o origin, to string) (id int64, fresh, pending bool, err error) {
	err = p.through(ctx, "commit "+o.String(), func() error {
		if !p.acts() {
			return errFenced
		}
		if !m.w.lives.alive(p) {
			m.w.fail("%s commits %s, and its life is over", p, o)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		r := m.of[o]
		if r == nil {
			r = &row{origin: o, id: int64(len(m.rows) + 1), to: to, pending: true}
			m.of[o] = r
			m.rows = append(m.rows, r)
			m.wait[to] = append(m.wait[to], r)
			fresh = true
			m.w.note("mail", "%s commits %s to %s as %d", p, o, to, r.id)
		}
		id, pending = r.id, r.pending
		return nil
	})
	return id, fresh, pending, err
}

// waiting are the rows that wait for a user.
func (m *mail) waiting(ctx context.Context, p *process, call, user string) (all []row, err error) {
	err = p.through(ctx, call, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, r := range m.wait[user] {
			all = append(all, *r)
		}
		return nil
	})
	return all, err
}

// taken frees a row.
func (m *mail) taken(ctx context.Context, p *process, id int64) error {
	return p.through(ctx, fmt.Sprintf("taken %d", id), func() error {
		if !p.acts() {
			return errFenced
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		r := m.rows[id-1]
		if !r.pending {
			return nil
		}
		r.pending = false
		w := m.wait[r.to]
		for i, x := range w {
			if x == r {
				m.wait[r.to] = append(w[:i:i], w[i+1:]...)
				break
			}
		}
		return nil
	})
}
