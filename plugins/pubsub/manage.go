package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// onSubscribers is XEP-0060 §8.8.1.
func (c *component) onSubscribers(ctx context.Context, _ *request, n *Node) (*stanza.Element, error) {
	list, err := c.store.subscriptions(ctx, n)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b Subscription) int { return cmp.Compare(a.JID.String(), b.JID.String()) })
	out := stanza.El(NSOwner, "subscriptions").With("node", n.Node)
	for i := range list {
		if list[i].State == Subscribed {
			out.Add(list[i].show(NSOwner, ""))
		}
	}
	return stanza.El(NSOwner, "pubsub").Add(out), nil
}

// delta reads what an owner changes: addresses and their new states.
func (c *component) delta(what *stanza.Element, local, attr string) ([]jid.JID, []string, error) {
	var who []jid.JID
	var states []string
	for el := range what.Elements() {
		j, err := jid.Parse(el.Get("jid"))
		switch {
		case el.Name != (stanza.Name{Space: NSOwner, Local: local}) || err != nil:
			return nil, nil, stanza.NewError(stanza.BadRequest, "addresses and what they are to be")
		case slices.Contains(who, j):
			return nil, nil, stanza.NewError(stanza.BadRequest, "the same address twice")
		case len(who) >= c.cfg.Page:
			return nil, nil, errLimit(fmt.Sprintf("a request has at most %d addresses (max_page)", c.cfg.Page))
		}
		if el.Has(attr) { // without it nothing changes (§8.8.2, §8.9.2)
			who, states = append(who, j), append(states, el.Get(attr))
		}
	}
	return who, states, nil
}

// onSetSubscribers is XEP-0060 §8.8.2. All is checked before anything changes.
func (c *component) onSetSubscribers(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	who, states, err := c.delta(r.what, "subscription", "subscription")
	if err != nil {
		return nil, err
	}
	before := make([]*Subscription, len(who))
	for i, j := range who {
		if s := State(states[i]); s != Subscribed && s != Pending && s != NoneAnyMore {
			return nil, stanza.NewError(stanza.NotAcceptable, states[i]+" is no state of a subscription")
		}
		if before[i], err = c.store.subscription(ctx, n, j); err != nil {
			return nil, err
		}
	}
	for i, j := range who {
		s := Subscription{JID: j, State: NoneAnyMore, Options: defaultOptions()}
		if before[i] != nil {
			s = *before[i]
		}
		if s.State == State(states[i]) {
			continue
		}
		if err := c.lasting(n, j, &s.Options); err != nil {
			return nil, err
		}
		if err := c.decide(ctx, n, s, State(states[i]), r.From); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// onAffiliations is XEP-0060 §5.7.
func (c *component) onAffiliations(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	names, affs, err := c.store.affiliationsOf(ctx, r.service, r.From.Bare(), c.cfg.Affiliations)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "affiliations").WithOpt("node", r.at.Node)
	for i, name := range names {
		if r.at.Node == "" || r.at.Node == name {
			out.Add(stanza.El(NS, "affiliation").With("node", name).With("affiliation", string(affs[i])))
		}
	}
	return stanza.El(NS, "pubsub").Add(out), nil
}

// onAffiliated is XEP-0060 §8.9.1.
func (c *component) onAffiliated(_ context.Context, _ *request, n *Node) (*stanza.Element, error) {
	out := stanza.El(NSOwner, "affiliations").With("node", n.Node)
	var who []jid.JID
	for j := range n.Affiliations {
		who = append(who, j)
	}
	slices.SortFunc(who, func(a, b jid.JID) int { return cmp.Compare(a.String(), b.String()) })
	for _, j := range who {
		out.Add(affiliated(NSOwner, j, n.Affiliations[j]))
	}
	return stanza.El(NSOwner, "pubsub").Add(out), nil
}

func affiliated(ns string, j jid.JID, a Affiliation) *stanza.Element {
	return stanza.El(ns, "affiliation").With("jid", j.String()).With("affiliation", string(a))
}

// onSetAffiliated is XEP-0060 §8.9.2.
func (c *component) onSetAffiliated(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	who, states, err := c.delta(r.what, "affiliation", "affiliation")
	if err != nil {
		return nil, err
	}
	change := map[jid.JID]Affiliation{}
	for i, j := range who {
		a := Affiliation(states[i])
		if _, ok := rights[a]; !ok {
			return nil, stanza.NewError(stanza.NotAcceptable, states[i]+" is no affiliation")
		}
		if n.PEP() && j.Bare() == n.Service && a != Owner {
			return nil, stanza.NewError(stanza.NotAcceptable, "an account owns its nodes")
		}
		change[j.Bare()] = a
	}
	if len(change) == 0 {
		return nil, nil
	}
	err = c.store.affiliate(ctx, n, change, &c.cfg.Limits)
	c.dir.changed(ctx, n.Address) // it may be committed whatever comes back
	if errors.Is(err, errLastOwner) {
		return nil, stanza.NewError(stanza.NotAcceptable, "a node needs an owner")
	}
	if err != nil {
		return nil, err
	}
	return nil, c.reaffiliated(ctx, n.withAffiliations(change), change, r.From)
}

// reaffiliated lets subscriptions follow affiliations: who is banned has none, who
// may read need not wait for approval (XEP-0060 §8.7).
func (c *component) reaffiliated(ctx context.Context, n *Node, change map[jid.JID]Affiliation, by jid.JID) error {
	list, err := c.store.subscriptions(ctx, n)
	if err != nil {
		return err
	}
	for _, s := range list {
		a, changed := change[s.JID.Bare()]
		switch {
		case !changed:
		case a == Outcast || a == PublishOnly:
			err = c.decide(ctx, n, s, NoneAnyMore, by)
		case s.State == Pending && a.may(mayRead):
			err = c.decide(ctx, n, s, Subscribed, by)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
