package archive

import (
	"context"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
)

// A page of pending messages, and how much may be under way to one client
// before it has taken any of it: a phone that was away for a month is not
// drowned.
const (
	replayRows   = 100
	replayBytes  = 256 << 10
	replayAdds   = 256              // bytes that a stanza-id and a delay need, about
	replayAtOnce = 8                // pages that are read at the same time for those who go on
	replayRetry  = time.Second      // after a page that could not be read
	commitLimit  = 30 * time.Second // a row is in the database that long after its id was given, at most
)

// replays are the sessions that pending messages are on their way to.
//
//	begin   the session holds live messages back (sessions.State.Replaying)
//	step    a page is read and routed; again, while there are more and the
//	        window is open; the rest when the client has taken the page
//	end     the session is live again, unless a live message was held back
//	        meanwhile: it is in the archive, so there is one more page
type replays struct {
	part *part
	mu   sync.Mutex
	open map[sessions.Ref]*replay
	left map[sessions.Ref]int64 // bound sessions that have had their replay: up to where they need none
	busy chan struct{}          // see place
}

func newReplays(p *part) *replays {
	return &replays{part: p, open: map[sessions.Ref]*replay{}, left: map[sessions.Ref]int64{}, busy: make(chan struct{}, replayAtOnce)}
}

// place is one of few among those that read on goroutines of the component's. It
// is held while they do, and not while their clients are given what was read: one
// that does not take it keeps only itself waiting. nil: on its client's own
// goroutine, which needs none.
type place struct {
	all chan struct{}
	has bool
}

func (r *replays) place() *place { return &place{all: r.busy} }

func (p *place) take() {
	if p != nil && !p.has {
		p.all <- struct{}{}
		p.has = true
	}
}

func (p *place) leave() {
	if p != nil && p.has {
		<-p.all
		p.has = false
	}
}

// replay is one of them. Its fields belong to whoever works on it: at most one
// does, because it is woken only while it waits.
type replay struct {
	ref   sessions.Ref
	alone bool               // only what was sent to exactly this session
	owner *owner             // nil: not looked up yet
	from  int64              // everything up to here was looked at
	floor int64              // where a second look begins: commits come out of order
	sent  map[int64]struct{} // bounded by what may be pending; nil: nothing
	wait  int64              // guarded by replays.mu: continue when this row is taken; 0: at work
}

// register listens to what makes sessions available. Before the presence
// counts the session is marked, so that nothing newer gets in between.
func (r *replays) register(reg *processor.Registrar) {
	processor.On(reg, processor.Binding, processor.Normal, r.restored)
	processor.On(reg, processor.Resumed, processor.Normal, r.resumed)
	processor.On(reg, processor.Outgoing, processor.Early, r.expect)
	processor.On(reg, processor.Outgoing, processor.Last, r.available)
}

// own reports whether the client speaks of its own presence.
func own(f *processor.Flow) bool {
	return f.Kind == stanza.Presence && f.To.IsZero() && (f.Type == "" || f.Type == stanza.TypeUnavailable)
}

func (r *replays) expect(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	switch {
	case !own(f):
	case f.Session.Receives(): // perhaps not much longer: what is older than this it has
		r.mu.Lock()
		if _, had := r.left[f.Session.Ref]; had {
			r.left[f.Session.Ref] = idAt(r.part.env.Clock.Now().Add(-commitLimit))
		}
		r.mu.Unlock()
	case f.Type == "":
		r.part.reg.Change(f.Session.Ref, func(st *sessions.State) { st.Replaying = true })
	}
	return processor.Continue, nil
}

// available replays on the first presence with non-negative priority (XEP-0160
// §2 step 5, RFC 6121 §8.5.2.2.1).
func (r *replays) available(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if !own(f) {
		return processor.Continue, nil
	}
	now, ok := r.part.env.Sessions.Find(f.Session.JID)
	if !ok || now.Ref != f.Session.Ref || !now.Replaying {
		return processor.Continue, nil
	}
	if !now.Receives() { // negative, or gone: it gets nothing that waits
		r.drop(now.Ref)
		r.live(now.Ref)
		return processor.Continue, nil
	}
	r.begin(ctx, now.Ref, false, nil)
	return processor.Continue, nil
}

// consumes reports whether a session of before the start gets what is pending:
// one with a negative priority never does, one without presence gets what was
// sent to it alone.
func consumes(e *sessions.Entry) bool {
	return e.Paused && e.Kind == sessions.Client && (!e.Available || e.Receives())
}

