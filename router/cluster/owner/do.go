package owner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/router/cluster"
	"parley/storage"
)

// Work is something to be done by the owner of a key.
type Work struct {
	Key string
	// Here does it when that is this node. An error that wraps storage.ErrStale,
	// when the hold is lost, lets it be done anew by the next owner: then nothing
	// of it may have been committed.
	Here func(context.Context, *Hold) error
	// Topic names the handler that does it on another node, and Payload is what
	// that one gets.
	Topic   string
	Payload func() []byte
}

// Handler does work that another node has sent, as Work.Here does. It may keep
// payload; the answer goes back.
type Handler func(ctx context.Context, h *Hold, payload []byte) (answer []byte, err error)

// Handle lets h do what other nodes send under the topic. It is for New of Servers
// and components, and counts for good.
func (s *Service) Handle(topic string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[topic] = h
}

// Pauses while nobody owns a key, or who does is not settled.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// errMoved: the hold is lost, and nothing was done.
var errMoved = errors.New("the key has another owner now")

// Do lets the owner of the key do the work, and makes one when there is none: the
// node that is meant to have it, or else this one. It returns when the work is
// done: with the answer when that was elsewhere, or with the error of Work.Here.
// Otherwise errors wrap ErrNobody, ErrUnknown, ErrFailed or storage.ErrUnavailable.
func (s *Service) Do(ctx context.Context, w Work) (answer []byte, err error) {
	if s.store != nil { // else it is never waited for
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opt.Wait)
		defer cancel()
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		select {
		case <-s.fenced(): // who waits for its stages' end waits for no other node
			return nil, fmt.Errorf("work for %q: %w (%w)", w.Key, storage.ErrUnavailable, cluster.ErrFenced)
		default:
		}
		answer, err = s.try(ctx, w)
		if !errors.Is(err, errMoved) {
			return answer, err
		}
		s.metrics.moved.Inc()
		limit := time.NewTimer(pause)
		select {
		case <-limit.C:
		case <-s.fenced():
			limit.Stop()
		case <-ctx.Done():
			limit.Stop()
			return nil, fmt.Errorf("work for %q: %w (%w)", w.Key, ErrNobody, ctx.Err())
		}
	}
}

// fenced is closed when this node has lost its place; nil: it is alone.
func (s *Service) fenced() <-chan struct{} {
	if s.opt.Members == nil {
		return nil
	}
	return s.opt.Members.Fenced()
}

// try asks one node. The error is errMoved when another one may do it.
func (s *Service) try(ctx context.Context, w Work) ([]byte, error) {
	h, at, free, err := s.at(ctx, w.Key)
	if err != nil {
		return nil, err
	}
	if h == nil {
		a, err := s.call(ctx, at, free, w)
		if !errors.Is(err, errUntaken) {
			return a, err
		}
		if !free {
			return nil, errMoved
		}
		// Nobody owns it, and who is meant to have it cannot be reached, or cannot.
		if h, _, err = s.take(ctx, w.Key); err != nil || h == nil {
			return nil, s.because(err)
		}
	}
	return nil, s.here(ctx, h, w.Here)
}

// at returns who owns the key: this node's hold, or another life; free: nobody
// does, and that one is meant to.
func (s *Service) at(ctx context.Context, key string) (h *Hold, at life, free bool, err error) {
	if h := s.held(key); h != nil {
		return h, life{}, false, nil
	}
	if s.store != nil {
		if l, ok := s.remembered(key); ok {
			return nil, l, false, nil
		}
		o, err := s.look(ctx, key)
		if err != nil {
			return nil, life{}, false, s.because(err)
		}
		if o.node != "" && o.life != s.store.self {
			return nil, o.life, false, nil
		}
		if m, ok := s.opt.Members.Owner(key, s.opt.Server); ok && o.node == "" && m.Node != s.store.self.node {
			return nil, life{m.Node, m.Incarnation}, true, nil
		}
	}
	if h, _, err = s.take(ctx, key); err != nil || h == nil {
		return nil, life{}, false, s.because(err)
	}
	return h, life{}, false, nil
}

// because says what not to be the owner means for the work: to look again, unless
// the database or this node is no longer there.
func (s *Service) because(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrElsewhere):
		return errMoved
	case errors.Is(err, ErrFull):
		return fmt.Errorf("%w (%w)", ErrNobody, err)
	case errors.Is(err, cluster.ErrFenced):
		return fmt.Errorf("%w (%w)", storage.ErrUnavailable, err)
	}
	return err
}

// here does work under a hold.
func (s *Service) here(ctx context.Context, h *Hold, do func(context.Context, *Hold) error) error {
	done, ok := h.Use()
	if !ok {
		return errMoved
	}
	defer done()
	err := do(ctx, h)
	if errors.Is(err, storage.ErrStale) && s.gone(ctx, h) {
		return errMoved
	}
	return err
}
