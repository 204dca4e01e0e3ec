package cluster

import (
	"context"
	"embed"
	"fmt"
	"strings"
	"time"

	"parley/storage"
)

//go:embed sql
var migrations embed.FS

// Migrate brings the tables up to date.
func Migrate(ctx context.Context, db storage.DB) error {
	return db.Migrate(ctx, "cluster", migrations)
}

// keep is how long the row of a life that is over is kept, for its number.
const keep = 24 * time.Hour

// The database's clock in unix microseconds. That of Postgres is when the
// transaction began, before it saw anything: a renewal that it does not see came
// back after the lease had run out by that time, if it says that it has.
const (
	nowSQLite   = `CAST(unixepoch('subsec') * 1000000 AS integer)`
	nowPostgres = `CAST(extract(epoch FROM now()) * 1000000 AS bigint)`
)

// NowSQL is the database's clock in unix microseconds, as SQL text.
func NowSQL(d storage.Dialect) string {
	if d == storage.Postgres {
		return nowPostgres
	}
	return nowSQLite
}

const columns = `node, incarnation, number, servers, version, draining, since`

// Living returns the lives of a database that are not over, for a process that is
// none of them.
func Living(ctx context.Context, db storage.DB) ([]Member, error) {
	if err := Migrate(ctx, db); err != nil {
		return nil, err
	}
	return storage.All(ctx, db, scanMember, newStore(db).texts.live)
}

// Store is where lives are written down; each call is one step that nothing else
// comes between.
type Store interface {
	// Enter begins a life of o.Node, later than all others. Errors wrap ErrTaken
	// when that node has one that is not over.
	Enter(ctx context.Context, o Options) (Member, error)
	// Look writes down that lives are over whose leases have run out, but for
	// me, renews me unless it is over, and returns those that are not.
	Look(ctx context.Context, me Member, lease time.Duration) ([]Member, error)
	// Drain notes whether the life gets nothing new; false: it is over.
	Drain(ctx context.Context, me Member, is bool) (bool, error)
	// End writes down that the life is over.
	End(ctx context.Context, me Member) error
}

// store is the rows of a database.
type store struct {
	db    storage.DB
	texts texts
}

// texts are the statements that need the database's clock.
type texts struct {
	turns              string // begins what one process does at a time; none: the database has one writer
	known, life, enter string
	drop               string // $1 keep
	bury               string // $1 node, $2 keep
	renew              string // $1 node, $2 incarnation, $3 lease
	live               string
	look               string // the four above at once: $1 node, $2 incarnation, $3 lease, $4 keep; none: they are a transaction
}

func newStore(db storage.DB) *store {
	now := NowSQL(db.Dialect())
	drop := func(keep string) string { return `DELETE FROM cluster_node WHERE until < ` + now + ` - ` + keep }
	bury := func(node, keep string) string {
		return `UPDATE cluster_node SET ended = true WHERE NOT ended AND node <> ` + node + ` AND until < ` + now + ` AND until >= ` + now + ` - ` + keep
	}
	renew := `UPDATE cluster_node SET until = ` + now + ` + $3 WHERE node = $1 AND incarnation = $2 AND NOT ended AND until >= ` + now
	live := `SELECT ` + columns + ` FROM cluster_node WHERE NOT ended AND until >= ` + now
	t := texts{
		known: `SELECT node, number, version, since, NOT ended AND until >= ` + now + `, until - ` + now + ` FROM cluster_node`,
		life:  `INSERT INTO cluster_life (id, last) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET last = cluster_life.last + 1 RETURNING last`,
		enter: `INSERT INTO cluster_node (` + columns + `, until, ended) VALUES ($1, $2, $3, $4, $5, false, ` + now + `, ` + now + ` + $6, false)
			ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation, servers = excluded.servers, version = excluded.version,
				draining = excluded.draining, since = excluded.since, until = excluded.until, ended = excluded.ended
			RETURNING ` + columns,
		drop: drop("$1"), bury: bury("$1", "$2"), renew: renew, live: live,
	}
	if db.Dialect() == storage.Postgres {
		// It reads nothing, so what follows sees what those before it wrote. Without
		// it they would fail each other, and of many nodes that start together the
		// last ones for good.
		t.turns = `LOCK TABLE cluster_life IN EXCLUSIVE MODE`
		t.look = `WITH dropped AS (` + drop("$4") + `), buried AS (` + bury("$1", "$4") + `), mine AS (` + renew + ` RETURNING ` + columns + `)
			SELECT ` + columns + ` FROM mine UNION ALL ` + live + ` AND node <> $1`
	}
	return &store{db, t}
}

