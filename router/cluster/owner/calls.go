package owner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"parley/router/channel/nats"
	"parley/router/cluster"
	"parley/storage"
)

// The ports: answers do not wait behind calls.
const (
	portCalls   = "owned"
	portAnswers = "answers"
)

// works is how much work of other nodes is done at the same time; what is beyond
// waits in their pipes.
const works = 256

// errUntaken: nothing was done, and the node that was asked will not.
var errUntaken = errors.New("the node does not take it")

// call is work that another node was asked to do.
type call struct {
	at     life
	answer chan answer // capacity 1
}

// finish answers; only the first counts.
func (c *call) finish(a answer) {
	select {
	case c.answer <- a:
	default:
	}
}

// call asks a life to do the work; take: and to become the owner for that. Errors
// wrap errUntaken or errMoved when nothing was done, otherwise what Do says.
func (s *Service) call(ctx context.Context, at life, take bool, w Work) ([]byte, error) {
	id, c := s.open(at)
	defer s.forget(id)
	q := question{id: id, take: take, topic: w.Topic, key: w.Key, payload: w.Payload()}
	err := s.opt.Pipes.Send(ctx, at.node, portCalls, q.encode(), func(err error) {
		if err != nil {
			c.finish(answer{what: silent})
		}
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("work for %q: %w (%w)", w.Key, ErrNobody, err)
	case errors.Is(err, nats.ErrTooLarge):
		return nil, fmt.Errorf("work for %q: %w (%w)", w.Key, ErrFailed, err)
	case err != nil: // the pipe has not taken it
		return nil, fmt.Errorf("work for %q: %w: %w", w.Key, errUntaken, err)
	}
	a := answer{what: silent}
	select {
	case a = <-c.answer:
	case <-ctx.Done():
	case <-s.fenced():
	case <-s.ctx.Done():
	}
	s.metrics.calls.WithLabelValues(a.what.String()).Inc()
	return s.outcome(at, w.Key, a)
}

// outcome is what an answer means for who asked.
func (s *Service) outcome(at life, key string, a answer) ([]byte, error) {
	switch a.what {
	case done:
		since := s.known.Begin(key)
		s.known.Put(key, at, since)
		return a.payload, nil
	case moved:
		s.known.Drop(key)
		return nil, errMoved
	case untaken:
		return nil, errUntaken
	case unavailable:
		return nil, fmt.Errorf("work for %q at %s: %w", key, at.node, storage.ErrUnavailable)
	case failed:
		return nil, fmt.Errorf("work for %q at %s: %w", key, at.node, ErrFailed)
	}
	s.known.Drop(key)
	return nil, fmt.Errorf("work for %q at %s: %w", key, at.node, ErrUnknown)
}

// open notes a call.
func (s *Service) open(at life) (uint64, *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	c := &call{at: at, answer: make(chan answer, 1)}
	s.calls[s.last] = c
	return s.last, c
}

func (s *Service) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// Left is told when a life is over: it answers no more.
func (s *Service) Left(m cluster.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.at.node == m.Node && c.at.incarnation <= m.Incarnation {
			c.finish(answer{what: silent})
		}
	}
}

// answered is the handler of answers.
func (s *Service) answered(_ context.Context, from nats.Peer, payload []byte) error {
	a, err := decodeAnswer(payload)
	if err != nil {
		return fmt.Errorf("answer of %s: %w", from.Node, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.calls[a.id]; c != nil && c.at.node == from.Node {
		c.finish(a)
	}
	return nil
}

// called is the handler of calls. It waits for a place, which is the back-pressure.
func (s *Service) called(ctx context.Context, from nats.Peer, payload []byte) error {
	q, err := decodeQuestion(payload)
	if err != nil {
		return fmt.Errorf("call of %s: %w", from.Node, err)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		<-s.slots
		return nil
	}
	s.tasks.Go(func() {
		defer func() { <-s.slots }()
		s.answer(from.Node, q)
	})
	return nil
}

// answer does what another node asks for.
func (s *Service) answer(node string, q question) {
	ctx, cancel := context.WithTimeout(s.ctx, s.opt.Wait)
	defer cancel()
	a := answer{id: q.id, what: done}
	var err error
	if a.payload, err = s.serve(ctx, q); err != nil {
		a.what, a.payload = s.kind(err), nil
		if a.what == failed {
			s.opt.Log.Error("work for a key of this node failed", "key", q.key, "from", node, "err", err)
		}
	}
	err = s.opt.Pipes.Send(ctx, node, portAnswers, a.encode(), nil)
	if errors.Is(err, nats.ErrTooLarge) {
		a.what, a.payload = failed, nil
		err = s.opt.Pipes.Send(ctx, node, portAnswers, a.encode(), nil)
	}
	if err != nil && s.ctx.Err() == nil {
		s.opt.Log.Warn("an answer does not get to the node that asked", "key", q.key, "node", node, "err", err)
	}
}

// serve does the work under this node's hold.
func (s *Service) serve(ctx context.Context, q question) (payload []byte, err error) {
	if !s.begun.Load() {
		return nil, errUntaken
	}
	h := s.held(q.key)
	if h == nil {
		if !q.take {
			return nil, errMoved
		}
		if m := s.opt.Members.Self(); m.Draining && s.Preferred(q.key) != m.Node {
			return nil, errUntaken
		}
		if h, _, err = s.take(ctx, q.key); err != nil {
			return nil, err
		}
		if h == nil {
			return nil, errMoved
		}
	}
	s.mu.Lock()
	do := s.handlers[q.topic]
	s.mu.Unlock()
	if do == nil {
		return nil, fmt.Errorf("nobody handles %q", q.topic)
	}
	err = s.here(ctx, h, func(ctx context.Context, h *Hold) (err error) {
		defer func() { // it must not take others with it (reliability row 38)
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		payload, err = do(ctx, h, q.payload)
		return err
	})
	return payload, err
}

// kind is what an error is to the node that asked.
func (s *Service) kind(err error) outcome {
	switch {
	case errors.Is(err, errMoved), errors.Is(err, ErrElsewhere):
		return moved
	case errors.Is(err, errUntaken), errors.Is(err, ErrFull), errors.Is(err, ErrNobody):
		return untaken
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, cluster.ErrFenced):
		return unavailable
	}
	return failed
}
