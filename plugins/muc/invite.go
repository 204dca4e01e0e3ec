package muc

import (
	"context"
	"crypto/rand"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// maxInvites is how many people one message may invite.
const maxInvites = 10

// mediate handles invitations through the room, and their refusal (XEP-0045 §7.8.2).
// mine: the message is one of them.
func (r *room) mediate(ctx context.Context, st *stanza.Stanza) (mine bool, err error) {
	x := st.Child(NSUser, "x")
	if x == nil {
		return false, nil
	}
	if d := x.Child(NSUser, "decline"); d != nil {
		return true, r.decline(ctx, st, d)
	}
	var invites []*stanza.Element
	for el := range x.Elements() {
		if el.Name == (stanza.Name{Space: NSUser, Local: "invite"}) {
			invites = append(invites, el)
		}
	}
	if len(invites) == 0 {
		return false, nil
	}
	if len(invites) > maxInvites {
		return true, r.s.limit("invites", stanza.PolicyViolation, "too many invitations in one message")
	}
	return true, r.invite(ctx, st, invites)
}

// invite sends invitations. In a room for members only whoever is invited becomes
// one (§9.5).
func (r *room) invite(ctx context.Context, st *stanza.Stanza, invites []*stanza.Element) error {
	var out []*stanza.Stanza
	err := r.do(ctx, true, func(o *op) error {
		x, err := r.occupantOf(st.From)
		if err != nil {
			return err
		}
		if err := r.mayInvite(x); err != nil {
			return err
		}
		var changes []change
		for _, el := range invites {
			to, err := jid.Parse(el.Get("to"))
			if err != nil || to.Local() == "" {
				return stanza.NewError(stanza.JIDMalformed, "whom?")
			}
			was, known := r.people[to.Bare()]
			switch {
			case r.affiliationOf(to.Bare()) == IsOutcast:
				return stanza.NewError(stanza.NotAllowed, "who is banned cannot be invited")
			case r.cfg.MembersOnly && (!known || was.Affiliation == IsNone):
				changes = append(changes, change{to.Bare(), was, affiliate{Affiliation: IsMember, nick: was.nick}})
			}
			reason := ""
			if c := el.Child(NSUser, "reason"); c != nil {
				reason = c.Text()
			}
			from := x.at
			if r.cfg.Whois == Anyone {
				from = x.bare
			}
			out = append(out, r.invitation(from, to, reason, el.Child(NSUser, "continue")))
		}
		if err := r.possible(changes); err != nil {
			return err
		}
		for _, c := range changes {
			r.affiliate(o, c, told{})
		}
		return nil
	})
	if err == nil {
		r.s.reg.Submit(ctx, out...)
	}
	return err
}

// mayInvite returns why somebody may not invite others (muc#roomconfig_allowinvites).
func (r *room) mayInvite(x *session) error {
	a := r.affiliationOf(x.bare)
	switch {
	case a < IsAdmin && r.cfg.MembersOnly && !(r.cfg.Invites && a >= IsMember):
		return stanza.NewError(stanza.Forbidden, "only admins invite people to this room")
	case !x.messages.take(r.s.env.Clock.Now()):
		return r.s.tooFast("messages")
	}
	return nil
}

// invitation is what somebody gets who is invited. It is stored like any message.
func (r *room) invitation(from, to jid.JID, reason string, goOn *stanza.Element) *stanza.Stanza {
	el := stanza.El(NSUser, "invite").With("from", from.String())
	if reason != "" {
		el.Add(stanza.El(NSUser, "reason").AddText(reason))
	}
	if goOn != nil {
		el.Add(stanza.El(NSUser, "continue").WithOpt("thread", goOn.Get("thread")))
	}
	x := stanza.El(NSUser, "x").Add(el)
	if r.cfg.Protected {
		x.Add(stanza.El(NSUser, "password").AddText(r.cfg.Password))
	}
	return stanza.Make(stanza.Message, "", r.jid, to, newID(), x)
}

// decline tells an occupant that its invitation is not accepted. Nobody else can be
// told anything this way.
func (r *room) decline(ctx context.Context, st *stanza.Stanza, d *stanza.Element) error {
	to, err := jid.Parse(d.Get("to"))
	if err != nil {
		return stanza.NewError(stanza.JIDMalformed, "to whom?")
	}
	el := stanza.El(NSUser, "decline").With("from", st.From.Bare().String())
	if c := d.Child(NSUser, "reason"); c != nil {
		el.Add(stanza.El(NSUser, "reason").AddText(c.Text()))
	}
	r.mu.Lock()
	var at []jid.JID
	for _, o := range r.nicks {
		if o.at == to || r.cfg.Whois == Anyone && o.bare == to.Bare() { // else it would tell who is there
			at = o.addresses()
		}
	}
	ok := r.entries.take(st.From.Bare(), r.s.env.Clock.Now())
	r.mu.Unlock()
	switch {
	case !ok:
		return r.s.tooFast("entry")
	case len(at) == 0:
		return stanza.NewError(stanza.ItemNotFound, "who invited you is not in the room")
	}
	for _, one := range at {
		r.s.reg.Emit(ctx, stanza.Make(stanza.Message, "", r.jid, one, newID(), stanza.El(NSUser, "x").Add(el)))
	}
	return nil
}

func newID() string { return rand.Text()[:16] }

// byName orders addresses.
func byName(a, b jid.JID) int { return strings.Compare(a.String(), b.String()) }
