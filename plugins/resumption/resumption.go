// Package resumption lets sessions go on after the server has ended, in order
// or not: clients resume (XEP-0198 §5) as if only their connection had broken.
//
// Specs: XEP-0198 §4, §5; the promises D1 to D4 of the design, and its rule
// that h never goes back.
//
// Each session that may be resumed has a row: a hash of its id, whose it is,
// how many of its client's stanzas are done (h), and its state in the house.
//
//	a batch with stored messages  h goes into their commit (processor.Keeper)
//	a batch without               within a second, all sessions in one commit
//	<a/>, <resumed/>              tell no h beyond what the row has (stream)
//	the session ends              the row goes
//	the server stops              what clients have not acknowledged is noted, and
//	                              nobody is told that they are gone
//	the server starts             every row is a session without a connection
//	                              again: contacts see it, messages wait for it,
//	                              and it ends when nobody resumes it in time
//	its client resumes            the archive brings what is pending, presence
//	                              what has changed; h is exact, so nothing that
//	                              the client sends again is handled twice
//
// With several devices that is not enough: what one of them has taken is not
// pending any more, and what another one had not got of it yet died with the
// process. So a session beside which its account has had another one does not go
// on; its client is told its h, begins anew and reads the archive.
//
// What was on its way to the client when a process was killed is not known:
// messages that nobody has taken come again with the same stanza-id, presence
// and answers are lost (D4). After an orderly stop the client's own h tells
// which messages it has.
//
// A message that was refused is done when its client has the error, which only this
// process can tell: h stays below it until the client has acknowledged that one
// (stream.Refusals), and a session that ends before ends there.
//
// The first row of a session goes with its first messages, so no message is
// stored without it; a login alone costs no commit of its own. Updates compare
// epoch and never lower h: two processes cannot both have a session.
//
// Read on: book.go (what is kept), keep.go, flush.go (when it is written), store.go.
package resumption

import (
	"context"
	"embed"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name in configurations.
const Name = "resumption"

// Plugin provides the feature.
var Plugin = plugins.Plugin{
	Name: Name,
	Doc:  "Lets clients resume their sessions after a restart of the server.",
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newKeeper},
		{Server: stream.Name, New: newFront},
	},
	Migrations: migrations,
	// What a client and the house counted since is gone: its session is, too.
	Restored: func(ctx context.Context, tx storage.Tx, _ int64) error {
		_, err := tx.Exec(ctx, `DELETE FROM resumption`)
		return err
	},
	Contract: func(env plugins.Env) (any, error) { return newBook(env), nil },
}

// Config is the section of the processor's component.
type Config struct {
	Sessions int           `yaml:"max_sessions" min:"1" doc:"Sessions that are kept. Further ones can be resumed as long as the server runs."`
	Every    time.Duration `yaml:"write_every" min:"1ms" max:"1m" doc:"How long what clients did without sending stored messages may wait to be written down; it is acknowledged after that."`
}

func defaults() *Config { return &Config{Sessions: 200_000, Every: time.Second} }

// keeper works in the processor: it writes.
type keeper struct {
	*book
	cfg    Config
	tasks  sync.WaitGroup
	cancel context.CancelFunc // nil: not started
}

var (
	_ processor.Component = (*keeper)(nil)
	_ stream.Component    = (*front)(nil)
	_ stream.Resumptions  = (*book)(nil)
)

func newKeeper(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	b, err := plugins.Need[*book](env, Name)
	if err != nil {
		return nil, err
	}
	k := &keeper{book: b, cfg: *defaults()}
	return k, c.Decode(&k.cfg)
}

// Register implements processor.Component.
func (k *keeper) Register(r *processor.Registrar) {
	k.house.Store(r)
	r.Keep(k.book)
	r.Noted(k.noted)
	processor.On(r, processor.Bound, processor.Last, k.bound)
	processor.On(r, processor.Unbound, processor.Last, k.unbound)
	processor.On(r, processor.AccountRemoved, processor.Normal, k.removed)
}

// Start implements plugins.Component.
func (k *keeper) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	k.limit.Store(int64(k.cfg.Sessions))
	k.every.Store(int64(k.cfg.Every))
	k.keepers.Add(1)
	k.tasks.Go(func() { k.run(ctx) })
	if k.env.Notices != nil {
		k.tasks.Go(func() { k.sweep(ctx) })
	}
	return nil
}

// Stop implements plugins.Component.
func (k *keeper) Stop(ctx context.Context) error {
	if k.cancel == nil {
		return nil
	}
	k.cancel()
	k.tasks.Wait()
	return k.leave(ctx, &k.keepers)
}

func (k *keeper) bound(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
	k.joined(e)
	return processor.Continue, nil
}

// unbound ends a session, or leaves it to the next process.
func (k *keeper) unbound(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if k.env.Notices != nil && e.Node != k.env.Node {
		if now, bound := k.env.Sessions.Find(e.JID); bound && now.Ref != e.Ref {
			return processor.Continue, replace(ctx, k.env.DB, e.Ref)
		}
		return processor.Continue, nil // its node is gone, which was noted for all of them (OnDeath)
	}
	k.ended(e)
	return processor.Continue, nil
}

// removed is for certain: who gets the address next must not find anything.
func (k *keeper) removed(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	return processor.Continue, k.forget(ctx, account)
}

// front works in the streamer: it begins and restores.
type front struct {
	*book
	started bool
}

func newFront(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	if env.Front() {
		return &far{env: env}, nil
	}
	b, err := plugins.Need[*book](env, Name)
	return &front{book: b}, err
}

// Register implements stream.Component.
func (f *front) Register(r *stream.Registrar) {
	r.Resumptions(f.book)
	f.front.Store(r)
}

// Start implements plugins.Component.
func (f *front) Start(context.Context) error {
	f.started = true
	f.fronts.Add(1)
	return nil
}

// Stop implements plugins.Component.
func (f *front) Stop(ctx context.Context) error {
	if !f.started {
		return nil
	}
	return f.leave(ctx, &f.fronts)
}
