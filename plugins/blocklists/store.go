package blocklists

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/plugins"
	"parley/storage"
)

// store is the tables.
type store struct{ env plugins.Env }

// state is how it stands with a list.
type state struct {
	version       int64
	fetched, next time.Time // zero: never
	failures      int
	err           string
}

const (
	sqlEnsure  = `INSERT INTO blocklist (source) VALUES ($1) ON CONFLICT (source) DO NOTHING`
	sqlStates  = `SELECT source, version, fetched_at, next_at, failures, error FROM blocklist`
	sqlVersion = `UPDATE blocklist SET version = version + 1 WHERE source = $1 RETURNING version`
	sqlItems   = `SELECT hash, reason, listed, version FROM blocklist_item WHERE source = $1`
	sqlItem    = `SELECT reason, listed FROM blocklist_item WHERE source = $1 AND hash = $2`
	sqlPut     = `INSERT INTO blocklist_item (source, hash, reason, listed, version) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (source, hash) DO UPDATE SET reason = excluded.reason, listed = excluded.listed, version = excluded.version`
	sqlFetched = sqlPut + ` WHERE blocklist_item.version <= $6`
	sqlGone    = `DELETE FROM blocklist_item WHERE source = $1 AND hash = $2 AND version <= $3`
	// What has become due during the fetch stays due.
	sqlDone   = `UPDATE blocklist SET fetched_at = $2, next_at = CASE WHEN next_at = $5 THEN $3 ELSE next_at END, failures = 0, error = $4 WHERE source = $1`
	sqlFailed = `UPDATE blocklist SET next_at = $2, failures = failures + 1, error = $3 WHERE source = $1`
	sqlDue    = `UPDATE blocklist SET next_at = $2 WHERE source = $1`
)

// errFull is why an item is not taken.
var errFull = errors.New("the list is longer than max_items")

// rowsAtOnce is how many rows one transaction changes: others want to write, too.
const rowsAtOnce = 200

func (s *store) ensure(ctx context.Context, src string) error {
	_, err := s.env.DB.Exec(ctx, sqlEnsure, src)
	return err
}

func moment(micro int64) time.Time {
	if micro == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micro)
}

// states returns all lists that were ever fetched and are still kept.
func (s *store) states(ctx context.Context) (map[string]state, error) {
	rows, err := s.env.DB.Query(ctx, sqlStates)
	if err != nil {
		return nil, fmt.Errorf("block lists: %w", err)
	}
	defer rows.Close()
	out := map[string]state{}
	for rows.Next() {
		var src string
		var st state
		var fetched, next int64
		if err := rows.Scan(&src, &st.version, &fetched, &next, &st.failures, &st.err); err != nil {
			return nil, fmt.Errorf("block lists: %w", err)
		}
		st.fetched, st.next = moment(fetched), moment(next)
		out[src] = st
	}
	return out, rows.Err()
}

// row is an item as it is kept.
type row struct {
	reason  string
	listed  bool
	version int64
}

func (s *store) items(ctx context.Context, src string) (map[hash]row, error) {
	rows, err := s.env.DB.Query(ctx, sqlItems, src)
	if err != nil {
		return nil, fmt.Errorf("block list: %w", err)
	}
	defer rows.Close()
	out := map[hash]row{}
	for rows.Next() {
		var id string
		var r row
		if err := rows.Scan(&id, &r.reason, &r.listed, &r.version); err != nil {
			return nil, fmt.Errorf("block list: %w", err)
		}
		if h, ok := parseHash(id); ok {
			out[h] = r
		}
	}
	return out, rows.Err()
}

// listed reports whether an item is on the list, and why.
func (s *store) listed(ctx context.Context, src string, h hash) (reason string, listed bool, err error) {
	err = s.env.DB.QueryRow(ctx, sqlItem, src, h.String()).Scan(&reason, &listed)
	if errors.Is(err, storage.ErrNoRows) {
		return "", false, nil
	}
	return reason, listed, err
}

// change puts items on the list, or takes them off and remembers that: what is being
// fetched meanwhile may not know.
func (s *store) change(ctx context.Context, src string, all []change) error {
	return s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		var version int64
		if err := tx.QueryRow(ctx, sqlVersion, src).Scan(&version); err != nil {
			return err
		}
		for _, c := range all {
			if _, err := tx.Exec(ctx, sqlPut, src, c.hash.String(), c.reason, c.listed, version); err != nil {
				return err
			}
		}
		return nil
	})
}

// begin is called before a list is fetched: what changes from then on is newer.
func (s *store) begin(ctx context.Context, src string) (version int64, err error) {
	err = s.env.DB.Tx(ctx, func(tx storage.Tx) error { return tx.QueryRow(ctx, sqlVersion, src).Scan(&version) })
	return version, err
}

// replace makes the list what was fetched since the version, but for what has changed
// meanwhile. First it takes what is new, then what is gone goes.
func (s *store) replace(ctx context.Context, src string, since int64, fetched map[hash]string) error {
	have, err := s.items(ctx, src)
	if err != nil {
		return err
	}
	version, err := s.begin(ctx, src)
	if err != nil {
		return err
	}
	var w writes
	for h, reason := range fetched {
		if r, ok := have[h]; !ok || r.version <= since && (!r.listed || r.reason != reason) {
			w = append(w, write{sqlFetched, []any{src, h.String(), reason, true, version, since}})
		}
	}
	for h, r := range have {
		if _, ok := fetched[h]; !ok && r.version <= since {
			w = append(w, write{sqlGone, []any{src, h.String(), since}})
		}
	}
	return w.run(ctx, s.env.DB)
}

// writes are statements that need not be one transaction.
type writes []write

type write struct {
	sql  string
	args []any
}

func (w writes) run(ctx context.Context, db storage.DB) error {
	for len(w) > 0 {
		some := w[:min(rowsAtOnce, len(w))]
		w = w[len(some):]
		err := db.Tx(ctx, func(tx storage.Tx) error {
			for _, one := range some {
				if _, err := tx.Exec(ctx, one.sql, one.args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("block list: %w", err)
		}
	}
	return nil
}

// done notes that a list was fetched that was due at a time; why is what is wrong with
// it all the same.
func (s *store) done(ctx context.Context, src string, due, now, next time.Time, why string) error {
	was := int64(0)
	if !due.IsZero() {
		was = due.UnixMicro()
	}
	_, err := s.env.DB.Exec(ctx, sqlDone, src, now.UnixMicro(), next.UnixMicro(), why, was)
	return err
}

func (s *store) failed(ctx context.Context, src string, next time.Time, why string) error {
	_, err := s.env.DB.Exec(ctx, sqlFailed, src, next.UnixMicro(), why)
	return err
}

// due lets a list be fetched soon.
func (s *store) due(ctx context.Context, src string) error {
	_, err := s.env.DB.Exec(ctx, sqlDue, src, s.env.Clock.Now().UnixMicro())
	return err
}

// forget removes a list that nobody wants any more.
func (s *store) forget(ctx context.Context, src string) error {
	return writes{
		{`DELETE FROM blocklist_item WHERE source = $1`, []any{src}},
		{`DELETE FROM blocklist WHERE source = $1`, []any{src}},
	}.run(ctx, s.env.DB)
}
