// Package owner lets one node at a time do what is to be done for a key: a room.
//
//  1. A key has one owner, a row in the database. It names a life of a node and
//     an epoch, which is larger for every later owner. Nobody needs to know who
//     is right about it: a write that the owner's guard (Hold.Guard) goes with is
//     written by the owner, or not at all.
//  2. A life that the members' table says is not over keeps what it owns until it
//     gives it away (Release, Drain, an idle key that another node is meant to
//     have). From then on, or when the life is over, whoever comes first is the
//     next owner: nothing is waited for, and nobody is asked.
//  3. Rendezvous hashing over the members that do not drain says which node is
//     meant to have a key. That is a hint: it saves takers from running into each
//     other, and spreads keys evenly.
//  4. What is known of others' keys is remembered, within a bound, while the life
//     lasts. When it is wrong, the work takes one more step (Do).
//  5. A Hold says when it is lost: with the node's lease, all are; without,
//     when a write was refused, or with Release. What its user has not committed
//     by then is lost with it, and the next owner reads the database.
//  6. Work for a key that is done elsewhere waits for its owner's answer, a bounded
//     time: work of one sender for one key stays in order, at the expense of that
//     sender. Works of different senders for one key run at the same time.
//  7. A node that is alone owns everything, without a row, a guard or a wait.
//
// Memory: Options.Keys holds, as many remembered owners of others' keys at most as
// known, one entry per call that waits.
//
// Read on: hold.go (what an owner has), do.go (how work gets to it), calls.go and
// wire.go (over the pipes), tend.go (what moves by itself), store.go (the rows).
package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/router/channel/nats"
	"parley/router/cluster"
	"parley/storage"
	"parley/storage/cache"
)

// Errors a caller can act on; what a method returns wraps one when it applies.
var (
	// ErrElsewhere: another life owns the key.
	ErrElsewhere = errors.New("another node owns it")
	// ErrFull: this node owns as many keys as it may.
	ErrFull = errors.New("too many keys are owned here")
	// ErrNobody: nobody could be made the owner in time; nothing was done.
	ErrNobody = errors.New("no node can take it now")
	// ErrUnknown: the owner's answer did not come; nobody knows whether the work
	// was done.
	ErrUnknown = errors.New("the owner does not answer")
	// ErrFailed: the handler on the owner's node has failed; its log says why.
	ErrFailed = errors.New("failed on the owner's node")
)

// known is how many owners of others' keys are remembered.
const known = 1 << 16

// Members are who could own something (cluster.Members).
type Members interface {
	Self() cluster.Member
	Find(node string) (cluster.Member, bool)
	Owner(key, server string) (cluster.Member, bool)
	Held() bool
	Fenced() <-chan struct{}
	Drain(context.Context) error
}

// Pipes are the ways to other nodes (nats.Bus).
type Pipes interface {
	Handle(port string, h nats.Handler) error
	Send(ctx context.Context, node, port string, payload []byte, done func(error)) error
}

// Options make a Service.
type Options struct {
	DB      storage.DB // cluster.Migrate was called
	Members Members    // nil: this node is alone
	Pipes   Pipes      // with Members
	Server  string     // whose members own keys
	Clock   cluster.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: nobody looks

	Keys int           // most that this node owns at a time; default 262144
	Wait time.Duration // longest time that a piece of work may take; default 10s
	Idle time.Duration // how long a key is not used before it goes to the node that is meant to have it; default 10s
}

func (o Options) withDefaults() Options {
	if o.Keys == 0 {
		o.Keys = 1 << 18
	}
	if o.Wait == 0 {
		o.Wait = 10 * time.Second
	}
	if o.Idle == 0 {
		o.Idle = 10 * time.Second
	}
	return o
}

// life is one life of a node; zero: nobody's.
type life struct {
	node        string
	incarnation uint64
}

// Service is this node's part. All methods may be called from many goroutines.
type Service struct {
	opt     Options
	store   *store // nil: alone
	known   *cache.Cache[string, life]
	metrics *metrics
	epochs  atomic.Int64 // of who is alone: from its start on, in unix microseconds

	ctx   context.Context // until Close
	stop  context.CancelFunc
	tasks sync.WaitGroup
	slots chan struct{} // taken by work that others have sent
	begun atomic.Bool   // others' work is done

	mu       sync.Mutex // guards what follows, and holds
	ended    error      // why nothing is owned any more; nil: it goes on
	closed   bool       // no task begins any more
	holds    map[string]*Hold
	taking   map[string]*taking
	handlers map[string]Handler
	calls    map[uint64]*call
	last     uint64 // call
}

// New returns a service, which takes part at once, but does no work of others before
// Open. Close ends it.
func New(o Options) (*Service, error) {
	s := &Service{
		opt: o.withDefaults(), slots: make(chan struct{}, works),
		holds: map[string]*Hold{}, taking: map[string]*taking{}, handlers: map[string]Handler{}, calls: map[uint64]*call{},
	}
	s.epochs.Store(o.Clock.Now().UnixMicro())
	s.ctx, s.stop = context.WithCancel(context.Background())
	var err error
	if s.metrics, err = newMetrics(o.Metrics, s); err != nil {
		return nil, err
	}
	if o.Members == nil {
		return s, nil
	}
	if s.known, err = cache.New(cache.Options[string, life]{Size: known, Topic: "owners"}); err != nil {
		return nil, err
	}
	self := o.Members.Self()
	s.store = newStore(o.DB, life{self.Node, self.Incarnation})
	for port, h := range map[string]nats.Handler{portCalls: s.called, portAnswers: s.answered} {
		if err := o.Pipes.Handle(port, h); err != nil {
			return nil, fmt.Errorf("owners: %w", err)
		}
	}
	s.tasks.Go(s.tend)
	return s, nil
}

