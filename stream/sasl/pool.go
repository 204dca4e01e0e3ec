package sasl

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrBusy says that a Pool's queue is full. The peer gets temporary-auth-failure.
var ErrBusy = errors.New("sasl: too many passwords waiting")

// Pool bounds how much CPU passwords may take (reliability row 9). Rules:
//  1. At most workers functions run at a time, each on its caller's goroutine.
//  2. At most queue callers wait; the next one gets ErrBusy at once.
//  3. A caller whose context ends while waiting leaves without having run.
type Pool struct {
	slots   chan struct{}
	queue   int64
	waiting atomic.Int64
}

// NewPool makes a pool; both bounds are at least one.
func NewPool(workers, queue int) *Pool {
	return &Pool{slots: make(chan struct{}, max(workers, 1)), queue: int64(max(queue, 1))}
}

// Do runs f when a worker is free. Errors: ErrBusy, the context's.
func (p *Pool) Do(ctx context.Context, f func()) error {
	select {
	case p.slots <- struct{}{}:
	default:
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	defer func() { <-p.slots }()
	f()
	return nil
}

func (p *Pool) wait(ctx context.Context) error {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.queue {
		return ErrBusy
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sasl: waiting for a worker: %w", context.Cause(ctx))
	}
}

// Running and Waiting are for metrics.
func (p *Pool) Running() int { return len(p.slots) }

// Waiting is the number of callers in the queue.
func (p *Pool) Waiting() int { return int(p.waiting.Load()) }
