package plugins

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Usage counts who runs in a table of what components have registered, so that
// whoever replaces the table can wait for them. It is part of the table.
type Usage struct {
	users   atomic.Int64
	retired atomic.Bool
	once    sync.Once
	drained chan struct{}
}

// NewUsage counts nobody yet.
func NewUsage() *Usage { return &Usage{drained: make(chan struct{})} }

// Enter keeps the table from being drained. Who enters looks again whether the
// table is still the one in force, and leaves when it is not.
func (u *Usage) Enter() { u.users.Add(1) }

// Leave takes back one Enter.
func (u *Usage) Leave() {
	if u.users.Add(-1) == 0 && u.retired.Load() {
		u.once.Do(func() { close(u.drained) })
	}
}

func (u *Usage) retire() {
	u.Enter()
	u.retired.Store(true)
	u.Leave()
}

// Retired are a Server's tables that were replaced and that somebody may still
// run in. The zero value is empty.
type Retired struct {
	mu  sync.Mutex
	old []*Usage
}

// Add retires a table, after it was replaced.
func (r *Retired) Add(u *Usage) {
	u.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.old = append(slices.DeleteFunc(r.old, (*Usage).empty), u)
}

func (u *Usage) empty() bool {
	select {
	case <-u.drained:
		return true
	default:
		return false
	}
}

// Wait returns when nobody runs in any table that was added before: also those
// that somebody else has waited for in vain.
func (r *Retired) Wait(ctx context.Context) error {
	r.mu.Lock()
	old := slices.Clone(r.old)
	r.mu.Unlock()
	for _, u := range old {
		select {
		case <-u.drained:
			continue
		default:
		}
		select {
		case <-u.drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
