package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"parley/storage/space"
)

// checkpointer folds the write-ahead log into the database, on a connection
// and a goroutine of its own, so that no commit pays for it. When the log
// reaches its bound, writers wait for one that truncates it. All numbers are
// pages: a log takes whole ones, many times what rows hold that lie far apart.
type checkpointer struct {
	db    *sqliteDB
	conn  *sql.DB
	bound int64
	dir   string
	doing sync.Mutex   // held by the checkpoint that is under way: two would both subtract what they find fresh
	fresh atomic.Int64 // written since the last checkpoint
	rest  atomic.Int64 // which that could not fold in: somebody reads them
	log   atomic.Int64 // length of the log then. It begins again when all of it is folded in and nobody reads it
	again time.Time    // when writers may be held up by the next TRUNCATE; the writer's
	full  atomic.Bool  // the disk was, the last time, or has no room for what is in the log
	least int64        // bytes that were free since then, at least; the writer's
	tried time.Time    // when it is tried again whether it still is, though no more is free; the writer's
	wake  chan struct{}
	stop  context.CancelFunc
	ended chan struct{}
}

const (
	walPage = 4096 + 24 // a page and its header
	// At this share of its bound the log is folded in. A page that many commits
	// write (the end of somebody's index) is copied once per checkpoint: at
	// SQLite's own 4 MiB that was nearly once per commit.
	checkpointShare = 4
	// The database has room for a log of this share of what is free, and for leastLog
	// pages: a longer one has to be folded in before it grows.
	freeShare     = 2
	leastLog      = 64
	checkpointGap = 5 * time.Second
	// What a commit pays at most for a reader that holds the log open. For a
	// checkpoint that is under way it waits to the end: at its bound the log must
	// not outgrow what is folded in.
	truncateWait = 50 * time.Millisecond
	truncateGap  = time.Second
	// While the disk is full, and no more is free than was, at most this share of the
	// time goes into trying: somebody may have read what had to be folded in.
	fullShare = 10
)

func newCheckpointer(c Config, d *sqliteDB) (*checkpointer, error) {
	c.LockTimeout = truncateWait
	conn, err := sqlitePool(c, 1, "wal_autocheckpoint(0)")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &checkpointer{db: d, conn: conn, bound: int64(c.WALPages), dir: filepath.Dir(c.Path), wake: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	go k.run(ctx)
	return k, nil
}

// grown counts the pages that a transaction has added; its caller has the writer.
func (k *checkpointer) grown() {
	fresh, most := k.fresh.Add(k.db.pagesWritten()), k.most()
	if at := most / checkpointShare; fresh+k.rest.Load() >= at && fresh >= at/4 {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	if fresh+k.log.Load() >= most && time.Now().After(k.again) { // readers hold the log open
		if !k.do(context.Background(), "TRUNCATE") {
			k.again = time.Now().Add(truncateGap)
		}
	}
	if most < k.bound && k.fresh.Load()+k.log.Load() > k.spare() {
		k.full.Store(true)
	}
}

// most is how long the log may be now.
func (k *checkpointer) most() int64 { return min(k.bound, k.spare()) }

// spare is how long a log the database has room for now.
func (k *checkpointer) spare() int64 {
	free, known := space.Free(k.dir)
	if !known {
		return math.MaxInt64
	}
	return max(leastLog, free/walPage/freeShare)
}

// room fails while the disk is too full to fold in the log: what somebody frees would
// go into the log, until there was no room for the database and no end to it
// (reliability row 30). Its caller has the writer.
func (k *checkpointer) room() error {
	if !k.full.Load() {
		return nil
	}
	now, was := time.Now(), k.least
	free, _ := space.Free(k.dir)
	k.least = min(k.least, free)
	if free <= was && now.Before(k.tried) {
		return errFull
	}
	k.do(context.Background(), "TRUNCATE")
	if !k.full.Load() {
		return nil
	}
	k.least, k.tried = free, time.Now().Add(fullShare*time.Since(now))
	return errFull
}

// errFull is what SQLite says in its place.
var errFull = fmt.Errorf("%w: the disk is full", ErrUnavailable)

// failed hears what became of a transaction; its caller has the writer.
func (k *checkpointer) failed(err error) {
	if isFull(err) {
		k.full.Store(true)
	}
}

// isFull knows a full disk; a quota that is used up is SQLITE_IOERR_WRITE, as much else is.
func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE)
}

// pagesWritten is how many pages the writing connection has written since the
// last call (SQLITE_DBSTATUS_CACHE_WRITE).
func (d *sqliteDB) pagesWritten() int64 {
	var n int
	err := d.conn.Raw(func(c any) (err error) {
		st, ok := c.(sqlite.DBStatus)
		if !ok {
			return fmt.Errorf("%T counts no pages", c)
		}
		n, _, err = st.Status(sqlite.DBStatusCacheWrite, true)
		return err
	})
	if err != nil {
		d.log.Error("storage: the log's growth is not known", "err", sqliteError(err))
	}
	return int64(n)
}

func (k *checkpointer) run(ctx context.Context) {
	defer close(k.ended)
	t := time.NewTicker(checkpointGap)
	defer t.Stop()
	k.do(ctx, "PASSIVE") // what a process that was killed has left counts, too
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-t.C:
		}
		if k.fresh.Load()+k.rest.Load() > 0 {
			k.do(ctx, "PASSIVE")
		}
	}
}

// do reports whether all of the log is in the database now.
func (k *checkpointer) do(ctx context.Context, mode string) (all bool) {
	k.doing.Lock()
	defer k.doing.Unlock()
	var busy, pages, done int64
	before := k.fresh.Load()
	err := k.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(`+mode+`)`).Scan(&busy, &pages, &done)
	switch {
	case isFull(err) && k.full.Swap(true): // it has been said
		k.db.log.Debug("storage: checkpoint failed", "err", sqliteError(err))
	case err != nil && !errors.Is(err, context.Canceled):
		k.db.log.Warn("storage: checkpoint failed", "err", sqliteError(err))
	case err == nil:
		if pages == done || pages <= k.spare() { // what somebody reads is not folded in yet
			k.full.Store(false)
		}
		k.db.metrics.walPages.Set(float64(pages))
		k.fresh.Add(-before)
		k.rest.Store(pages - done)
		k.log.Store(pages)
	}
	return err == nil && pages == done && busy == 0
}

func (k *checkpointer) close() {
	k.stop()
	<-k.ended
	_ = k.conn.Close()
}
