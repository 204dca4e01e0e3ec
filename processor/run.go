package processor

import (
	"context"
	"errors"

	"parley/parser/stanza"
	"parley/router/channel"
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

	few   [2]*work         // room for works
	first [1]work          // room for the only one
	room  []work           // room for more stanzas
	ahead int              // how many are expected
	ack   channel.Envelope // room for the first Handled
	acked bool             // it is used: the router's now
}

func newRun(s *Server, t *table, stanzas int) *run {
	r := &run{server: s, table: t, ahead: stanzas}
	if stanzas == 1 {
		r.works, r.room = r.few[:0], r.first[:]
	} else {
		r.works = make([]*work, 0, stanzas)
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
	back    func(*stanza.Stanza) // takes what would go back to the sender; nil: it is routed

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
			kept = r.kept(r.done, r.doneSeq, err == nil)
		}
		if err != nil {
			r.commitEach(ctx, err)
			kept = r.keep(r.done, r.doneSeq, nil) // what was refused is done, too
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
				_ = r.kept(by, seq, err == nil)
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
		w.out = r.refusal(w, storeError(err))
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

func (r *run) kept(by sessions.Ref, seq uint64, stored bool) (lasts bool) {
	_ = r.server.protect(func() error { lasts = r.table.keeper.Kept(by, seq, stored); return nil })
	return lasts
}

func storeError(err error) *stanza.Error {
	if errors.Is(err, storage.ErrUnavailable) {
		return stanza.NewError(stanza.ResourceConstraint, "the message could not be stored; try again later")
	}
	return stanza.NewError(stanza.InternalServerError, "")
}

// refusal is the answer to a stanza that is not taken. A client's session does not
// count its message as done before the client has the answer.
func (r *run) refusal(w *work, e *stanza.Error) []*channel.Envelope {
	out := w.answer(w.cause, e)
	if len(out) == 0 || w.seq == 0 || w.cause.Kind != stanza.Message {
		return out
	}
	by := w.flow.Session.Ref
	if out[0].Stanza.To != by.JID { // a component's: it speaks for others
		return out
	}
	out[0].Session, out[0].Seq = by, w.seq
	if r.table.keeper != nil {
		_ = r.server.protect(func() error { r.table.keeper.Refused(by, w.seq); return nil })
	}
	return out
}

// answer returns the envelope of an error reply, if one may be sent.
func (w *work) answer(st *stanza.Stanza, e *stanza.Error) []*channel.Envelope {
	if reply := st.ErrorReply(e); reply != nil {
		if w.back != nil {
			w.back(reply)
			return nil
		}
		return []*channel.Envelope{{Kind: channel.Route, Raw: reply.Raw, Stanza: reply}}
	}
	return nil
}
