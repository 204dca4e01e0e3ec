package processor

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// voice is the session of an account that speaks through somebody else: it is
// bound nowhere, so nothing can be changed of it or sent to it.
func voice(account jid.JID) *sessions.Entry {
	return &sessions.Entry{Ref: sessions.Ref{JID: account}, State: sessions.State{Kind: sessions.Client}}
}

// Say lets st go its way as if a client of the account st.From had sent it: what
// keeps such stanzas back does so, they are archived, other devices get copies.
// The error is what the client would have been told; then nobody else is.
func (r *Registrar) Say(ctx context.Context, st *stanza.Stanza) error {
	var refused *stanza.Error
	r.server.say(ctx, st, func(reply *stanza.Stanza) {
		if e := reply.Err(); e != nil {
			refused = e
		}
	})
	if refused != nil {
		return refused
	}
	return nil
}

// AskAs is Ask in the name of the account q.From, as Say has it: what a client
// would be answered, done is. The id is the asker's, of AskID.
func (r *Registrar) AskAs(ctx context.Context, q *stanza.Stanza, done func(*stanza.Stanza, error)) {
	if !r.server.asks.add(q, done) {
		return
	}
	r.server.say(ctx, q, func(reply *stanza.Stanza) { r.server.asks.answered(reply) })
}

func (s *Server) say(ctx context.Context, st *stanza.Stanza, back func(*stanza.Stanza)) {
	t := s.acquire()
	defer t.Leave()
	run := newRun(s, t, 1)
	w := run.begin(st)
	w.back = back
	f := &w.flow
	*f = Flow{Stanza: st, Session: voice(st.From), work: w}
	run.guard(ctx, f, func() error { return run.outgoing(ctx, f) })
	run.flush(ctx)
}
