package plugins

import (
	"context"
	"sync"
	"time"
)

// Background is a component's work beside what it is asked for, from Start to Stop.
type Background struct {
	tasks  sync.WaitGroup
	cancel context.CancelFunc
}

// Start runs all until Stop.
func (b *Background) Start(ctx context.Context, all ...func(context.Context)) {
	ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, f := range all {
		b.tasks.Go(func() { f(ctx) })
	}
}

// Stop ends what runs and waits for it. It may be called without Start.
func (b *Background) Stop() {
	if b.cancel != nil {
		b.cancel()
	}
	b.tasks.Wait()
}

// Pause waits by a clock; false: ctx was done before.
func Pause(ctx context.Context, c Clock, d time.Duration) bool {
	tick := make(chan struct{})
	defer c.AfterFunc(d, func() { close(tick) })()
	select {
	case <-ctx.Done():
		return false
	case <-tick:
		return true
	}
}
