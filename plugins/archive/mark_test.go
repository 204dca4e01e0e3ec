package archive_test

import (
	"context"
	"fmt"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// stepped is a clock that somebody sets.
type stepped struct {
	plugins.SystemClock
	off atomic.Int64
}

func (s *stepped) Now() time.Time { return s.SystemClock.Now().Add(time.Duration(s.off.Load())) }

// The mark in the database is ahead of every id in it, whenever a crash comes:
// a clock that is set back meanwhile gives no id a second time.
func TestReliability29IDsOverACrash(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		clock := &stepped{}
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Clock: clock, Storage: func() storage.Config { return c }})
		if err := login(ctx, t, h, "juliet", "b").Send("<presence/>"); err != nil {
			t.Fatal(err)
		}
		highest := int64(0)
		for round, step := range []time.Duration{0, 48 * time.Hour, -48 * time.Hour, time.Minute} {
			clock.off.Add(int64(step))
			var all gosync.WaitGroup
			var senders []*plugintest.Client
			for s := range 4 {
				romeo := login(ctx, t, h, fmt.Sprintf("romeo%d", s), fmt.Sprint(round))
				senders = append(senders, romeo)
				all.Go(func() {
					for i := range 50 {
						if err := romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d-%d-%d'><body>b</body></message>", round, s, i)); err != nil {
							t.Error(err)
						}
						if i%10 == 0 { // what is in the database now is what a crash would leave
							ahead(ctx, t, h.DB())
						}
					}
				})
			}
			all.Wait()
			for _, c := range senders {
				sync(ctx, t, c)
			}
			ahead(ctx, t, h.DB())
			var rows, fresh int
			if err := h.DB().QueryRow(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN id > $1 THEN 1 ELSE 0 END), 0), MAX(id) FROM archive`, highest).Scan(&rows, &fresh, &highest); err != nil {
				t.Fatal(err)
			}
			if want := 4 * 50 * 2; rows != (round+1)*want || fresh != want {
				t.Errorf("round %d: %d rows, %d behind all before", round, rows, fresh)
			}
			if err := h.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// ahead asserts that no id is beyond the mark, in one snapshot.
func ahead(ctx context.Context, t *testing.T, db storage.DB) {
	t.Helper()
	var beyond int
	if err := db.QueryRow(ctx, `SELECT COUNT(*) FROM archive WHERE id > (SELECT COALESCE(MAX(mark), 0) FROM archive_mark)`).Scan(&beyond); err != nil || beyond > 0 {
		t.Errorf("%d ids are beyond the mark: %v", beyond, err)
	}
}
