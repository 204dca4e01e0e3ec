package accounts

import (
	"context"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
)

const (
	// tendEvery is how often logins are written and removed accounts looked at.
	tendEvery = 30 * time.Second
	// rest is how long a removed account's row stays: longer than any stanza
	// that passed Incoming before the removal needs until it is stored.
	rest = time.Minute
	// maxLogins is how many logins may wait to be written.
	maxLogins = 4096
)

// guard is the processor's component.
type guard struct {
	env      plugins.Env
	accounts *Accounts
	house    *processor.Registrar

	mu     sync.Mutex // leaf
	logins map[jid.JID]time.Time

	cancel context.CancelFunc
	done   chan struct{}
}

var _ processor.Component = (*guard)(nil)

func newGuard(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*Accounts](env, Name)
	if err != nil {
		return nil, err
	}
	return &guard{env: env, accounts: a, logins: map[jid.JID]time.Time{}}, nil
}

// Register implements processor.Component.
func (g *guard) Register(r *processor.Registrar) {
	g.house = r
	g.accounts.house.Store(r)
	processor.On(r, processor.Outgoing, processor.First, g.outgoing)
	processor.On(r, processor.Incoming, processor.First, g.incoming)
	processor.On(r, processor.Undelivered, processor.First, g.undelivered)
	processor.On(r, processor.Bound, processor.First, g.bound)
	processor.On(r, processor.Unbound, processor.Last, g.unbound)
}

// Start implements plugins.Component.
func (g *guard) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.done = cancel, make(chan struct{})
	go g.tend(ctx)
	return nil
}

// Stop implements plugins.Component: what it knows of logins is written.
func (g *guard) Stop(ctx context.Context) error {
	g.accounts.house.CompareAndSwap(g.house, nil)
	g.cancel()
	select {
	case <-g.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return g.writeLogins(ctx)
}

// outgoing drops what an account's sessions still send after its end was
// decided.
func (g *guard) outgoing(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if g.accounts.closing.has(f.Session.Ref) {
		return processor.Stop, nil
	}
	return processor.Continue, nil
}

// incoming is RFC 6121 §8.5.1 (rule 36).
func (g *guard) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	exists, err := g.accounts.Exists(ctx, f.Account)
	switch {
	case err != nil:
		return processor.Stop, err
	case exists:
		return processor.Continue, nil
	case f.Kind == stanza.Presence && f.Type == stanza.TypeProbe: // as for an account that does not share (RFC 6120 §13.11)
		return processor.Continue, nil
	case f.Kind == stanza.Presence: // §8.5.1: subscriptions, too, meet silence
		return processor.Stop, nil
	}
	return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
}

// undelivered keeps what a deleted account's session left behind from being
// stored for it.
func (g *guard) undelivered(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind == stanza.Message && f.Pending != 0 {
		if exists, err := g.accounts.Exists(ctx, f.Account); err != nil || exists {
			return processor.Continue, err
		}
		return processor.Stop, nil // it was accepted; the account has gone with it
	}
	return g.incoming(ctx, f)
}

// bound ends the session of an account that was disabled or deleted between
// its login and its binding, and notes the login of any other.
func (g *guard) bound(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Kind != sessions.Client {
		return processor.Continue, nil
	}
	account := e.JID.Bare()
	st, err := g.accounts.now(ctx, account)
	switch {
	case err != nil:
		g.env.Log.Error("account not looked up", "account", account.String(), "err", err)
	case st != live:
		g.accounts.close(context.WithoutCancel(ctx), e.Ref)
		return processor.Continue, nil
	}
	if e.Paused { // goes on after a restart: nobody has logged in
		return processor.Continue, nil
	}
	if g.noteLogin(account) {
		g.logFailure("logins not written", g.writeLogins(ctx))
	}
	return processor.Continue, nil
}

// noteLogin reports whether so many wait that they have to be written now.
func (g *guard) noteLogin(account jid.JID) (full bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logins[account] = g.env.Clock.Now()
	return len(g.logins) >= maxLogins
}

// unbound takes the third step of an account's end.
func (g *guard) unbound(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	g.accounts.closing.remove(e.Ref)
	account := e.JID.Bare()
	if e.Kind != sessions.Client || len(g.env.Sessions.Account(account)) > 0 {
		return processor.Continue, nil
	}
	st, err := g.accounts.state(ctx, account)
	if err == nil && st == leaving {
		err = g.accounts.forget(context.WithoutCancel(ctx), account)
	}
	return processor.Continue, err
}

// tend writes logins and buries removed accounts, now and then.
func (g *guard) tend(ctx context.Context) {
	defer close(g.done)
	for plugins.Pause(ctx, g.env.Clock, tendEvery) {
		g.logFailure("logins not written", g.writeLogins(ctx))
		g.logFailure("removed accounts not looked at", g.sweep(ctx))
	}
}

func (g *guard) logFailure(what string, err error) {
	if err != nil {
		g.env.Log.Error(what, "err", err)
	}
}

// sweep takes the last step of every account that was removed long enough ago.
func (g *guard) sweep(ctx context.Context) error {
	list, err := g.accounts.store.tombstones(ctx, g.env.Clock.Now().Add(-rest))
	if err != nil {
		return err
	}
	for _, t := range list {
		if !g.env.Owns(t.jid.String()) {
			continue
		}
		if err := g.accounts.bury(ctx, t); err != nil {
			g.env.Log.Debug("removed account stays for now", "account", t.jid.String(), "err", err)
		}
	}
	return nil
}

// writeLogins writes what noteLogin has collected: one row for an account,
// however often it came.
func (g *guard) writeLogins(ctx context.Context) error {
	g.mu.Lock()
	logins := g.logins
	g.logins = map[jid.JID]time.Time{}
	g.mu.Unlock()
	if len(logins) == 0 {
		return nil
	}
	var w storage.WriteSet
	for account, at := range logins {
		w.Add(&loginStmt, account.String(), at.UnixMicro())
	}
	return g.env.DB.Commit(ctx, &w) // a failure costs the times, nothing else
}
