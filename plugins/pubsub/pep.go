package pubsub

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/disco"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
)

// interests remembers what sessions that change their capabilities had asked for
// before, until the new ones are known: what they know they are not sent again
// (XEP-0163 §4.3.3, "initial presence").
type interests struct {
	mu   sync.Mutex
	here map[sessions.Ref]disco.Hash
}

// note is called when a session that was available shows other capabilities.
func (i *interests) note(ref sessions.Ref, h disco.Hash) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.here == nil {
		i.here = map[sessions.Ref]disco.Hash{}
	}
	if _, there := i.here[ref]; !there { // what it had when it last got items
		i.here[ref] = h
	}
}

func (i *interests) take(ref sessions.Ref) disco.Hash {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := i.here[ref]
	delete(i.here, ref)
	return h
}

// afar remembers which devices of contacts elsewhere have shown capabilities to
// this node.
type afar struct {
	mu    sync.Mutex
	known *otter.Cache[jid.JID, []jid.JID] // full JIDs by bare ones
}

const (
	maxAfar        = 50_000
	maxDevicesAfar = 32
)

func newAfar() *afar {
	return &afar{known: otter.Must(&otter.Options[jid.JID, []jid.JID]{MaximumSize: maxAfar})}
}

func (a *afar) of(bare jid.JID) []jid.JID {
	list, _ := a.known.GetIfPresent(bare)
	return list
}

func (a *afar) change(full jid.JID, there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(a.of(full.Bare())), func(j jid.JID) bool { return j == full })
	if there && len(list) < maxDevicesAfar {
		list = append(list, full)
	}
	if len(list) == 0 {
		a.known.Invalidate(full.Bare())
		return
	}
	a.known.Set(full.Bare(), list)
}

// became looks at what a session's presence changes for nodes and subscriptions.
func (c *component) became(ctx context.Context, t *presence.Transition) (processor.Verdict, error) {
	if t.Left() {
		c.was.take(t.Session.Ref)
		c.left(ctx, t.Session)
		return processor.Continue, nil
	}
	before := disco.HashOf(&sessions.Entry{State: t.Before})
	if t.Before.Available && t.Session.Available && before != disco.HashOf(t.Session) {
		c.was.note(t.Session.Ref, before)
	}
	return processor.Continue, nil
}

