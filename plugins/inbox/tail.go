package inbox

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/plugins/archive"
	"parley/plugins/message/kinds"
)

// tails are the ends of rooms' archives. All members of a room count in the same
// one: what they have read differs, what was said does not.
type tails struct {
	archive *archive.Archive
	cache   *otter.Cache[jid.JID, *tail]
}

// tail is where a room's latest messages are. A room has one owner at a time, which
// commits in the order of the ids: nothing comes in between.
type tail struct {
	mu     sync.Mutex // during reads of the archive too
	loaded bool
	last   int64   // newest row
	says   []int64 // messages that people read, the oldest first; at most mostUnread
}

// Bounds of what is counted of a room.
const (
	cachedRooms = 5000
	mostUnread  = 500  // more unread messages of one room are not told apart
	tailRows    = 1000 // rows that are looked at for them
	tailTTL     = 10 * time.Minute
)

func newTails(a *archive.Archive) (*tails, error) {
	c, err := otter.New(&otter.Options[jid.JID, *tail]{
		MaximumSize:      cachedRooms,
		ExpiryCalculator: otter.ExpiryWriting[jid.JID, *tail](tailTTL), // retracted messages count no longer then
	})
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return &tails{a, c}, nil
}

func (t *tails) drop(room jid.JID) { t.cache.Invalidate(room) }

// of returns a room's newest row, its newest message that people read, and how many
// of those are after an id.
func (t *tails) of(ctx context.Context, room jid.JID, after int64) (last, said int64, n int, err error) {
	end, _ := t.cache.ComputeIfAbsent(room, func() (*tail, bool) { return new(tail), false })
	end.mu.Lock()
	defer end.mu.Unlock()
	if err := t.read(ctx, room, end); err != nil {
		return 0, 0, 0, err
	}
	if len(end.says) == 0 {
		return end.last, 0, 0, nil
	}
	i, found := slices.BinarySearch(end.says, after)
	if found {
		i++
	}
	return end.last, end.says[len(end.says)-1], len(end.says) - i, nil
}

// read brings the end of an archive up to date.
func (t *tails) read(ctx context.Context, room jid.JID, end *tail) error {
	r := archive.Range{Limit: tailRows, Backward: !end.loaded, After: end.last}
	for more := true; more; {
		some, last, rest, err := t.archive.Read(ctx, room, r)
		if err != nil {
			return err
		}
		if r.Backward {
			slices.Reverse(some)
			rest = false
			if len(some) > 0 {
				last = max(last, some[len(some)-1].ID)
			}
		}
		for _, m := range some {
			if kinds.Of(m.Stanza).Says() {
				end.says = append(end.says, m.ID)
			}
		}
		if over := len(end.says) - mostUnread; over > 0 {
			end.says = append(end.says[:0], end.says[over:]...)
		}
		end.last, end.loaded = max(end.last, last), true
		r.After, more = end.last, rest
	}
	return nil
}
