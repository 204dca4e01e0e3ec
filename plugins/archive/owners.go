package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/storage"
)

// The owners that are kept in memory: how many, and how long until another
// node's change is seen at the latest.
const (
	cachedOwners = 100_000
	ownerTTL     = 5 * time.Minute
)

// owner is one account's archive, as far as it is kept in memory. The counts
// are what this node knows: near enough for limits.
type owner struct {
	id      int64
	jid     jid.JID // bare
	prefs   *Preferences
	rows    atomic.Int64 // only counted when there is a quota
	pending atomic.Int64
	counted atomic.Int64 // when pending was last counted again, unix nanoseconds

	mu       sync.Mutex      // while recalled is read or written, also during the look into the database
	recalled map[int64]int64 // by contact (peerKey): up to this id, or more, resent knows what another process has stored
}

type owners struct {
	db    storage.DB
	count atomic.Bool // rows are counted
	cache *otter.Cache[jid.JID, *owner]
}

func newOwners(db storage.DB) (*owners, error) {
	c, err := otter.New(&otter.Options[jid.JID, *owner]{
		MaximumSize:      cachedOwners,
		ExpiryCalculator: otter.ExpiryWriting[jid.JID, *owner](ownerTTL),
	})
	if err != nil {
		return nil, fmt.Errorf("archive owners: %w", err)
	}
	return &owners{db: db, cache: c}, nil
}

// get returns the archive of a bare JID; one that has none yet gets one.
func (s *owners) get(ctx context.Context, bare jid.JID) (*owner, error) {
	if o, ok := s.cache.GetIfPresent(bare); ok {
		return o, nil
	}
	return s.cache.Get(ctx, bare, otter.LoaderFunc[jid.JID, *owner](s.load))
}

// find is get for those who only look: nil when there is no archive.
func (s *owners) find(ctx context.Context, bare jid.JID) (*owner, error) {
	if o, ok := s.cache.GetIfPresent(bare); ok {
		return o, nil
	}
	var id int64
	err := s.db.QueryRow(ctx, `SELECT id FROM archive_owner WHERE jid = $1`, bare.String()).Scan(&id)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("archive of %s: %w", bare, err)
	}
	return s.get(ctx, bare)
}

func (s *owners) load(ctx context.Context, bare jid.JID) (*owner, error) {
	o := &owner{jid: bare}
	var mode string
	err := s.read(ctx, bare, o, &mode)
	if errors.Is(err, storage.ErrNoRows) {
		if _, err = s.db.Exec(ctx, `INSERT INTO archive_owner (jid) VALUES ($1) ON CONFLICT (jid) DO NOTHING`, bare.String()); err == nil {
			err = s.read(ctx, bare, o, &mode)
		}
	}
	if err == nil {
		o.prefs, err = loadPreferences(ctx, s.db, o.id, Mode(mode))
	}
	if err == nil {
		err = s.tally(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("archive of %s: %w", bare, err)
	}
	return o, nil
}

func (s *owners) read(ctx context.Context, bare jid.JID, o *owner, mode *string) error {
	return s.db.QueryRow(ctx, `SELECT id, mode FROM archive_owner WHERE jid = $1`, bare.String()).Scan(&o.id, mode)
}

func (s *owners) tally(ctx context.Context, o *owner) error {
	var n int64
	if err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM archive_pending WHERE owner = $1`, o.id).Scan(&n); err != nil {
		return err
	}
	o.pending.Store(n)
	if !s.count.Load() {
		return nil
	}
	if err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM archive WHERE owner = $1`, o.id).Scan(&n); err != nil {
		return err
	}
	o.rows.Store(n)
	return nil
}

// recountEvery is how often what waits for an account is counted again because
// it is too much: on other nodes some of it may have been taken.
const recountEvery = time.Second

// recount counts what waits for an account, as far as most, unless that was done
// a moment ago.
func (s *owners) recount(ctx context.Context, o *owner, now time.Time, most int64) error {
	last := o.counted.Load()
	if now.UnixNano()-last < int64(recountEvery) || !o.counted.CompareAndSwap(last, now.UnixNano()) {
		return nil
	}
	var n int64
	if err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM archive_pending WHERE owner = $1 LIMIT $2) AS waiting`, o.id, most).Scan(&n); err != nil {
		return fmt.Errorf("what waits for %s: %w", o.jid, err)
	}
	o.pending.Store(n)
	return nil
}

func (s *owners) forget(bare jid.JID) { s.cache.Invalidate(bare) }

// topicOwners is what nodes tell each other about archives under.
const topicOwners = "archive"

// changed is forget on every node.
func (a *Archive) changed(ctx context.Context, bare jid.JID) {
	a.owners.forget(bare)
	a.env.Forget(ctx, topicOwners, bare.String())
}

// peerKey stands for a bare JID in the index. It is wide enough that nobody
// makes two addresses share one; the row has the address itself too.
func peerKey(bare jid.JID) int64 {
	h := sha256.Sum256([]byte(bare.String()))
	return int64(binary.BigEndian.Uint64(h[:8]))
}
