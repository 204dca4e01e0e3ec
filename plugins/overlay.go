package plugins

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"parley/plugins/config"
	"parley/storage"
)

//go:embed sql
var overlayMigrations embed.FS

// errOvertaken: another node has made a version meanwhile.
var errOvertaken = errors.New("another node has changed the configuration meanwhile")

// keptVersions is how many versions the log reaches back.
const keptVersions = 10_000

// overlayStore keeps what was set at run time, for all nodes: a setting of a
// node's own has its name, the others have none. Each change is a version.
type overlayStore struct {
	db   storage.DB
	node string // "": this one is alone, and nothing is its own
}

// stored is one version of what was set at run time, as it concerns one node.
type stored struct {
	overlay config.Overlay
	said    map[slotKey]said
}

const sqlVersion = `SELECT coalesce(max(version), 0) FROM config_version`

func (o overlayStore) version(ctx context.Context) (v int64, err error) {
	if err := o.db.QueryRow(ctx, sqlVersion).Scan(&v); err != nil {
		return 0, fmt.Errorf("configuration version: %w", err)
	}
	return v, nil
}

func (o overlayStore) load(ctx context.Context) (out stored, err error) {
	err = o.db.Tx(ctx, func(tx storage.Tx) (err error) {
		out = stored{}
		if err = tx.QueryRow(ctx, sqlVersion).Scan(&out.overlay.Version); err != nil {
			return err
		}
		if out.overlay.Settings, err = o.settings(ctx, tx); err != nil {
			return err
		}
		out.said, err = phases(ctx, tx)
		return err
	})
	if err != nil {
		return stored{}, fmt.Errorf("configuration set at run time: %w", err)
	}
	return out, nil
}

func (o overlayStore) settings(ctx context.Context, tx storage.Tx) ([]config.Setting, error) {
	rows, err := tx.Query(ctx, `SELECT path, value, version, set_by, set_at FROM config_setting WHERE node = '' OR node = $1 ORDER BY path, version DESC`, o.node)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []config.Setting
	for rows.Next() {
		var s config.Setting
		var at int64
		if err := rows.Scan(&s.Path, &s.Value, &s.Version, &s.By, &at); err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].Path == s.Path {
			continue // set again by this node for itself
		}
		s.At = time.UnixMicro(at)
		out = append(out, s)
	}
	return out, rows.Err()
}

func phases(ctx context.Context, tx storage.Tx) (map[slotKey]said, error) {
	rows, err := tx.Query(ctx, `SELECT server, component, phase, version, set_by, set_at FROM config_phase`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[slotKey]said{}
	for rows.Next() {
		var k slotKey
		var s said
		var at int64
		if err := rows.Scan(&k.server, &k.component, &s.phase, &s.version, &s.by, &at); err != nil {
			return nil, err
		}
		s.at = time.UnixMicro(at)
		out[k] = s
	}
	return out, rows.Err()
}

// commit makes to the version after from, or errOvertaken: then nothing is
// written.
func (o overlayStore) commit(ctx context.Context, from, to wanted, log []ConfigEvent) error {
	return o.db.Tx(ctx, func(tx storage.Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO config_version (id, version) VALUES (1, $1)
			ON CONFLICT (id) DO UPDATE SET version = excluded.version WHERE config_version.version = $2`, to.tree.Version(), from.tree.Version())
		if err != nil {
			return err
		}
		if n == 0 {
			return errOvertaken
		}
		if err := o.putSettings(ctx, tx, from, to); err != nil {
			return err
		}
		if err := putPhases(ctx, tx, from, to); err != nil {
			return err
		}
		for _, e := range log {
			_, err := tx.Exec(ctx, `INSERT INTO config_log (version, path, set_at, set_by, node, own, old_value, new_value) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
				e.Version, e.Path, e.At.UnixMicro(), e.By, e.Node, e.Own, e.Old, e.New)
			if err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `DELETE FROM config_log WHERE version <= $1`, to.tree.Version()-keptVersions)
		return err
	})
}

