package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The committer turns the write sets of many sessions into few transactions.
//
//  1. A set is in exactly one committed transaction, or in none and its
//     submitter gets the error. The one exception: when the connection broke during
//     COMMIT nobody knows which, so a set that is not tried again (it must not be
//     written twice, or rules 7 and maxTries say so) has failed for its submitter
//     (ErrUnavailable), and may be committed all the same. Who sends it again needs a
//     de-duplication key.
//  2. Sets of one submitter commit in the order of their Commit calls.
//  3. Strangers never pay: a failing batch is divided until the guilty set is alone.
//  4. The queue is bounded; a submitter waits for a place as long as its context lets it.
//  5. An accepted set is answered, whatever happens to its context.
//  6. Batches are bounded, so that nobody waits for a huge one.
//  7. A set that has waited for the engine's patience is answered with an error
//     and not tried again (reliability row 31).
const (
	queueSets   = 1024 // bound of the queue
	batchSets   = 512
	batchRows   = 4096
	maxTries    = 4 // of a batch whose connection broke
	maxLinger   = time.Millisecond
	lingerAbove = 1 // linger only if the last batch had more sets than this
)

// Errors between the engines and the committer. They wrap ErrUnavailable for
// the case that the tries are used up.
var (
	// errNotCommitted: surely nothing of the batch was written; repeat it.
	errNotCommitted = fmt.Errorf("%w: not committed", ErrUnavailable)
	// errOutcomeUnknown: the connection broke during COMMIT.
	errOutcomeUnknown = fmt.Errorf("%w: connection lost during commit", ErrUnavailable)
	// errTooLate: it waited too long behind others that could not be written.
	errTooLate = fmt.Errorf("%w: no answer in time", errNotCommitted)
)

// engine writes a batch in one transaction. failed is the index of the set whose
// statement failed, -1 if the error is not one set's or nobody knows whose.
type engine interface {
	write(sets []*submission) (failed int, err error)
}

type submission struct {
	set   *WriteSet
	since time.Time
	done  chan error // capacity 1
}

type committer struct {
	engine   engine
	patience time.Duration // how long a set is tried; 0: the engine never hangs
	metrics  *metrics
	log      *slog.Logger
	may      atomic.Pointer[func() bool] // see Fencer; nil: always

	mu     sync.RWMutex // held for reading while submitting: Close waits for it
	closed bool
	stop   chan struct{} // wakes submitters that wait for a place
	queue  chan *submission
	ended  chan struct{}
	free   sync.Pool // *submission

	// of the goroutine alone
	batch    []*submission
	rows     int
	held     *submission // did not fit into the last batch
	lastSets int
	linger   *time.Timer
}

func newCommitter(e engine, patience time.Duration, m *metrics, log *slog.Logger) *committer {
	c := &committer{
		engine: e, patience: patience, metrics: m, log: log,
		stop:   make(chan struct{}),
		queue:  make(chan *submission, queueSets),
		ended:  make(chan struct{}),
		linger: time.NewTimer(0),
	}
	c.free.New = func() any { return &submission{done: make(chan error, 1)} }
	m.watchQueue(func() float64 { return float64(len(c.queue)) })
	go c.run()
	return c
}

// commit submits the set and waits for its transaction.
func (c *committer) commit(ctx context.Context, w *WriteSet) error {
	if w == nil || w.Len() == 0 {
		return nil
	}
	s := c.free.Get().(*submission)
	s.set = w
	if c.patience > 0 {
		s.since = time.Now()
	}
	if err := c.submit(ctx, s); err != nil {
		s.set = nil
		c.free.Put(s)
		return err
	}
	err := <-s.done
	s.set = nil
	c.free.Put(s)
	return err
}

func (c *committer) submit(ctx context.Context, s *submission) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("storage: commit: %w", err)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return ErrClosed
	}
	select {
	case c.queue <- s:
		return nil
	default:
	}
	select {
	case c.queue <- s:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("storage: commit queue is full: %w", ctx.Err())
	case <-c.stop:
		return ErrClosed
	}
}

// close lets nobody in any more, finishes what was accepted, and returns.
func (c *committer) close() {
	close(c.stop)
	c.mu.Lock()
	c.closed = true
	close(c.queue)
	c.mu.Unlock()
	<-c.ended
}

func (c *committer) run() {
	defer close(c.ended)
	for c.gather() {
		start := time.Now()
		c.settle(c.batch, maxTries)
		c.metrics.seconds.Observe(time.Since(start).Seconds())
		c.lastSets = len(c.batch)
	}
}

