package muc

import (
	"context"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// register lets people become members, with a nickname of their own (XEP-0045 §7.10,
// XEP-0077).
func (s *service) register(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return r.registration(q)
	}
	if q.query.Child(nsIQReg, "remove") != nil {
		return nil, r.do(ctx, true, func(o *op) error { return r.unregister(o, q) })
	}
	nick, err := wantedNick(q.query)
	if err != nil {
		return nil, err
	}
	return nil, r.do(ctx, true, func(o *op) error { return r.registers(o, q.From, nick) })
}

// registration is what somebody has to fill in.
func (r *room) registration(q *request) (*stanza.Element, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	who := q.From.Bare()
	a := r.people[who]
	out := stanza.El(nsIQReg, "query")
	if a.Affiliation >= IsMember && a.nick != "" { // XEP-0045 §7.10
		return out.Add(stanza.El(nsIQReg, "registered"), stanza.El(nsIQReg, "username").AddText(a.nick)), nil
	}
	if err := r.mayRegister(who); err != nil {
		return nil, err
	}
	f := &form.Form{Kind: form.Empty, Type: nsRegister, Title: "Registration with " + r.jid.String(), Instructions: "Choose a nickname; nobody else can use it then."}
	f.Fields = append(f.Fields, form.Field{Var: registerNick, Type: form.TextSingle, Label: "Nickname", Required: true})
	return out.Add(stanza.El(nsIQReg, "instructions").AddText("Choose a nickname."), f.Element()), nil
}

const registerNick = "muc#register_roomnick"

func (r *room) mayRegister(who jid.JID) error {
	a := r.affiliationOf(who)
	switch {
	case r.state == vacant:
		return noRoom()
	case a == IsOutcast:
		return stanza.NewError(stanza.Forbidden, "you are banned from this room")
	case r.cfg.Registration == RegisterClosed && a < IsMember:
		return stanza.NewError(stanza.NotAllowed, "this room does not take registrations")
	}
	return nil
}

// wantedNick reads what somebody has filled in.
func wantedNick(query *stanza.Element) (string, error) {
	x := form.In(query)
	if x == nil {
		return "", stanza.NewError(stanza.BadRequest, "a form is needed")
	}
	f, err := form.Submitted(x, nsRegister)
	if err != nil {
		return "", err
	}
	nick := strings.TrimSpace(f.Value(registerNick))
	if nick == "" {
		return "", stanza.NewError(stanza.BadRequest, registerNick+" is missing")
	}
	return nick, nil
}

// registers makes somebody a member, or asks an admin whether it may be one. In a room
// for members only an admin is always asked.
func (r *room) registers(o *op, from jid.JID, nick string) error {
	who := from.Bare()
	if err := r.mayRegister(who); err != nil {
		return err
	}
	at, err := r.addressOf(nick)
	if err != nil {
		return stanza.NewError(stanza.JIDMalformed, "that is no nickname")
	}
	nick = at.Resource()
	if err := r.s.checkNick(nick); err != nil {
		return err
	}
	was := r.people[who]
	c := change{who, was, affiliate{Affiliation: max(was.Affiliation, IsMember), nick: nick}}
	if err := r.possible([]change{c}); err != nil {
		return err
	}
	if !r.entries.take(who, r.s.env.Clock.Now()) {
		return r.s.tooFast("entry")
	}
	if was.Affiliation < IsMember && (r.cfg.Registration == RegisterApprove || r.cfg.MembersOnly) {
		return r.askAdmins(o, who, nick)
	}
	r.affiliate(o, c, told{})
	return nil
}

// askAdmins sends the request to the admins in the room, or to those who are not
// (XEP-0045 §9.9).
func (r *room) askAdmins(o *op, who jid.JID, nick string) error {
	f := &form.Form{Kind: form.Empty, Type: nsRegister, Title: "Registration request", Instructions: "To approve this request, select the field below and submit it."}
	f.Add(form.JIDSingle, registerJID, "User", who.String()).
		Add(form.TextSingle, registerNick, "Nickname", nick).
		Add(form.Boolean, registerAllow, "Let this person register with the room?", "0")
	var admins []jid.JID
	for at, p := range r.people {
		if p.Affiliation >= IsAdmin {
			admins = append(admins, at)
		}
	}
	for _, at := range admins {
		asked := stanza.Make(stanza.Message, "", r.jid, at, newID(), f.Element())
		o.after = append(o.after, func(ctx context.Context) { r.s.reg.Submit(ctx, asked) })
	}
	return nil
}

const (
	registerJID   = "muc#jid"
	registerAllow = "muc#register_allow"
)

// onApproval is an admin's answer.
func (r *room) onApproval(o *op, st *stanza.Stanza, f *form.Form) error {
	by, err := r.actorOf(st.From)
	if err != nil {
		return err
	}
	if by.Affiliation < IsAdmin {
		return forbidden()
	}
	who, err := jid.Parse(f.Value(registerJID))
	if err != nil || who.Local() == "" {
		return stanza.NewError(stanza.BadRequest, registerJID+": whom?")
	}
	if allow, _ := form.ParseFlag(f.Value(registerAllow)); !allow {
		return nil
	}
	c, err := r.changeOf(wish{at: who.Bare(), nick: f.Value(registerNick), named: true, Affiliation: IsMember})
	if err != nil {
		return err
	}
	if c.was.Affiliation >= IsMember {
		return nil
	}
	if err := r.possible([]change{c}); err != nil {
		return err
	}
	r.affiliate(o, c, told{})
	return nil
}

// unregister takes the nickname back, and a mere member's membership with it
// (XEP-0077 §3.2).
func (r *room) unregister(o *op, q *request) error {
	who := q.From.Bare()
	was := r.people[who]
	if was.Affiliation < IsMember {
		return stanza.NewError(stanza.RegistrationRequired, "you are not registered with this room")
	}
	c := change{who, was, affiliate{Affiliation: was.Affiliation}}
	if was.Affiliation == IsMember {
		c.is.Affiliation = IsNone
	}
	r.affiliate(o, c, told{})
	return nil
}
