package presence

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// broadcast sends a session's presence to its subscribers and to the account's
// available sessions (RFC 6121 §4.2.2, §4.4.2, §4.5.2). The bytes are shared:
// all local recipients together have one envelope. Local contacts without an
// available session cost a look into the registry.
func (c *component) broadcast(ctx context.Context, from *sessions.Entry, st *stanza.Stanza, contacts *roster.Snapshot) {
	to := make([]jid.JID, 0, 1+len(contacts.Subscribers()))
	for _, j := range contacts.Subscribers() {
		if c.reachable(j) {
			to = append(to, j)
		}
	}
	to = c.audience(ctx, from.JID, to...)
	to = append(to, from.JID.Bare()) // nobody hides from himself
	var batch []*channel.Envelope
	here := make([]sessions.Ref, 0, len(to))
	for _, j := range to {
		if !c.env.Local(j.Domain()) {
			batch = append(batch, readdressed(from, st, j))
			continue
		}
		for _, s := range c.env.Sessions.Account(j) {
			if s.Available {
				here = append(here, s.Ref)
			}
		}
	}
	c.sent.WithLabelValues("broadcast").Add(float64(len(batch) + len(here)))
	if len(here) > 0 {
		batch = append(batch, channel.Spread(from.Ref, st, channel.Bare, here))
	}
	c.house.Route(ctx, batch...)
}

// reachable reports whether presence to the address can reach anybody.
func (c *component) reachable(bare jid.JID) bool {
	if !c.env.Local(bare.Domain()) {
		return true
	}
	for _, s := range c.env.Sessions.Account(bare) {
		if s.Available {
			return true
		}
	}
	return false
}

// audience asks who of them may get presence of from.
func (c *component) audience(ctx context.Context, from jid.JID, to ...jid.JID) []jid.JID {
	a := &Audience{From: from, To: to}
	if _, err := processor.Fire(ctx, c.house, Reaches, a); err != nil {
		c.env.Log.Error("presence kept back: a hook failed", "jid", from.String(), "err", err)
		return nil
	}
	return a.To
}

// readdressed is a way to one recipient for a stanza whose bytes are shared.
func readdressed(from *sessions.Entry, st *stanza.Stanza, to jid.JID) *channel.Envelope {
	own := *st
	own.To = to
	e := &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: &own, Edits: own.Stamp()}
	if from != nil {
		e.Session = from.Ref // keeps it in line with what else the session sends
	}
	return e
}

// rewritten is the stanza with other addresses, in bytes of its own, fit to
// arrive as if somebody had sent it.
func rewritten(st *stanza.Stanza, from, to jid.JID) *stanza.Stanza {
	own := *st
	own.From, own.To = from, to
	edits := own.Stamp()
	return reparsed(edits.Render(nil, st.Raw))
}

// reparsed parses what this program has rendered or stored.
func reparsed(raw []byte) *stanza.Stanza {
	st, err := stanza.Parse(raw, stanza.NSClient, nil)
	if err != nil {
		return nil
	}
	return st
}

// shown is a session's last presence on its way to somebody (RFC 6121 §4.3.2).
// at adds when it was sent (XEP-0203 §4).
func shown(s *sessions.Entry, to jid.JID, at bool) *channel.Envelope {
	st := reparsed(s.Presence)
	if st == nil {
		return nil
	}
	e := readdressed(nil, st, to)
	if at {
		e.Edits.Append = delay(s.PresenceAt).Append(nil, stanza.NSClient)
	}
	return e
}

func delay(at time.Time) *stanza.Element {
	return stanza.El(stanza.NSDelay, "delay").With("stamp", at.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// sessionsOf are the sessions of the account that pick takes.
func (c *component) sessionsOf(account jid.JID, pick func(*sessions.Entry) bool) []*sessions.Entry {
	var out []*sessions.Entry
	for _, s := range c.env.Sessions.Account(account) {
		if s.Kind == sessions.Client && pick(s) {
			out = append(out, s)
		}
	}
	return out
}

func isAvailable(s *sessions.Entry) bool  { return s.Available }
func isInterested(s *sessions.Entry) bool { return s.Interested }
