package blocklists

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/plugins/pubsub"
)

const nsPubsub = "http://jabber.org/protocol/pubsub"

const (
	// pageSize is how many items are asked for at a time.
	pageSize = 500
	// keptFor is how long a list is kept that no node wants any more.
	keptFor = 24 * time.Hour
	// maxBackoff is the longest that a list is left alone that cannot be fetched.
	maxBackoff = time.Hour
	// tellLimit bounds what is done because another node, or a stanza, says so.
	tellLimit = 30 * time.Second
	// fetchLimit bounds one fetch, whatever a service does to make it long.
	fetchLimit = 10 * time.Minute
)

// tend fetches lists that are due, and reads those that have changed, until ctx is done.
func (p *part) tend(ctx context.Context) {
	defer close(p.done)
	defer p.fetches.Wait()
	select {
	case <-ctx.Done():
		return
	case <-p.ready:
	}
	for {
		if err := p.turn(ctx); err != nil && ctx.Err() == nil {
			p.env.Log.Error("block lists not looked after; trying again", "err", err)
		}
		tick := make(chan struct{})
		stop := p.env.Clock.AfterFunc(p.every(), func() { close(tick) })
		select {
		case <-ctx.Done():
			stop()
			return
		case <-p.hurry:
			stop()
		case <-tick:
		}
	}
}

// every is how often it is looked after the lists.
func (p *part) every() time.Duration { return min(p.cfg.Retry, time.Minute) }

func (p *part) turn(ctx context.Context) error {
	states, err := p.lists.store.states(ctx)
	if err != nil {
		return err
	}
	errs := []error{p.lists.refresh(ctx, states)}
	now := p.env.Clock.Now()
	for _, l := range p.wanted {
		src := l.String()
		if st := states[src]; !now.Before(st.next) && p.env.Owns(topic+" "+src) && p.begins(src, now) {
			p.fetches.Go(func() { p.fetchOne(ctx, l.source, st) })
		}
	}
	for src, st := range states {
		if _, wanted := p.wanted[src]; wanted || st.next.IsZero() || now.Before(st.next.Add(keptFor)) || !p.env.Owns(topic+" "+src) {
			continue
		}
		errs = append(errs, p.leave(ctx, src))
	}
	for src, n := range p.lists.sizes() {
		p.items.WithLabelValues(src).Set(float64(n))
		p.age.WithLabelValues(src).Set(float64(states[src].fetched.Unix()))
	}
	return errors.Join(errs...)
}

// begins reports whether a list may be fetched now: nobody does, and nobody has just done,
// whatever its service says.
func (p *part) begins(src string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, tried := p.began[src]; p.busy[src] || tried && now.Before(last.Add(p.cfg.Retry)) {
		return false
	}
	p.busy[src], p.began[src] = true, now
	return true
}

func (p *part) fetchOne(ctx context.Context, src source, st state) {
	err := p.fetch(ctx, src, st)
	p.mu.Lock()
	delete(p.busy, src.String())
	p.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		p.env.Log.Error("block list not fetched; trying again", "list", src.String(), "err", err)
	}
}

// fetch subscribes to a list (XEP-0060 §6.1) and reads all of it (§6.5). What fails is
// tried again, later each time; what is known counts until then.
func (p *part) fetch(ctx context.Context, src source, st state) error {
	name := src.String()
	now := p.env.Clock.Now()
	since, err := p.lists.store.begin(ctx, name)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, fetchLimit)
	found, why := p.read(limited, src)
	cancel()
	if found == nil {
		wait := p.cfg.Retry
		for range min(st.failures, 20) {
			wait = min(2*wait, maxBackoff)
		}
		p.env.Log.Warn("block list not fetched", "list", name, "err", why)
		return p.lists.store.failed(ctx, name, now.Add(wait), why.Error())
	}
	note := ""
	if why != nil {
		note = why.Error()
	}
	if err := p.lists.store.replace(ctx, name, since, found); err != nil {
		return err
	}
	if err := p.lists.store.done(ctx, name, st.next, now, p.env.Clock.Now().Add(p.cfg.Refresh), note); err != nil {
		return err
	}
	p.env.Log.Info("block list fetched", "list", name, "items", len(found))
	return p.lists.reload(ctx, name)
}

