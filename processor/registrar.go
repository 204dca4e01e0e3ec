package processor

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
)

// Target tells whom an IQ request may address for a handler to see it.
type Target uint8

// The targets; they combine with |.
const (
	Host    Target = 1 << iota // a domain of ours
	Self                       // no 'to', or the sender's own bare JID
	Account                    // another local account's bare JID, existing or not
)

// IQ is a request for a handler.
type IQ struct {
	*stanza.Stanza
	Query   *stanza.Element // its payload
	Session *sessions.Entry // the sender's, when it is a local client; else nil
	Owner   jid.JID         // the account that is asked, bare; the domain for Host
}

// Set reports whether the request is of type set.
func (q *IQ) Set() bool { return q.Type == "set" }

// Own reports whether the sender asks its own account.
func (q *IQ) Own() bool { return q.Session != nil && q.Owner == q.Session.JID.Bare() }

// IQHandler returns the result's payload (nil for an empty result) or an
// error; a *stanza.Error goes to the peer as it is, any other as
// internal-server-error, its text to the log. The reply is built elsewhere.
type IQHandler func(context.Context, *IQ) (*stanza.Element, error)

// Registrar takes down what a component wants to do. Everything registered
// vanishes with the component. The registering methods are for Register, the
// others for any time until Stop.
type Registrar struct {
	server          *Server
	name            string
	hooks           []func(*table)
	iqs             []registeredIQ
	features        []string
	accountFeatures []string
	keeper          Keeper
	noted           func(context.Context, sessions.Ref, []byte)
	owned           []Owned
}

type registeredIQ struct {
	key   iqKey
	entry iqEntry
}

// IQ lets h answer requests whose payload is local in namespace ns.
func (r *Registrar) IQ(ns, local string, to Target, h IQHandler) {
	r.iqs = append(r.iqs, registeredIQ{iqKey{ns, local}, iqEntry{to, h}})
}

// Keeper writes down how far sessions have come, with the rows of their
// stanzas: after a restart the one is never without the other.
type Keeper interface {
	// Keep with rows adds to w what says that everything of the session up to seq
	// is done: so it is when w is committed, and not before. Without, it is done
	// already, and Keep remembers to write that down soon. It is called for one
	// batch of a session at a time.
	Keep(ref sessions.Ref, seq uint64, rows bool, w *storage.WriteSet) (added bool)
	// Kept tells what became of what Keep has added, and returns whether a restart
	// knows now that everything up to seq is done. After a failure Keep follows, for
	// each part of the batch that is committed alone, and for what is refused.
	Kept(ref sessions.Ref, seq uint64, stored bool) (lasts bool)
	// Refused notes, before Keep, that the message at that place is answered with
	// an error, which only this process can tell.
	Refused(ref sessions.Ref, seq uint64)
}

// Keep sets who writes down how far sessions have come. One component does.
func (r *Registrar) Keep(k Keeper) { r.keeper = k }

// Noted lets f hear what the component of the same name in the streamer notes of
// its sessions, in its place among what they send.
func (r *Registrar) Noted(f func(ctx context.Context, ref sessions.Ref, note []byte)) { r.noted = f }

// Note tells the component of the same name in the streamer that has the
// sessions.
func (r *Registrar) Note(ctx context.Context, note []byte, refs ...sessions.Ref) {
	if len(refs) > 0 {
		r.server.send(ctx, []*channel.Envelope{{Kind: channel.Note, To: refs, Reason: r.name, Raw: note}})
	}
}

// Feature announces namespaces in the server's disco#info (XEP-0030 §3).
func (r *Registrar) Feature(ns ...string) { r.features = append(r.features, ns...) }

// AccountFeature announces namespaces in disco#info of accounts.
func (r *Registrar) AccountFeature(ns ...string) {
	r.accountFeatures = append(r.accountFeatures, ns...)
}

// Features returns what is announced now, for the server or for accounts.
func (r *Registrar) Features(of Target) []string {
	t := r.server.acquire()
	defer t.Leave()
	if of == Host {
		return t.features
	}
	return t.account
}

// Emit routes stanzas as they are: pushes, results, notifications. They are on
// their way before it returns, so before the reply of the handler that calls
// it. No hook sees them.
func (r *Registrar) Emit(ctx context.Context, out ...*stanza.Stanza) {
	batch := make([]*channel.Envelope, 0, len(out))
	for _, st := range out {
		batch = append(batch, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st})
	}
	r.server.send(ctx, batch)
}

// Route hands over envelopes of kind Route that need more than Emit gives:
// edits, a pending row, a replay.
func (r *Registrar) Route(ctx context.Context, batch ...*channel.Envelope) {
	r.server.send(ctx, batch)
}

// Submit lets stanzas arrive as if somebody had sent them: to a local account
// they pass the Incoming hooks, messages are stored before they are routed.
func (r *Registrar) Submit(ctx context.Context, in ...*stanza.Stanza) {
	r.submit(ctx, time.Time{}, in)
}

// SubmitFor is Submit for a session that has ended.
func (r *Registrar) SubmitFor(ctx context.Context, ended *sessions.Entry, in ...*stanza.Stanza) {
	r.submit(ctx, ended.BoundAt, in)
}

func (r *Registrar) submit(ctx context.Context, ended time.Time, in []*stanza.Stanza) {
	t := r.server.acquire()
	defer t.Leave()
	run := newRun(r.server, t, len(in))
	for _, st := range in {
		run.arrive(ctx, &Flow{Stanza: st, ended: ended})
	}
	run.flush(ctx)
}

// Ask sends a request of the server's own and calls done exactly once: with
// the answer, or with an error when the recipient is gone, answers with an
// error, or says nothing for AskTimeout. It does not wait, but done may be called
// before it returns, when there is nobody at the address. The answer counts
// only when it comes from where the request went (RFC 6120 §8.1.2.2). A service of
// the house is asked like any other (Owned).
func (r *Registrar) Ask(ctx context.Context, q *stanza.Stanza, done func(*stanza.Stanza, error)) {
	if !r.server.asks.add(q, done) {
		return
	}
	if r.serves(q) {
		r.Submit(ctx, q)
		return
	}
	r.Emit(ctx, q)
}

// serves reports whether the stanza is for a service of the house.
func (r *Registrar) serves(st *stanza.Stanza) bool {
	t := r.server.acquire()
	defer t.Leave()
	o, _ := t.ownedBy(st)
	return o != nil
}

// AskID is an id for a request to Ask. It is unguessable, and lets the answer be
// found when it comes in on another node.
func (r *Registrar) AskID() string { return r.server.asks.id() }

// Change changes the state of a session and returns its new entry; false when
// the session is gone.
func (r *Registrar) Change(ref sessions.Ref, f func(*sessions.State)) (*sessions.Entry, bool) {
	return r.server.env.Sessions.Change(ref, f)
}

// Close ends streams with the stream error condition.
func (r *Registrar) Close(ctx context.Context, condition stanza.StreamCondition, refs ...sessions.Ref) {
	if len(refs) > 0 {
		r.server.send(ctx, []*channel.Envelope{{Kind: channel.Close, To: refs, Reason: string(condition)}})
	}
}
