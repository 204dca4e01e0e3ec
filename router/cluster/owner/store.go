package owner

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"parley/router/cluster"
	"parley/storage"
)

// keep is how long the row of a key that nobody owns is kept at least. The next
// one begins with the database's clock, and so with a larger epoch, unless that
// clock has gone back by more.
const keep = 24 * time.Hour

// store is the rows. Each of its statements touches one key, and is a transaction
// of its own: whoever waits for a row has no other one.
type store struct {
	db    storage.DB
	self  life
	guard *storage.Stmt // $1 id, $2 node, $3 incarnation, $4 epoch

	acquire string // $1 id, $2 key, $3 node, $4 incarnation
	owner   string // $1 id
	release string // $1 id, $2 node, $3 incarnation, $4 epoch
	sweep   string // $1 microseconds
}

// The guards: a set that one is part of is written by the owner or not at all.
// On Postgres it is a lock that guards share: whoever takes the key waits for the
// transaction, and two owners who are of different minds never for each other.
var (
	guardSQLite = storage.Stmt{
		Name:       "owner.guard",
		SQL:        `UPDATE cluster_owner SET epoch = epoch WHERE id = $1 AND node = $2 AND incarnation = $3 AND epoch = $4`,
		Idempotent: true, Must: true,
	}
	guardPostgres = storage.Stmt{
		Name:       "owner.guard",
		SQL:        `SELECT 1 FROM cluster_owner WHERE id = $1 AND node = $2 AND incarnation = $3 AND epoch = $4 FOR SHARE`,
		Idempotent: true, Must: true,
	}
)

func newStore(db storage.DB, self life) *store {
	now := cluster.NowSQL(db.Dialect())
	// A life that this statement does not see yet is not over: it is newer than
	// the last one it sees.
	lives := `EXISTS (SELECT 1 FROM cluster_node n WHERE n.node = cluster_owner.node AND n.incarnation = cluster_owner.incarnation AND NOT n.ended AND n.until >= ` + now + `)`
	over := `(NOT ` + lives + ` AND cluster_owner.incarnation <= (SELECT last FROM cluster_life WHERE id = 1))`
	s := &store{
		db: db, self: self, guard: &guardSQLite,
		acquire: `INSERT INTO cluster_owner (id, key, node, incarnation, epoch, since)
			SELECT $1, $2, m.node, m.incarnation, ` + now + `, ` + now + ` FROM cluster_node m WHERE m.node = $3 AND m.incarnation = $4 AND NOT m.ended AND m.until >= ` + now + `
			ON CONFLICT (id) DO UPDATE SET node = excluded.node, incarnation = excluded.incarnation, epoch = cluster_owner.epoch + 1, since = excluded.since
			WHERE cluster_owner.node = '' OR cluster_owner.node = excluded.node AND cluster_owner.incarnation = excluded.incarnation OR ` + over,
		owner:   `SELECT node, incarnation, epoch, ` + lives + ` FROM cluster_owner WHERE id = $1`,
		release: `UPDATE cluster_owner SET node = '', incarnation = 0, since = ` + now + ` WHERE id = $1 AND node = $2 AND incarnation = $3 AND epoch = $4`,
		sweep:   `DELETE FROM cluster_owner WHERE since < ` + now + ` - $1 AND (node = '' OR ` + over + `)`,
	}
	if db.Dialect() == storage.Postgres {
		s.guard = &guardPostgres
	}
	return s
}

// idOf is what a key's row is found by.
func idOf(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:16]
}

// owned is a row as one statement sees it; zero: there is none, or its owner's
// life is over.
type owned struct {
	life
	epoch int64
}

// take makes this life the owner unless another one is, and returns who is then.
// Sent twice it counts the epoch twice, which does no harm.
func (s *store) take(ctx context.Context, key string) (owned, error) {
	if _, err := s.db.Exec(ctx, s.acquire, idOf(key), key, s.self.node, int64(s.self.incarnation)); err != nil {
		return owned{}, fmt.Errorf("own %q: %w", key, err)
	}
	return s.find(ctx, key)
}

// find returns who owns the key.
func (s *store) find(ctx context.Context, key string) (owned, error) {
	var o owned
	var incarnation int64
	var lives bool
	err := s.db.QueryRow(ctx, s.owner, idOf(key)).Scan(&o.node, &incarnation, &o.epoch, &lives)
	switch {
	case errors.Is(err, storage.ErrNoRows) || err == nil && !lives:
		return owned{}, nil
	case err != nil:
		return owned{}, fmt.Errorf("owner of %q: %w", key, err)
	}
	o.incarnation = uint64(incarnation)
	return o, nil
}

// give makes the key nobody's, if it is still this life's.
func (s *store) give(ctx context.Context, key string, epoch int64) error {
	if _, err := s.db.Exec(ctx, s.release, idOf(key), s.self.node, int64(s.self.incarnation), epoch); err != nil {
		return fmt.Errorf("release %q: %w", key, err)
	}
	return nil
}

// clean removes rows that nobody has owned for a while.
func (s *store) clean(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, s.sweep, keep.Microseconds()); err != nil {
		return fmt.Errorf("rows of keys that nobody owns: %w", err)
	}
	return nil
}
