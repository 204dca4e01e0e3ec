package resumption

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

// How a session goes from one node to another: its client resumes there. The
// node that has it is asked to end it in order, which writes down everything; of
// a dead one the row is taken as it is, and what that one still writes counts for
// nothing (epoch). One that lives and does not answer keeps it; whether it lives
// is known when its lease is over, so the client waits for that, too.
//
// A node that drains pauses those whose clients do not come, and offers them: the
// node that its account belongs to goes on with it, as after a restart.

const (
	topicSurrender = "resumption"
	topicOffer     = "resumption offer"
	// surrenderLimit is how long a node that has a session may take to end it.
	surrenderLimit = 3 * time.Second
	// takeLimit is how long a client that resumes waits until its node has
	// answered, or is known to be gone: longer than a lease.
	takeLimit = 12 * time.Second
	// askAgain is how often a node that cannot be asked is tried again.
	askAgain = 250 * time.Millisecond
)

// life is this process's number, 0 where it is alone.
func (b *book) life() uint64 {
	if b.env.Notices == nil {
		return 0
	}
	return b.env.Notices.Life()
}

// wait reports whether ctx was not done meanwhile.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// over lets the row of a session that has ended go: at once, or where another
// node may be asked for it, when nobody comes any more. r.mu is held.
func (b *book) over(r *record, w *storage.WriteSet) {
	if b.env.Notices == nil || r.key == (stream.Key{}) {
		w.Add(&deleteRow, r.id, r.epoch)
		return
	}
	w.Add(&endRow, r.id, r.epoch, int64(r.seq-r.base), b.env.Clock.Now().UnixMicro())
}

const (
	// endedFor is how long the end of a session is kept.
	endedFor = time.Hour
	// sweepEvery is how often those are removed that were kept long enough, and
	// those ended that nobody comes for.
	sweepEvery = 2 * time.Minute
	sweepBatch = 500 // sessions that are ended at a time
)

// sweep runs until ctx is done.
func (b *book) sweep(ctx context.Context) {
	for wait(ctx, sweepEvery) {
		if !b.env.Owns(Name) {
			continue
		}
		if err := b.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			b.env.Log.Warn("sessions that are over stay for now", "err", err)
		}
	}
}

func (b *book) sweepOnce(ctx context.Context) error {
	now := b.env.Clock.Now()
	nodes, err := nodesOf(ctx, b.env.DB)
	for _, node := range nodes {
		if b.env.Notices.Alive(node) {
			continue
		}
		err = errors.Join(err, seenDead(ctx, b.env.DB, node, now), b.lapse(ctx, node, now))
	}
	return errors.Join(err, deleteEnded(ctx, b.env.DB, now.Add(-endedFor)))
}

// lapse ends the sessions of a node that is gone which nobody comes for. Where
// contacts have not been told, because it stopped in order, they are now.
func (b *book) lapse(ctx context.Context, node string, now time.Time) error {
	for {
		list, err := lapsedOf(ctx, b.env.DB, node, now, sweepBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		var w storage.WriteSet
		for _, l := range list {
			w.Add(&lapseRow, l.id, l.epoch, now.UnixMicro())
			b.farewell(ctx, l)
		}
		if err := b.env.DB.Commit(ctx, &w); err != nil {
			return fmt.Errorf("sessions of %s: %w", node, err)
		}
	}
}

// farewell lets the house tell that a session has ended.
func (b *book) farewell(ctx context.Context, l lapsed) {
	house := b.house.Load()
	if l.buried || l.last == nil || house == nil {
		return
	}
	if _, bound := b.env.Sessions.Find(l.last.JID); bound {
		return
	}
	if _, err := processor.Fire(ctx, house, processor.Unbound, l.last); err != nil {
		b.env.Log.Error("the end of a session is not told", "jid", l.last.JID.String(), "err", err)
	}
}

// keep remembers a row until Adopt.
func (b *book) keep(l left) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.restored[l.Key] = l
}

// named is a session in a notice.
func named(k stream.Key, account jid.JID) string {
	return hex.EncodeToString(k[:]) + " " + account.String()
}

func meant(text string) (k stream.Key, account jid.JID, ok bool) {
	key, of, _ := strings.Cut(text, " ")
	raw, err := hex.DecodeString(key)
	account, wrong := jid.Parse(of)
	if err != nil || wrong != nil || len(raw) != len(k) {
		return k, account, false
	}
	copy(k[:], raw)
	return k, account, true
}

// Moves implements stream.Resumptions: what several sessions of an account have
// taken nobody could say elsewhere.
func (b *book) Moves(ref sessions.Ref) bool {
	r := b.find(ref)
	if r == nil || b.env.Notices == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.paired && !b.accompanied(ref)
}

// Offer implements stream.Resumptions.
func (b *book) Offer(ctx context.Context, k stream.Key, account jid.JID) error {
	if r := b.heldBy(k); r != nil {
		if err := b.letGo(ctx, r); err != nil {
			return err
		}
	}
	return b.env.Notices.Tell(ctx, topicOffer, named(k, account))
}

// letGo waits until a session has ended or is paused, and its row says so.
func (b *book) letGo(ctx context.Context, r *record) error {
	select {
	case <-r.left():
		return b.flush(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offered is when another node has paused a session that nobody has come for.
func (b *book) offered(text string) {
	k, account, ok := meant(text)
	front := b.front.Load()
	if ok && front != nil && b.env.Owns(account.String()) {
		front.Adopt(k, account)
	}
}

// surrender gives a session to the node that asks for it.
func (b *book) surrender(text string) {
	k, account, ok := meant(text)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), surrenderLimit)
	defer cancel()
	b.come(ctx, k)
	if r := b.heldBy(k); r != nil && r.ref.JID.Bare() == account {
		b.release(ctx, r)
	}
}

// release ends a session here, as far as it can go on elsewhere, and returns when
// that is written down. It may be ending by itself. One that does not end keeps
// its row, which does not say that it is given.
func (b *book) release(ctx context.Context, r *record) {
	front, house := b.front.Load(), b.house.Load()
	switch {
	case b.here(r.ref) && front != nil:
		front.Surrender(ctx, r.key, r.ref.JID.Bare())
	case house != nil:
		house.Note(ctx, encodeNote(note{Op: opSurrender}), r.ref)
	}
	if err := b.letGo(ctx, r); err != nil && ctx.Err() == nil {
		b.env.Log.Error("a session that goes to another node is not written down", "err", err)
	}
}

// here reports whether the session's socket is in this process.
func (b *book) here(ref sessions.Ref) bool { return sessions.SlotOf(ref.Conn) == b.env.Slot }

// reset ends a session whose client has not come yet.
func (b *book) reset(ref sessions.Ref) {
	front, house := b.front.Load(), b.house.Load()
	switch {
	case b.here(ref) && front != nil:
		front.Close(ref, &stanza.StreamError{Condition: stanza.StreamReset})
	case house != nil:
		house.Close(context.Background(), stanza.StreamReset, ref)
	}
}

// heldBy returns the record of the session that has the key, nil: none is here.
func (b *book) heldBy(k stream.Key) *record {
	if v, ok := b.keys.Load(k); ok {
		return v.(*record)
	}
	return nil
}

// left is closed when the house has unbound the session: nothing of it changes
// any more.
func (r *record) left() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	switch {
	case r.gone || r.last != nil:
		close(c)
	case r.leaving != nil:
		return r.leaving
	default:
		r.leaving = c
	}
	return c
}
