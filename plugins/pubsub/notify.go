package pubsub

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/presence"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// audience is who is told of something at a node.
type audience struct {
	subscribed []jid.JID // as they have subscribed, bare or full
	interested []jid.JID // full JIDs that have asked by +notify (XEP-0163 §4)
}

// notify tells everybody who wants to know of a node and may.
func (c *component) notify(ctx context.Context, n *Node, event *stanza.Element) {
	if n.Settings.Deliver {
		c.send(ctx, n, c.audience(ctx, n, false), event)
	}
}

// audience finds out who that is; pending: those who wait for approval, too.
func (c *component) audience(ctx context.Context, n *Node, pending bool) (to audience) {
	if n.PEP() {
		to.interested = c.interestedIn(ctx, n)
	}
	subs, err := c.store.subscriptions(ctx, n)
	if err != nil {
		c.env.Log.Error("subscribers not told", "service", n.Service.String(), "node", n.Node, "err", err)
		return to
	}
	for _, s := range subs {
		if !(s.State == Subscribed || pending && s.State == Pending) || !s.Options.Deliver || !c.present(n, &s) {
			continue
		}
		if s.State == Subscribed && !c.stillMay(ctx, n, s.JID) {
			continue
		}
		// XEP-0163 §4.3: each of their devices that has asked, or their address.
		if slices.ContainsFunc(to.interested, func(j jid.JID) bool { return j == s.JID || j.Bare() == s.JID }) {
			continue
		}
		to.subscribed = append(to.subscribed, s.JID)
	}
	return to
}

// stillMay reports whether a subscriber has not lost the right to a node since, by
// another access model or affiliation.
func (c *component) stillMay(ctx context.Context, n *Node, who jid.JID) bool {
	if n.alone() && n.Affiliation(who) == None && n.Settings.Access == Authorize { // the subscription is the right
		return true
	}
	return c.mayRead(ctx, n, who) == nil
}

// present reports whether the subscriber is there as the node (XEP-0060 §12.6)
// or its own options (§16.4.2) want it. Of people elsewhere nobody knows.
func (c *component) present(n *Node, s *Subscription) bool {
	if !n.Settings.PresenceBased && len(s.Options.Show) == 0 {
		return true
	}
	for _, e := range c.env.Sessions.Account(s.JID.Bare()) {
		if !e.Available || s.JID.IsFull() && e.JID != s.JID {
			continue
		}
		if len(s.Options.Show) == 0 || slices.Contains(s.Options.Show, showOf(e)) {
			return true
		}
	}
	return false
}

// showOf is the presence state of a session as pubsub#show-values has it.
func showOf(e *sessions.Entry) string {
	st, err := stanza.Parse(e.Presence, stanza.NSClient, nil)
	if err != nil {
		return ""
	}
	if el := st.Child(stanza.NSClient, "show"); el != nil && el.Text() != "" {
		return strings.TrimSpace(el.Text())
	}
	return "online"
}

// subscribersAtOnce is how many stanzas are made before they go out.
const subscribersAtOnce = 256

// send sends the event. What goes to devices that have shown their interest
// shares its bytes; what goes to subscribers arrives there as from anybody, so
// that block lists count.
func (c *component) send(ctx context.Context, n *Node, to audience, event *stanza.Element, more ...*stanza.Element) {
	c.sent.WithLabelValues("interest").Add(float64(len(to.interested)))
	c.sent.WithLabelValues("subscription").Add(float64(len(to.subscribed)))
	typ := string(n.Settings.Message)
	if typ == stanza.TypeNormal {
		typ = ""
	}
	body := append([]*stanza.Element{stanza.El(NSEvent, "event").Add(event)}, more...)
	if len(to.interested) > 0 {
		st := stanza.Make(stanza.Message, typ, n.Service, jid.JID{}, rand.Text(), body...)
		batch := make([]*channel.Envelope, len(to.interested))
		for i, j := range to.interested {
			own := *st
			own.To = j
			batch[i] = &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: &own, Edits: own.Stamp()}
		}
		c.reg.Route(ctx, batch...)
	}
	for some := range slices.Chunk(to.subscribed, subscribersAtOnce) {
		out := make([]*stanza.Stanza, len(some))
		for i, j := range some {
			out[i] = stanza.Make(stanza.Message, typ, n.Service, j, rand.Text(), body...)
		}
		c.reg.Submit(ctx, out...)
	}
}