// interested brings a device whose capabilities are known the last items that it
// asks for: of its own account, and of its contacts (XEP-0163 §4.1, §4.3; rule 66).
func (c *component) interested(ctx context.Context, k *disco.Known) (processor.Verdict, error) {
	wanted := asked(k.Features)
	if k.Session == nil {
		c.afar.change(k.JID, true)
		c.bring(ctx, k.Account, k.JID, wanted, c.cfg.LastItems)
		return processor.Continue, nil
	}
	if old := c.was.take(k.Session.Ref); !old.IsZero() {
		had, _ := c.caps.Features(old)
		for name := range asked(had) {
			delete(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return processor.Continue, nil
	}
	own := k.JID.Bare()
	contacts, err := c.rosters.Contacts(ctx, own)
	if err != nil {
		return processor.Continue, err
	}
	left := c.bring(ctx, own, k.JID, wanted, c.cfg.LastItems)
	for _, j := range contacts.Subscriptions() {
		if j != own && c.env.Local(j.Domain()) {
			left = c.bring(ctx, j, k.JID, wanted, left)
		}
	}
	return processor.Continue, nil
}

// asked are the nodes that features ask for.
func asked(features []string) map[string]bool {
	out := map[string]bool{}
	for _, f := range features {
		if node, ok := strings.CutSuffix(f, notifySuffix); ok && node != "" {
			out[node] = true
		}
	}
	return out
}

// bring sends the last items of an account's nodes that somebody wants and may
// have, at most left of them, and returns how many more it may be (reliability
// row 18). Beyond that nothing is sent: clients ask for what they miss.
func (c *component) bring(ctx context.Context, account, to jid.JID, wanted map[string]bool, left int) int {
	nodes, err := c.dir.nodes(ctx, account)
	if err != nil {
		c.env.Log.Error("last items not sent", "service", account.String(), "err", err)
		return left
	}
	var due []*Node
	for _, n := range nodes {
		s := &n.Settings
		if wanted[n.Node] && s.Deliver && s.Persist && s.Last == OnSubAndPresence && (to.Bare() == account || c.shares(ctx, n, to)) {
			due = append(due, n)
		}
	}
	if len(due) == 0 || to.Bare() != account && len(c.unblocked(ctx, account, to.Bare())) == 0 {
		return left
	}
	items, err := c.store.newest(ctx, account)
	if err != nil {
		c.env.Log.Error("last items not sent", "service", account.String(), "err", err)
		return left
	}
	for _, n := range due {
		it := items[n.id]
		switch {
		case it == nil:
		case left <= 0:
			c.sent.WithLabelValues("too-many").Inc()
		default:
			left--
			c.sent.WithLabelValues("last").Inc()
			c.lastItem(ctx, n, it, audience{interested: []jid.JID{to}})
		}
	}
	return left
}

// answered looks at what arrives at accounts: forms that answer requests to
// subscribe, contacts elsewhere that leave, and subscriptions to presence that
// are granted, with which the items come that can be seen now (XEP-0060 §12.2).
func (c *component) answered(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	switch {
	case f.Kind == stanza.Message && f.From.Bare() == f.Account && f.To.IsBare() && f.Has(stanza.NSDataForms, "x"):
		if answers(f.Stanza) {
			return processor.Stop, c.message(ctx, f.Stanza, f.Account)
		}
	case f.Kind == stanza.Presence && f.Type == stanza.TypeUnavailable && !c.env.Local(f.From.Domain()):
		c.afar.change(f.From, false)
	}
	return processor.Continue, nil
}

// granted is a presence subscription that has begun.
func (c *component) granted(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || f.Type != stanza.TypeSubscribed || !c.env.Local(f.From.Domain()) {
		return processor.Continue, nil
	}
	c.begun(ctx, f.Account, f.From.Bare())
	return processor.Continue, nil
}

// begun brings devices of an account what they want of another one, whose presence they
// get from now on.
func (c *component) begun(ctx context.Context, account, of jid.JID) {
	for _, e := range c.env.Sessions.Account(account) {
		features, ok := c.caps.FeaturesOf(ctx, e)
		if wanted := asked(features); ok && e.Available && len(wanted) > 0 {
			c.bring(ctx, of, e.JID, wanted, c.cfg.LastItems)
		}
	}
}

// maxReshared is how many who get an account's presence by one stroke of an
// administrator's are brought its items; the others ask, or get them when they come again.
const maxReshared = 50

// reshared is granted for subscriptions that an administrator has made.
func (c *component) reshared(ctx context.Context, r *roster.Resharing) (processor.Verdict, error) {
	if !c.env.Local(r.Owner.Domain()) {
		return processor.Continue, nil
	}
	left := maxReshared
	for _, account := range r.Opened {
		if left > 0 && !c.away(account) {
			c.begun(ctx, account, r.Owner)
			left--
		}
	}
	return processor.Continue, nil
}

// left ends what lasts as long as a session, or as the last one of its account:
// temporary subscriptions (XEP-0060 §12.5) and items of nodes with
// pubsub#purge_offline.
func (c *component) left(ctx context.Context, gone *sessions.Entry) {
	err := c.endTemporary(ctx, gone.JID.Bare(), func(j jid.JID) bool { return j == gone.JID || j.IsBare() && c.away(j) })
	if err != nil {
		c.env.Log.Error("temporary subscriptions go on until they are swept", "jid", gone.JID.String(), "err", err)
	}
	c.purgeOf(ctx, gone.JID)
}

// purgeOf removes what a device that has gone has published where that is not to
// outlive it.
func (c *component) purgeOf(ctx context.Context, gone jid.JID) {
	nodes, err := c.dir.nodes(ctx, gone.Bare())
	if err != nil {
		c.env.Log.Error("items of a device that has gone are left", "jid", gone.String(), "err", err)
		return
	}
	for _, n := range nodes {
		if !n.Settings.PurgeOffline {
			continue
		}
		ids, err := c.store.publishedBy(ctx, n, gone)
		if err == nil && len(ids) > 0 {
			err = c.retract(ctx, n, &removal{by: gone, ids: ids, lenient: true})
		}
		if err != nil {
			c.env.Log.Error("items of a device that has gone are left", "jid", gone.String(), "node", n.Node, "err", err)
		}
	}
}
