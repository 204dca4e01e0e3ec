package resumption

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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
// A node that drains pauses those whose clients do not come. They wait in the
// database, as after its stop, also while it lives.

const (
	topicSurrender = "resumption"
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

// Take implements stream.Resumptions.
func (b *book) Take(ctx context.Context, k stream.Key, account jid.JID) (*stream.Lasting, error) {
	if b.env.Notices == nil {
		return nil, nil
	}
	at, given, err := whereIs(ctx, b.env.DB, k, account)
	if err != nil {
		return nil, err
	}
	var l *left
	if at.node == b.env.Node {
		l, err = b.takeHere(ctx, k, account)
	} else {
		l, err = b.takeFrom(ctx, at, k, account)
	}
	if err != nil || l == nil {
		return nil, err
	}
	if l.err != nil {
		b.env.Log.Warn("a session of another node cannot be resumed", "err", l.err)
		b.drop(*l)
		return nil, nil
	}
	if given { // it has waited: who has come meanwhile does not see it, and may have taken what was for it
		l.State.Buried = true
		l.Over = l.Over || slices.ContainsFunc(b.env.Sessions.Account(account), func(e *sessions.Entry) bool { return e.JID != l.Ref.JID })
	}
	b.free(ctx, l.Ref.JID, at.node)
	b.keep(*l)
	return &l.Lasting, nil
}

// takeHere is Take for a session of one of this node's fronts, or of one that it
// has lost.
func (b *book) takeHere(ctx context.Context, k stream.Key, account jid.JID) (*left, error) {
	r := b.heldBy(k)
	if r != nil && r.ref.JID.Bare() == account {
		b.release(ctx, r)
	}
	return takeOne(ctx, b.env.DB, k, account, b.env.Node, b.life(), r != nil)
}

// freeLimit is how long an address may seem to be in use on a node that has let
// it go.
const freeLimit = time.Second

// free waits until this node has seen that the address is not in use any more on
// the one that had the session.
func (b *book) free(ctx context.Context, at jid.JID, node string) {
	old, ok := b.env.Sessions.Find(at)
	if !ok || old.Node != node {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, freeLimit)
	defer cancel()
	select {
	case <-b.env.Sessions.Gone(old.Ref):
	case <-ctx.Done():
	}
}

// takeFrom takes a session from the node that has it; node "": there is no row,
// but the first one may not be written yet. nil: it cannot be had.
func (b *book) takeFrom(ctx context.Context, at owner, k stream.Key, account jid.JID) (*left, error) {
	within := takeLimit
	if at.node == "" {
		within = surrenderLimit
	}
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		asked := error(nil)
		lives := b.lives(at)
		if lives {
			asked = b.env.Notices.Ask(limited, at.node, topicSurrender, hex.EncodeToString(k[:])+" "+account.String())
			lives = b.lives(at)
		}
		if !lives { // nobody may hear behind its client's presence that it has gone
			asked = b.env.Notices.Buried(limited, at.node, at.life, account)
		}
		if lives || asked == nil {
			// The node's next life may have been faster: then that one has it.
			l, err := takeOneIf(ctx, b.env.DB, k, account, owner{b.env.Node, b.life()}, func(l *left) bool {
				return l.given || !lives && (l.at == at || at.life == 0)
			})
			if l != nil && !lives && !l.given {
				l.State.Buried = true // or all nodes died, and nobody has seen it there since
			}
			if err != nil || l != nil || lives && asked == nil {
				return l, err
			}
			before := at
			if at, _, err = whereIs(ctx, b.env.DB, k, account); err != nil || at.node == "" {
				return nil, err
			}
			if at != before && at.node != b.env.Node {
				continue
			}
		}
		if at.node != "" && wait(limited, askAgain) {
			continue
		}
		b.env.Log.Warn("a session is not taken from a node that does not answer", "account", account.String(), "node", at.node, "err", asked)
		return nil, nil // it may go on with the session: the client begins anew
	}
}

// lives reports whether who has a session is there; nobody is asked for when nobody
// has it, and everybody then.
func (b *book) lives(at owner) bool {
	if at.node == "" || at.life == 0 {
		return at.node == "" || b.env.Notices.Alive(at.node)
	}
	return b.env.Notices.LifeOf(at.node) == at.life
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
	w.Add(&endRow, r.id, r.epoch, int64(r.refused.Below(r.seq)-r.base), b.env.Clock.Now().UnixMicro())
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
		if !b.env.Notices.Alive(node) {
			err = errors.Join(err, seenDead(ctx, b.env.DB, node, now))
		}
		err = errors.Join(err, b.lapse(ctx, node, now))
	}
	return errors.Join(err, deleteEnded(ctx, b.env.DB, now.Add(-endedFor)))
}

// Moves implements stream.Resumptions: what several sessions of an account have
// taken nobody could say elsewhere.
func (b *book) Moves(_ context.Context, ref sessions.Ref) bool {
	r := b.find(ref)
	if r == nil || b.env.Notices == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.paired && !b.accompanied(ref)
}

// lapse ends the sessions that wait in the database, because their node is gone or
// has paused them, and that nobody comes for. Where contacts have not been told,
// because that was in order, they are now.
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

// surrender gives a session to the node that asks for it.
func (b *book) surrender(text string) {
	var k stream.Key
	key, of, _ := strings.Cut(text, " ")
	raw, err := hex.DecodeString(key)
	account, wrong := jid.Parse(of)
	if err != nil || wrong != nil || len(raw) != len(k) {
		return
	}
	copy(k[:], raw)
	ctx, cancel := context.WithTimeout(context.Background(), surrenderLimit)
	defer cancel()
	if r := b.awaitHeld(ctx, k); r != nil && r.ref.JID.Bare() == account {
		b.release(context.Background(), r)
	}
}

// awaitHeld is heldBy that waits for a session which is about to go on here.
func (b *book) awaitHeld(ctx context.Context, k stream.Key) *record {
	for {
		b.mu.Lock()
		_, coming := b.restored[k]
		b.mu.Unlock()
		if r := b.heldBy(k); r != nil || !coming || !wait(ctx, askAgain) {
			return r
		}
	}
}

// release ends a session here, as far as it can go on elsewhere, and returns when
// that is written down. It may be ending by itself. One that does not end keeps
// its row, which does not say that it is given. Whether a front is there that does
// not answer is known when its lease is over: then the session ends with it.
func (b *book) release(ctx context.Context, r *record) {
	within := takeLimit
	if b.here(r.ref) {
		within = surrenderLimit
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	front, house := b.front.Load(), b.house.Load()
	switch {
	case b.here(r.ref) && front != nil:
		front.Surrender(ctx, r.key, r.ref.JID.Bare())
	case house != nil:
		house.Note(ctx, encodeNote(note{Op: opSurrender}), r.ref)
	}
	select {
	case <-r.left():
	case <-ctx.Done():
		return
	}
	if err := b.flush(ctx); err != nil {
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
