// Package lastactivity tells for how long the server has been up and since when
// an account has been offline (XEP-0012).
//
// Only those who get an account's presence are told. Everybody else gets what
// an account that does not exist would answer, service-unavailable, wherever
// the question goes: XEP-0012 §3 has forbidden, but then the answer would tell
// who exists (rule 35, RFC 6121 §8.5.1).
//
//	a session becomes unavailable, the account's last one → memory, soon the table
//	question to the bare JID                              → answered here
//	question to a full JID                                → passes, if the asker may
package lastactivity

import (
	"context"
	"embed"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/blocking"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
)

// NS is the namespace of XEP-0012 §2.
const NS = "jabber:iq:last"

//go:embed sql
var migrations embed.FS

// Plugin provides the component and the contract *Log.
var Plugin = plugins.Plugin{
	Name:       "lastactivity",
	Doc:        "Tells contacts since when somebody has been offline.",
	Requires:   []string{roster.Name, presence.Name, blocking.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: newComponent}},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return newLog(env), nil },
}

// subscriptions is what is asked of the roster. An account that does not exist
// has no subscribers.
type subscriptions interface {
	Subscription(ctx context.Context, owner, contact jid.JID) (roster.State, error)
}

// blocks is what is asked of the block lists.
type blocks interface {
	Blocked(ctx context.Context, owner, other jid.JID) (bool, error)
}

type component struct {
	env    plugins.Env
	log    *Log
	roster subscriptions
	blocks blocks

	cancel context.CancelFunc
	done   chan struct{}
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	c := &component{env: env}
	var err error
	if c.log, err = plugins.Need[*Log](env, "lastactivity"); err != nil {
		return nil, err
	}
	if c.roster, err = plugins.Need[subscriptions](env, roster.Name); err != nil {
		return nil, err
	}
	c.blocks, err = plugins.Need[blocks](env, blocking.Name)
	return c, err
}

// Start implements plugins.Component.
func (c *component) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.done = cancel, make(chan struct{})
	c.log.collect(true)
	go c.tend(ctx)
	return nil
}

// Stop implements plugins.Component: what is known is written, and whoever
// leaves after that is written at once.
func (c *component) Stop(ctx context.Context) error {
	c.log.collect(false)
	c.cancel()
	select {
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.log.write(ctx)
}

// tend writes who has left, now and then.
func (c *component) tend(ctx context.Context) {
	defer close(c.done)
	for plugins.Pause(ctx, c.env.Clock, writeEvery) {
		if err := c.log.write(ctx); err != nil {
			c.env.Log.Error("last activity not written; trying again", "err", err)
		}
	}
}

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	r.Feature(NS) // XEP-0012 §6
	r.AccountFeature(NS)
	r.IQ(NS, "query", processor.Host, c.uptime)
	r.IQ(NS, "query", processor.Self|processor.Account, c.account)
	processor.On(r, processor.Incoming, processor.First, c.incoming)
	processor.On(r, presence.Became, processor.Last, c.left)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, c.log.forget(ctx, account)
	})
}

// uptime is XEP-0012 §5.
func (c *component) uptime(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "it can only be read")
	}
	return answer(c.env.Clock.Now().Sub(c.log.started), ""), nil
}

// account is XEP-0012 §3.
func (c *component) account(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if may, err := c.may(ctx, q.Owner, q.From); err != nil || !may {
		return nil, orRefused(err)
	}
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "it can only be read")
	}
	if c.available(q.Owner, sessions.Ref{}) {
		return answer(0, ""), nil
	}
	last, err := c.log.Last(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	if last.At.IsZero() {
		return nil, stanza.NewError(stanza.ItemNotFound, "never seen")
	}
	return answer(c.env.Clock.Now().Sub(last.At), last.Status), nil
}

func answer(d time.Duration, status string) *stanza.Element {
	return stanza.El(NS, "query").With("seconds", strconv.FormatInt(int64(max(d, 0)/time.Second), 10)).AddText(status)
}

// may reports whether the asker gets the owner's presence (XEP-0012 §8).
func (c *component) may(ctx context.Context, owner, asker jid.JID) (bool, error) {
	if asker.Bare() == owner {
		return true, nil
	}
	st, err := c.roster.Subscription(ctx, owner, asker.Bare())
	if err != nil || !st.From() {
		return false, err
	}
	blocked, err := c.blocks.Blocked(ctx, owner, asker)
	return !blocked, err
}

func orRefused(err error) error {
	if err != nil {
		return err
	}
	return stanza.NewError(stanza.ServiceUnavailable, "")
}

// incoming lets questions pass to an account's clients only from those who may
// ask (XEP-0012 §4): the client's answer, and that there is one, would tell
// others that somebody is there.
func (c *component) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.IQ || f.Type != stanza.TypeGet && f.Type != stanza.TypeSet || !f.Has(NS, "query") {
		return processor.Continue, nil
	}
	if may, err := c.may(ctx, f.Account, f.From); err != nil || !may {
		return processor.Stop, orRefused(err)
	}
	return processor.Continue, nil
}

// available reports whether a session of the account, other than the one
// given, is available.
func (c *component) available(account jid.JID, but sessions.Ref) bool {
	for _, e := range c.env.Sessions.Account(account) {
		if e.Available && e.Ref != but {
			return true
		}
	}
	return false
}

// left notes that the account's last available session has gone, and what it
// said; one that broke off said nothing (RFC 6121 §4.5.2).
func (c *component) left(ctx context.Context, t *presence.Transition) (processor.Verdict, error) {
	account := t.Session.JID.Bare()
	if !t.Left() || c.available(account, t.Session.Ref) {
		return processor.Continue, nil
	}
	status := ""
	if el := t.Stanza.Child(stanza.NSClient, "status"); el != nil {
		status = shorten(el.Text())
	}
	if c.log.note(account, Activity{At: c.env.Clock.Now(), Status: status}) {
		return processor.Continue, c.log.write(ctx)
	}
	return processor.Continue, nil
}

// maxStatusBytes bounds the status that is kept.
const maxStatusBytes = 1024

func shorten(s string) string {
	if len(s) <= maxStatusBytes {
		return s
	}
	for i := range s { // whole characters
		if i > maxStatusBytes-4 {
			return s[:i]
		}
	}
	return s
}