// gather fills the batch; false when the queue is closed and empty.
func (c *committer) gather() bool {
	clear(c.batch)
	c.batch, c.rows = c.batch[:0], 0
	first := c.held
	if first == nil {
		var ok bool
		if first, ok = <-c.queue; !ok {
			return false
		}
	}
	c.held = nil
	c.take(first)
	// The submitter has just woken us, before the other readers that became
	// runnable with it: let them submit first, or every message pays for a
	// commit of its own.
	c.drain()
	for range 2 {
		runtime.Gosched()
		c.drain()
	}
	if c.lastSets > lingerAbove && len(c.batch) < c.lastSets {
		c.wait()
	}
	return true
}

// wait lingers for the company that the last batch had.
func (c *committer) wait() {
	c.linger.Reset(maxLinger)
	for c.held == nil && len(c.batch) < min(c.lastSets, batchSets) {
		select {
		case s, ok := <-c.queue:
			if !ok {
				return
			}
			c.take(s)
		case <-c.linger.C:
			return
		}
	}
}

// drain takes what is in the queue, up to the bounds.
func (c *committer) drain() {
	for c.held == nil && len(c.batch) < batchSets {
		select {
		case s, ok := <-c.queue:
			if !ok {
				return
			}
			c.take(s)
		default:
			return
		}
	}
}

// take adds s to the batch, or holds it for the next one. A set larger than the
// bound goes alone.
func (c *committer) take(s *submission) {
	if len(c.batch) > 0 && c.rows+s.set.Len() > batchRows {
		c.held = s
		return
	}
	c.batch = append(c.batch, s)
	c.rows += s.set.Len()
}

// settle writes the sets and answers every one of them.
func (c *committer) settle(sets []*submission, tries int) {
	for sets = c.inTime(sets, errTooLate); len(sets) > 0; {
		if may := c.may.Load(); may != nil && !(*may)() {
			c.answer(sets, errFenced)
			return
		}
		failed, err := c.engine.write(sets)
		tries--
		switch {
		case err == nil:
			c.metrics.committed(sets)
			c.answer(sets, nil)
			return
		case tries > 0 && errors.Is(err, errNotCommitted):
			c.metrics.retries.Inc()
			sets = c.inTime(sets, err)
			continue
		case tries > 0 && errors.Is(err, errOutcomeUnknown):
			c.metrics.retries.Inc()
			sets = c.inTime(c.repeatable(sets, err), err)
			continue
		case len(sets) == 1 || failed < 0 && errors.Is(err, ErrUnavailable):
			c.answer(sets, err)
			return
		}
		lo, hi := failed, failed+1
		if failed < 0 {
			lo = len(sets) / 2
			hi = lo
		}
		c.settle(sets[:lo], maxTries)
		c.settle(sets[lo:hi], maxTries)
		sets, tries = sets[hi:], maxTries
	}
}

// inTime answers the sets that have waited for long enough, the oldest, and
// returns the others.
func (c *committer) inTime(sets []*submission, err error) []*submission {
	if c.patience == 0 {
		return sets
	}
	now, n := time.Now(), 0
	for n < len(sets) && now.Sub(sets[n].since) >= c.patience {
		n++
	}
	if n > 0 {
		c.answer(sets[:n], err)
	}
	return sets[n:]
}

// repeatable answers the sets that must not be written twice and returns the others.
func (c *committer) repeatable(sets []*submission, err error) []*submission {
	again := make([]*submission, 0, len(sets))
	for _, s := range sets {
		if s.set.idempotent() {
			again = append(again, s)
		} else {
			c.answer([]*submission{s}, err)
		}
	}
	return again
}

// Fencer is a DB whose commits can be forbidden.
type Fencer interface {
	// Fence asks may before each attempt to commit: what has waited while the
	// process stood still must not be written when another one has taken its place.
	Fence(may func() bool)
}

var errFenced = fmt.Errorf("%w: this process has lost its place", ErrUnavailable)

func (c *committer) answer(sets []*submission, err error) {
	if err != nil {
		c.metrics.failures.Add(float64(len(sets)))
		if errors.Is(err, ErrUnavailable) {
			c.log.Error("storage: commit failed", "sets", len(sets), "err", err)
		}
	}
	for _, s := range sets {
		s.done <- err
	}
}
