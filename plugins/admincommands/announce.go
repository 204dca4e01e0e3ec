package admincommands

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/accounts"
	"parley/plugins/commands"
	"parley/router/sessions"
)

// Audiences of an announcement.
const (
	toOnline = "online" // who has a session (XEP-0133 §4.23)
	toAll    = "all"    // every account of the domain: who is offline finds it later
)

// announcement is a message that is on its way to the accounts of a domain, in the
// order of their addresses. Where it has come to is in the database: whoever goes on
// after a restart, or on another node, goes on from there.
type announcement struct {
	id       string // of the messages, too
	domain   jid.JID
	audience string
	kind     string // motd: only who has not had it; else ""
	version  int64  // of the motd
	body     string
	after    jid.JID // the last account that it has reached
}

// maxAnnouncements is how many may be on their way at one time.
const maxAnnouncements = 20

func announceFields() []form.Field {
	return []form.Field{
		required(form.TextMulti, "announcement", "Announcement"),
		{Var: "audience", Type: form.ListSingle, Label: "To whom", Values: []string{toOnline}, Options: []form.Option{
			{Value: toOnline, Label: "Everybody who is online"}, {Value: toAll, Label: "Everybody who has an account"},
		}},
	}
}

// announce is XEP-0133 §4.23, with an audience of our own besides.
func (a *component) announce(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	body, err := written(e.Last(), "announcement")
	if err != nil {
		return nil, err
	}
	audience := e.Last().Value("audience")
	switch audience {
	case "":
		audience = toOnline
	case toOnline, toAll:
	default:
		return nil, stanza.NewError(stanza.NotAcceptable, "audience: online or all")
	}
	a.env.Log.Info("announcement", "by", e.Account().String(), "domain", e.Domain.String(), "audience", audience)
	return nil, a.send(ctx, announcement{domain: e.Domain, audience: audience, body: body})
}

// send puts an announcement on its way: it is written down when this returns.
func (a *component) send(ctx context.Context, one announcement) error {
	one.id = rand.Text()
	if err := a.store.addAnnouncement(ctx, one, a.env.Clock.Now()); err != nil {
		return err
	}
	a.caller.nudge()
	a.env.Forget(context.WithoutCancel(ctx), topicCaller, "") // the node that does it may be another one
	return nil
}

// topicCaller wakes the callers of other nodes.
const topicCaller = "admincommands.announce"

// caller takes announcements to their people, on one node at a time.
type caller struct {
	*component
	wake   chan struct{}
	begun  chan struct{} // closed when the component is registered
	once   sync.Once
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newCaller(a *component) *caller {
	c := &caller{component: a, wake: make(chan struct{}, 1), begun: make(chan struct{})}
	a.env.OnForget(topicCaller, func(string) { c.nudge() })
	return c
}

func (c *caller) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *caller) ready() { c.once.Do(func() { close(c.begun) }) }

func (c *caller) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.done.Go(func() { c.run(ctx) })
}

func (c *caller) stop() {
	if c.cancel != nil {
		c.cancel()
	}
	c.done.Wait()
}

// lookEvery is how often a node looks for what another one has left.
const lookEvery = 30 * time.Second

func (c *caller) run(ctx context.Context) {
	select {
	case <-c.begun:
	case <-ctx.Done():
		return
	}
	for ctx.Err() == nil {
		if c.env.Owns(topicCaller) && c.env.Held() {
			if err := c.pass(ctx); err != nil && ctx.Err() == nil {
				c.env.Log.Error("announcement not finished; trying again", "err", err)
			}
		}
		c.wait(ctx, lookEvery, c.wake)
	}
}

// wait returns after a time, or earlier when it is woken; by nil it is not.
func (c *caller) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	over := make(chan struct{})
	stop := c.env.Clock.AfterFunc(d, func() { close(over) })
	defer stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-over:
	}
}

// pass takes every announcement to its end.
func (c *caller) pass(ctx context.Context) error {
	all, err := c.component.store.announcements(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		for more := true; more; {
			if more, err = c.batch(ctx, &one); err != nil {
				return err
			}
		}
	}
	return nil
}

// batchSize is how many accounts are looked at together; what is in memory of an
// announcement is never more.
const batchSize = 100

// batch takes an announcement to the next accounts; more: it is not done.
func (c *caller) batch(ctx context.Context, one *announcement) (more bool, err error) {
	list, err := c.accounts.List(ctx, one.domain.Domain(), one.after, batchSize)
	if err != nil {
		return false, err
	}
	reached := 0
	var out []*stanza.Stanza
	for i := range list {
		if one.audience == toOnline && !reachable(&list[i]) {
			continue
		}
		reached++
		if one.kind != "" {
			if err := c.tell(ctx, list[i].JID, one.kind, text{one.body, one.version}); err != nil {
				return false, err
			}
			continue
		}
		out = append(out, letter(list[i].JID, one.id, one.body))
	}
	c.reg.Submit(ctx, out...)
	if len(list) < batchSize {
		return false, c.component.store.endAnnouncement(ctx, one.id)
	}
	was := one.after
	one.after = list[len(list)-1].JID
	ours, err := c.component.store.advance(ctx, one.id, was, one.after)
	if err != nil || !ours { // another node does it now
		return false, err
	}
	if reached > 0 {
		c.wait(ctx, time.Duration(reached)*time.Second/time.Duration(c.cfg.Pace), nil)
	}
	return ctx.Err() == nil, ctx.Err()
}

// reachable reports whether an account is online.
func reachable(acc *accounts.Account) bool {
	for _, s := range acc.Sessions {
		if s.Kind == sessions.Client && s.Receives() {
			return true
		}
	}
	return false
}
