package plugins

import (
	"context"
	"fmt"

	"parley/storage"
)

// Migrate brings a database's tables up to date without making anything that
// would use them: for what copies or restores databases.
func Migrate(ctx context.Context, db storage.DB, all []Plugin) error {
	sorted, err := byRequirement(all)
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx, "host", overlayMigrations); err != nil {
		return err
	}
	for _, p := range sorted {
		if p.Migrations == nil {
			continue
		}
		if err := db.Migrate(ctx, p.Name, p.Migrations); err != nil {
			return fmt.Errorf("plugin %s: %w", p.Name, err)
		}
	}
	return nil
}
