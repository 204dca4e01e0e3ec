package s2s

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"parley/plugins"
)

const (
	sqlMakeSecret = `INSERT INTO s2s_secret (id, secret) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`
	sqlSecret     = `SELECT secret FROM s2s_secret WHERE id = 1`
)

// keys makes dialback keys, so that no node has to remember which it has sent
// (XEP-0185 §3).
type keys struct{ secret []byte } // SHA256(secret), in hexadecimal digits

// loadKeys reads the secret that all nodes share; the first one makes it.
func loadKeys(ctx context.Context, env plugins.Env) (keys, error) {
	if _, err := env.DB.Exec(ctx, sqlMakeSecret, rand.Text()+rand.Text()); err != nil {
		return keys{}, fmt.Errorf("dialback secret: %w", err)
	}
	var secret string
	if err := env.DB.QueryRow(ctx, sqlSecret).Scan(&secret); err != nil {
		return keys{}, fmt.Errorf("dialback secret: %w", err)
	}
	return newKeys(secret), nil
}

func newKeys(secret string) keys {
	sum := sha256.Sum256([]byte(secret))
	return keys{[]byte(hex.EncodeToString(sum[:]))}
}

// key proves to receiving that the stream with that id comes from originating.
func (k keys) key(receiving, originating, id string) string {
	m := hmac.New(sha256.New, k.secret)
	_, _ = m.Write([]byte(receiving + " " + originating + " " + id))
	return hex.EncodeToString(m.Sum(nil))
}

// check reports whether key is ours.
func (k keys) check(receiving, originating, id, key string) bool {
	return hmac.Equal([]byte(k.key(receiving, originating, id)), []byte(key))
}
