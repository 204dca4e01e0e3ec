package pubsub

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
)

// rosters is what is asked of the roster. An account that does not exist has an
// empty one.
type rosters interface {
	Contacts(ctx context.Context, owner jid.JID) (*roster.Snapshot, error)
}

// mayReadHere returns why somebody may not subscribe to a node and retrieve its
// items, in a *stanza.Error, or nil (XEP-0060 §4.5, §6.1.3, §6.5.9).
func (c *component) mayReadHere(ctx context.Context, n *Node, who jid.JID) error {
	a := n.Affiliation(who)
	switch {
	case a.may(mayRead):
		return nil
	case a != None: // publish-only, outcast
		return errForbidden()
	}
	return c.admitted(ctx, n, who)
}

// admitted is what the access model says of those without an affiliation.
func (c *component) admitted(ctx context.Context, n *Node, who jid.JID) error {
	switch n.Settings.Access {
	case Open:
		return nil
	case Presence:
		_, err := c.asContact(ctx, n, who)
		return err
	case Roster:
		groups, err := c.asContact(ctx, n, who)
		if err == nil && !slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(n.Settings.Groups, g) }) {
			err = failure(stanza.NotAuthorized, "not-in-roster-group", "")
		}
		return err
	case Authorize:
		in, err := c.store.subscribed(ctx, n, who.Bare())
		if err == nil && !in {
			err = failure(stanza.NotAuthorized, "not-subscribed", "")
		}
		return err
	}
	return failure(stanza.NotAllowed, "closed-node", "")
}

// asContact returns the groups that owners of the node have somebody in who gets
// their presence, or not-authorized when nobody's presence is got.
func (c *component) asContact(ctx context.Context, n *Node, who jid.JID) (groups []string, err error) {
	owners := []jid.JID{n.Service}
	if !n.PEP() {
		owners = n.with(Owner)
	}
	from := false
	for _, o := range owners {
		if !c.env.Local(o.Domain()) {
			continue
		}
		contacts, err := c.rosters.Contacts(ctx, o)
		if err != nil {
			return nil, err
		}
		if item, _ := contacts.Item(who.Bare()); contacts.State(who.Bare()).From() {
			from, groups = true, append(groups, item.Groups...)
		}
	}
	if !from {
		return nil, failure(stanza.NotAuthorized, "presence-subscription-required", "")
	}
	return groups, nil
}

// mayPublishHere is XEP-0060 §7.1.3.1, with pubsub#publish_model. own: only what
// they have published themselves may be replaced.
func (c *component) mayPublishHere(ctx context.Context, n *Node, who jid.JID) (own bool, err error) {
	a := n.Affiliation(who)
	switch {
	case a.may(mayPublish):
		return !a.may(mayRemove), nil
	case a == Outcast:
		return false, errForbidden()
	}
	switch n.Settings.Publish {
	case Anybody:
		return true, nil
	case Subscribers:
		in, err := c.store.subscribed(ctx, n, who.Bare())
		if err != nil || in {
			return true, err
		}
	}
	return false, errForbidden()
}

// stranger reports whether somebody who asks an account's own service may not
// even know that the account exists: who does not get its presence (rule 35, rule
// 65).
func (c *component) stranger(ctx context.Context, service, who jid.JID) (bool, error) {
	if service.Local() == "" || who.Bare() == service || who.IsDomain() && c.env.Local(who.Domain()) {
		return false, nil
	}
	contacts, err := c.rosters.Contacts(ctx, service)
	if err != nil {
		return false, err
	}
	return !contacts.State(who.Bare()).From(), nil
}
