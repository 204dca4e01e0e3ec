package owner

import (
	"context"
	"fmt"
	"time"

	"parley/storage"
)

// Hold is what an owner has of a key. It is lost, and never comes back: the next
// one of the same key is another Hold with a larger Epoch.
type Hold struct {
	Key   string
	Epoch int64 // larger for every later owner of the key, on whatever node

	service *Service
	lost    chan struct{}

	// With Service.mu.
	users   int
	used    time.Time
	leaving bool          // nobody begins to use it any more
	unused  chan struct{} // closed when it is leaving and nobody uses it
}

func newHold(s *Service, key string, epoch int64) *Hold {
	return &Hold{Key: key, Epoch: epoch, service: s, lost: make(chan struct{}), unused: make(chan struct{}), used: s.opt.Clock.Now()}
}

// Lost is closed when another life may own the key: what is remembered of it
// here is worth nothing then.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Guard adds what lets all rows that are committed with it fail when the key is
// not this hold's any more: h.Guard(set.Add), or h.Guard(flow.Store). The commit's
// error wraps storage.ErrStale then. Every write of an owner goes with it.
func (h *Hold) Guard(add func(*storage.Stmt, ...any)) {
	st := h.service.store
	if st == nil {
		return
	}
	add(st.guard, idOf(h.Key), st.self.node, int64(st.self.incarnation), h.Epoch)
}

// Check is Guard for a transaction: the error wraps storage.ErrStale when the key
// is not this hold's any more, and else it stays so until the transaction ends.
func (h *Hold) Check(ctx context.Context, tx storage.Tx) error {
	st := h.service.store
	if st == nil {
		return nil
	}
	n, err := tx.Exec(ctx, st.guard.SQL, idOf(h.Key), st.self.node, int64(st.self.incarnation), h.Epoch)
	if err != nil {
		return fmt.Errorf("guard of %q: %w", h.Key, err)
	}
	if n == 0 {
		return fmt.Errorf("guard of %q: %w", h.Key, storage.ErrStale)
	}
	return nil
}

// Use keeps the key here until done is called, unless the node loses it. False:
// it is lost, or being given away. What Do runs uses it already.
func (h *Hold) Use() (done func(), ok bool) {
	s := h.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds[h.Key] != h || h.leaving || s.store != nil && !s.opt.Members.Held() {
		return nil, false
	}
	h.users++
	return h.done, true
}

func (h *Hold) done() {
	s := h.service
	s.mu.Lock()
	defer s.mu.Unlock()
	h.used = s.opt.Clock.Now()
	if h.users--; h.users == 0 && h.leaving {
		close(h.unused)
	}
}

// Release gives the key away: it waits until nobody uses the hold, and when it
// returns nil another node may own it. After an error it goes on.
func (h *Hold) Release(ctx context.Context) error {
	s := h.service
	if !h.leave() {
		return nil
	}
	err := h.wait(ctx)
	if err == nil && s.store != nil {
		err = s.store.give(ctx, h.Key, h.Epoch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil { // when it is given away all the same, its guard says so
		h.leaving, h.unused = false, make(chan struct{})
		return err
	}
	s.drop(h)
	return nil
}

// leave reports whether the hold was not lost, or leaving.
func (h *Hold) leave() bool {
	s := h.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds[h.Key] != h || h.leaving {
		return false
	}
	h.leaving = true
	if h.users == 0 {
		close(h.unused)
	}
	return true
}

func (h *Hold) wait(ctx context.Context) error {
	select {
	case <-h.unused:
		return nil
	case <-h.lost:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("release %q: it is in use: %w", h.Key, ctx.Err())
	}
}

// held is this node's hold of the key; nil: it has none, or gives it away.
func (s *Service) held(key string) *Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.holds[key]; h != nil && !h.leaving {
		return h
	}
	return nil
}

// drop takes a hold away; s.mu is held.
func (s *Service) drop(h *Hold) {
	if s.holds[h.Key] != h {
		return
	}
	delete(s.holds, h.Key)
	close(h.lost)
	s.metrics.lost.Inc()
}

// gone asks the database whether the hold is lost after a write was refused.
func (s *Service) gone(ctx context.Context, h *Hold) bool {
	if s.store == nil {
		return false
	}
	o, err := s.store.find(ctx, h.Key)
	if err != nil || o.life == s.store.self && o.epoch == h.Epoch {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h)
	return true
}
