package atrest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/storage"
)

// Clock is what a Rotation asks of the house's time.
type Clock interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Options make a Rotation.
type Options struct {
	DB      storage.DB
	Tables  []Table
	Clock   Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Rotation lets keys come and go while the house works: it sees that no row
// lacks its key, puts rings in force, and rewrites rows (rewrite.go).
type Rotation struct {
	Vault   Vault
	db      storage.DB
	tables  []*sealed
	clock   Clock
	log     *slog.Logger
	metrics *metrics

	change  sync.Mutex // held while a ring is adopted
	started bool       // guarded by change, as settling is
	wake    chan struct{}

	settling int // changes of keys that are younger than settle
	tasks    sync.WaitGroup
	stop     context.CancelFunc

	mu  sync.Mutex
	job Job
}

// settle is how long what was sealed before a new key came into force may take
// to reach the database: rows are looked for after that.
const settle = time.Minute

// NewRotation makes one without keys.
func NewRotation(o Options) (*Rotation, error) {
	r := &Rotation{db: o.DB, clock: o.Clock, log: o.Log, wake: make(chan struct{}, 1)}
	for _, t := range o.Tables {
		r.tables = append(r.tables, newSealed(t))
	}
	var err error
	r.metrics, err = newMetrics(o.Metrics)
	return r, err
}

// Adopt puts a ring in force, or nothing when rows need a key that it lacks. A
// nil ring is none; while on is false, rows are written as they are. The tables
// must be there.
func (r *Rotation) Adopt(ctx context.Context, ring *Ring, on bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	b, err := readBook(ctx, r.db)
	if err != nil {
		return err
	}
	next := &state{}
	if ring != nil {
		next = &state{ring, on}
	}
	t := turn{target: next.current()}
	// Another server may have changed keys before this one, and the book may say
	// that all rows have followed: those do not count that came from here since.
	if r.started && r.Vault.Current() != next.id() {
		t.again, t.left = true, r.Vault.load().current()
	}
	if t.left != nil {
		b.keys[t.left.id] = t.left.check
	}
	if t.idle, err = r.missing(ctx, b, ring); err != nil {
		return err
	}
	if ring != nil {
		if err := r.wipe(ctx); err != nil {
			return err
		}
	}
	if err := r.open(ctx, b, t); err != nil {
		return err
	}
	r.Vault.Use(ring, on)
	switch changed := b.rows.Target != next.id() || t.again; {
	case r.started && changed:
		r.settling++
		r.clock.AfterFunc(settle, r.settled)
	case r.settling == 0:
		r.kick()
	}
	return nil
}

// settled is the end of one change's time; the last one's counts.
func (r *Rotation) settled() {
	r.change.Lock()
	defer r.change.Unlock()
	if r.settling--; r.settling == 0 {
		r.kick()
	}
}

// wipe has SQLite overwrite what is deleted or replaced: plain text would stay
// in unused parts of the file (https://sqlite.org/pragma.html#pragma_secure_delete).
func (r *Rotation) wipe(ctx context.Context) error {
	if r.db.Dialect() != storage.SQLite {
		return nil
	}
	if _, err := r.db.Exec(ctx, `PRAGMA secure_delete = ON`); err != nil {
		return fmt.Errorf("secure delete: %w", err)
	}
	return nil
}

func (r *Rotation) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Start begins to rewrite rows that are of another key, if there are any.
func (r *Rotation) Start(ctx context.Context) {
	r.change.Lock()
	defer r.change.Unlock()
	if r.started {
		return
	}
	r.started = true
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = cancel
	r.tasks.Go(func() { r.run(work) })
}

// Stop returns when nothing is being rewritten; the next start goes on there.
func (r *Rotation) Stop() {
	r.change.Lock()
	stop := r.stop
	r.change.Unlock()
	if stop != nil {
		stop()
	}
	r.tasks.Wait()
	r.metrics.close()
}

// Job is how far rows are.
type Job struct {
	State   string `json:"state"`             // one of the States
	Table   string `json:"table,omitempty"`   // being rewritten
	Rows    int64  `json:"rows,omitempty"`    // rewritten since the key came into force, or the start
	Damaged int64  `json:"damaged,omitempty"` // rows that did not open; the log names them
}

// The states of a Job.
const (
	Done    = "done"    // every row is of the key in force
	Waiting = "waiting" // a minute, for what was under way when the key came into force
	Working = "working"
	Stuck   = "stuck" // rows did not open, or the database did not answer
)

// Status says which keys there are and which rows need them.
type Status struct {
	On      bool        `json:"on"`
	Current int64       `json:"current"` // 0: rows are written as they are
	File    []int64     `json:"file"`    // ids in the order of the keys file
	Tables  []TableKeys `json:"tables"`
	Job     Job         `json:"job"`
}

// TableKeys is how many rows of a table were written with each key, 0 for none.
type TableKeys struct {
	Table string          `json:"table"`
	Rows  map[int64]int64 `json:"rows"` // nil: counting takes too long
}

// Status counts.
func (r *Rotation) Status(ctx context.Context) (Status, error) {
	st := r.Vault.load()
	s := Status{On: r.Vault.On(), Current: st.id(), File: []int64{}}
	if st != nil {
		s.File = st.ring.IDs()
	}
	for _, t := range r.tables {
		s.Tables = append(s.Tables, TableKeys{t.Name, r.count(ctx, t)})
	}
	b, err := readBook(ctx, r.db)
	if err != nil {
		return s, err
	}
	s.Job = r.now()
	if s.Job.State != Working && s.Job.State != Stuck {
		s.Job.State = Done
		if b.rows.Open {
			s.Job.State = Waiting
		}
	}
	return s, nil
}

func (r *Rotation) now() Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.job
}

