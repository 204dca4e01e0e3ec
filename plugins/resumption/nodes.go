package resumption

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

// How a session goes from one node to another: its client resumes there. The
// node that has it is asked to end it in order, which writes down everything; of
// a dead one the row is taken as it is, and what that one still writes counts for
// nothing (epoch). One that lives and does not answer keeps it.

const (
	topicSurrender = "resumption"
	// surrenderLimit is how long the client waits for the node that had its
	// session.
	surrenderLimit = 3 * time.Second
)

// Take implements stream.Resumptions.
func (b *book) Take(ctx context.Context, k stream.Key, account jid.JID) (*stream.Lasting, error) {
	if b.env.Notices == nil {
		return nil, nil
	}
	node, err := nodeOf(ctx, b.env.DB, k, account)
	if err != nil {
		return nil, err
	}
	if node == b.env.Node {
		return b.takeHere(ctx, k, account)
	}
	limited, cancel := context.WithTimeout(ctx, surrenderLimit)
	defer cancel()
	// Also when there is no row: the first one may not be written yet.
	err = b.env.Notices.Tell(limited, topicSurrender, hex.EncodeToString(k[:])+" "+account.String())
	lives := node == "" || b.env.Notices.Alive(node)
	if err != nil && lives { // it may go on with the session: the client begins anew
		b.env.Log.Warn("a session is not taken from a node that does not answer", "account", account.String(), "node", node, "err", err)
		return nil, nil
	}
	return b.take(ctx, k, account, lives)
}

// takeHere is Take for a session of one of this node's fronts, or of one that it
// has lost.
func (b *book) takeHere(ctx context.Context, k stream.Key, account jid.JID) (*stream.Lasting, error) {
	r := b.heldBy(k)
	if r != nil && r.ref.JID.Bare() == account {
		limited, cancel := context.WithTimeout(ctx, surrenderLimit)
		defer cancel()
		b.release(limited, r)
	}
	return b.take(ctx, k, account, r != nil)
}

// take makes the row this node's; asked: somebody had it, and was asked for it.
func (b *book) take(ctx context.Context, k stream.Key, account jid.JID, asked bool) (*stream.Lasting, error) {
	l, err := takeOne(ctx, b.env.DB, k, account, b.env.Node, asked)
	if err != nil || l == nil {
		return nil, err
	}
	if l.err != nil {
		b.env.Log.Warn("a session of another node cannot be resumed", "err", l.err)
		b.drop(*l)
		return nil, nil
	}
	b.keep(*l)
	return &l.Lasting, nil
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
	// sweepEvery is how often those are removed that were kept long enough.
	sweepEvery = 10 * time.Minute
)

// sweep runs until ctx is done.
func (b *book) sweep(ctx context.Context) {
	again := time.NewTicker(sweepEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
		if !b.env.Owns(Name) {
			continue
		}
		if err := deleteEnded(ctx, b.env.DB, b.env.Clock.Now().Add(-endedFor)); err != nil && ctx.Err() == nil {
			b.env.Log.Warn("ended sessions stay for now", "err", err)
		}
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
	r := b.heldBy(k)
	if r == nil || r.ref.JID.Bare() != account {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), surrenderLimit)
	defer cancel()
	b.release(ctx, r)
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
