package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// Asked fires for each request to a room, or to the service, that the rooms have no
// answer for themselves. Who has one sets Answered and, unless it is empty, Answer; an
// error is the answer, too.
var Asked = processor.NewHook[*Question]("muc-asked")

// Question is a request.
type Question struct {
	*stanza.Stanza
	Query    *stanza.Element
	Room     jid.JID     // zero: the service is asked, on any node; what follows is of no use then
	Config   *RoomConfig // not to be changed
	Standing Affiliation // the asker's
	Role     Role        // likewise; NoRole: it is not in the room
	Answer   *stanza.Element
	Answered bool
}

// others asks other features.
func (s *service) others(ctx context.Context, q *Question) (*stanza.Element, error) {
	if _, err := processor.Fire(ctx, s.reg, Asked, q); err != nil {
		return nil, err
	}
	if !q.Answered {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	return q.Answer, nil
}

// others asks them in the name of somebody who asks the room.
func (r *room) others(ctx context.Context, q *request) (*stanza.Element, error) {
	x := &Question{Stanza: q.Stanza, Query: q.query, Room: r.jid}
	r.mu.Lock()
	x.Config, x.Standing = r.cfg, r.affiliationOf(q.From.Bare())
	if at := r.sessions[q.From]; at != nil {
		x.Role = at.role
	}
	locks := r.state == locked
	r.mu.Unlock()
	if locks && x.Standing < IsOwner {
		return nil, noRoom()
	}
	return r.s.others(ctx, x)
}