func (o overlayStore) putSettings(ctx context.Context, tx storage.Tx, from, to wanted) error {
	left := map[string]config.Setting{}
	for _, s := range from.tree.Overlay().Settings {
		left[s.Path] = s
	}
	for _, s := range to.tree.Overlay().Settings {
		before, there := left[s.Path]
		delete(left, s.Path)
		if there && before == s {
			continue
		}
		_, err := tx.Exec(ctx, `INSERT INTO config_setting (path, node, value, version, set_by, set_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (path, node) DO UPDATE SET value = excluded.value, version = excluded.version, set_by = excluded.set_by, set_at = excluded.set_at`,
			s.Path, o.of(to.tree, s.Path), s.Value, s.Version, s.By, s.At.UnixMicro())
		if err != nil {
			return err
		}
	}
	for path := range left {
		if _, err := tx.Exec(ctx, `DELETE FROM config_setting WHERE path = $1 AND (node = '' OR node = $2)`, path, o.node); err != nil {
			return err
		}
	}
	return nil
}

// of is whose a setting is: a node's, or everybody's ("").
func (o overlayStore) of(tree *config.Tree, path string) string {
	if tree.Own(path) {
		return o.node
	}
	return ""
}

func putPhases(ctx context.Context, tx storage.Tx, from, to wanted) error {
	for k, s := range to.said {
		if from.said[k] == s {
			continue
		}
		_, err := tx.Exec(ctx, `INSERT INTO config_phase (server, component, phase, version, set_by, set_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (server, component) DO UPDATE SET phase = excluded.phase, version = excluded.version, set_by = excluded.set_by, set_at = excluded.set_at`,
			k.server, k.component, string(s.phase), s.version, s.by, s.at.UnixMicro())
		if err != nil {
			return err
		}
	}
	for k := range from.said {
		if _, still := to.said[k]; still {
			continue
		}
		if _, err := tx.Exec(ctx, `DELETE FROM config_phase WHERE server = $1 AND component = $2`, k.server, k.component); err != nil {
			return err
		}
	}
	return nil
}

// log returns the last events, the newest first.
func (o overlayStore) log(ctx context.Context, limit int) ([]ConfigEvent, error) {
	rows, err := o.db.Query(ctx, `SELECT version, path, set_at, set_by, node, own, old_value, new_value FROM config_log ORDER BY version DESC, path LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("configuration log: %w", err)
	}
	defer rows.Close()
	var out []ConfigEvent
	for rows.Next() {
		var e ConfigEvent
		var at int64
		if err := rows.Scan(&e.Version, &e.Path, &at, &e.By, &e.Node, &e.Own, &e.Old, &e.New); err != nil {
			return nil, fmt.Errorf("configuration log: %w", err)
		}
		e.At = time.UnixMicro(at)
		out = append(out, e)
	}
	return out, rows.Err()
}

// forgottenAfter is how long it is remembered of a node that does not come back
// which version it had.
const forgottenAfter = 30 * 24 * time.Hour

// report says how far a node is.
func (o overlayStore) report(ctx context.Context, n ConfigNode, now time.Time) error {
	return o.db.Tx(ctx, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO config_node (node, version, tried, seen_at, error) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (node) DO UPDATE SET version = excluded.version, tried = excluded.tried, seen_at = excluded.seen_at, error = excluded.error`,
			n.Node, n.Version, n.Tried, now.UnixMicro(), n.Error)
		if err != nil {
			return err
		}
		// A live one has tried the last version.
		_, err = tx.Exec(ctx, `DELETE FROM config_node WHERE tried < $1 AND seen_at < $2`, n.Version, now.Add(-forgottenAfter).UnixMicro())
		return err
	})
}

// nodes is what nodes have said of themselves, by name.
func (o overlayStore) nodes(ctx context.Context) (map[string]ConfigNode, error) {
	rows, err := o.db.Query(ctx, `SELECT node, version, tried, seen_at, error FROM config_node`)
	if err != nil {
		return nil, fmt.Errorf("configuration of nodes: %w", err)
	}
	defer rows.Close()
	out := map[string]ConfigNode{}
	for rows.Next() {
		var n ConfigNode
		var at int64
		if err := rows.Scan(&n.Node, &n.Version, &n.Tried, &at, &n.Error); err != nil {
			return nil, fmt.Errorf("configuration of nodes: %w", err)
		}
		n.At = time.UnixMicro(at)
		out[n.Node] = n
	}
	return out, rows.Err()
}
