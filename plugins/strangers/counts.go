package strangers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

// counts are what strangers have used of their limits in this hour of the clock. All
// nodes together: each claims a part of what is left and gives it out by itself, so that
// a limit holds everywhere, and few of what is counted costs a write. What a node has
// claimed and not given out when it ends is lost until the next hour.
type counts struct {
	env plugins.Env

	mu   sync.Mutex // leaf
	hour int64      // that held is of
	old  bool       // what is over was not removed yet
	held map[key]share
}

// key is a limit.
type key struct {
	owner, stranger jid.JID // bare; no stranger: all together
	what            what
}

// share is what this node may give out.
type share struct {
	left  int
	spent bool // there is no more
}

const (
	// parts is into how many claims a limit goes.
	parts = 20
	// maxHeld bounds what is held; what is forgotten is asked for again.
	maxHeld = 100_000
)

func newCounts(env plugins.Env) *counts { return &counts{env: env, held: map[key]share{}} }

const (
	sqlClaim = `INSERT INTO stranger_use (owner, stranger, what, hour, used) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (owner, stranger, what) DO UPDATE SET
			used = CASE WHEN stranger_use.hour >= excluded.hour THEN stranger_use.used + excluded.used ELSE excluded.used END,
			hour = CASE WHEN stranger_use.hour > excluded.hour THEN stranger_use.hour ELSE excluded.hour END
		RETURNING used`
	sqlSweep = `DELETE FROM stranger_use WHERE hour < $1`
)

// now is the hour; the first call in it forgets the one before. c.mu is held.
func (c *counts) now() (hour int64) {
	hour = c.env.Clock.Now().Unix() / int64(time.Hour/time.Second)
	if hour != c.hour {
		c.hour, c.old = hour, true
		clear(c.held)
	}
	return hour
}

// spent reports whether nothing is known to be left.
func (c *counts) spent(k key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now()
	return c.held[k].spent
}

// take uses one; false: most have been used.
func (c *counts) take(ctx context.Context, k key, most int) (bool, error) {
	c.mu.Lock()
	hour, fresh := c.now(), c.old
	c.old = c.old && c.held[k].left > 0
	s := c.held[k]
	if s.left > 0 {
		c.held[k] = share{left: s.left - 1}
	}
	c.mu.Unlock()
	if s.spent || s.left > 0 {
		return !s.spent, nil
	}
	part := max(1, most/parts)
	used, err := c.claim(ctx, k, part, hour, fresh)
	if err != nil {
		return false, fmt.Errorf("limit of strangers: %w", err)
	}
	got := part - max(0, used-most)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now != hour { // what was claimed is over
		return got > 0, nil
	}
	if len(c.held) >= maxHeld {
		clear(c.held)
	}
	s = c.held[k]
	switch {
	case got <= 0:
		s.spent = s.left == 0
	default:
		s = share{left: s.left + got - 1}
	}
	c.held[k] = s
	return got > 0, nil
}

// claim takes a part of what is left in the hour and returns how many are used then; the
// first one of an hour removes what is over.
func (c *counts) claim(ctx context.Context, k key, part int, hour int64, fresh bool) (used int, err error) {
	stranger := ""
	if !k.stranger.IsZero() {
		stranger = k.stranger.String()
	}
	err = c.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if fresh {
			if _, err := tx.Exec(ctx, sqlSweep, hour-1); err != nil { // another node's clock may be behind
				return err
			}
		}
		return tx.QueryRow(ctx, sqlClaim, k.owner.String(), stranger, string(k.what), hour, part).Scan(&used)
	})
	return used, err
}

// forget removes what strangers have used of an account's limits.
func (c *counts) forget(ctx context.Context, owner jid.JID) error {
	_, err := c.env.DB.Exec(ctx, `DELETE FROM stranger_use WHERE owner = $1`, owner.String())
	return err
}
