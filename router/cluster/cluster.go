// Package cluster knows which nodes are alive.
//
// The database is the truth (design: "Many nodes"). A node holds a lease, a row
// that it renews, and reads in the same step who else holds one. Nothing here
// depends on NATS: who cannot be reached is not dead for that, and who has lost
// the database is, however well it is heard.
//
//  1. A node's name has one life at a time, and a later life of any node has a
//     larger Incarnation.
//  2. A life is over for the others when its lease has run out by the database's
//     clock; machines' clocks are never compared. Whoever sees that writes it
//     down, so that the life cannot come back, and each life leaves once. A
//     node's old life leaves before its new one joins.
//  3. Whoever could not renew for three quarters of a lease is fenced, before
//     anybody may take it for dead. Its own monotonic clock says so, counted from
//     before the last statement that renewed was sent: who was frozen, or cut off,
//     needs nobody to notice.
//  4. Renewing and looking are one round trip, given up before the rest of the
//     lease is over. What fails is tried again three times as often, and logged
//     once per outage.
//  5. Rows of lives that ended a day ago are deleted by whoever looks, and their
//     numbers given to others.
//  6. SQLite and Postgres behave alike.
//
// What a lease cannot do: a node that is frozen between asking whether it holds
// one and acting on the answer, and a machine that was suspended as a whole,
// whose monotonic clock stood still. So what only one node may write carries its
// Incarnation, or an epoch of its own, which the database checks. A step of the
// database's clock forward by more than a lease ends every life at once, as an
// outage of that length does.
//
// Read on: run.go (the round), lease.go (being fenced), store.go (the rows),
// view.go and rendezvous.go (who owns what).
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/storage"
)

// Errors a caller can act on; what a function returns wraps one when it applies.
var (
	// ErrTaken: another process lives under the node's name. After a crash that
	// is the old process, for the rest of its lease.
	ErrTaken = errors.New("the node's name is taken")
	// ErrFenced: this life is over; the process must stop acting as its node.
	ErrFenced = errors.New("the node's lease is lost")
)

// Clock is what Members ask of the house's time. Now has to carry a monotonic
// reading, as time.Now does.
type Clock interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Member is one life of a process that takes part.
type Member struct {
	Node        string
	Incarnation uint64    // larger for every later life, whatever its node
	Number      int       // 0 to MaxNodes-1; a node's own for good, until it has been gone for a day
	Servers     []string  // the stages it runs; not to be changed
	Version     string    // of the program
	Draining    bool      // it will leave; give it nothing new
	Since       time.Time // by the database's clock
}

// MaxNodes is how many nodes there can be, counting those that left within a day.
const MaxNodes = storage.NodeSlots

// Options make a life.
type Options struct {
	DB      storage.DB // Migrate was called
	Store   Store      // nil: tables of DB
	Node    string     // the same for every life of the node, unlike any other's
	Version string
	Servers []string // without spaces
	Clock   Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: nobody looks

	Lease time.Duration // how long a renewal counts; default 6s
	Renew time.Duration // pause between two, at most a quarter of Lease, which is the default

	// Changed says which lives began or ended, except one's own: what Join found
	// first, and never both in one call. Calls come one after the other, without
	// a lock; the first may come before Join returns. A slow one delays the next,
	// which then skips lives that came and went meanwhile. It must not call Leave
	// or Close, which wait for it.
	Changed func(joined, left []Member)
}

func (o Options) withDefaults() (Options, error) {
	if o.Lease == 0 {
		o.Lease = 6 * time.Second
	}
	if o.Renew == 0 {
		o.Renew = o.Lease / 4
	}
	switch {
	case o.Node == "":
		return o, errors.New("a node needs a name")
	case slices.ContainsFunc(o.Servers, func(s string) bool { return s == "" || strings.ContainsRune(s, ' ') }):
		return o, fmt.Errorf("servers %q: not names", o.Servers)
	case o.Renew < 0 || o.Renew > o.Lease/4:
		return o, fmt.Errorf("a lease of %v cannot be renewed every %v: there must be time for a second try, so at most every %v", o.Lease, o.Renew, o.Lease/4)
	}
	return o, nil
}

// margin is what a lease is worth more to the others than to its holder, who is
// fenced that much earlier. Clocks that do not run at the same speed, and a
// process that needs a moment to stop, live on it.
func (o Options) margin() time.Duration { return o.Lease / 4 }

// limit is how long after a renewal its holder is fenced.
func (o Options) limit() time.Duration { return o.Lease - o.margin() }

