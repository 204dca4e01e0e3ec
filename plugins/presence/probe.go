package presence

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// probed answers a probe to a local account (RFC 6121 §4.3.2). What it tells,
// and whether it tells the existence of a session at all, depends on who asks.
func (c *component) probed(ctx context.Context, f *processor.Flow) error {
	asker := f.From.Bare()
	state, err := c.rosters.Subscription(ctx, f.Account, asker)
	if err != nil {
		return err
	}
	switch {
	case asker != f.Account && !state.From():
		c.stranger(ctx, f)
	case f.To.IsFull():
		c.answerFull(ctx, f)
	default:
		c.answerBare(ctx, f)
	}
	return nil
}

// answerBare tells a subscriber the last presence of each session (§4.3.2,
// items 3 and 4).
func (c *component) answerBare(ctx context.Context, f *processor.Flow) {
	var out []*channel.Envelope
	for _, s := range c.sessionsOf(f.Account, isAvailable) {
		if len(c.audience(ctx, s.JID, f.From.Bare())) == 0 {
			continue
		}
		if e := shown(s, f.From, true); e != nil {
			out = append(out, e)
		}
	}
	if len(out) == 0 { // §4.3.2.1: the id is the probe's
		c.house.Emit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnavailable, f.Account, f.From, f.ID))
		return
	}
	c.sent.WithLabelValues("probe").Add(float64(len(out)))
	c.house.Route(ctx, out...)
}

// answerFull tells a subscriber no more than whether the session is available
// (§4.3.2, last paragraph).
func (c *component) answerFull(ctx context.Context, f *processor.Flow) {
	s, ok := c.env.Sessions.Find(f.To)
	there := ok && s.Available && len(c.audience(ctx, s.JID, f.From.Bare())) > 0
	c.mere(ctx, f, there)
}

func (c *component) mere(ctx context.Context, f *processor.Flow, there bool) {
	typ := stanza.TypeUnavailable
	if there {
		typ = ""
	}
	c.house.Emit(ctx, stanza.Make(stanza.Presence, typ, f.To, f.From, f.ID))
}

// stranger answers who has no subscription: with mere presence if the session
// has shown itself to exactly this entity (§4.6.6), else with a word that is
// the same whoever is there (§4.3.2, item 1).
func (c *component) stranger(ctx context.Context, f *processor.Flow) {
	if f.To.IsFull() && c.directed.Shows(f.To, f.From) {
		c.mere(ctx, f, true)
		return
	}
	c.house.Submit(ctx, stanza.Make(stanza.Presence, stanza.TypeUnsubscribed, f.Account, f.From.Bare(), f.ID))
}

// reveal sends the account's current presence to a new subscriber (§3.1.5).
func (c *component) reveal(ctx context.Context, account, contact jid.JID) {
	c.each(ctx, account, contact, func(s *sessions.Entry) *channel.Envelope { return shown(s, contact, false) })
}

// revealOne is reveal when it is one of many that somebody gets at once: it waits for room.
func (c *component) revealOne(ctx context.Context, account, contact jid.JID) {
	c.each(ctx, account, contact, func(s *sessions.Entry) *channel.Envelope {
		e := shown(s, contact, false)
		if e != nil {
			e.Solicited = true
		}
		return e
	})
}

// hide tells somebody who will not be a subscriber any more that nobody is
// there (§3.2.2, §3.3.3).
func (c *component) hide(ctx context.Context, account, contact jid.JID) {
	c.each(ctx, account, contact, func(s *sessions.Entry) *channel.Envelope {
		st := stanza.Make(stanza.Presence, stanza.TypeUnavailable, s.JID, contact, newID())
		return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st}
	})
}

func (c *component) each(ctx context.Context, account, contact jid.JID, what func(*sessions.Entry) *channel.Envelope) {
	var out []*channel.Envelope
	for _, s := range c.sessionsOf(account, isAvailable) {
		if len(c.audience(ctx, s.JID, contact)) == 0 {
			continue
		}
		if e := what(s); e != nil {
			out = append(out, e)
		}
	}
	c.sent.WithLabelValues("subscription").Add(float64(len(out)))
	c.house.Route(ctx, out...)
}
