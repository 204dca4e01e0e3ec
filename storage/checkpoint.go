package storage

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// checkpointer folds the write-ahead log into the database, on a connection
// and a goroutine of its own, so that no commit pays for it. When the log
// reaches its bound, writers wait for one that truncates it.
type checkpointer struct {
	db      *sqliteDB
	conn    *sql.DB
	bound   int64 // bytes
	at      int64 // bytes
	written atomic.Int64
	again   time.Time    // when writers may be held up by the next TRUNCATE; the writer's
	size    int64        // of the log's file after the last transaction; the writer's
	mark    atomic.Int64 // the size beyond which the next growth wakes the checkpointer
	wake    chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}
}

const (
	walPage = 4096
	// At this share of the bound the log is folded in. A page that many commits
	// write (the end of somebody's index) is copied once per checkpoint: at
	// SQLite's own 4 MiB that was nearly once per commit.
	checkpointShare = 4
	checkpointGap   = 5 * time.Second
	truncateWait    = 50 * time.Millisecond // what a commit pays at most for a reader that holds the log open
	truncateGap     = time.Second
)

func newCheckpointer(c Config, d *sqliteDB) (*checkpointer, error) {
	c.LockTimeout = truncateWait
	conn, err := sqlitePool(c, 1, "wal_autocheckpoint(0)")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &checkpointer{db: d, conn: conn, bound: c.walBytes(), at: c.checkpointAt(), wake: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	k.mark.Store(k.at)
	go k.run(ctx)
	return k, nil
}

func (c Config) walBytes() int64 { return int64(c.WALPages) * walPage }

// checkpointAt is the size of the log at which it is folded in.
func (c Config) checkpointAt() int64 { return c.walBytes() / checkpointShare }

// grown notes what a transaction has added, n bytes at least; its caller has
// the writer. The log takes whole pages, many times n when rows lie far apart,
// so its file is looked at: not opened, for closing it would end SQLite's locks
// on it (https://sqlite.org/howtocorrupt.html §2.2). A log that begins again at
// the start of its file does not grow until it has passed its old end, where
// the mark is.
func (k *checkpointer) grown(n int64) {
	before := k.size
	if st, err := os.Stat(k.db.path + "-wal"); err == nil {
		k.size = st.Size()
	}
	more := k.size > before
	total := k.written.Add(max(n, k.size-before))
	if total >= k.at || more && k.size > k.mark.Load() {
		// When it cannot begin again, because somebody reads it, it is looked at
		// after so much more.
		k.mark.Store(k.size + k.at/4)
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	if (total >= k.bound || more && k.size >= k.bound) && time.Now().After(k.again) { // readers hold the log open
		if !k.do(context.Background(), "TRUNCATE") {
			k.again = time.Now().Add(truncateGap)
		}
	}
}

func (k *checkpointer) run(ctx context.Context) {
	defer close(k.ended)
	t := time.NewTicker(checkpointGap)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-t.C:
		}
		if k.written.Load() > 0 {
			k.do(ctx, "PASSIVE")
		}
	}
}

// do reports whether all of the log is in the database now.
func (k *checkpointer) do(ctx context.Context, mode string) (all bool) {
	var busy, pages, done int64
	err := k.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(`+mode+`)`).Scan(&busy, &pages, &done)
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		k.db.log.Warn("storage: checkpoint failed", "err", sqliteError(err))
	case err == nil:
		k.db.metrics.walPages.Set(float64(pages))
		k.written.Store((pages - done) * walPage)
		if all = pages == done && busy == 0; all {
			k.mark.Store(k.at)
		}
	}
	return all
}

func (k *checkpointer) close() {
	k.stop()
	<-k.ended
	_ = k.conn.Close()
}