// restored holds messages back from a session of before the start until its
// client comes: what that was sent and has not got comes first (D3). Somebody
// may write as soon as it is bound, from this node if it was another one's.
func (r *replays) restored(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
	e.Replaying = e.Replaying || consumes(e)
	return processor.Continue, nil
}

// resumed brings what is pending to a client that has come back after a
// restart (XEP-0198 §5): what it had been sent is among that.
func (r *replays) resumed(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if consumes(e) && e.Replaying {
		r.begin(ctx, e.Ref, !e.Available, nil)
	}
	return processor.Continue, nil
}

// begin starts a replay; alone: of what was sent to this very session.
func (r *replays) begin(ctx context.Context, ref sessions.Ref, alone bool, at *place) {
	re := &replay{ref: ref, alone: alone, floor: idAt(r.part.env.Clock.Now().Add(-commitLimit))}
	r.mu.Lock()
	re.from = r.left[ref]
	delete(r.left, ref)
	if old := r.open[ref]; old != nil && !old.alone {
		r.mu.Unlock()
		return
	}
	r.open[ref] = re
	r.mu.Unlock()
	r.run(ctx, re, at)
}

// run goes on until the window is full or there is nothing left.
func (r *replays) run(ctx context.Context, re *replay, at *place) {
	defer func() { // it may have ended meanwhile, and nobody tells twice
		if now, ok := r.part.env.Sessions.Find(re.ref.JID); !ok || now.Ref != re.ref {
			r.forget(re.ref)
		}
	}()
	for r.current(re) {
		at.take()
		batch, more, waits, err := r.page(ctx, re)
		at.leave()
		if err != nil {
			r.part.env.Log.Error("pending messages not read", "jid", re.ref.JID.String(), "err", err)
			r.later(re)
			return
		}
		r.part.reg.Route(ctx, batch...)
		r.part.metrics.replayed.Add(float64(len(batch)))
		if waits {
			return // acked goes on
		}
		if more {
			continue
		}
		recent := re.recent()
		if r.part.env.Sessions.GoLive(re.ref, recent) {
			if ref := re.ref; recent != nil {
				r.part.env.Clock.AfterFunc(commitLimit, func() { r.part.env.Sessions.Settle(ref) })
			}
			r.mu.Lock()
			delete(r.open, re.ref)
			if !re.alone {
				r.left[re.ref] = re.from
			}
			r.mu.Unlock()
			if now, ok := r.part.env.Sessions.Find(re.ref.JID); ok && now.Ref == re.ref && now.Replaying {
				r.begin(ctx, re.ref, false, at) // somebody wanted another one and found this one at work
			}
			return
		}
		re.from = min(re.from, re.floor)
	}
}

// recent are the rows it has routed whose live copies may still be on their way
// to the router; nil: none.
func (re *replay) recent() map[int64]struct{} {
	for id := range re.sent {
		if id < re.floor {
			delete(re.sent, id)
		}
	}
	if len(re.sent) == 0 {
		return nil
	}
	return re.sent
}

// later goes on with what the database could not tell now. Until then the
// session gets nothing newer either: it would come before what is older (D3),
// and no presence would ever ask for that again.
func (r *replays) later(re *replay) {
	r.part.env.Clock.AfterFunc(replayRetry, func() {
		r.part.will.during(r.part, func() {
			if r.current(re) {
				r.goOn(re)
			}
		})
	})
}

// current reports whether the replay is still wanted.
func (r *replays) current(re *replay) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[re.ref] == re
}

func (r *replays) live(ref sessions.Ref) {
	for !r.part.env.Sessions.GoLive(ref, nil) { // held messages stay pending
	}
}

func (r *replays) drop(ref sessions.Ref) {
	r.mu.Lock()
	delete(r.open, ref)
	r.mu.Unlock()
}

// forget is drop for a session that has ended.
func (r *replays) forget(ref sessions.Ref) {
	r.drop(ref)
	r.mu.Lock()
	delete(r.left, ref)
	r.mu.Unlock()
}

// acked goes on with a session that has taken its page.
func (r *replays) acked(ref sessions.Ref, ids []int64) {
	r.mu.Lock()
	re := r.open[ref]
	if re == nil || re.wait == 0 || !reaches(ids, re.wait) || r.part.stopped.Load() {
		r.mu.Unlock()
		return
	}
	re.wait = 0
	r.mu.Unlock()
	r.goOn(re)
}

// goOn is run on a goroutine of the component's.
func (r *replays) goOn(re *replay) {
	r.part.tasks.Go(func() { r.run(context.Background(), re, r.place()) })
}

