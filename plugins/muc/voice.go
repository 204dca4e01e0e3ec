package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// request handles forms that come in messages: a visitor asks for voice (XEP-0045
// §7.13), a moderator grants it (§8.6), an admin lets somebody register (§9.9).
func (r *room) request(ctx context.Context, st *stanza.Stanza) (mine bool, err error) {
	x := st.Child(stanza.NSDataForms, "x")
	if x == nil || x.Get("type") != form.Submit {
		return false, nil
	}
	f, err := form.Parse(x)
	if err != nil {
		return true, err
	}
	switch f.Type {
	case nsRequest:
		return true, r.do(ctx, true, func(o *op) error { return r.onVoice(o, st, f) })
	case nsRegister:
		return true, r.do(ctx, true, func(o *op) error { return r.onApproval(o, st, f) })
	}
	return false, nil
}

func (r *room) onVoice(o *op, st *stanza.Stanza, f *form.Form) error {
	x, err := r.occupantOf(st.From)
	if err != nil {
		return err
	}
	if x.role == Moderator && f.Value("muc#roomnick") != "" {
		who := r.nicks[f.Value("muc#roomnick")]
		switch allow, _ := form.ParseFlag(f.Value("muc#request_allow")); {
		case who == nil:
			return stanza.NewError(stanza.ItemNotFound, "who has asked is not here any more")
		case allow && who.role == Visitor:
			r.becomes(o, who, Participant, told{})
		}
		return nil
	}
	switch {
	case x.role != Visitor:
		return stanza.NewError(stanza.NotAcceptable, "you have voice")
	case f.Value("muc#role") != Participant.String():
		return stanza.NewError(stanza.BadRequest, "voice is the role participant")
	case !x.messages.take(r.s.env.Clock.Now()):
		return r.s.tooFast("messages")
	}
	o.send(r.voiceForm(x), r.moderators()...)
	return nil
}

// voiceForm is what moderators get (XEP-0045 §8.6).
func (r *room) voiceForm(x *session) *stanza.Stanza {
	f := &form.Form{Kind: form.Empty, Type: nsRequest, Title: "Voice request", Instructions: "To approve this request, select the field below and submit it."}
	f.Add(form.ListSingle, "muc#role", "Requested role", Participant.String()).
		Add(form.JIDSingle, "muc#jid", "User", x.jid.String()).
		Add(form.TextSingle, "muc#roomnick", "Nickname", x.nick).
		Add(form.Boolean, "muc#request_allow", "Grant voice to this person?", "0")
	return stanza.Make(stanza.Message, "", r.jid, jid.JID{}, newID(), f.Element())
}
