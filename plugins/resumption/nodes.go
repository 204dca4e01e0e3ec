package resumption

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

// How a session goes from one node to another: its client resumes there. The
// node that has it is asked to end it in order, which writes down everything; of
// a dead one the row is taken as it is, and what that one still writes counts for
// nothing (epoch). One that lives and does not answer keeps it.
//
// A node that drains pauses those whose clients do not come, and offers them: the
// node that its account belongs to goes on with it, as after a restart.

const (
	topicSurrender = "resumption"
	topicOffer     = "resumption offer"
	// surrenderLimit is how long the client waits for the node that had its
	// session.
	surrenderLimit = 3 * time.Second
)

// Take implements stream.Resumptions.
func (b *book) Take(ctx context.Context, k stream.Key, account jid.JID, offered bool) (*stream.Lasting, error) {
	if b.env.Notices == nil {
		return nil, nil
	}
	defer b.takes(ctx, k)()
	node, given, err := nodeOf(ctx, b.env.DB, k, account)
	if err != nil || node == b.env.Node || offered && !given {
		return nil, err
	}
	l, err := b.takeFrom(ctx, k, account, node, given)
	if l == nil && err == nil && !offered { // one that goes on with what was offered may have been faster
		before := node
		if node, given, err = nodeOf(ctx, b.env.DB, k, account); err == nil && node != before && node != b.env.Node {
			l, err = b.takeFrom(ctx, k, account, node, given)
		}
	}
	if err != nil || l == nil {
		return nil, err
	}
	if l.err != nil {
		b.env.Log.Warn("a session of another node cannot be resumed", "err", l.err)
		b.drop(*l)
		return nil, nil
	}
	b.free(ctx, l.Ref.JID, node)
	b.keep(*l)
	return &l.Lasting, nil
}

// takeFrom takes a row from the node that has it, which is asked for it unless it
// has let it go already. nil: there is none, or none to be had.
func (b *book) takeFrom(ctx context.Context, k stream.Key, account jid.JID, node string, given bool) (*left, error) {
	if given {
		return takeOne(ctx, b.env.DB, k, account, b.env.Node, true)
	}
	limited, cancel := context.WithTimeout(ctx, surrenderLimit)
	defer cancel()
	// Also when there is no row: the first one may not be written yet.
	err := b.env.Notices.Tell(limited, topicSurrender, named(k, account))
	lives := node == "" || b.env.Notices.Alive(node)
	if err != nil && lives { // it may go on with the session: the client begins anew
		b.env.Log.Warn("a session is not taken from a node that does not answer", "account", account.String(), "node", node, "err", err)
		return nil, nil
	}
	return takeOne(ctx, b.env.DB, k, account, b.env.Node, lives)
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

// takes begins to take a session from another node, one at a time; the result is
// called when it is here, or not to be had.
func (b *book) takes(ctx context.Context, k stream.Key) (done func()) {
	for b.come(ctx, k); ctx.Err() == nil; b.come(ctx, k) {
		b.mu.Lock()
		if _, busy := b.taking[k]; busy {
			b.mu.Unlock()
			continue
		}
		b.taking[k] = make(chan struct{})
		b.mu.Unlock()
		return func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if _, comes := b.restored[k]; !comes { // else Adopt follows
				b.taken(k)
			}
		}
	}
	return func() {}
}

// taken tells who waits for a session that is being taken; b.mu is held.
func (b *book) taken(k stream.Key) {
	if took, ok := b.taking[k]; ok {
		close(took)
		delete(b.taking, k)
	}
}

// come waits until a session that is being taken is here.
func (b *book) come(ctx context.Context, k stream.Key) {
	b.mu.Lock()
	took, ok := b.taking[k]
	b.mu.Unlock()
	if !ok {
		return
	}
	select {
	case <-took:
	case <-ctx.Done():
	}
}

// surrender gives a session to the node that asks for it.
func (b *book) surrender(text string) {
	k, account, ok := meant(text)
	front := b.front.Load()
	if !ok || front == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), surrenderLimit)
	defer cancel()
	b.come(ctx, k)
	r := b.heldBy(k)
	if r == nil || r.ref.JID.Bare() != account {
		return
	}
	front.Surrender(ctx, k, account)
	// It may be ending by itself. If it stays its row does not say that it is given.
	if err := b.letGo(ctx, r); err != nil && ctx.Err() == nil {
		b.env.Log.Error("a session that goes to another node is not written down", "err", err)
	}
}

// heldBy returns the record of the session that has the key, nil: none is here.
func (b *book) heldBy(k stream.Key) *record {
	if v, ok := b.keys.Load(k); ok {
		return v.(*record)
	}
	return nil
}

// left is closed when the session has ended, or is paused.
func (r *record) left() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	switch {
	case r.gone || r.paused:
		close(c)
	case r.leaving != nil:
		return r.leaving
	default:
		r.leaving = c
	}
	return c
}
