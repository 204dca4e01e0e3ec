package archive

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

// tallied counts how often rows are counted.
type tallied struct {
	storage.DB
	n atomic.Int32
}

func (d *tallied) QueryRow(ctx context.Context, sql string, args ...any) storage.Row {
	if strings.Contains(sql, "COUNT(*)") {
		d.n.Add(1)
	}
	return d.DB.QueryRow(ctx, sql, args...)
}

// among makes the archive one of several nodes'.
type among struct{ plugins.Notices }

// A full mailbox costs one count a second, however many messages come for it;
// that another node has emptied it is seen then.
func TestAFullMailboxIsCountedNowAndThen(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		const most = 5
		f := newFixture(t, db, config(func(c *Config) { c.MaxPending = most }))
		f.env.Notices = among{}
		juliet := jid.MustParse("juliet@example.net")
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		for id := range int64(2 * most) {
			f.wait(t, o, id+1)
		}
		o.pending.Store(most)
		counts := &tallied{DB: db}
		f.owners.db = counts
		for range 100 {
			if !f.full(t.Context(), o) {
				t.Fatal("not full")
			}
		}
		if n := counts.n.Load(); n != 1 {
			t.Errorf("counted %d times", n)
		}
		if _, err := db.Exec(t.Context(), `DELETE FROM archive_pending WHERE owner = $1 AND id > 3`, o.id); err != nil {
			t.Fatal(err)
		}
		f.clock.pass(recountEvery)
		if f.full(t.Context(), o) || o.pending.Load() != 3 {
			t.Errorf("%d wait", o.pending.Load())
		}
	})
}