// read returns all items of a list; nil: they cannot be had, and why. Both: what is
// wrong with them all the same.
func (p *part) read(ctx context.Context, src source) (map[hash]string, error) {
	if p.lists.ours(src.service.Domain()) {
		return p.own(ctx, src)
	}
	subscribe := stanza.El(nsPubsub, "pubsub").Add(stanza.El(nsPubsub, "subscribe").With("node", src.node).With("jid", p.self().String()))
	_, unheard := p.ask(ctx, stanza.TypeSet, src.service, subscribe)
	if unheard != nil {
		unheard = fmt.Errorf("not subscribed, changes are seen late: %w", unheard)
	}
	found := map[hash]string{}
	for after := ""; ; {
		page, next, err := p.page(ctx, src, after)
		if err != nil {
			return nil, err
		}
		before := len(found)
		maps.Copy(found, page)
		switch {
		case len(found) > p.cfg.MaxItems:
			all := slices.SortedFunc(maps.Keys(found), func(a, b hash) int { return bytes.Compare(a[:], b[:]) }) // the same each time
			for _, h := range all[p.cfg.MaxItems:] {
				delete(found, h)
			}
			return found, errFull
		case next == "" || len(found) == before: // the end, or a service that knows no pages
			return found, unheard
		}
		after = next
	}
}

// own is read for a service of this house, which is not asked, and tells by hooks.
func (p *part) own(ctx context.Context, src source) (map[hash]string, error) {
	at := pubsub.Address{Service: src.service, Node: src.node}
	n, err := p.pubsub.Node(ctx, at)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, errors.New("this server has no such node")
	}
	found := map[hash]string{}
	for after := ""; ; {
		page, err := p.pubsub.Items(ctx, at, pubsub.Query{After: after, Limit: pageSize})
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			h, ok := parseHash(item.ID)
			switch {
			case !ok:
			case len(found) >= p.cfg.MaxItems:
				return found, errFull
			default:
				found[h] = reasonOf(item.Payload)
			}
		}
		if len(page.Items) < pageSize {
			return found, nil
		}
		after = page.Items[len(page.Items)-1].ID
	}
}

// page reads some items, and what to ask for next; "": that was all.
func (p *part) page(ctx context.Context, src source, after string) (found map[hash]string, next string, err error) {
	set := stanza.El(rsm.NS, "set").Add(stanza.El(rsm.NS, "max").AddText(fmt.Sprint(pageSize)))
	if after != "" {
		set.Add(stanza.El(rsm.NS, "after").AddText(after))
	}
	answer, err := p.ask(ctx, stanza.TypeGet, src.service,
		stanza.El(nsPubsub, "pubsub").Add(stanza.El(nsPubsub, "items").With("node", src.node), set))
	if err != nil {
		return nil, "", err
	}
	found = map[hash]string{}
	said := answer.Child(nsPubsub, "pubsub")
	if said == nil {
		return nil, "", errors.New("the answer is none")
	}
	if items := said.Child(nsPubsub, "items"); items != nil {
		for item := range items.Elements() {
			if e, ok := parseEntry(item); ok {
				found[e.hash] = e.reason
			}
		}
	}
	if set := said.Child(rsm.NS, "set"); set != nil {
		if last := set.Child(rsm.NS, "last"); last != nil {
			next = last.Text()
		}
	}
	return found, next, nil
}

// leave ends a subscription that nobody wants any more, and forgets the list.
func (p *part) leave(ctx context.Context, name string) error {
	if src, err := parseSource(name); err == nil && !p.lists.ours(src.service.Domain()) {
		end := stanza.El(nsPubsub, "pubsub").Add(stanza.El(nsPubsub, "unsubscribe").With("node", src.node).With("jid", p.self().String()))
		if _, err := p.ask(ctx, stanza.TypeSet, src.service, end); err != nil {
			p.env.Log.Info("block list not unsubscribed from", "list", name, "err", err)
		}
	}
	return p.lists.store.forget(ctx, name)
}

// self is who subscribes: the first of our domains.
func (p *part) self() jid.JID {
	j, _ := jid.New("", p.env.Domains.List()[0], "") // it is prepared
	return j
}

// ask asks and waits.
func (p *part) ask(ctx context.Context, typ string, to jid.JID, query *stanza.Element) (*stanza.Stanza, error) {
	type answer struct {
		st  *stanza.Stanza
		err error
	}
	ch := make(chan answer, 1)
	p.reg.Ask(ctx, stanza.Make(stanza.IQ, typ, p.self(), to, p.reg.AskID(), query), func(st *stanza.Stanza, err error) { ch <- answer{st, err} })
	select {
	case a := <-ch:
		return a.st, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
