package pubsub

import (
	"context"
	"crypto/rand"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// show is <subscription/>, of NS, NSOwner or NSEvent.
func (s *Subscription) show(ns, node string) *stanza.Element {
	return stanza.El(ns, "subscription").WithOpt("node", node).With("jid", s.JID.String()).With("subscription", string(s.State))
}

// subscriber reads whose subscription a request is about: an address of who asks
// (XEP-0060 §6.1.3.1, §6.2.3.3, §6.3.4.2).
func subscriber(r *request, foreign error) (jid.JID, error) {
	if !r.what.Has("jid") {
		return jid.JID{}, failure(stanza.BadRequest, "jid-required", "")
	}
	who, err := jid.Parse(r.what.Get("jid"))
	switch {
	case err != nil:
		return who, failure(stanza.BadRequest, "invalid-jid", "")
	case who.Bare() != r.From.Bare():
		return who, foreign
	}
	return who, nil
}

// mine is the subscription that the asker speaks of. Who may not know the node is
// told nothing else.
func (c *component) mine(ctx context.Context, r *request, n *Node) (*Subscription, error) {
	who, err := subscriber(r, errForbidden())
	if err != nil && !r.stranger {
		return nil, err
	}
	var s *Subscription
	if err == nil {
		if s, err = c.store.subscription(ctx, n, who); err != nil {
			return nil, err
		}
	}
	switch {
	case s != nil:
		return s, nil
	case r.stranger:
		if err := c.mayRead(ctx, n, r.From); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	e := failure(stanza.UnexpectedRequest, "not-subscribed", "")
	e.Type = stanza.Cancel
	return nil, e
}

// onSubscribe is XEP-0060 §6.1.
func (c *component) onSubscribe(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	state, err := c.mayJoin(ctx, n, r.From)
	if err != nil {
		return nil, err
	}
	who, err := subscriber(r, failure(stanza.BadRequest, "invalid-jid", "")) // §6.1.3.1
	if err != nil {
		return nil, err
	}
	old, err := c.store.subscription(ctx, n, who)
	if err != nil {
		return nil, err
	}
	s := Subscription{JID: who, State: state, Options: defaultOptions(), asked: true}
	if old != nil {
		if old.State == Pending && state == Pending { // §6.1.3.7
			return nil, failure(stanza.NotAuthorized, "pending-subscription", "")
		}
		s.Options = old.Options
	}
	out := stanza.El(NS, "pubsub")
	var chosen *stanza.Element
	if el := r.pubsub.Child(NS, "options"); el != nil { // §6.3.7
		if el.Has("node") || el.Has("jid") {
			return nil, stanza.NewError(stanza.BadRequest, "the node and the subscriber are named once")
		}
		if _, err := c.options(el, &s.Options); err != nil {
			return nil, err
		}
		chosen = stanza.El(NS, "options").Add(optionFields().Form(form.Result, FormSubscribe, &s.Options).Element())
	}
	if err := c.lasting(n, who, &s.Options); err != nil {
		return nil, err
	}
	if err := c.store.setSubscription(ctx, n, s, &c.cfg.Limits); err != nil {
		return nil, err
	}
	if state == Pending {
		c.askOwners(ctx, n, s)
	} else {
		c.joined(ctx, n, s, old == nil || old.State != Subscribed)
	}
	fire(ctx, c, Joined, &Joining{Node: n, Subscription: s, By: r.From, Request: r.what})
	return out.Add(s.show(NS, n.Node), chosen), nil
}

// mayJoin returns the state that somebody's subscription begins in, or why there
// is none (XEP-0060 §6.1.3, §6.1.4).
func (c *component) mayJoin(ctx context.Context, n *Node, who jid.JID) (State, error) {
	a := n.Affiliation(who)
	if n.Settings.Access == Authorize && a == None && n.Settings.Subscribe && n.Base == "" {
		if err := c.mayReadAbove(ctx, n, who); err != nil {
			return "", err
		}
		in, err := c.store.subscribed(ctx, n, who.Bare())
		if err != nil || in {
			return Subscribed, err
		}
		return Pending, nil
	}
	if err := c.mayRead(ctx, n, who); err != nil {
		return "", err
	}
	if !n.Settings.Subscribe && !a.may(mayManage) { // §6.1.3.10
		return "", unsupported("subscribe")
	}
	return Subscribed, nil
}

// joined is what a subscription that has begun brings: the last item (XEP-0060
// §6.1.7), and a word to the owners.
func (c *component) joined(ctx context.Context, n *Node, s Subscription, fresh bool) {
	if fresh && n.Settings.Last != Never && n.Settings.Deliver && n.Settings.Persist && s.Options.Deliver && c.present(n, &s) {
		page, err := c.store.items(ctx, n, Query{Newest: 1})
		switch {
		case err != nil:
			c.env.Log.Error("last item not sent", "jid", s.JID.String(), "node", n.Node, "err", err)
		case len(page.Items) > 0:
			c.lastItem(ctx, n, page.Items[0], audience{subscribed: []jid.JID{s.JID}})
		}
	}
	if fresh {
		c.tellOwners(ctx, n, s)
	}
}

// tellOwners is pubsub#notify_sub (XEP-0060 §16.4.4).
func (c *component) tellOwners(ctx context.Context, n *Node, s Subscription) {
	if n.Settings.NotifySub {
		c.send(ctx, n, audience{subscribed: n.with(Owner)}, s.show(NSEvent, n.Node))
	}
}

// onUnsubscribe is XEP-0060 §6.2.
func (c *component) onUnsubscribe(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	s, err := c.mine(ctx, r, n)
	if err != nil {
		return nil, err
	}
	if err := c.end(ctx, n, *s, r.From); err != nil {
		return nil, err
	}
	gone := *s
	gone.State = NoneAnyMore
	return stanza.El(NS, "pubsub").Add(gone.show(NS, n.Node)), nil
}

// end ends a subscription. by: who wants that; zero: it ends of itself.
func (c *component) end(ctx context.Context, n *Node, s Subscription, by jid.JID) error {
	was, err := c.store.unsubscribe(ctx, n, s.JID)
	if err != nil || !was {
		return err
	}
	s.State = NoneAnyMore
	c.tellOwners(ctx, n, s)
	fire(ctx, c, Joined, &Joining{Node: n, Subscription: s, By: by})
	return nil
}

// onSubscriptions is XEP-0060 §5.6.
func (c *component) onSubscriptions(ctx context.Context, r *request, _ *Node) (*stanza.Element, error) {
	list, err := c.store.subscriptionsOf(ctx, r.service, r.From.Bare(), r.at.Node)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "subscriptions").WithOpt("node", r.at.Node)
	for i := range list {
		out.Add(list[i].show(NS, list[i].name))
	}
	return stanza.El(NS, "pubsub").Add(out), nil
}

// askOwners asks for an approval (XEP-0060 §8.6). Owners who are away find it when
// they come back: it has a body.
func (c *component) askOwners(ctx context.Context, n *Node, s Subscription) {
	f := &form.Form{Kind: form.Empty, Type: FormAuthorize, Title: "PubSub subscriber request", Instructions: "Allow or deny the subscription."}
	f.Add(form.TextSingle, "pubsub#node", "Node", n.Node).
		Add(form.JIDSingle, "pubsub#subscriber_jid", "Subscriber", s.JID.String()).
		Add(form.Boolean, "pubsub#allow", "Allow the subscription?", form.Flag(false))
	body := stanza.El(stanza.NSClient, "body").AddText(s.JID.String() + " wants to subscribe to " + n.Node + " at " + n.Service.String())
	var out []*stanza.Stanza
	for _, o := range n.with(Owner) {
		out = append(out, stanza.Make(stanza.Message, "", n.Service, o, rand.Text(), body, f.Element()))
	}
	c.reg.Submit(ctx, out...)
}

// answers reports whether a message answers such a question.
func answers(st *stanza.Stanza) bool {
	x := st.Child(stanza.NSDataForms, "x")
	if x == nil || x.Get("type") != form.Submit && x.Get("type") != form.Cancel {
		return false
	}
	f, err := form.Parse(x)
	return err == nil && f.Type == FormAuthorize
}

// message takes an owner's answer (XEP-0060 §8.6). What is none is nobody's
// business at a service.
func (c *component) message(ctx context.Context, st *stanza.Stanza, service jid.JID) error {
	if st.Type == stanza.TypeError || !answers(st) {
		if st.Type == stanza.TypeError || st.Type == stanza.TypeHeadline {
			return nil
		}
		return stanza.NewError(stanza.ServiceUnavailable, "")
	}
	f, err := form.Submitted(st.Child(stanza.NSDataForms, "x"), FormAuthorize)
	if err != nil || f.Kind == form.Cancel { // it stays pending
		return err
	}
	n, err := c.dir.node(ctx, Address{service, f.Value("pubsub#node")})
	switch {
	case err != nil:
		return err
	case n == nil || !n.Affiliation(st.From).may(mayManage): // who may not learns nothing of what there is
		return errForbidden()
	}
	allow, ok := form.ParseFlag(f.Value("pubsub#allow"))
	who, err := jid.Parse(f.Value("pubsub#subscriber_jid"))
	if err != nil || !ok {
		return stanza.NewError(stanza.BadRequest, "the answer is not complete")
	}
	s, err := c.store.subscription(ctx, n, who)
	if err != nil || s == nil || s.State != Pending { // another owner was faster
		return err
	}
	state := NoneAnyMore
	if allow {
		state = Subscribed
	}
	return c.decide(ctx, n, *s, state, st.From)
}

// decide gives a subscription the state that an owner wants for it, and tells the
// subscriber (XEP-0060 §8.6, §8.8.4).
func (c *component) decide(ctx context.Context, n *Node, s Subscription, state State, by jid.JID) error {
	fresh := s.State != Subscribed && state == Subscribed
	s.State = state
	if state == NoneAnyMore {
		if err := c.end(ctx, n, s, by); err != nil {
			return err
		}
	} else if err := c.store.setSubscription(ctx, n, s, &c.cfg.Limits); err != nil {
		return err
	}
	c.send(ctx, n, audience{subscribed: []jid.JID{s.JID}}, s.show(NSEvent, n.Node))
	if state != NoneAnyMore {
		c.joined(ctx, n, s, fresh)
		fire(ctx, c, Joined, &Joining{Node: n, Subscription: s, By: by})
	}
	return nil
}
