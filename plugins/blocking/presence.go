package blocking

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/presence"
	"parley/processor"
)

// reaches keeps presence that passes no other hook from those whom its account
// has blocked, and from those who have blocked the account (XEP-0191 §3.3).
func (b *blocking) reaches(ctx context.Context, a *presence.Audience) (processor.Verdict, error) {
	owner := a.From.Bare()
	to := a.To[:0]
	for _, j := range a.To {
		blocked, err := b.lists.Blocked(ctx, owner, j)
		if err == nil && !blocked && b.env.Local(j.Domain()) {
			blocked, err = b.lists.Blocked(ctx, j.Bare(), a.From)
		}
		if err != nil {
			return processor.Stop, err
		}
		if !blocked {
			to = append(to, j)
		}
	}
	a.To = to
	return processor.Continue, nil
}

// hide lets the account look offline to those who are blocked now and were
// not, if they get its presence (XEP-0191 §3.3).
func (b *blocking) hide(ctx context.Context, owner jid.JID, before, after *list) error {
	return b.appear(ctx, owner, after, before, func(from jid.JID, _ []byte, to jid.JID) *stanza.Stanza {
		return stanza.Make(stanza.Presence, stanza.TypeUnavailable, from, to, "")
	})
}

// show gives those who are no longer blocked the account's current presence,
// if they may get it (XEP-0191 §3.4).
func (b *blocking) show(ctx context.Context, owner jid.JID, before, after *list) error {
	return b.appear(ctx, owner, before, after, directed)
}

// appear submits a presence of each of the account's available sessions to
// those whom one list matches and the other does not.
func (b *blocking) appear(ctx context.Context, owner jid.JID, with, without *list, shape func(from jid.JID, last []byte, to jid.JID) *stanza.Stanza) error {
	to, err := b.watchers(ctx, owner, with, without)
	if err != nil || len(to) == 0 {
		return err
	}
	var out []*stanza.Stanza
	for _, e := range b.env.Sessions.Account(owner) {
		if !e.Available {
			continue
		}
		for _, j := range to {
			if st := shape(e.JID, e.Presence, j); st != nil {
				out = append(out, st)
			}
		}
	}
	b.reg.Submit(ctx, out...)
	return nil
}

// watchers are those who get the account's presence and are matched by the
// one list, but not by the other: contacts, or single resources of theirs.
func (b *blocking) watchers(ctx context.Context, owner jid.JID, with, without *list) ([]jid.JID, error) {
	contacts, err := b.roster.Contacts(ctx, owner)
	if err != nil {
		return nil, err
	}
	exempt := func(j jid.JID) bool { return j.Local() == "" && b.env.Local(j.Domain()) }
	var out []jid.JID
	for _, c := range contacts.Subscribers() {
		if !exempt(c) && with.matches(c) && !without.matches(c) {
			out = append(out, c)
		}
	}
	for _, j := range with.sorted {
		if j.IsFull() && !without.matches(j) && contacts.State(j.Bare()).From() && !exempt(j) && !with.matches(j.Bare()) {
			out = append(out, j)
		}
	}
	return out, nil
}

// directed is a session's last presence, addressed to somebody.
func directed(from jid.JID, last []byte, to jid.JID) *stanza.Stanza {
	st, err := stanza.Parse(last, stanza.NSClient, nil)
	if err != nil {
		return nil
	}
	st.From, st.To = from, to
	edits := st.Stamp()
	fresh, err := stanza.Parse(edits.Render(nil, last), stanza.NSClient, nil)
	if err != nil {
		return nil
	}
	return fresh
}
