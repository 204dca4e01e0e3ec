package muc

import (
	"context"

	"parley/parser/stanza"
)

// whisper is a private message, or the error that answers one (XEP-0045 §7.5). It
// arrives at the recipient like anybody's: where that lives it is stored before it
// is acknowledged; the room does not keep it (rule 63).
func (r *room) whisper(ctx context.Context, st *stanza.Stanza) error {
	to, err := r.whispered(st)
	if err != nil || len(to) == 0 {
		return err
	}
	r.s.reg.Submit(ctx, to[0])
	r.s.reg.Emit(ctx, to[1:]...)
	return nil
}

// whispered are the message's copies, one for each session of the recipient; the
// first one counts.
func (r *room) whispered(st *stanza.Stanza) ([]*stanza.Stanza, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, err := r.occupantOf(st.From)
	to := r.nicks[st.To.Resource()]
	refused := st.Type == stanza.TypeError
	switch {
	case refused && (err != nil || to == nil):
		return nil, nil
	case err != nil:
		return nil, err
	case st.Type == stanza.TypeGroupchat:
		return nil, stanza.NewError(stanza.BadRequest, "messages of type groupchat are for the room")
	case to == nil:
		return nil, stanza.NewError(stanza.ItemNotFound, "nobody has this nickname")
	case !refused && x.role < mayWrite[r.cfg.PrivateMsgs] && to.bare != x.bare:
		return nil, stanza.NewError(stanza.Forbidden, "you cannot send private messages in this room")
	case !refused && !x.messages.take(r.s.env.Clock.Now()):
		return nil, r.s.tooFast("messages")
	}
	var mark *stanza.Element
	if !refused {
		mark = stanza.El(NSUser, "x")
	}
	one, err := copied(st, x.at, st.Type, func(c stanza.Child) bool { return r.forged(st, c) }, mark, occupantID(x.id))
	if err != nil {
		return nil, err
	}
	var out []*stanza.Stanza
	for i := len(to.sessions) - 1; i >= 0; i-- {
		out = append(out, addressed(one, to.sessions[i].jid))
	}
	return out, nil
}
