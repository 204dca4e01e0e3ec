package presence

import (
	"context"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router/sessions"
)

// nsCaps is XEP-0115 §4.
const nsCaps = "http://jabber.org/protocol/caps"

// maxCaps bounds what is kept of an announcement for each session.
const maxCaps = 640

// priority reads RFC 6121 §4.7.2.3.
func priority(st *stanza.Stanza) (int8, error) {
	var found *stanza.Element
	for _, ch := range st.Children {
		if ch.Name != (stanza.Name{Space: stanza.NSClient, Local: "priority"}) {
			continue
		}
		if found != nil {
			return 0, stanza.NewError(stanza.BadRequest, "presence has one priority")
		}
		found = st.Element(ch)
	}
	if found == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(found.Text()), 10, 8)
	if err != nil || found.Count() > 0 {
		return 0, stanza.NewError(stanza.BadRequest, "a priority is a number from -128 to 127")
	}
	return int8(n), nil
}

// available is initial and subsequent presence (RFC 6121 §4.2.2, §4.4.2).
func (c *component) available(ctx context.Context, f *processor.Flow) error {
	prio, err := priority(f.Stanza)
	if err != nil {
		return err
	}
	edits := f.Stamp()
	raw := edits.Render(nil, f.Raw)
	if len(raw) > int(c.cfg.Size) {
		return stanza.NewError(stanza.PolicyViolation, "the presence is too large")
	}
	contacts, err := c.rosters.Contacts(ctx, f.Session.JID.Bare())
	if err != nil {
		return err
	}
	before := f.Session
	now, bound := c.house.Change(before.Ref, func(st *sessions.State) {
		st.Available, st.Priority, st.Presence, st.PresenceAt = true, prio, raw, c.env.Clock.Now()
		st.CapsNode, st.CapsHash = caps(f.Stanza)
	})
	if !bound {
		return nil
	}
	c.broadcast(ctx, now, f.Stanza, contacts)
	if !before.Available {
		if err := c.welcome(ctx, now, contacts); err != nil { // the session is available all the same
			c.env.Log.Error("contacts not shown", "jid", now.JID.String(), "err", err)
		}
	}
	c.fire(ctx, &Transition{Session: now, Before: before.State, Stanza: f.Stanza})
	return nil
}

// caps reads what the client announces of itself (XEP-0115 §4): node#ver, and
// the hash function. Announcements without one are of the time before hashes
// (§5.4) and name nothing that could be verified.
func caps(st *stanza.Stanza) (node, hash string) {
	el := st.Child(nsCaps, "c")
	if el == nil {
		return "", ""
	}
	node, hash, ver := el.Get("node"), el.Get("hash"), el.Get("ver")
	if node == "" || hash == "" || ver == "" || len(node)+len(ver)+len(hash) > maxCaps || strings.Contains(node, "#") {
		return "", ""
	}
	return node + "#" + ver, hash
}

// unavailable ends the presence session; the stream goes on (RFC 6121 §4.5.2).
func (c *component) unavailable(ctx context.Context, f *processor.Flow) error {
	before := f.Session
	now, bound := c.house.Change(before.Ref, withdraw)
	if !bound {
		return nil
	}
	_, err := c.farewell(ctx, now, before.State, f.Stanza, true)
	return err
}

func withdraw(st *sessions.State) {
	st.Available, st.Priority, st.Presence = false, 0, nil
	st.CapsNode, st.CapsHash = "", ""
}

// unbound ends the presence of a session whose stream has ended, however that
// came (RFC 6121 §4.5.2).
func (c *component) unbound(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
	if e.Kind != sessions.Client {
		return processor.Continue, nil
	}
	if e.Paused { // its contacts learn of no end that it has not come to
		c.directed.take(e.JID)
		return processor.Continue, nil
	}
	gone := *e
	withdraw(&gone.State)
	st := stanza.Make(stanza.Presence, stanza.TypeUnavailable, e.JID, jid.JID{}, "")
	// The stream's end must not keep others from being told.
	ctx = context.WithoutCancel(ctx)
	told, err := c.farewell(ctx, &gone, e.State, st, false)
	if told {
		c.succeeded(ctx, e)
		if c.env.Notices != nil {
			c.late.add(e, c.env.Clock.Now())
		}
	}
	return processor.Continue, err
}

// succeeded shows once more who has the address of a session that has just been
// said to be gone. That of a node that is dead ends when others take it for dead,
// and its client may have come back at any of them a moment before: then what was
// said of the old one may have come behind what the new one has said.
func (c *component) succeeded(ctx context.Context, e *sessions.Entry) {
	now, ok := c.env.Sessions.Find(e.JID)
	if !ok || now.Ref == e.Ref || !now.Available {
		return
	}
	st := reparsed(now.Presence)
	contacts, err := c.rosters.Contacts(ctx, now.JID.Bare())
	if st == nil || err != nil {
		c.env.Log.Error("a session may look gone", "jid", now.JID.String(), "err", err)
		return
	}
	c.broadcast(ctx, now, st, contacts)
}

// farewell tells everybody that the session is not available any more:
// subscribers, the account's other sessions, the session itself when it is
// still there, and who got directed presence (RFC 6121 §4.5.2, §4.6.3). told is
// whether the subscribers are: not when it had not been available, or when they see
// the one that has its address already.
func (c *component) farewell(ctx context.Context, now *sessions.Entry, before sessions.State, st *stanza.Stanza, here bool) (told bool, err error) {
	contacts, err := c.rosters.Contacts(ctx, now.JID.Bare())
	if err != nil {
		contacts = &roster.Snapshot{} // directed presence has to end all the same
	}
	if before.Available {
		c.fire(ctx, &Transition{Session: now, Before: before, Stanza: st}) // first: who is told may ask at once
		told = here || !c.replaced(now)
	}
	if told {
		c.broadcast(ctx, now, st, contacts)
		if here {
			c.house.Route(ctx, readdressed(now, st, now.JID))
		}
	}
	for _, to := range c.directed.take(now.JID) {
		if before.Available && c.covered(now.JID.Bare(), contacts, to) {
			continue
		}
		c.house.SubmitFor(ctx, now, rewritten(st, now.JID, to))
	}
	return told, err
}

// replaced reports whether a session that ends here has a successor here that has
// shown itself: a client that connects again at once may be faster than what has to
// be done for the end of its stream before.
func (c *component) replaced(old *sessions.Entry) bool {
	now, ok := c.env.Sessions.Find(old.JID)
	return ok && now.Ref != old.Ref && now.Node == old.Node && now.Available
}

// covered reports whether a broadcast of the account's presence reaches the
// address as well.
func (c *component) covered(account jid.JID, contacts *roster.Snapshot, to jid.JID) bool {
	bare := to.Bare()
	if bare != account && !contacts.State(bare).From() {
		return false
	}
	if to.IsBare() || !c.env.Local(to.Domain()) {
		return true
	}
	s, ok := c.env.Sessions.Find(to)
	return ok && s.Available
}

func (c *component) fire(ctx context.Context, t *Transition) {
	if _, err := processor.Fire(ctx, c.house, Became, t); err != nil {
		c.env.Log.Error("presence hook failed", "jid", t.Session.JID.String(), "err", err)
	}
}
