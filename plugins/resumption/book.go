package resumption

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

// book is what the components of one Host share: a record of each session
// that is kept, and which of them are to be written. Locks: flushing,
// record.mu, mu.
type book struct {
	env     plugins.Env
	house   atomic.Pointer[processor.Registrar]
	front   atomic.Pointer[stream.Registrar]
	seed    maphash.Seed
	keepers atomic.Int32 // components at work; two while one replaces the other
	fronts  atomic.Int32
	limit   atomic.Int64
	every   atomic.Int64 // a time.Duration

	records  sync.Map // Conn number → *record
	keys     sync.Map // stream.Key → *record
	count    atomic.Int64
	wake     chan struct{}
	flushing sync.Mutex // one flush at a time

	mu       sync.Mutex
	dirty    []*record
	timer    bool
	restored map[stream.Key]left // between Restore or Take and Adopt, which the streamer calls one after the other
}

// record is one session.
type record struct {
	ref   sessions.Ref
	key   stream.Key
	id    int64
	base  uint64
	span  time.Duration
	epoch int64

	mu      sync.Mutex
	seq     uint64 // what is done: stored or refused, and not what a batch is committing
	refused stream.Refusals
	stored  uint64 // what the row says, as far as is known
	there   bool   // the row is in the table
	stale   bool   // the row may have to say more than another h
	edits   uint64 // of away, last and sent
	row     image  // what the row was made of
	trying  image  // of the one that a batch is committing
	says    uint64 // the h of that one, as a place among the session's stanzas
	busy    int    // commits of batches under way
	queued  bool   // in book.dirty
	paused  bool   // Pause was called: the Unbind follows
	away    time.Time
	last    *sessions.Entry  // Paused: what it was
	sent    *stream.Outbound // Paused: what goes into the row
	gone    bool             // ended: the row goes
	leaving chan struct{}    // closed when the house has unbound the session; nil: nobody waits
	paired  bool             // the account has, or had, another session beside it
	waits   bool             // of an earlier process, and its client has not come yet
}

// image tells rows apart: what they were made of. The zero value is none.
type image struct{ state, edits uint64 } // state is a hash

func newBook(env plugins.Env) *book {
	b := &book{env: env, seed: maphash.MakeSeed(), restored: map[stream.Key]left{}, wake: make(chan struct{}, 1)}
	if !env.Front() { // there its core has the book
		env.Sessions.Adopted(b.joined)
		env.OnForget(topicSurrender, b.surrender)
		b.answer()
	}
	if env.Notices != nil && !env.Front() {
		env.Notices.OnDeath(func(ctx context.Context, node string, life uint64) error {
			return buryAll(ctx, env.DB, node, life, env.Clock.Now())
		})
	}
	b.limit.Store(int64(defaults().Sessions))
	b.every.Store(int64(defaults().Every))
	return b
}

func (b *book) find(ref sessions.Ref) *record {
	v, ok := b.records.Load(ref.Conn)
	if !ok || v.(*record).ref != ref {
		return nil
	}
	return v.(*record)
}

// Begin implements stream.Resumptions.
func (b *book) Begin(l stream.Lasting) {
	if b.count.Load() >= b.limit.Load() || b.keepers.Load() == 0 {
		return
	}
	b.begin(l)
}

func (b *book) begin(l stream.Lasting) {
	r := &record{ref: l.Ref, key: l.Key, id: idOf(l.Key), base: l.Base, span: l.Window, seq: l.Base, stored: l.Base, stale: true, paired: b.accompanied(l.Ref)}
	b.add(r)
	r.mu.Lock()
	b.mark(r)
	r.mu.Unlock()
}

func (b *book) add(r *record) {
	b.records.Store(r.ref.Conn, r)
	b.keys.Store(r.key, r)
	b.count.Add(1)
}

func (b *book) remove(r *record) {
	b.keys.CompareAndDelete(r.key, r)
	if _, had := b.records.LoadAndDelete(r.ref.Conn); had {
		b.count.Add(-1)
	}
}

// Keeps implements stream.Resumptions.
func (b *book) Keeps(ref sessions.Ref) bool { return b.find(ref) != nil }

// Away implements stream.Resumptions.
func (b *book) Away(ref sessions.Ref, since time.Time) {
	b.with(ref, func(r *record) {
		r.away = since
		r.edits++
		r.waits = r.waits && !since.IsZero()
	})
}

// joined tells the sessions of an account that there is another one. What that
// one takes from now on is not pending any more, so after a restart nobody could
// say what theirs have missed. Those that wait since a restart end at once.
func (b *book) joined(e *sessions.Entry) {
	for _, other := range b.env.Sessions.Account(e.JID.Bare()) {
		if other.Ref == e.Ref {
			continue
		}
		waits := false
		b.with(other.Ref, func(r *record) { r.pair(); waits = r.waits })
		b.with(e.Ref, (*record).pair)
		if waits {
			b.reset(other.Ref)
		}
	}
}

// End implements stream.Resumptions.
func (b *book) End(ref sessions.Ref) { b.with(ref, func(r *record) { r.gone = true }) }

// Pause implements stream.Resumptions.
func (b *book) Pause(ref sessions.Ref, sent *stream.Outbound) {
	b.with(ref, func(r *record) { r.sent, r.paused = sent, true; r.edits++ })
}

// ended is the end of a session's entry in the house. One that goes on is written
// down soon: its client may be at another node already.
func (b *book) ended(e *sessions.Entry) {
	if e.Paused && b.env.Notices != nil {
		defer b.kick()
	}
	b.with(e.Ref, func(r *record) {
		// Its front has gone, or this node goes before it: whoever comes may have it.
		r.paused = r.paused || e.Buried || e.Paused && !b.here(e.Ref)
		if r.gone = !e.Paused && !e.Buried; !r.gone {
			r.last = e
			r.edits++
		}
	})
}

