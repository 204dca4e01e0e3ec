package channel

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"parley/router/sessions"
)

// QueueDepth is how many envelopes one shard of a Queue holds before senders
// wait.
const QueueDepth = 1024

// Queue hands batches to n workers, for stages whose handlers block. Its
// contract:
//
//  1. Envelopes of one lane go through one shard, in the order of Send. One that
//     is for streams in several lanes goes in parts.
//  2. A shard holds at most QueueDepth envelopes; a sender that would exceed
//     it waits. Nothing is dropped.
//  3. A batch is split by shard; its parts keep their order inside.
//  4. Receive returns after its workers have handled what was accepted before
//     its ctx was done; what comes later stays for the next Receive.
//  5. Send into a closed queue fails with ErrClosed.
type Queue struct {
	shards []*queueShard
	done   chan struct{}
	once   sync.Once
}

type queueShard struct {
	parts chan []*Envelope
	room  *semaphore.Weighted // one unit per envelope, granted in the order of asking
	held  atomic.Int64
}

// NewQueue returns a queue with the given number of shards and workers.
func NewQueue(workers int) *Queue {
	q := &Queue{done: make(chan struct{})}
	for range max(workers, 1) {
		q.shards = append(q.shards, &queueShard{
			parts: make(chan []*Envelope, QueueDepth),
			room:  semaphore.NewWeighted(QueueDepth),
		})
	}
	return q
}

// Len returns how many envelopes wait or are being handled, for metrics.
func (q *Queue) Len() (n int) {
	for _, s := range q.shards {
		n += int(s.held.Load())
	}
	return n
}

// Idle returns when everything that was accepted before has been handled.
func (q *Queue) Idle(ctx context.Context) error {
	for _, s := range q.shards {
		if err := s.room.Acquire(ctx, QueueDepth); err != nil {
			return err
		}
		s.room.Release(QueueDepth)
	}
	return nil
}

// Send implements MessageChannel.
func (q *Queue) Send(ctx context.Context, batch []*Envelope) error {
	batch = q.apart(batch)
	for start := 0; start < len(batch); {
		shard := q.shardOf(batch[start])
		end := start + 1
		for end < len(batch) && end-start < QueueDepth && q.shardOf(batch[end]) == shard {
			end++
		}
		if err := q.put(ctx, shard, batch[start:end:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func (q *Queue) shardOf(e *Envelope) int { return q.shardOfLane(e.Lane()) }

func (q *Queue) shardOfLane(lane uint64) int { return int(lane % uint64(len(q.shards))) }

// apart divides what is for streams in several lanes: each shard gets its own part,
// in the place of the whole.
func (q *Queue) apart(batch []*Envelope) []*Envelope {
	if len(q.shards) == 1 || !slices.ContainsFunc(batch, many) {
		return batch
	}
	out := make([]*Envelope, 0, len(batch)+len(q.shards))
	for _, e := range batch {
		if !many(e) {
			out = append(out, e)
			continue
		}
		for _, part := range Divide(e, func(ref sessions.Ref) int { return q.shardOfLane(lane(ref.JID.Bare())) }) {
			out = append(out, part)
		}
	}
	return out
}

func many(e *Envelope) bool { return len(e.To) > 1 }

func (q *Queue) put(ctx context.Context, shard int, part []*Envelope) error {
	select {
	case <-q.done:
		return ErrClosed
	default:
	}
	s, n := q.shards[shard], int64(len(part))
	if !s.room.TryAcquire(n) {
		waiting, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		go func() {
			select {
			case <-q.done:
				stop(ErrClosed)
			case <-waiting.Done():
			}
		}()
		if err := s.room.Acquire(waiting, n); err != nil {
			return context.Cause(waiting)
		}
	}
	s.held.Add(n)
	s.parts <- part // has room: there are never more parts than units
	return nil
}

// Receive implements DataReceiver.
func (q *Queue) Receive(ctx context.Context, h Handler) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(q.shards))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for i := range q.shards {
		wg.Go(func() {
			if err := q.work(ctx, i, h); err != nil {
				errs <- err
				stop()
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (q *Queue) work(ctx context.Context, shard int, h Handler) error {
	s := q.shards[shard]
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case part := <-s.parts:
			if err := s.handle(ctx, part, h); err != nil {
				return err
			}
		}
	}
	for range len(s.parts) {
		if err := s.handle(ctx, <-s.parts, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *queueShard) handle(ctx context.Context, part []*Envelope, h Handler) error {
	n := int64(len(part)) // h owns part and may reuse it
	err := h(context.WithoutCancel(ctx), part)
	s.held.Add(-n)
	s.room.Release(n)
	return err
}

// Close releases every waiting sender with ErrClosed.
func (q *Queue) Close() { q.once.Do(func() { close(q.done) }) }