// Open lets other nodes' work be done here: what does it, and what that sends to, is
// running. Before that another node does it, or waits.
func (s *Service) Open() { s.begun.Store(true) }

// Close ends it: every hold is lost, and whoever waits gets an error. The rows
// stay this life's until it is over (Members.Leave).
func (s *Service) Close() {
	s.end(fmt.Errorf("%w: this node ends", ErrNobody))
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.tasks.Wait()
	s.metrics.close()
}

// end lets nothing be owned here any more.
func (s *Service) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	s.ended = why
	for _, h := range s.holds {
		s.drop(h)
	}
}

// Preferred is the node that is meant to have the key; "": nobody is.
func (s *Service) Preferred(key string) string {
	if s.store == nil {
		return ""
	}
	m, _ := s.opt.Members.Owner(key, s.opt.Server)
	return m.Node
}

// Owner is the node that owns the key, as far as this one has heard; "": nobody,
// or it is alone and owns everything.
func (s *Service) Owner(ctx context.Context, key string) (node string, err error) {
	if s.store == nil {
		return "", nil
	}
	if s.held(key) != nil {
		return s.store.self.node, nil
	}
	if l, ok := s.remembered(key); ok {
		return l.node, nil
	}
	o, err := s.look(ctx, key)
	return o.node, err
}

// Acquire makes this node the owner, unless it is. Errors wrap ErrElsewhere while
// another one is, and ErrFull. Whoever has work that may be done anywhere calls Do.
func (s *Service) Acquire(ctx context.Context, key string) (*Hold, error) {
	if h := s.held(key); h != nil {
		return h, nil
	}
	h, other, err := s.take(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case h == nil:
		return nil, fmt.Errorf("own %q: %w: %s", key, ErrElsewhere, other.node)
	}
	return h, nil
}

// look asks the database who owns the key, and remembers it.
func (s *Service) look(ctx context.Context, key string) (owned, error) {
	since := s.known.Begin(key)
	o, err := s.store.find(ctx, key)
	if err == nil && o.node != "" && o.life != s.store.self {
		s.known.Put(key, o.life, since)
	}
	return o, err
}

// remembered is a life that owned the key when it was last heard of, and is not
// over.
func (s *Service) remembered(key string) (life, bool) {
	l, ok := s.known.Get(key)
	if !ok {
		return life{}, false
	}
	if m, here := s.opt.Members.Find(l.node); !here || m.Incarnation != l.incarnation {
		s.known.Drop(key)
		return life{}, false
	}
	return l, true
}

// taking is one attempt to own a key; whoever wants the same waits for it.
type taking struct {
	done  chan struct{}
	hold  *Hold // nil: other owns it, or err
	other life
	err   error
}

// take makes this life the owner unless another one is, which it then returns.
func (s *Service) take(ctx context.Context, key string) (*Hold, life, error) {
	s.mu.Lock()
	if h := s.holds[key]; h != nil && !h.leaving {
		s.mu.Unlock()
		return h, life{}, nil
	}
	if t := s.taking[key]; t != nil {
		s.mu.Unlock()
		select {
		case <-t.done:
			return t.hold, t.other, t.err
		case <-ctx.Done():
			return nil, life{}, fmt.Errorf("own %q: %w (%w)", key, ErrNobody, ctx.Err())
		}
	}
	if err := s.may(key); err != nil {
		s.mu.Unlock()
		return nil, life{}, err
	}
	t := &taking{done: make(chan struct{})}
	s.taking[key] = t
	s.mu.Unlock()
	o, err := s.epoch(context.WithoutCancel(ctx), key) // others wait for it too; the database keeps its own time
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taking, key)
	switch {
	case err != nil:
		t.err = err
	case s.ended != nil: // meanwhile
		t.err = s.ended
	case s.store == nil || o.life == s.store.self:
		t.hold = newHold(s, key, o.epoch)
		s.holds[key] = t.hold
		s.metrics.taken.Inc()
	default:
		t.other = o.life
		s.metrics.refused.Inc()
	}
	close(t.done)
	return t.hold, t.other, t.err
}

// may reports whether one more key can be owned here; s.mu is held.
func (s *Service) may(key string) error {
	switch {
	case s.ended != nil:
		return s.ended
	case s.store != nil && !s.opt.Members.Held():
		return fmt.Errorf("own %q: %w", key, cluster.ErrFenced)
	case s.holds[key] != nil: // it is being given away
		return fmt.Errorf("own %q: %w: it is being given away", key, ErrElsewhere)
	case len(s.holds)+len(s.taking) >= s.opt.Keys:
		return fmt.Errorf("own %q: %w", key, ErrFull)
	}
	return nil
}

// epoch is the row after this life has tried to own it.
func (s *Service) epoch(ctx context.Context, key string) (owned, error) {
	if s.store == nil {
		return owned{epoch: s.epochs.Add(1)}, nil
	}
	return s.store.take(ctx, key)
}
