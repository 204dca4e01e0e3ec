package owner

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/router/cluster"
)

const (
	// tendEvery is how often a node looks what it should give away.
	tendEvery = 5 * time.Second
	// tendMost is how many keys it gives away each time, of tendSeen that it looks
	// at: others wait meanwhile. Each time it begins anywhere.
	tendMost, tendSeen = 256, 4096
	// drainAtOnce is how many keys are given away at the same time: each is a write.
	drainAtOnce = 8
	// cleanEvery is how often rows are removed that nobody owns.
	cleanEvery = time.Hour
	// cleaner is a key whose preferred node does that.
	cleaner = "owners"
)

// tend gives away what other nodes are meant to have, until Close or until this
// life is over.
func (s *Service) tend() {
	wake := make(chan struct{}, 1)
	cleaned := s.opt.Clock.Now()
	for {
		halt := s.opt.Clock.AfterFunc(tendEvery, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		select {
		case <-wake:
		case <-s.opt.Members.Fenced():
			halt()
			s.end(fmt.Errorf("no key is owned here any more: %w", cluster.ErrFenced))
			return
		case <-s.ctx.Done():
			halt()
			return
		}
		s.shed(s.ctx)
		if now := s.opt.Clock.Now(); now.Sub(cleaned) >= cleanEvery && s.Preferred(cleaner) == s.store.self.node {
			cleaned = now
			if err := s.store.clean(s.ctx); err != nil && s.ctx.Err() == nil {
				s.opt.Log.Warn("rows of keys that nobody owns stay for now", "err", err)
			}
		}
	}
}

// shed gives away what is idle here and meant for another node.
func (s *Service) shed(ctx context.Context) {
	for _, h := range s.idle() {
		if err := h.Release(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("a key is not given away", "key", h.Key, "err", err)
			return
		}
	}
}

// idle are holds that nobody uses, and that another node is meant to have.
func (s *Service) idle() (out []*Hold) {
	rest := s.opt.Idle
	if s.opt.Members.Self().Draining {
		rest = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, seen := s.opt.Clock.Now(), 0
	for _, h := range s.holds {
		if seen++; seen > tendSeen || len(out) == tendMost {
			break
		}
		if h.users > 0 || h.leaving || now.Sub(h.used) < rest {
			continue
		}
		if p := s.Preferred(h.Key); p == "" || p == s.store.self.node {
			continue
		}
		out = append(out, h)
	}
	return out
}

// Drain tells the others that this node takes nothing new (Members.Drain), and
// gives away what it owns as soon as it is not used. When ctx ends first the error
// says so, and the rest goes when it is idle.
func (s *Service) Drain(ctx context.Context) error {
	if s.store == nil {
		return nil
	}
	if !s.opt.Members.Self().Draining {
		if err := s.opt.Members.Drain(ctx); err != nil {
			return err
		}
	}
	unused, used := s.allHolds()
	var work errgroup.Group
	work.SetLimit(drainAtOnce)
	for _, h := range append(unused, used...) { // who is in use keeps nobody waiting
		work.Go(func() error { return h.Release(ctx) })
	}
	return work.Wait()
}

func (s *Service) allHolds() (unused, used []*Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holds {
		if h.users > 0 {
			used = append(used, h)
			continue
		}
		unused = append(unused, h)
	}
	return unused, used
}
