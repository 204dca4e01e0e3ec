package owner_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing/fstest"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/cluster/owner"
	"parley/storage"
)

// The component of the proof: key@counter.localhost is a counter, which its owner
// keeps in memory and writes down with every increment.

const (
	nsCounter     = "urn:parley:test:counter"
	domainCounter = "counter.localhost"
)

const counterTables = `-- +goose Up
CREATE TABLE counted (key text NOT NULL, op text NOT NULL, n bigint NOT NULL, epoch bigint NOT NULL, node text NOT NULL);
CREATE INDEX counted_op ON counted (key, op);
-- +goose Down
DROP TABLE counted;
`

// increment is a row of its own, and nothing but the guard keeps two owners from
// giving the same number.
var increment = storage.Stmt{Name: "counter.increment", SQL: `INSERT INTO counted (key, op, n, epoch, node) VALUES ($1, $2, $3, $4, $5)`}

// services are those of the nodes that run, by name.
type services struct {
	mu    sync.Mutex
	all   map[string]*owner.Service
	desks map[string]*processor.Registrar
	stale atomic.Int64 // writes that a guard has refused
	ends  chan ending
}

func (s *services) of(node string) *owner.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[node]
}

func newServices() *services {
	return &services{all: map[string]*owner.Service{}, desks: map[string]*processor.Registrar{}, ends: make(chan ending, counted)}
}

// desk is where a node's component speaks for the house.
func (s *services) desk(node string) *processor.Registrar {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desks[node]
}

func counterPlugin(s *services) plugins.Plugin {
	return plugins.Plugin{
		Name: "counter",
		Migrations: fstest.MapFS{
			"sqlite/0001_counter.sql":   {Data: []byte(counterTables)},
			"postgres/0001_counter.sql": {Data: []byte(counterTables)},
		},
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all[env.Node] = env.Owners
			return &counters{env: env, owns: s, all: map[string]*counter{}}, nil
		}}},
	}
}

// counters are what this node owns.
type counters struct {
	env  plugins.Env
	owns *services
	mu   sync.Mutex
	all  map[string]*counter
}

// counter is one of them, as long as its hold lasts.
type counter struct {
	hold *owner.Hold
	mu   sync.Mutex
	read bool // n is what the database says
	n    int64
}

func (*counters) Start(context.Context) error { return nil }
func (*counters) Stop(context.Context) error  { return nil }

// Register implements processor.Component.
func (c *counters) Register(r *processor.Registrar) {
	c.owns.mu.Lock()
	c.owns.desks[c.env.Node] = r
	c.owns.mu.Unlock()
	r.Owned(processor.Owned{
		Key:    func(st *stanza.Stanza) (string, bool) { return st.To.Bare().String(), st.To.Domain() == domainCounter },
		Handle: c.handle,
		Presence: func(_ context.Context, st *stanza.Stanza, bound time.Time, _ *owner.Hold) error {
			c.owns.ends <- ending{st.From.Local(), bound}
			return nil
		},
	})
}

// ending is the end of somebody's session, as the owner of a key hears it.
type ending struct {
	user  string
	bound time.Time
}

// of is the counter of a hold: what an earlier one knew is worth nothing.
func (c *counters) of(hold *owner.Hold) *counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.all[hold.Key]
	if k == nil || k.hold != hold {
		k = &counter{hold: hold}
		c.all[hold.Key] = k
	}
	return k
}

func (c *counters) handle(ctx context.Context, st *stanza.Stanza, hold *owner.Hold) (*stanza.Element, error) {
	if st.Kind != stanza.IQ || st.Type != stanza.TypeSet {
		return nil, stanza.NewError(stanza.FeatureNotImplemented, "")
	}
	n, err := c.of(hold).add(ctx, c.env, st.Payload().Get("op"))
	if errors.Is(err, storage.ErrStale) {
		c.owns.stale.Add(1)
	}
	if err != nil {
		return nil, err
	}
	return stanza.El(nsCounter, "added").With("n", strconv.FormatInt(n, 10)), nil
}

// add counts an operation once, however often it is asked for.
func (k *counter) add(ctx context.Context, env plugins.Env, op string) (n int64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.read {
		if err := env.DB.QueryRow(ctx, `SELECT COALESCE(MAX(n), 0) FROM counted WHERE key = $1`, k.hold.Key).Scan(&k.n); err != nil {
			return 0, err
		}
		k.read = true
	}
	err = env.DB.QueryRow(ctx, `SELECT n FROM counted WHERE key = $1 AND op = $2`, k.hold.Key, op).Scan(&n)
	if !errors.Is(err, storage.ErrNoRows) {
		return n, err
	}
	if err := k.write(ctx, env.DB, k.hold.Key, op, k.n+1, k.hold.Epoch, env.Node); err != nil {
		k.read = false // it may have been written
		return 0, err
	}
	k.n++
	return k.n, nil
}

// write uses both ways to the database: a frozen process is kept from the one by
// its lease too (storage.Fencer), from the other by nothing but its guard.
func (k *counter) write(ctx context.Context, db storage.DB, row ...any) error {
	if k.n%4 == 0 {
		var set storage.WriteSet
		k.hold.Guard(set.Add)
		set.Add(&increment, row...)
		return db.Commit(ctx, &set)
	}
	return db.Tx(ctx, func(tx storage.Tx) error {
		if err := k.hold.Check(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, increment.SQL, row...)
		return err
	})
}