// delayed says when an item was published (XEP-0203), with items that are not
// new.
func delayed(it *Item) *stanza.Element {
	return stanza.El(stanza.NSDelay, "delay").With("stamp", it.At.UTC().Format(time.RFC3339))
}

// lastItem sends a node's last item.
func (c *component) lastItem(ctx context.Context, n *Node, it *Item, to audience) {
	c.send(ctx, n, to, stanza.El(NSEvent, "items").With("node", n.Node).Add(n.show(NSEvent, it, n.Settings.Payloads)), delayed(it))
}

// interestedIn are the devices of the account and of its contacts that have
// asked for what is published at the node (XEP-0163 §4.1, §4.2).
func (c *component) interestedIn(ctx context.Context, n *Node) (out []jid.JID) {
	out = c.asking(ctx, out, n.Service, n)
	contacts, err := c.rosters.Contacts(ctx, n.Service)
	if err != nil {
		c.env.Log.Error("contacts not told", "service", n.Service.String(), "node", n.Node, "err", err)
		return out
	}
	var ask []jid.JID
	for _, j := range contacts.Subscribers() {
		if j != n.Service && c.shares(ctx, n, j) && c.anybody(ctx, j, n) {
			ask = append(ask, j)
		}
	}
	for _, j := range c.unblocked(ctx, n.Service, ask...) {
		out = c.asking(ctx, out, j, n)
	}
	return out
}

// shares reports whether presence alone brings a contact what is published at
// the node: never from a whitelist or what has to be approved (rule 66, XEP-0060
// §9.1.2).
func (c *component) shares(ctx context.Context, n *Node, contact jid.JID) bool {
	all, err := c.lineage(ctx, n)
	if err != nil || slices.ContainsFunc(all, func(m *Node) bool { return !m.Settings.shared() }) {
		return false
	}
	return c.mayRead(ctx, n, contact) == nil
}

// shared reports whether presence may be enough to get what is published.
func (s *Settings) shared() bool {
	return s.Access == Open || s.Access == Presence || s.Access == Roster
}

// unblocked leaves out who has blocked the other.
func (c *component) unblocked(ctx context.Context, account jid.JID, to ...jid.JID) []jid.JID {
	if len(to) == 0 {
		return nil
	}
	a := &presence.Audience{From: account, To: to}
	if _, err := processor.Fire(ctx, c.reg, presence.Reaches, a); err != nil {
		c.env.Log.Error("notifications kept back: a hook failed", "from", account.String(), "err", err)
		return nil
	}
	return a.To
}

// asking appends the devices of somebody, bare, that have asked for the node.
func (c *component) asking(ctx context.Context, out []jid.JID, bare jid.JID, n *Node) []jid.JID {
	for _, e := range c.env.Sessions.Account(bare) {
		if e.Kind != sessions.Client || !e.Available {
			continue
		}
		if features, ok := c.caps.FeaturesOf(ctx, e); ok && asksFor(features, n.Node) {
			out = append(out, e.JID)
		}
	}
	for _, j := range c.afar.of(bare) {
		h, _ := c.caps.Announced(j)
		if features, ok := c.caps.Features(h); ok && asksFor(features, n.Node) {
			out = append(out, j)
		}
	}
	return out
}

func (c *component) anybody(ctx context.Context, bare jid.JID, n *Node) bool {
	return len(c.asking(ctx, nil, bare, n)) > 0
}

// notifySuffix marks what a client wants to be notified of (XEP-0060 §9.2).
const notifySuffix = "+notify"

// asksFor reports whether verified capabilities ask for a node (rule 66).
func asksFor(features []string, node string) bool {
	_, there := slices.BinarySearch(features, node+notifySuffix)
	return there
}
