package simulation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

const (
	domain = "sim"
	nsID   = "urn:xmpp:sid:0"
)

var errFenced = errors.New("the lease is lost")

// archive is what plugins/archive promises, in short: a message is committed
// before it is routed and before its sender is told; it waits until a device has
// it; a device that becomes available is brought what waits, and gets nothing
// newer before that; when something may have been missed, everybody here looks
// again.
type archive struct {
	process *process
	reg     *processor.Registrar
	tasks   sync.WaitGroup

	mu    sync.Mutex
	busy  map[sessions.Ref]bool // being brought what waits
	reads int
}

var _ processor.Component = (*archive)(nil)

// Start implements plugins.Component.
func (*archive) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*archive) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (a *archive) Register(r *processor.Registrar) {
	a.reg = r
	processor.On(r, processor.Outgoing, processor.Early, a.available)
	processor.On(r, processor.Incoming, processor.Late, a.incoming)
	processor.On(r, processor.Acked, processor.Normal, a.acked)
	processor.On(r, processor.Undelivered, processor.Normal, func(context.Context, *processor.Flow) (processor.Verdict, error) {
		return processor.Stop, nil // they were all sent to the account: they wait
	})
}

func originOf(id string) (o origin, ok bool) {
	from, n, ok := strings.Cut(id, "/")
	if !ok {
		return o, false
	}
	o.from = from
	var err error
	o.n, err = strconv.Atoi(n)
	return o, err == nil
}

func (a *archive) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	o, ok := originOf(f.ID)
	if !ok || f.Type == stanza.TypeError {
		return processor.Continue, nil
	}
	id, fresh, pending, err := a.process.w.mail.commit(ctx, a.process, o, f.Account.Local())
	switch {
	case err != nil:
		a.process.w.declined(o)
		return processor.Stop, stanza.NewError(stanza.ResourceConstraint, "")
	case !fresh && !pending:
		return processor.Stop, nil // sent again, and somebody has it
	}
	f.Pending = id
	f.Append(stanzaID(id))
	return processor.Continue, nil
}

func stanzaID(id int64) *stanza.Element {
	return stanza.El(nsID, "stanza-id").With("id", strconv.FormatInt(id, 10))
}

// acked frees rows; what the database cannot do now is done later.
func (a *archive) acked(_ context.Context, rows processor.Rows) (processor.Verdict, error) {
	a.tasks.Go(func() {
		for _, id := range rows.IDs {
			for a.process.awake() && a.process.w.mail.taken(a.process.ctx, a.process, id) != nil {
				sleep(a.process.ctx, time.Second)
			}
		}
	})
	return processor.Continue, nil
}

// available is a client's first presence.
func (a *archive) available(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || !f.To.IsZero() {
		return processor.Continue, nil
	}
	ref := f.Session.Ref
	a.reg.Change(ref, func(st *sessions.State) { st.Available, st.Replaying = true, true })
	a.bring(ref)
	return processor.Continue, nil
}

// missed looks again for what waits for sessions of this node.
func (a *archive) missed(key string) {
	var refs []sessions.Ref
	see := func(e *sessions.Entry) bool {
		if e.Node == a.process.name && e.Receives() {
			refs = append(refs, e.Ref)
		}
		return true
	}
	if account, err := jid.Parse(key); err == nil {
		for _, e := range a.process.registry.Account(account) {
			see(e)
		}
	} else {
		a.process.registry.Each(see)
	}
	if !a.process.awake() {
		return
	}
	for _, ref := range refs {
		if a.process.registry.Miss(ref) {
			continue // it looks once more
		}
		now, ok := a.reg.Change(ref, func(st *sessions.State) { st.Replaying = st.Available && st.Priority >= 0 })
		if ok && now.Replaying {
			a.bring(ref)
		}
	}
}

// bring replays to a session.
func (a *archive) bring(ref sessions.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[ref] {
		return
	}
	a.busy[ref] = true
	a.tasks.Go(func() { a.replay(ref) })
}

func (a *archive) replay(ref sessions.Ref) {
	p := a.process
	sent := map[int64]struct{}{}
	for p.awake() {
		now, ok := p.registry.Find(ref.JID)
		if !ok || now.Ref != ref {
			break
		}
		a.mu.Lock()
		a.reads++
		call := fmt.Sprintf("read %s %d", ref.JID, a.reads)
		a.mu.Unlock()
		rows, err := p.w.mail.waiting(p.ctx, p, call, ref.JID.Local())
		if err != nil {
			sleep(p.ctx, time.Second)
			continue
		}
		var batch []*channel.Envelope
		for _, r := range rows {
			if _, twice := sent[r.id]; !twice {
				sent[r.id] = struct{}{}
				batch = append(batch, a.stored(ref, r))
			}
		}
		a.reg.Route(p.ctx, batch...)
		if p.registry.GoLive(ref, sent) {
			time.AfterFunc(settleAfter, func() { p.registry.Settle(ref) })
			a.mu.Lock()
			delete(a.busy, ref)
			a.mu.Unlock()
			if now, ok := p.registry.Find(ref.JID); ok && now.Ref == ref && now.Replaying {
				a.bring(ref) // somebody wanted another one and found this one at work
			}
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, ref)
}

// settleAfter is how long live copies of rows may be on their way.
const settleAfter = 30 * time.Second

// stored makes the envelope that brings a row to a session.
func (a *archive) stored(ref sessions.Ref, r row) *channel.Envelope {
	st := message(account(r.from), r.to, r.origin)
	edits := st.Stamp()
	edits.Append = stanzaID(r.id).Append(nil, stanza.NSClient)
	st.To = ref.JID
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Edits: edits, Pending: r.id, Replay: true, Solicited: true, Private: true}
}

// message is what a client sends; its id is its origin.
func message(from jid.JID, to string, o origin) *stanza.Stanza {
	return stanza.Make(stanza.Message, "chat", from, account(to), o.String(), stanza.El(stanza.NSClient, "body").AddText("x"))
}

func account(user string) jid.JID { return jid.MustParse(user + "@" + domain) }
