package push

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/pubsub"
	"parley/processor"
)

// work counts messages and tells push services of them until ctx is done.
func (p *push) work(ctx context.Context) {
	for {
		tick := make(chan struct{})
		stop := p.env.Clock.AfterFunc(sweepEvery, func() { close(tick) })
		for swept := false; !swept; {
			select {
			case <-ctx.Done():
				stop()
				return
			case e := <-p.events:
				for _, e := range p.gather(e) {
					p.note(ctx, e)
				}
			case <-tick:
				swept = true
			}
		}
		if p.env.Owns(sweepKey) {
			p.sweep(ctx)
		}
	}
}

// gather adds up what has come by now, each account once.
func (p *push) gather(first event) []event {
	all := []event{first}
	at := map[jid.JID]int{first.account: 0}
	for range min(len(p.events), maxGathered) {
		e := <-p.events
		i, ok := at[e.account]
		if !ok {
			at[e.account] = len(all)
			all = append(all, e)
			continue
		}
		all[i].messages += e.messages
		all[i].calls += e.calls
	}
	return all
}

// sweep tells what was to wait, what failed, and what an ended node has left.
func (p *push) sweep(ctx context.Context) {
	all, err := p.store.due(ctx)
	if err != nil {
		p.complain(ctx, jid.JID{}, err)
	}
	for _, account := range all {
		p.tell(ctx, account)
	}
}

// note counts a message for each target of its account.
func (p *push) note(ctx context.Context, e event) {
	has, err := p.enabled.Load(ctx, e.account, p.store.any)
	switch {
	case err != nil:
		p.complain(ctx, e.account, err)
		return
	case !has:
		return
	}
	if e.messages > 0 {
		if err := p.store.count(ctx, e, p.cfg.Every); err != nil {
			p.complain(ctx, e.account, err)
			return
		}
	}
	p.tell(ctx, e.account)
}

// tell asks the services of what is due.
func (p *push) tell(ctx context.Context, account jid.JID) {
	if p.awake(account) {
		if err := p.store.awake(ctx, account); err != nil {
			p.complain(ctx, account, err)
		}
		return
	}
	due, err := p.store.claim(ctx, account, 2*processor.AskTimeout)
	if err != nil {
		p.complain(ctx, account, err)
		return
	}
	slices.SortStableFunc(due, func(a, b target) int { return min(b.calls, 1) - min(a.calls, 1) }) // calls first
	for _, t := range due {
		p.reg.Ask(ctx, p.notice(ctx, t), func(_ *stanza.Stanza, err error) { p.answered(context.WithoutCancel(ctx), t, err) })
	}
}

// awake reports whether a device is there that gets messages.
func (p *push) awake(account jid.JID) bool {
	for _, e := range p.env.Sessions.Account(account) {
		if !e.Hibernated && !e.Paused && e.Receives() {
			return true
		}
	}
	return false
}

// notice is XEP-0357 §7: it says how many messages wait, nothing else of them.
func (p *push) notice(ctx context.Context, t target) *stanza.Stanza {
	sum := (&form.Form{Type: "urn:xmpp:push:summary", Kind: form.Submit}).Add("", "message-count", "", strconv.Itoa(t.waiting))
	if p.cfg.Text != "" {
		sum.Add("", "last-message-body", "", p.cfg.Text)
	}
	el := stanza.El(NS, "notification").Add(sum.Element())
	if _, err := processor.Fire(ctx, p.reg, Telling, &Notice{Service: t.service, Calls: t.calls, Notification: el}); err != nil {
		p.complain(ctx, t.owner, err)
	}
	publish := stanza.El(pubsub.NS, "publish").WithOpt("node", t.node).Add(stanza.El(pubsub.NS, "item").Add(el))
	ps := stanza.El(pubsub.NS, "pubsub").Add(publish)
	if t.options != nil {
		ps.Add(stanza.El(pubsub.NS, "publish-options").AddRaw(t.options))
	}
	return stanza.Make(stanza.IQ, "set", t.owner.Host(), t.service, p.reg.AskID(), ps)
}

// answered is XEP-0357 §7.1: who refuses is disabled, who cannot now is asked again.
func (p *push) answered(ctx context.Context, t target, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	result, keep := "sent", func() error { return p.store.told(ctx, t, p.cfg.Every) }
	switch {
	case err == nil:
	case retry(err) > 0:
		result, keep = "postponed", func() error { return p.store.postpone(ctx, t, retry(err)) }
	case passing(err) && t.failed+1 < p.cfg.Tries:
		result, keep = "failed", func() error { return p.store.later(ctx, t, pause(t.failed)) }
	default:
		result, keep = "refused", func() error { return p.store.disableNode(ctx, t) }
		p.env.Log.Info("a push service is disabled", "account", t.owner.String(), "service", t.service.String(), "tries", t.failed+1, "err", err)
	}
	p.m.notices.WithLabelValues(result).Inc()
	if err := keep(); err != nil {
		p.complain(ctx, t.owner, err)
	}
	switch result {
	case "refused":
		p.changed(ctx, t.owner)
	case "sent":
		select {
		case p.events <- event{account: t.owner}: // what came meanwhile
		default: // the next sweep finds it
		}
	}
}

// passing reports whether what went wrong may be mended by itself.
func passing(err error) bool {
	var e *stanza.Error
	if !errors.As(err, &e) {
		return true // no answer, or no way to ask now
	}
	return e.Type == stanza.Wait || e.Condition == stanza.ServiceUnavailable || e.Condition == stanza.RemoteServerNotFound || e.Condition == stanza.InternalServerError
}

// retry is when a service that is well wants to be asked again, an hour at most; 0:
// it does not say (Retry).
func retry(err error) time.Duration {
	var e *stanza.Error
	if !errors.As(err, &e) || e.Type != stanza.Wait || e.App == nil || e.App.Name != (stanza.Name{Space: NSHouse, Local: "retry"}) {
		return 0
	}
	after, err := strconv.ParseUint(e.App.Get("after"), 10, 31)
	if err != nil {
		return 0
	}
	return min(max(time.Duration(after)*time.Second, time.Second), maxRetry)
}

// pause before the next try, longer after each.
func pause(failed int) time.Duration { return min(30*time.Second<<min(failed, 10), time.Hour) }

func (p *push) complain(ctx context.Context, account jid.JID, err error) {
	if ctx.Err() == nil {
		p.env.Log.Warn("devices are woken later", "account", account.String(), "err", err)
	}
}