func scanMember(row storage.Row) (m Member, err error) {
	var incarnation, since int64
	var servers string
	err = row.Scan(&m.Node, &incarnation, &m.Number, &servers, &m.Version, &m.Draining, &since)
	m.Incarnation, m.Servers, m.Since = uint64(incarnation), strings.Fields(servers), time.UnixMicro(since)
	return m, err
}

// Look renews me and returns every life that is not over; without me, it is.
//
// On Postgres it is one statement, and sent as a Query although it writes: a Tx
// is four round trips and serialisable, so nodes that look at the same time would
// fail each other. Query may send it twice, which does no harm.
func (s *store) Look(ctx context.Context, me Member, lease time.Duration) (all []Member, err error) {
	if s.texts.look != "" {
		return storage.All(ctx, s.db, scanMember, s.texts.look, me.Node, int64(me.Incarnation), lease.Microseconds(), keep.Microseconds())
	}
	err = s.db.Tx(ctx, func(tx storage.Tx) error {
		for _, e := range []struct {
			text string
			args []any
		}{
			{s.texts.drop, []any{keep.Microseconds()}},
			{s.texts.bury, []any{me.Node, keep.Microseconds()}},
			{s.texts.renew, []any{me.Node, int64(me.Incarnation), lease.Microseconds()}},
		} {
			if _, err := tx.Exec(ctx, e.text, e.args...); err != nil {
				return err
			}
		}
		all, err = storage.All(ctx, tx, scanMember, s.texts.live)
		return err
	})
	return all, err
}

// known is a row as somebody who enters sees it.
type known struct {
	node, version string
	number        int
	since         time.Time
	live          bool
	rest          time.Duration // of its lease
}

func scanKnown(row storage.Row) (k known, err error) {
	var since, rest int64
	err = row.Scan(&k.node, &k.number, &k.version, &since, &k.live, &rest)
	k.since, k.rest = time.UnixMicro(since), time.Duration(rest)*time.Microsecond
	return k, err
}

// Enter implements Store.
func (s *store) Enter(ctx context.Context, o Options) (me Member, err error) {
	err = s.db.Tx(ctx, func(tx storage.Tx) error {
		if s.texts.turns != "" {
			if _, err := tx.Exec(ctx, s.texts.turns); err != nil {
				return fmt.Errorf("wait for others that join: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, s.texts.drop, keep.Microseconds()); err != nil {
			return fmt.Errorf("delete nodes that are long gone: %w", err)
		}
		all, err := storage.All(ctx, tx, scanKnown, s.texts.known)
		if err != nil {
			return fmt.Errorf("read the nodes: %w", err)
		}
		number, err := place(o.Node, all)
		if err != nil {
			return err
		}
		var life int64
		if err := tx.QueryRow(ctx, s.texts.life).Scan(&life); err != nil {
			return fmt.Errorf("next incarnation: %w", err)
		}
		me, err = scanMember(tx.QueryRow(ctx, s.texts.enter, o.Node, life, number, strings.Join(o.Servers, " "), o.Version, o.Lease.Microseconds()))
		if err != nil {
			return fmt.Errorf("take the lease: %w", err)
		}
		return nil
	})
	return me, err
}

// place is the node's number: its own, or the smallest that nobody has.
func place(node string, all []known) (int, error) {
	var taken [MaxNodes]bool
	for _, k := range all {
		if k.node == node && k.live {
			return 0, fmt.Errorf("%w: another process (version %s) has lived as %q since %s, and its lease has %v left; stop it or give this one another node name, or after a crash try again when that is over",
				ErrTaken, k.version, node, k.since.UTC().Format(time.RFC3339), k.rest.Round(time.Millisecond))
		}
		if k.node == node {
			return k.number, nil
		}
		if k.number >= 0 && k.number < MaxNodes {
			taken[k.number] = true
		}
	}
	for n, t := range taken {
		if !t {
			return n, nil
		}
	}
	return 0, fmt.Errorf("all %d numbers of nodes are taken; those of nodes that left are given away a day later", MaxNodes)
}

// Drain implements Store.
func (s *store) Drain(ctx context.Context, me Member, is bool) (bool, error) {
	n, err := s.db.Exec(ctx, `UPDATE cluster_node SET draining = $3 WHERE node = $1 AND incarnation = $2 AND NOT ended`, me.Node, int64(me.Incarnation), is)
	return n > 0, err
}

// End implements Store: what is another life's by now is left alone.
func (s *store) End(ctx context.Context, me Member) error {
	_, err := s.db.Exec(ctx, `UPDATE cluster_node SET ended = true WHERE node = $1 AND incarnation = $2`, me.Node, int64(me.Incarnation))
	return err
}
