package presence

import (
	"context"
	"crypto/rand"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// welcome brings a session that has become available what it must know: the
// account's other sessions, its contacts (RFC 6121 §4.2.2), and the requests
// that still wait for an answer (§3.1.3).
func (c *component) welcome(ctx context.Context, s *sessions.Entry, contacts *roster.Snapshot) error {
	var here, probes []*channel.Envelope
	own := s.JID.Bare()
	for _, other := range c.sessionsOf(own, isAvailable) {
		if other.JID != s.JID {
			here = append(here, c.shownTo(other, s)...)
		}
	}
	for _, contact := range contacts.Subscriptions() {
		if !c.env.Local(contact.Domain()) {
			probe := stanza.Make(stanza.Presence, stanza.TypeProbe, own, contact, newID()) // §4.3.1
			probes = append(probes, &channel.Envelope{Kind: channel.Route, Session: s.Ref, Raw: probe.Raw, Stanza: probe})
			continue
		}
		there, err := c.contact(ctx, contact, s)
		if err != nil {
			return err
		}
		here = append(here, there...)
	}
	c.sent.WithLabelValues("welcome").Add(float64(len(here)))
	c.house.Route(ctx, here...)
	c.house.Route(ctx, probes...)
	c.askAgain(ctx, own, contacts)
	return c.repeatRequests(ctx, s, contacts)
}

// resumed brings a session that goes on after a restart what it may have
// missed: who is there now, and who is not any more. Its own presence need not
// be told: it was never taken back, unless it was buried with its node.
func (c *component) resumed(ctx context.Context, s *sessions.Entry) (processor.Verdict, error) {
	if !s.Paused || !s.Available {
		return processor.Continue, nil
	}
	contacts, err := c.rosters.Contacts(ctx, s.JID.Bare())
	if err != nil {
		return processor.Continue, err
	}
	var gone []*channel.Envelope
	for _, contact := range contacts.Subscriptions() {
		if c.env.Local(contact.Domain()) && len(c.sessionsOf(contact, isAvailable)) == 0 { // as a probe is answered (§4.3.2)
			st := stanza.Make(stanza.Presence, stanza.TypeUnavailable, contact, s.JID, newID())
			e := roster.For(s, st)
			e.Class, e.Solicited = channel.Presence, true
			gone = append(gone, e)
		}
	}
	c.house.Route(ctx, gone...)
	if st := reparsed(s.Presence); s.Buried && st != nil {
		c.broadcast(ctx, s, st, contacts)
	} else {
		c.moved(ctx, s, contacts.Subscribers())
	}
	return processor.Continue, c.welcome(ctx, s, contacts)
}

// askAgain repeats to other servers what they have not answered: the first
// request may have got lost (§3.1.2).
func (c *component) askAgain(ctx context.Context, own jid.JID, contacts *roster.Snapshot) {
	for _, contact := range contacts.Requested() {
		if !c.env.Local(contact.Domain()) {
			c.house.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeSubscribe, own, contact, newID()))
		}
	}
}

// contact is what a probe to a local contact would bring (§4.3.1: the server
// knows). A contact whose own roster knows nothing of the subscription says so,
// as it would to a probe (§4.3.2).
func (c *component) contact(ctx context.Context, contact jid.JID, s *sessions.Entry) ([]*channel.Envelope, error) {
	there := c.sessionsOf(contact, isAvailable)
	if len(there) == 0 {
		return nil, nil
	}
	own := s.JID.Bare()
	state, err := c.rosters.Subscription(ctx, contact, own)
	if err != nil {
		return nil, err
	}
	if !state.From() {
		c.house.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnsubscribed, contact, own, newID()))
		return nil, nil
	}
	var out []*channel.Envelope
	for _, other := range there {
		if len(c.audience(ctx, other.JID, own)) > 0 {
			out = append(out, c.shownTo(other, s)...)
		}
	}
	return out, nil
}

// shownTo is other's presence for the session s alone.
func (c *component) shownTo(other, s *sessions.Entry) []*channel.Envelope {
	e := shown(other, s.JID, true)
	if e == nil {
		return nil
	}
	d := roster.For(s, e.Stanza)
	d.Edits, d.Class, d.Solicited = e.Edits, channel.Presence, true
	return []*channel.Envelope{d}
}

// repeatRequests delivers what waits for an answer, at each initial presence
// until there is one (§3.1.3).
func (c *component) repeatRequests(ctx context.Context, s *sessions.Entry, contacts *roster.Snapshot) error {
	if len(contacts.Asked()) == 0 {
		return nil
	}
	all, err := c.rosters.Requests(ctx, s.JID.Bare())
	if err != nil {
		return err
	}
	batch := make([]*channel.Envelope, 0, len(all))
	for _, raw := range all {
		if st := reparsed(raw); st != nil {
			e := roster.For(s, st)
			e.Solicited = true
			batch = append(batch, e)
		}
	}
	c.house.Route(ctx, batch...)
	return nil
}

// newID is an id that nobody guesses.
func newID() string { return rand.Text()[:12] }
