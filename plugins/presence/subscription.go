package presence

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/channel"
)

// manage is a subscription stanza of a local client (RFC 6121 §A.2). The
// client's sessions learn of the change before the stanza goes out, and not
// after it as in §3.1.2: a contact's server that answers at once would make
// two pushes overtake each other (§2.6.3), and nobody can tell otherwise.
func (c *component) manage(ctx context.Context, f *processor.Flow, a roster.Action) error {
	if f.To.IsZero() {
		return stanza.NewError(stanza.BadRequest, "a subscription needs an address")
	}
	owner, contact := f.Session.JID.Bare(), f.To.Bare() // §3.1.2: sent to the bare JID, from the bare JID
	if owner == contact {
		return nil // §4.2.2: an account is subscribed to itself
	}
	o, err := c.rosters.Apply(ctx, c.house, roster.Event{Direction: roster.Outbound, Action: a, Owner: owner, Contact: contact}, nil)
	if err != nil {
		return err
	}
	if o.Closed() && a == roster.Unsubscribed { // §3.2.2: while the contact is still subscribed
		c.hide(ctx, owner, contact)
	}
	if o.Pass {
		c.house.Submit(ctx, rewritten(f.Stanza, owner, contact))
	}
	if o.Opened() { // §3.1.5
		c.reveal(ctx, owner, contact)
	}
	return nil
}

// managed is a subscription stanza for a local account (RFC 6121 §A.3). One
// to a full JID is treated like one to the bare JID (§3.1.3, §8.5.3.1).
func (c *component) managed(ctx context.Context, f *processor.Flow, a roster.Action) error {
	owner, contact := f.Account, f.From.Bare()
	if contact.IsZero() || owner == contact {
		return nil
	}
	st := rewritten(f.Stanza, contact, owner)
	if st == nil {
		return nil
	}
	e := roster.Event{Direction: roster.Inbound, Action: a, Owner: owner, Contact: contact, Request: st}
	o, err := c.rosters.Apply(ctx, c.house, e, func(o roster.Outcome) {
		if o.Pass {
			c.deliver(ctx, st, a)
		}
	})
	if err != nil {
		return err
	}
	if o.Closed() { // §3.3.3
		c.hide(ctx, owner, contact)
	}
	if !o.Answers {
		return nil
	}
	c.house.Submit(ctx, stanza.Make(stanza.Presence, o.Answer.String(), owner, contact, f.ID))
	if o.Answer == roster.Subscribed { // §3.1.5; who asks again has lost what it knew
		c.reveal(ctx, owner, contact)
	}
	return nil
}

// deliver hands a subscription stanza to the account's sessions: a request to
// the available ones (§3.1.3), what changes a subscription to the interested
// ones (§3.1.6, §3.2.3, §3.3.3).
func (c *component) deliver(ctx context.Context, st *stanza.Stanza, a roster.Action) {
	pick := isInterested
	if a == roster.Subscribe {
		pick = isAvailable
	}
	var out []*channel.Envelope
	for _, s := range c.sessionsOf(st.To, pick) {
		out = append(out, roster.For(s, st))
	}
	c.house.Route(ctx, out...)
}

// removed ends the subscriptions with a contact that was taken out of the
// roster (RFC 6121 §2.5.2). A request of the user's own that waits is taken
// back as well.
func (c *component) removed(ctx context.Context, r *roster.Removal) (processor.Verdict, error) {
	c.part(ctx, r.Owner, r.Contact, r.Was)
	return processor.Continue, nil
}

// reshared lets presence follow what an administrator has made of subscriptions, as if
// the account had granted or cancelled them (RFC 6121 §3.1.5, §3.2.2).
func (c *component) reshared(ctx context.Context, r *roster.Resharing) (processor.Verdict, error) {
	if !c.reachable(r.Owner) { // nobody is there whose presence it could be
		return processor.Continue, nil
	}
	for _, contact := range r.Closed {
		if c.reachable(contact) {
			c.hide(ctx, r.Owner, contact)
		}
	}
	for _, contact := range r.Opened {
		if c.reachable(contact) {
			c.revealOne(ctx, r.Owner, contact)
		}
	}
	return processor.Continue, nil
}

func (c *component) part(ctx context.Context, owner, contact jid.JID, was roster.State) {
	if was.To() || was.PendingOut() {
		c.house.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnsubscribe, owner, contact, newID()))
	}
	if was.From() {
		c.hide(ctx, owner, contact) // §3.2.2
		c.house.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnsubscribed, owner, contact, newID()))
	}
}

// accountRemoved ends every subscription of an account that is deleted, before
// its roster goes (XEP-0077 §3.2).
func (c *component) accountRemoved(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	contacts, err := c.rosters.Contacts(ctx, account)
	if err != nil {
		return processor.Continue, err
	}
	for _, it := range contacts.Items() {
		c.part(ctx, account, it.JID, it.State)
	}
	return processor.Continue, nil
}
