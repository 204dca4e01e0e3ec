package muc

import (
	"context"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	adhoc "parley/parser/stanza/command"
	"parley/processor"
)

// iqHandler answers a request to a room.
type iqHandler func(ctx context.Context, r *room, q *request) (*stanza.Element, error)

// request is an IQ request to a room.
type request struct {
	*stanza.Stanza
	query *stanza.Element
}

func (q *request) set() bool { return q.Type == stanza.TypeSet }

// Namespaces of requests.
const (
	nsPing   = "urn:xmpp:ping"
	nsVCard  = "vcard-temp"
	nsPubSub = "http://jabber.org/protocol/pubsub"
	nsIQReg  = "jabber:iq:register"
)

// iqTable is what rooms are asked.
func (s *service) iqTable() map[stanza.Name]iqHandler {
	return map[stanza.Name]iqHandler{
		{Space: stanza.NSDiscoInfo, Local: "query"}: s.info,
		{Space: stanza.NSDiscoItem, Local: "query"}: s.items,
		{Space: nsPing, Local: "ping"}:              s.pong,
		{Space: NSAdmin, Local: "query"}:            s.admin,
		{Space: NSOwner, Local: "query"}:            s.owner,
		{Space: nsIQReg, Local: "query"}:            s.register,
		{Space: nsVCard, Local: "vCard"}:            s.card,
		{Space: adhoc.NS, Local: "command"}:         s.command,
		{Space: nsModerate, Local: "moderate"}:      s.moderate,
		{Space: nsTokens, Local: "request"}:         s.issueToken,
		{Space: nsTokens, Local: "tokens"}:          s.listTokens,
		{Space: nsTokens, Local: "revoke"}:          s.revokeToken,
	}
}

// onRequest is XEP-0045 §17.4: the room answers what it is asked, and hands on what
// is for an occupant.
func (r *room) onRequest(ctx context.Context, st *stanza.Stanza) (*stanza.Element, error) {
	q := &request{st, st.Payload()}
	if q.query == nil {
		return nil, stanza.NewError(stanza.BadRequest, "a request has exactly one payload")
	}
	if st.To.IsFull() {
		return r.handOn(ctx, q)
	}
	if !r.there.Load() {
		return nil, noRoom()
	}
	h := r.s.iqs[q.query.Name]
	if h == nil {
		return r.others(ctx, q)
	}
	return h(ctx, r, q)
}

// handOn lets a request for an occupant go to its client, or to its account for what
// that answers (XEP-0045 §17.4). A request to oneself is how clients find out whether
// they are in the room (rule 68, XEP-0410 §3).
func (r *room) handOn(ctx context.Context, q *request) (*stanza.Element, error) {
	out, err := r.handed(q)
	if err != nil || out == nil {
		return nil, err
	}
	r.s.reg.Submit(ctx, out)
	return nil, processor.ErrUnanswered
}

// handed is the request as it goes on; nil: it is answered here.
func (r *room) handed(q *request) (*stanza.Stanza, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.sessions[q.From]
	to := r.nicks[q.To.Resource()]
	switch {
	case x == nil: // XEP-0410 §3.3, also when there is no such room
		return nil, stanza.NewError(stanza.NotAcceptable, "you are not in this room")
	case to == nil:
		return nil, stanza.NewError(stanza.ItemNotFound, "nobody has this nickname")
	case to == x.occupant && q.query.Name == stanza.Name{Space: nsPing, Local: "ping"}:
		return nil, nil
	case !x.messages.take(r.s.env.Clock.Now()):
		return nil, r.s.tooFast("messages")
	}
	at := to.face().jid
	if q.query.Name.Space == nsVCard || q.query.Name.Space == nsPubSub {
		at = to.bare
	}
	own := *q.Stanza
	own.ID = x.tagged(r, q.ID)
	return addressed(must(copied(&own, x.at, q.Type, nil)), at), nil
}

// tagged is the id of a request, by which its answer finds the session that has
// asked, of several with one nickname.
func (x *session) tagged(r *room, id string) string {
	if len(x.sessions) == 1 {
		return id
	}
	return id + "~" + r.s.people.of(r.jid, x.jid)
}

// onAnswer brings an occupant's answer to who has asked.
func (r *room) onAnswer(ctx context.Context, st *stanza.Stanza) error {
	if out := r.answered(st); out != nil {
		r.s.reg.Emit(ctx, out)
	}
	return nil
}

func (r *room) answered(st *stanza.Stanza) *stanza.Stanza {
	r.mu.Lock()
	defer r.mu.Unlock()
	by, to := r.answerer(st.From), r.nicks[st.To.Resource()]
	if by == nil || to == nil {
		return nil
	}
	own, at := *st, to.face().jid
	for _, x := range to.sessions {
		if id, ok := strings.CutSuffix(st.ID, "~"+r.s.people.of(r.jid, x.jid)); ok {
			own.ID, at = id, x.jid
		}
	}
	return addressed(must(copied(&own, by.at, st.Type, nil)), at)
}

// answerer is the occupant that an answer comes from: a session, or its account.
func (r *room) answerer(from jid.JID) *occupant {
	if x := r.sessions[from]; x != nil {
		return x.occupant
	}
	for _, o := range r.nicks {
		if o.bare == from {
			return o
		}
	}
	return nil
}

// pong answers a ping to the room itself.
func (s *service) pong(context.Context, *room, *request) (*stanza.Element, error) { return nil, nil }
