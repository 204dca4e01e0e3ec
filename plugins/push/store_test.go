package push

import (
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

// clock stands until it is moved.
type clock struct {
	plugins.SystemClock
	now time.Time
}

func (c *clock) Now() time.Time { return c.now }

// What is to be told is told once at a time, together, and again when it failed.
func TestStore(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		c := &clock{now: time.Unix(1_000_000, 0)}
		s := store{plugins.Env{DB: db, Clock: c}}
		ctx, juliet := t.Context(), jid.MustParse("juliet@localhost")
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		const pause = 10 * time.Second
		claim := func(want ...target) []target {
			t.Helper()
			got, err := s.claim(ctx, juliet, time.Minute)
			must(err)
			if len(got) != len(want) {
				t.Fatalf("due are %+v, not %+v", got, want)
			}
			for i, g := range got {
				if w := want[i]; g.waiting != w.waiting || g.calls != w.calls || g.failed != w.failed || g.service != w.service {
					t.Fatalf("due are %+v, not %+v", got, want)
				}
			}
			return got
		}
		one := target{owner: juliet, service: jid.MustParse("push.example"), node: "n"}
		must(s.enable(ctx, one, 2))
		claim()
		must(s.count(ctx, event{juliet, 2, 0}, pause))
		first := claim(target{service: one.service, waiting: 2})
		claim() // it is under way
		must(s.count(ctx, event{juliet, 1, 0}, pause))
		must(s.told(ctx, first[0], pause))
		claim() // it is left alone for a while
		must(s.count(ctx, event{juliet, 1, 1}, pause))
		call := claim(target{service: one.service, waiting: 2, calls: 1})
		must(s.later(ctx, call[0], time.Hour))
		claim()
		c.now = c.now.Add(time.Hour)
		if due, err := s.due(ctx); err != nil || len(due) != 1 || due[0] != juliet {
			t.Fatalf("due are %v, %v", due, err)
		}
		again := claim(target{service: one.service, waiting: 2, calls: 1, failed: 1})
		must(s.told(ctx, again[0], pause))
		must(s.count(ctx, event{juliet, 1, 0}, pause))
		claim()
		c.now = c.now.Add(pause)
		claim(target{service: one.service, waiting: 1})
		c.now = c.now.Add(time.Minute) // who told it has ended
		claim(target{service: one.service, waiting: 1})
		must(s.awake(ctx, juliet))
		c.now = c.now.Add(time.Minute)
		claim()

		for i, name := range []string{"b.example", "c.example"} { // one too many
			c.now = c.now.Add(time.Second)
			must(s.enable(ctx, target{owner: juliet, service: jid.MustParse(name)}, 2))
			if any, err := s.any(ctx, juliet); err != nil || !any {
				t.Fatalf("after %d: %v, %v", i, any, err)
			}
		}
		must(s.disableNode(ctx, target{owner: juliet, service: jid.MustParse("b.example")}))
		must(s.disable(ctx, juliet, jid.MustParse("c.example")))
		if any, err := s.any(ctx, juliet); err != nil || any {
			t.Errorf("the oldest is there still: %v, %v", any, err)
		}
	})
}