// with changes a record that has to be written after that.
func (b *book) with(ref sessions.Ref, f func(*record)) {
	r := b.find(ref)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
	r.stale = true
	b.mark(r)
	if r.leaving != nil && (r.gone || r.last != nil) { // after mark: who has waited flushes at once
		close(r.leaving)
		r.leaving = nil
	}
}

// writes are the statements for a record.
type writes struct{ row, count *storage.Stmt }

// lazily is for what may find that the session is another process's by now.
func lazily() writes { return writes{&writeRow, &writeCount} }

// guards are for rows that nobody else may store for the session.
func (b *book) guards() writes {
	if b.env.Notices == nil {
		return lazily()
	}
	return writes{&guardRow, &guardCount}
}

// write adds the record to w as far as it has changed, unless the session is
// ending: everything up to seq is done when w is committed. row is what the whole
// row was made of; zero: h goes alone. It says less than seq while the client may
// not know of a refusal. r.mu is held.
func (b *book) write(r *record, w *storage.WriteSet, seq uint64, s writes) (row image, says uint64, added bool) {
	says = r.refused.Below(seq)
	h := int64(says - r.base)
	if r.there && !r.stale {
		w.Add(s.count, r.id, r.epoch, h)
		return image{}, says, true
	}
	e := r.last
	if e == nil {
		now, ok := b.env.Sessions.Find(r.ref.JID)
		if !ok || now.Ref != r.ref {
			return image{}, 0, false
		}
		e = now
	}
	if b.accompanied(r.ref) {
		r.pair()
	}
	blob, alone := encodeState(e), toInt(!r.paired)
	row = image{maphash.Bytes(b.seed, blob) | 1, r.edits}
	r.stale = false
	if r.there && row == r.row {
		w.Add(s.count, r.id, r.epoch, h)
		return image{}, says, true
	}
	var away int64
	if !r.away.IsZero() {
		away = r.away.UnixMicro()
	}
	var acked, queue any
	if r.sent != nil {
		acked, queue = int64(r.sent.Acked), encodeQueue(r.sent)
	}
	w.Add(s.row, r.id, r.key[:], r.ref.JID.Bare().String(), r.epoch, h, r.span.Microseconds(), away, blob, alone, acked, queue, b.env.Node, toInt(r.paused), int64(b.life()))
	return row, says, true
}

// accompanied reports whether the account has another session now.
func (b *book) accompanied(ref sessions.Ref) bool {
	return slices.ContainsFunc(b.env.Sessions.Account(ref.JID.Bare()), func(e *sessions.Entry) bool { return e.Ref != ref })
}

// pair notes that the session is not the account's only one. r.mu is held.
func (r *record) pair() {
	if !r.paired {
		r.paired = true
		r.edits++
	}
}

// written notes what is in the table now. A row that is older than one that is
// there has changed nothing (writeRow). r.mu is held.
func (b *book) written(r *record, seq uint64, row image) {
	if row != (image{}) && (!r.there || seq >= r.stored) {
		r.there, r.row = true, row
	}
	r.stored = max(r.stored, seq)
}

// mark puts the record on the list of those to be written soon. r.mu is held.
func (b *book) mark(r *record) {
	if r.queued {
		return
	}
	r.queued = true
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = append(b.dirty, r)
	if !b.timer {
		b.timer = true
		b.env.Clock.AfterFunc(time.Duration(b.every.Load()), b.kick)
	}
}

// Restore implements stream.Resumptions.
func (b *book) Restore(ctx context.Context) ([]stream.Lasting, error) {
	if err := b.flush(ctx); err != nil { // what the streamer has left when it stopped alone
		return nil, err
	}
	rows, err := takeAll(ctx, b.env.DB, b.env.Node, b.life(), b.env.Notices == nil, b.heldBy)
	if err != nil {
		return nil, err
	}
	list := make([]stream.Lasting, 0, len(rows))
	for _, l := range rows {
		if l.err != nil {
			b.env.Log.Warn("a session of before the start cannot be resumed", "err", l.err)
			b.drop(l)
			continue
		}
		b.keep(l)
		list = append(list, l.Lasting)
	}
	return list, nil
}

// Adopt implements stream.Resumptions.
func (b *book) Adopt(k stream.Key, ref sessions.Ref) {
	b.mu.Lock()
	l, ok := b.restored[k]
	delete(b.restored, k)
	b.mu.Unlock()
	if !ok {
		return
	}
	b.add(&record{ref: ref, key: k, id: idOf(k), span: l.Window, epoch: l.epoch, seq: l.H, stored: l.H, there: true, away: l.Away, waits: true})
}

// drop lets a row of an earlier process go.
func (b *book) drop(l left) {
	r := &record{id: l.id, epoch: l.epoch, there: true, gone: true}
	r.mu.Lock()
	b.mark(r)
	r.mu.Unlock()
}

// forget lets the rows of an account go before it returns.
func (b *book) forget(ctx context.Context, account jid.JID) error {
	if err := b.flush(ctx); err != nil {
		return err
	}
	return deleteAccount(ctx, b.env.DB, account)
}

// leave is the end of a component. With the last one of its kind nobody keeps
// the rows up to date any more: those of sessions that go on would tell an h
// that is too low.
func (b *book) leave(ctx context.Context, of *atomic.Int32) error {
	if of.Add(-1) == 0 {
		b.records.Range(func(_, v any) bool {
			r := v.(*record)
			r.mu.Lock()
			if r.last == nil && !r.paused {
				r.gone = true
				b.mark(r)
			}
			r.mu.Unlock()
			return true
		})
	}
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return b.flush(limited)
}
