package processor

import (
	"context"
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/delivery"
	"parley/router/sessions"
	"parley/storage"
)

// run is one batch on its way: what is stored at its end, and what goes out
// after that.
type run struct {
	server  *Server
	table   *table
	works   []*work
	done    sessions.Ref // whose stanza was handled last: one Handled covers those before it
	doneSeq uint64

	few   [8]*work         // room for works
	first [1]work          // room for the only one
	room  []work           // room for more stanzas
	ahead int              // how many are expected
	ack   channel.Envelope // room for the first Handled
	acked bool             // it is used: the router's now
}

func newRun(s *Server, t *table, stanzas int) *run {
	r := &run{server: s, table: t, ahead: stanzas}
	r.works = r.few[:0]
	if stanzas == 1 {
		r.room = r.first[:]
	}
	return r
}

// work is one stanza's share of a run, so that a commit that fails can tell
// whose fault it was.
type work struct {
	cause   *stanza.Stanza
	seq     uint64 // its place among what its session has sent
	writes  storage.WriteSet
	out     []*channel.Envelope
	settled []func(stored bool)

	// Room for what nearly every stanza needs.
	flow  Flow
	three [3]*channel.Envelope
}

// settle tells, once, what became of the work's rows.
func (w *work) settle(s *Server, stored bool) {
	for _, f := range w.settled {
		if err := s.protect(func() error { f(stored); return nil }); err != nil && w.cause != nil {
			s.log.Error("what waited for the rows of a stanza failed", "from", w.cause.From.String(), "id", w.cause.ID, "err", err)
		}
	}
	w.settled = nil
}

// Store adds a row that is committed before anything of this stanza goes out.
// A flow outside of a run (there is none) would panic.
func (f *Flow) Store(s *storage.Stmt, args ...any) { f.work.writes.Add(s, args...) }

// Settled calls done once with whether the rows of this stanza were committed,
// or were not because it was refused.
func (f *Flow) Settled(done func(stored bool)) { f.work.settled = append(f.work.settled, done) }

// Send adds an envelope that goes out after the commit, before the recipient's
// copy.
func (f *Flow) Send(e *channel.Envelope) { f.work.out = append(f.work.out, e) }

func (r *run) begin(cause *stanza.Stanza) *work {
	if len(r.room) == 0 {
		r.room = make([]work, max(r.ahead, 1))
	}
	w := &r.room[0]
	r.room, r.ahead = r.room[1:], r.ahead-1
	w.cause, w.out = cause, w.three[:0]
	r.works = append(r.works, w)
	return w
}

func (r *run) pass(e *channel.Envelope) {
	w := r.begin(nil)
	w.out = append(w.out, e)
}

func (r *run) handled(session sessions.Ref, seq uint64) { r.done, r.doneSeq = session, seq }

// flush commits what the run has collected and hands everything to the router.
// A set that cannot be committed costs its own stanza an error, nobody else.
func (r *run) flush(ctx context.Context) {
	if len(r.works) == 0 && r.done.IsZero() {
		return
	}
	all := r.writes()
	kept := r.keep(r.done, r.doneSeq, all)
	if all != nil {
		err := r.commit(ctx, all)
		if kept {
			r.kept(r.done, r.doneSeq, err == nil)
		}
		if err != nil {
			kept = false
			r.commitEach(ctx, err)
		}
	}
	for _, w := range r.works {
		w.settle(r.server, true) // but those that commitEach has told already
	}
	out := r.out(kept)
	r.done = sessions.Ref{}
	r.works = r.works[:0]
	r.server.send(ctx, out)
}

// commit survives rows that the database's driver panics at.
func (r *run) commit(ctx context.Context, rows *storage.WriteSet) error {
	return r.server.protect(func() error { return r.server.env.DB.Commit(ctx, rows) })
}

// writes are all rows of the run; nil: there are none.
func (r *run) writes() *storage.WriteSet {
	var all *storage.WriteSet
	merged := false
	for _, w := range r.works {
		switch {
		case w.writes.Len() == 0:
		case all == nil:
			all = &w.writes
		default:
			if !merged {
				first := all
				all, merged = new(storage.WriteSet), true
				all.Merge(first)
			}
			all.Merge(&w.writes)
		}
	}
	return all
}