// patience is how long the database may take for one round.
func (o Options) patience() time.Duration { return o.margin() * 2 / 3 }

// Members is the cluster as this life sees it. All methods may be called from
// many goroutines.
type Members struct {
	opt     Options
	store   Store
	lease   *lease
	metrics *metrics
	self    Member // as it joined
	view    atomic.Pointer[view]

	wake chan struct{} // it is time for a round
	news chan struct{} // view has changed since Changed was told
	stop context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex // held while view is replaced; guards what follows
	draining bool
	newest   uint64 // incarnation of all that were seen
}

// Join begins a life: it takes the node's lease, reads who is there and starts
// to renew. Errors wrap ErrTaken when another life of the node has not run out.
// ctx bounds the joining alone.
func Join(ctx context.Context, o Options) (*Members, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	m := &Members{opt: o, store: o.Store, wake: make(chan struct{}, 1), news: make(chan struct{}, 1)}
	if m.store == nil {
		m.store = newStore(o.DB)
	}
	m.view.Store(newView(nil))
	sent := o.Clock.Now()
	if m.self, err = m.store.Enter(ctx, o); err != nil {
		return nil, fmt.Errorf("join the cluster as %s: %w", o.Node, err)
	}
	m.lease = newLease(o.Clock, o.Log, o.limit(), sent)
	if err = m.look(ctx); err == nil {
		m.metrics, err = newMetrics(o.Metrics, m)
	}
	if err != nil {
		m.lease.end()
		end, done := m.within(context.WithoutCancel(ctx), o.patience())
		defer done()
		_ = m.store.End(end, m.self) // else it runs out
		return nil, fmt.Errorf("join the cluster as %s: %w", o.Node, err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.work.Go(func() { m.run(run) })
	if o.Changed != nil {
		m.work.Go(func() { m.report(run) })
	}
	return m, nil
}

// Self is this life.
func (m *Members) Self() Member {
	self := m.self
	m.mu.Lock()
	defer m.mu.Unlock()
	self.Draining = m.draining
	return self
}

// Live is every life that is not over, this one included, by Node. The slice
// must not be changed.
func (m *Members) Live() []Member { return m.view.Load().all }

// Find is a node's life.
func (m *Members) Find(node string) (Member, bool) { return m.view.Load().find(node) }

// Owner is the member that key belongs to, among those that run server and do
// not drain; when all of them do, among those. Everybody who sees the same
// members names the same one, and whoever comes or goes moves only its own
// share. It is a hint, for two nodes may not see the same at one moment. False
// when nobody runs server, or when this life is over and knows no longer.
func (m *Members) Owner(key, server string) (Member, bool) {
	if !m.lease.held() {
		return Member{}, false
	}
	return m.view.Load().owner(key, server)
}

// Held reports whether this life goes on. It asks the clock, so that a process
// which was frozen knows at its first question.
func (m *Members) Held() bool { return m.lease.held() }

// Fenced is closed when the lease is lost: the others may begin anything of
// ours at the end of the margin, a quarter of Lease later. Leave and Close do
// not close it.
func (m *Members) Fenced() <-chan struct{} { return m.lease.lost }

// Drain tells the others, at their next look, to give this node nothing new.
// Errors wrap ErrFenced when this life is over.
func (m *Members) Drain(ctx context.Context) error { return m.drain(ctx, true) }

// Undrain takes Drain back.
func (m *Members) Undrain(ctx context.Context) error { return m.drain(ctx, false) }

func (m *Members) drain(ctx context.Context, is bool) error {
	ours, err := m.store.Drain(ctx, m.self, is)
	if err != nil {
		return fmt.Errorf("drain %s: %w", m.self.Node, err)
	}
	if !ours {
		m.lease.lose(overByDatabase)
		return fmt.Errorf("drain %s: %w", m.self.Node, ErrFenced)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = is
	all := slices.Clone(m.view.Load().all)
	for i := range all {
		if all[i].Node == m.self.Node {
			all[i].Draining = is
		}
	}
	m.view.Store(newView(all))
	return nil
}

// Leave ends this life; nothing may be done for the node any more. The others
// see it at their next look, and the next life may begin at once. After an error
// it can be called again, or the lease left to run out.
func (m *Members) Leave(ctx context.Context) error {
	m.Close()
	if err := m.store.End(ctx, m.self); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return nil
}

// Close stops renewing and returns when nothing runs any more. To the others
// it looks like a crash: they wait until the lease runs out.
func (m *Members) Close() {
	m.lease.end()
	m.stop()
	m.work.Wait()
	m.metrics.close()
}
