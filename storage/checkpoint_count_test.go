package storage

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Checkpoints that meet each other count what was written once: with less than
// nothing fresh the next ones would come late.
func TestCheckpointsCountOnce(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Config{Path: filepath.Join(t.TempDir(), "parley.db")}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	k := db.(*sqliteDB).ticker
	conn, err := k.conn.Conn(ctx) // the only one: they wait for it
	if err != nil {
		t.Fatal(err)
	}
	before := k.conn.Stats().WaitCount
	k.fresh.Add(100)
	var all sync.WaitGroup
	started := make(chan struct{}, 8)
	for i := range cap(started) {
		all.Go(func() {
			started <- struct{}{}
			k.do(ctx, []string{"PASSIVE", "TRUNCATE"}[i%2])
		})
	}
	for range cap(started) {
		<-started
	}
	for k.conn.Stats().WaitCount == before { // until one waits for the connection
		runtime.Gosched()
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if n := k.fresh.Load(); n < 0 {
		t.Errorf("%d pages are fresh", n)
	}
}