func (r *Rotation) count(ctx context.Context, t *sealed) map[int64]int64 {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	type tally struct{ id, n int64 }
	all, err := storage.All(ctx, r.db, func(row storage.Row) (k tally, err error) {
		err = row.Scan(&k.id, &k.n)
		return k, err
	}, t.sqlCount)
	if err != nil {
		return nil
	}
	out := map[int64]int64{}
	for _, k := range all {
		out[k.id] = k.n
	}
	return out
}

// Retirable returns nil when a key can be taken out of the keys file: it is not
// in force, and no row needs it. Rows that another server wrote with it after all
// others had followed are rewritten from then on.
func (r *Rotation) Retirable(ctx context.Context, id int64) error {
	r.change.Lock()
	defer r.change.Unlock()
	b, err := readBook(ctx, r.db)
	if err != nil {
		return err
	}
	st := r.Vault.load()
	k, target := st.find(id), st.current()
	switch {
	case st.id() == id:
		return fmt.Errorf("%w: key %d encrypts; `parley keys new` puts another in its place", ErrNeeded, id)
	case k == nil:
		return fmt.Errorf("%w: key %d is not in the keys file", ErrNoKey, id)
	}
	if _, booked := b.keys[id]; !booked {
		table, err := r.used(ctx, id)
		if err != nil || table == "" {
			return err
		}
		if err := r.open(ctx, b, turn{target: target, left: k, again: true}); err != nil {
			return err
		}
		r.kick()
		return fmt.Errorf("%w: key %d came into rows of %s after all others were rewritten: a server has not read the keys file yet. "+
			"Reload every server; these rows follow, and then `parley keys status` says that every row is as it should be", ErrNeeded, id, table)
	}
	some, count := r.need(ctx, id)
	if !some {
		count = "what was under way when the other key came into force"
	}
	return fmt.Errorf("%w: %s may be encrypted with key %d; try again when `parley keys status` says that every row is as it should be", ErrNeeded, count, id)
}

// used returns a table that has rows of a key that the book does not have; "":
// there is none. It looks at the rows a few at a time: one statement over a large
// table would end at its timeout.
func (r *Rotation) used(ctx context.Context, id int64) (string, error) {
	p := &pass{Rotation: r, target: r.Vault.Current()}
	for _, t := range r.tables {
		for after, more := []int64(nil), true; more; more = after != nil {
			found, next, err := p.look(ctx, t, after)
			if err != nil {
				return "", fmt.Errorf("rows of key %d in %s: %w", id, t.Name, err)
			}
			for _, f := range found {
				if f.key == id {
					return t.Name, nil
				}
			}
			after = next
		}
	}
	return "", nil
}

func sortedKeys(m map[int64][]byte) []int64 { return slices.Sorted(maps.Keys(m)) }

type metrics struct {
	reg       prometheus.Registerer
	rewritten prometheus.Counter
	working   prometheus.Gauge
	damaged   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reg:       reg,
		rewritten: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_atrest_rewritten_rows_total", Help: "Rows brought to the encryption key in force."}),
		working:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_atrest_rewriting", Help: "1 while rows are brought to the encryption key in force."}),
		damaged:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_atrest_damaged_rows", Help: "Rows that the last pass could not open."}),
	}
	for _, c := range m.all() {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("encryption metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.rewritten, m.working, m.damaged}
}

func (m *metrics) close() {
	for _, c := range m.all() {
		m.reg.Unregister(c)
	}
}
