package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// Secret returns the n random bytes stored under name; the first call makes
// them. Every node of an installation gets the same.
func Secret(ctx context.Context, db DB, name string, n int) ([]byte, error) {
	fresh := make([]byte, n)
	rand.Read(fresh) // never fails (crypto/rand)
	if _, err := db.Exec(ctx, `INSERT INTO parley_meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING`, "secret."+name, fresh); err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	var kept []byte
	if err := db.QueryRow(ctx, `SELECT value FROM parley_meta WHERE key = $1`, "secret."+name).Scan(&kept); err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	if len(kept) != n {
		return nil, fmt.Errorf("secret %s: %w", name, errors.New("stored with another length"))
	}
	return kept, nil
}