// out is everything that goes to the router.
func (r *run) out(kept bool) []*channel.Envelope {
	var out []*channel.Envelope
	if len(r.works) == 1 {
		out = r.works[0].out
	} else {
		out = make([]*channel.Envelope, 0, 2*len(r.works)+1)
		for _, w := range r.works {
			out = append(out, w.out...)
		}
	}
	if r.done.IsZero() {
		return out
	}
	ack := &r.ack
	if r.acked {
		ack = new(channel.Envelope)
	}
	r.acked = true
	ack.Kind, ack.Session, ack.Seq, ack.Stored = channel.Handled, r.done, r.doneSeq, kept
	return append(out, ack)
}

// commitEach finds out whose fault it is that the batch was not committed. A
// database that is away is nobody's: it has been tried for long enough, and
// every further try would keep the sender waiting (reliability row 31).
func (r *run) commitEach(ctx context.Context, err error) {
	for _, w := range r.works {
		if w.writes.Len() == 0 {
			continue
		}
		if !errors.Is(err, storage.ErrUnavailable) {
			var by sessions.Ref
			var seq uint64
			if w.seq != 0 {
				by, seq = w.flow.Session.Ref, w.seq
			}
			kept := r.keep(by, seq, &w.writes)
			err = r.commit(ctx, &w.writes)
			if kept {
				r.kept(by, seq, err == nil)
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errPanic) {
			r.server.struck(ctx, r.table, &Poison{Raw: w.cause.Raw, Sender: w.cause.From.Bare()}, err)
		}
		r.server.metrics.refused.Inc()
		r.server.log.Error("message not stored", "from", w.cause.From.String(), "id", w.cause.ID, "err", err)
		w.settle(r.server, false)
		w.out = r.answer(w.cause, storeError(err))
	}
}

// keep lets what says how far the session has come be committed along.
// w nil: there is nothing to commit.
func (r *run) keep(by sessions.Ref, seq uint64, w *storage.WriteSet) (kept bool) {
	if by.IsZero() || r.table.keeper == nil {
		return false
	}
	_ = r.server.protect(func() error { kept = r.table.keeper.Keep(by, seq, w != nil, w); return nil }) // it is logged
	return kept
}

func (r *run) kept(by sessions.Ref, seq uint64, stored bool) {
	_ = r.server.protect(func() error { r.table.keeper.Kept(by, seq, stored); return nil })
}

func storeError(err error) *stanza.Error {
	if errors.Is(err, storage.ErrUnavailable) {
		return stanza.NewError(stanza.ResourceConstraint, "the message could not be stored; try again later")
	}
	return stanza.NewError(stanza.InternalServerError, "")
}

// answer returns the envelope of an error reply, if one may be sent.
func (r *run) answer(st *stanza.Stanza, e *stanza.Error) []*channel.Envelope {
	if reply := st.ErrorReply(e); reply != nil {
		return []*channel.Envelope{{Kind: channel.Route, Raw: reply.Raw, Stanza: reply}}
	}
	return nil
}

// receive handles a stanza of a bound stream.
func (r *run) receive(ctx context.Context, e *channel.Envelope) {
	st := e.Stanza
	r.server.metrics.byKind[st.Kind].Inc()
	entry, ok := r.server.env.Sessions.Find(e.Session.JID)
	if !ok || entry.Ref != e.Session {
		return // its session was replaced or ended meanwhile: not handled, so never acknowledged (D1)
	}
	w := r.begin(st)
	defer r.handled(e.Session, e.Seq)
	w.seq = e.Seq
	f := &w.flow
	*f = Flow{Stanza: st, Session: entry, work: w, Hops: e.Hops, came: e}
	r.guard(ctx, f, func() error {
		nobody := entry.Kind == sessions.Component && f.From.IsZero() // an error would find no way back
		if e.Reason != "" && !nobody {
			return stanza.NewError(stanza.Condition(e.Reason), "")
		}
		if entry.Kind == sessions.Component {
			return r.foreign(ctx, f)
		}
		return r.outgoing(ctx, f)
	})
}

// guard is the one recover per stanza, and the one place where a handler's
// error becomes the answer.
func (r *run) guard(ctx context.Context, f *Flow, do func() error) {
	err := r.harmless(ctx, f, do)
	if err == nil {
		return
	}
	se := r.server.stanzaError(f.Stanza, err)
	f.work.abandon(r.server)
	f.work.out = append(f.work.out, r.answer(f.Stanza, se)...)
}

// stanzaError is what the sender hears of a handler's error; the rest is logged.
func (s *Server) stanzaError(st *stanza.Stanza, err error) *stanza.Error {
	var se *stanza.Error
	if errors.As(err, &se) {
		return se
	}
	s.log.Error("stanza failed", "from", st.From.String(), "to", st.To.String(), "id", st.ID, "err", err)
	if errors.Is(err, storage.ErrUnavailable) {
		return stanza.NewError(stanza.ResourceConstraint, "")
	}
	return stanza.NewError(stanza.InternalServerError, "")
}

// harmless runs do, unless the stanza was set aside.
func (r *run) harmless(ctx context.Context, f *Flow, do func() error) error {
	if s := r.server; s.poison.n.Load() > 0 && s.poison.isAside(poisonOf(f)) {
		return stanza.NewError(stanza.InternalServerError, "")
	}
	err := r.server.protect(do)
	if !errors.Is(err, errPanic) {
		return err
	}
	if !r.server.struck(ctx, r.table, poisonOf(f), err) && f.row != 0 { // the row is there to be delivered again
		f.work.abandon(r.server)
		return nil
	}
	return err
}

// abandon takes back what hooks have collected for a stanza that is refused in
// the end: what is refused is not archived (XEP-0313 §6.1), and nothing that
// would name its rows goes out.
func (w *work) abandon(s *Server) {
	w.writes.Reset()
	w.settle(s, false)
	if w.cause != nil && w.cause.Kind == stanza.Message {
		w.out = nil
	}
}

// outgoing is the road of a local client's stanza.
func (r *run) outgoing(ctx context.Context, f *Flow) error {
	if err := valid(f.Stanza); err != nil {
		return err
	}
	if f.To.IsZero() && f.Kind == stanza.Message { // RFC 6120 §10.3.1
		f.Stanza.To = f.Session.JID.Bare()
	}
	if v, err := fireAll(ctx, r.table.outgoing, f); err != nil || v == Stop {
		return err
	}
	if f.To.IsZero() { // RFC 6120 §10.3
		if f.Kind == stanza.Presence {
			return nil
		}
		return r.request(ctx, f, Self, f.Session.JID.Bare())
	}
	return r.address(ctx, f)
}

// valid checks what RFC 6120 §8.2.3 asks of every IQ.
func valid(st *stanza.Stanza) error {
	if st.Kind != stanza.IQ {
		return nil
	}
	switch st.Type {
	case "get", "set":
		if len(st.Children) != 1 {
			return stanza.NewError(stanza.BadRequest, "a request has exactly one payload")
		}
	case "result", "error":
	default:
		return stanza.NewError(stanza.BadRequest, "unknown type")
	}
	if st.ID == "" {
		return stanza.NewError(stanza.BadRequest, "id is missing")
	}
	return nil
}

// foreign is the road of a component's stanza; it may speak for its own
// domain only (XEP-0114 §4).
func (r *run) foreign(ctx context.Context, f *Flow) error {
	if f.From.IsZero() || f.To.IsZero() {
		r.refuse(f, stanza.StreamImproperAddressing)
		return nil
	}
	if f.From.Domain() != f.Session.JID.Domain() {
		r.refuse(f, stanza.StreamInvalidFrom)
		return nil
	}
	if err := valid(f.Stanza); err != nil {
		return err
	}
	return r.address(ctx, f)
}

func (r *run) refuse(f *Flow, c stanza.StreamCondition) {
	f.Send(&channel.Envelope{Kind: channel.Close, To: []sessions.Ref{f.Session.Ref}, Reason: string(c)})
}

// arrive is the road of a stanza that no local client sent.
func (r *run) arrive(ctx context.Context, f *Flow) {
	f.work = r.begin(f.Stanza)
	r.guard(ctx, f, func() error { return r.address(ctx, f) })
}

// address finds out whose business the stanza is (RFC 6120 §10.5).
func (r *run) address(ctx context.Context, f *Flow) error {
	to := f.To
	if o, key := r.table.ownedBy(f.Stanza); o != nil {
		return r.own(ctx, f, o, key)
	}
	if !r.server.env.Local(to.Domain()) {
		r.route(f)
		return nil
	}
	if to.Local() == "" {
		if f.Kind == stanza.IQ {
			return r.request(ctx, f, Host, to.Host())
		}
		if v, err := fire(ctx, r.table, ToServer, f); err != nil || v == Stop || f.Kind == stanza.Presence {
			return err
		}
		return stanza.NewError(stanza.ServiceUnavailable, "")
	}
	if at, ok := r.elsewhere(f); ok {
		edits := f.Edits()
		f.Send(&channel.Envelope{Kind: channel.Arrive, To: []sessions.Ref{at}, Raw: edits.Render(nil, f.Raw), Stanza: f.Stanza, Hops: f.Hops})
		return nil
	}
	f.Account = to.Bare()
	if f.Kind == stanza.IQ && to.IsBare() { // RFC 6121 §8.5.2.1.3
		target := Account
		if f.Session != nil && f.Session.JID.Bare() == to {
			target = Self
		}
		return r.request(ctx, f, target, to)
	}
	return r.incoming(ctx, f)
}

// elsewhere reports whether the stanza is for a session of another node, which
// alone remembers what it means: to whom the session has shown itself, what it
// has sent.
func (r *run) elsewhere(f *Flow) (at sessions.Ref, ok bool) {
	if !f.To.IsFull() || f.Hops > 0 {
		return at, false
	}
	if f.Kind != stanza.Presence && !(f.Kind == stanza.Message && f.Type == "error") {
		return at, false
	}
	e, ok := r.server.env.Sessions.Find(f.To)
	if !ok || e.Node == r.server.env.Node {
		return at, false
	}
	return e.Ref, true
}

// incoming is the road to a local account.
func (r *run) incoming(ctx context.Context, f *Flow) error {
	action := delivery.Decide(f.Stanza, r.server.env.Sessions.Account(f.Account))
	if action == delivery.Refuse || action == delivery.Keep {
		f.Fails = stanza.NewError(stanza.ServiceUnavailable, "")
		f.Keep = action == delivery.Keep
	}
	if v, err := fireAll(ctx, r.table.incoming, f); err != nil || v == Stop {
		return err
	}
	switch {
	case action == delivery.Drop:
		return nil
	case f.Fails != nil && (f.Pending == 0 || !f.Keep):
		return f.Fails
	}
	r.route(f)
	return nil
}

func (r *run) route(f *Flow) {
	e := f.came // it belongs to this stage now
	f.came = nil
	if e == nil {
		e = new(channel.Envelope)
	}
	*e = channel.Envelope{Kind: channel.Route, Raw: f.Raw, Stanza: f.Stanza, Pending: f.Pending, Private: f.Private, Hops: f.Hops}
	if f.Session != nil {
		e.Session = f.Session.Ref
	}
	if f.edited {
		e.Edits = f.edits
	} else if f.Session != nil {
		e.Edits = f.Stamp()
	}
	f.work.out = append(f.work.out, e)
}

// undelivered deals with what a dead session left behind (XEP-0198 §5): IQ
// requests get an error, presence is dropped, messages are the archive's.
func (r *run) undelivered(ctx context.Context, e *channel.Envelope) {
	f := &Flow{Stanza: e.Stanza, Account: e.Session.JID.Bare(), Pending: e.Pending, row: e.Pending, Since: e.Stamp, Hops: e.Hops + 1, work: r.begin(e.Stanza)}
	if f.Hops > channel.MaxHops {
		return
	}
	r.guard(ctx, f, func() error {
		if r.server.asks.fail(f.Stanza) {
			return nil
		}
		if v, err := fire(ctx, r.table, Undelivered, f); err != nil || v == Stop {
			return err
		}
		if f.Kind == stanza.Presence || f.Kind == stanza.Message && f.Pending != 0 {
			return nil
		}
		return stanza.NewError(stanza.ServiceUnavailable, "")
	})
}

// request answers an IQ that the house itself is asked.
func (r *run) request(ctx context.Context, f *Flow, target Target, owner jid.JID) error {
	if f.Type == "result" || f.Type == "error" { // RFC 6120 §10.3.3: an orphan is ignored
		r.server.asks.answer(f.Stanza)
		return nil
	}
	if target == Account {
		if v, err := fire(ctx, r.table, Asked, f); err != nil || v == Stop {
			return err
		}
	}
	query := f.Payload()
	for _, e := range r.table.iq[iqKey{query.Name.Space, query.Name.Local}] {
		if e.to&target == 0 {
			continue
		}
		r.commitBefore(ctx, f)
		result, err := e.h(ctx, &IQ{Stanza: f.Stanza, Query: query, Session: f.Session, Owner: owner})
		if err != nil {
			return err
		}
		f.reply(f.Reply(result))
		return nil
	}
	return stanza.NewError(stanza.ServiceUnavailable, "") // RFC 6120 §8.4
}

// commitBefore lets everything that came before a handler be durable and on
// its way before the handler runs (house: barrier).
func (r *run) commitBefore(ctx context.Context, f *Flow) {
	if len(r.works) > 1 {
		own := r.works[len(r.works)-1]
		r.works = r.works[:len(r.works)-1]
		r.flush(ctx)
		r.works = append(r.works, own)
	}
}

func (f *Flow) reply(st *stanza.Stanza) {
	f.work.out = append(f.work.out, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Solicited: f.Session != nil})
}
