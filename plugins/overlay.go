package plugins

import (
	"context"
	"embed"
	"fmt"
	"time"

	"parley/plugins/config"
	"parley/storage"
)

//go:embed sql
var overlayMigrations embed.FS

// overlayStore keeps what was configured at run time.
type overlayStore struct{ db storage.DB }

func (o overlayStore) load(ctx context.Context) (config.Overlay, error) {
	var out config.Overlay
	err := o.db.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM config_version`).Scan(&out.Version)
	if err != nil {
		return out, fmt.Errorf("overlay version: %w", err)
	}
	rows, err := o.db.Query(ctx, `SELECT path, value, version, set_by, set_at FROM config_overlay ORDER BY path`)
	if err != nil {
		return out, fmt.Errorf("overlay: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s config.Setting
		var at int64
		if err := rows.Scan(&s.Path, &s.Value, &s.Version, &s.By, &at); err != nil {
			return out, fmt.Errorf("overlay: %w", err)
		}
		s.At = time.UnixMicro(at)
		out.Settings = append(out.Settings, s)
	}
	return out, rows.Err()
}

// save replaces the overlay as a whole.
func (o overlayStore) save(ctx context.Context, v config.Overlay) error {
	return o.db.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM config_overlay`); err != nil {
			return err
		}
		for _, s := range v.Settings {
			_, err := tx.Exec(ctx, `INSERT INTO config_overlay (path, value, version, set_by, set_at) VALUES ($1, $2, $3, $4, $5)`,
				s.Path, s.Value, s.Version, s.By, s.At.UnixMicro())
			if err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO config_version (id, version) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET version = excluded.version`, v.Version)
		return err
	})
}