func reaches(ids []int64, id int64) bool {
	for _, x := range ids {
		if x >= id {
			return true
		}
	}
	return false
}

// page reads the next messages. more: there may be further ones; waits: they
// come when the client has taken these.
func (r *replays) page(ctx context.Context, re *replay) (batch []*channel.Envelope, more, waits bool, err error) {
	if re.owner == nil {
		if re.owner, err = r.part.owners.get(ctx, re.ref.JID.Bare()); err != nil {
			return nil, false, false, err
		}
	}
	nothing, look := r.part.quiet.ask(re.owner.id)
	if nothing {
		return nil, false, false, nil
	}
	taken := r.part.acks.of(re.owner)
	rows, err := r.part.pendingAfter(ctx, re.owner, re.from, replayRows)
	r.part.quiet.found(re.owner.id, look, err == nil && len(rows) == 0 && re.from == 0)
	if err != nil || len(rows) == 0 {
		return nil, false, false, err
	}
	if err := r.part.acks.settle(ctx, re.owner, taken, rows); err != nil {
		return nil, false, false, err
	}
	if re.sent == nil {
		re.sent = make(map[int64]struct{}, len(rows))
	}
	batch = make([]*channel.Envelope, 0, len(rows))
	added := make([]byte, 0, len(rows)*replayAdds)
	bytes, last := 0, int64(0)
	for _, row := range rows {
		if bytes >= replayBytes {
			break
		}
		re.from = row.id
		_, twice := re.sent[row.id]
		if _, gone := taken[row.id]; twice || gone {
			continue
		}
		var e *channel.Envelope
		room := added
		whole := r.part.reg.Guard(ctx, &processor.Poison{Raw: row.raw, Account: re.owner.jid, Pending: row.id}, func() {
			e, room = r.part.delayed(re, row, room)
		})
		if !whole || e == nil {
			continue
		}
		added = room
		re.sent[row.id] = struct{}{}
		batch = append(batch, e)
		bytes += len(row.raw)
		last = row.id
	}
	more = len(rows) == replayRows || bytes >= replayBytes
	waits = more && last != 0
	if waits {
		r.mu.Lock()
		re.wait = last
		r.mu.Unlock()
	}
	return batch, more, waits, nil
}

func (p *part) pendingAfter(ctx context.Context, o *owner, after int64, limit int) ([]row, error) {
	return storage.All(ctx, p.env.DB, func(s storage.Row) (r row, err error) {
		var own []byte
		var ownKey, peer, key int64
		if err := s.Scan(&r.id, &own, &ownKey, &r.raw, &key, &peer); err != nil {
			return r, err
		}
		if own != nil {
			r.raw, err = p.opened(&sealedPending, ownKey, own, o.id, r.id)
		} else {
			r.raw, err = p.opened(&sealedRows, key, r.raw, o.id, r.id, peer)
		}
		return r, err
	}, `SELECT p.id, p.stanza, p.key_id, a.stanza, COALESCE(a.key_id, 0), COALESCE(a.peer, 0) FROM archive_pending p LEFT JOIN archive a ON a.owner = p.owner AND a.id = p.id WHERE p.owner = $1 AND p.id > $2 ORDER BY p.id LIMIT $3`,
		o.id, after, limit)
}

// delayed makes the envelope that takes a stored message to the session. On
// the wire it keeps the address it was sent to (RFC 6121 §8.5.2.1.1).
// What is appended to it goes behind added, the page's room for that.
func (p *part) delayed(re *replay, row row, added []byte) (*channel.Envelope, []byte) {
	st, err := stanza.Parse(row.raw, stanza.NSClient, p.jids)
	if err != nil { // removed from the archive, or damaged: it can never be delivered
		p.env.Log.Error("pending message is lost", "owner", re.owner.jid.String(), "id", row.id, "err", err)
		p.acks.add(re.owner, row.id)
		return nil, added
	}
	if re.alone && st.To != re.ref.JID {
		return nil, added
	}
	from := len(added)
	added = p.stanzaID(re.owner, row.id).Append(added, stanza.NSClient)
	added = p.delay(re.owner, row.id).Append(added, stanza.NSClient)
	edits := st.Stamp()
	edits.Append = added[from:len(added):len(added)]
	st.To = re.ref.JID
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Edits: edits, Pending: row.id, Replay: true, Solicited: true, Private: true}, added
}

// delay is XEP-0203 §2: since when the message waits with us.
func (p *part) delay(o *owner, id int64) *stanza.Element {
	return stanza.El(stanza.NSDelay, "delay").With("from", o.jid.Domain()).With("stamp", timeOf(id).Format(stampLayout))
}
