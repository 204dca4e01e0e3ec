package strangers

import (
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

// clock is set by the test.
type clock struct {
	plugins.SystemClock
	at time.Time
}

func (c *clock) Now() time.Time { return c.at }

func each(t *testing.T, f func(*testing.T, plugins.Env, *clock)) {
	t.Helper()
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		db := storagetest.Open(t, c)
		tables, err := fs.Sub(migrations, "sql")
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Migrate(t.Context(), Name, tables); err != nil {
			t.Fatal(err)
		}
		now := &clock{at: time.Unix(1_800_000_000, 0)}
		f(t, plugins.Env{DB: db, Clock: now, Log: slog.New(slog.DiscardHandler)}, now)
	})
}

// Whoever has an address after somebody else is a stranger to those who knew that one.
func TestNextOwnerOfAnAddress(t *testing.T) {
	each(t, func(t *testing.T, env plugins.Env, _ *clock) {
		p, err := newPeople(env)
		if err != nil {
			t.Fatal(err)
		}
		ctx, romeo, juliet := t.Context(), jid.MustParse("romeo@localhost"), jid.MustParse("juliet@localhost")
		knows := func(want bool) {
			t.Helper()
			if one, err := p.of(ctx, romeo); err != nil || one.knows(juliet) != want {
				t.Errorf("he knows her: %v expected, %v", want, err)
			}
		}
		knows(false)
		if err := p.meet(ctx, romeo, juliet, 10); err != nil {
			t.Fatal(err)
		}
		knows(true)
		if err := p.forget(ctx, juliet); err != nil {
			t.Fatal(err)
		}
		knows(false)
	})
}

// What was used in hours that are over is not kept.
func TestUseIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, env plugins.Env, now *clock) {
		c := newCounts(env)
		ctx, owner := t.Context(), jid.MustParse("romeo@localhost")
		for i, who := range []string{"a", "b", "c"} {
			k := key{owner, jid.MustParse(who + "@localhost"), messages}
			if c.spent(k) { // asked first, as for each message
				t.Fatal("spent")
			}
			if ok, err := c.take(ctx, k, 1); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if ok, err := c.take(ctx, k, 1); ok || err != nil {
				t.Errorf("a second one: %v, %v", ok, err)
			}
			var rows int
			if err := env.DB.QueryRow(ctx, `SELECT COUNT(*) FROM stranger_use`).Scan(&rows); err != nil || rows != min(i+1, 2) {
				t.Errorf("%d rows after %d hours: %v", rows, i+1, err)
			}
			now.at = now.at.Add(time.Hour)
		}
	})
}
