package processor

// The road of one stanza through a run: from whom, to whom, and which hooks see
// it on the way (RFC 6120 §10, RFC 6121 §8).

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
	f := &w.flow
	if entry.Kind == sessions.Server {
		malformed := e.Reason
		*f = Flow{Stanza: st, work: w, Hops: e.Hops, came: e}
		r.guard(ctx, f, func() error { return r.remote(ctx, f, malformed) })
		return
	}
	w.seq = e.Seq
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
	f.work.out = append(f.work.out, r.refusal(f.work, se)...)
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

// remote is the road of another server's stanza. Its streamer knows that the
// server speaks for the sender's domain, and that the recipient's is served here
// (RFC 6120 §8.1.2.2). malformed is what is wrong with its addresses.
func (r *run) remote(ctx context.Context, f *Flow, malformed string) error {
	switch {
	case f.From.IsZero(): // an error would find no way back
		return nil
	case malformed != "":
		return stanza.NewError(stanza.Condition(malformed), "")
	}
	if err := valid(f.Stanza); err != nil {
		return err
	}
	f.stamp() // it leaves the namespace of its stream behind, whoever gets it
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
		if f.Kind == stanza.Message { // it may make the house say something (Say)
			r.commitBefore(ctx, f)
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
	if v, err := fire(ctx, r.table, Requested, f); err != nil || v == Stop {
		return err
	}
	query := f.Payload()
	for _, e := range r.table.iq[iqKey{query.Name.Space, query.Name.Local}] {
		if e.to&target == 0 {
			continue
		}
		r.commitBefore(ctx, f)
		result, err := e.h(ctx, &IQ{Stanza: f.Stanza, Query: query, Session: f.Session, Owner: owner})
		if errors.Is(err, ErrUnanswered) {
			return nil
		}
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
	if f.work.back != nil {
		f.work.back(st)
		return
	}
	f.work.out = append(f.work.out, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Solicited: f.Session != nil})
}
