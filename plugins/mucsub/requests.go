package mucsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/muc"
	"parley/processor"
)

// maxNick bounds the nickname of a subscription, bytes.
const maxNick = 128

// asked answers requests in our namespace.
func (p *part) asked(ctx context.Context, q *muc.Question) (processor.Verdict, error) {
	if q.Query.Name.Space != NS {
		return processor.Continue, nil
	}
	set := q.Type == stanza.TypeSet
	var err error
	switch name := q.Query.Name.Local; {
	case name == "subscriptions" && !set && q.Room.IsZero():
		q.Answer, err = p.own(ctx, q)
	case name == "subscriptions" && !set:
		q.Answer, err = p.list(ctx, q)
	case name == "subscribe" && set && !q.Room.IsZero():
		q.Answer, err = p.subscribe(ctx, q)
	case name == "unsubscribe" && set && !q.Room.IsZero():
		err = p.leave(ctx, q)
	default:
		err = stanza.NewError(stanza.BadRequest, "")
	}
	q.Answered = true
	return processor.Stop, err
}

// governs reports whether the asker may see and change others' subscriptions.
func governs(q *muc.Question) bool {
	return q.Role == muc.Moderator || q.Standing >= muc.IsAdmin
}

// about is whose subscription a request is about: the asker's own, or one that a
// moderator names.
func (p *part) about(q *muc.Question) (jid.JID, error) {
	own := q.From.Bare()
	if named := q.Query.Get("jid"); named != "" {
		at, err := jid.Parse(named)
		switch {
		case err != nil:
			return own, stanza.NewError(stanza.JIDMalformed, "")
		case at.Bare() != own && !governs(q):
			return own, stanza.NewError(stanza.Forbidden, "")
		}
		own = at.Bare()
	}
	if own.Local() == "" || !p.env.Local(own.Domain()) {
		return own, stanza.NewError(stanza.NotAllowed, "only accounts of this server follow rooms")
	}
	return own, nil
}

func (p *part) subscribe(ctx context.Context, q *muc.Question) (*stanza.Element, error) {
	who, err := p.about(q)
	if err != nil {
		return nil, err
	}
	switch c := q.Config; {
	case q.Standing == muc.IsOutcast:
		return nil, stanza.NewError(stanza.Forbidden, "")
	case c.MembersOnly && q.Standing < muc.IsMember:
		return nil, stanza.NewError(stanza.RegistrationRequired, "the room is for its members")
	case c.Protected && q.Standing < muc.IsMember && q.Query.Get("password") != c.Password:
		return nil, stanza.NewError(stanza.NotAuthorized, "the room has a password")
	case len(q.Query.Get("nick")) > maxNick:
		return nil, stanza.NewError(stanza.BadRequest, "the nickname is too long")
	}
	s := subscription{account: who, nick: q.Query.Get("nick"), events: served(q.Query), proof: proof(q.Room, q.Config)}
	if len(s.events) == 0 {
		return nil, stanza.NewError(stanza.BadRequest, "messages and subjects can be followed")
	}
	if err := p.put(ctx, q.Room, s); err != nil {
		return nil, err
	}
	return s.describe(stanza.El(NS, "subscribe")), nil
}

// served are the nodes that a request names, as far as there are such.
func served(el *stanza.Element) (nodes []string) {
	for c := range el.Elements() {
		node := c.Get("node")
		if c.Name == (stanza.Name{Space: NS, Local: "event"}) && (node == nodeMessages || node == nodeSubject) && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

func (p *part) leave(ctx context.Context, q *muc.Question) error {
	who, err := p.about(q)
	if err != nil {
		return err
	}
	return p.unsubscribe(ctx, q.Room, who)
}

// list are a room's subscribers, for those who govern it.
func (p *part) list(ctx context.Context, q *muc.Question) (*stanza.Element, error) {
	if !governs(q) {
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	all, err := p.followers(ctx, q.Room)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "subscriptions")
	for _, s := range all {
		out.Add(s.describe(stanza.El(NS, "subscription").With("jid", s.account.String()).WithOpt("nick", s.nick)))
	}
	return out, nil
}

// own are the rooms of a service that the asker follows.
func (p *part) own(ctx context.Context, q *muc.Question) (*stanza.Element, error) {
	all, err := p.followed(ctx, q.From.Bare())
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "subscriptions")
	for _, s := range all {
		if s.room.Domain() == q.To.Domain() {
			out.Add(s.describe(stanza.El(NS, "subscription").With("jid", s.room.String()).WithOpt("nick", s.nick)))
		}
	}
	return out, nil
}

// subscription is one account's to a room.
type subscription struct {
	room, account jid.JID
	nick          string
	events        []string // nodes
	proof         string   // that who asked for it knew the room's password, or need not
}

// proof changes with a room's password; "": there is none.
func proof(room jid.JID, c *muc.RoomConfig) string {
	if !c.Protected {
		return ""
	}
	sum := sha256.Sum256([]byte(room.String() + "\x00" + c.Password))
	return hex.EncodeToString(sum[:])
}

// reaches reports whether the subscriber may hear what the room says now: it may
// have become a room for members, or have another password, since.
func (s *subscription) reaches(room jid.JID, c *muc.RoomConfig, member bool) bool {
	return member || !c.MembersOnly && (!c.Protected || s.proof == proof(room, c))
}

func (s *subscription) wants(node string) bool { return slices.Contains(s.events, node) }

func (s *subscription) describe(el *stanza.Element) *stanza.Element {
	for _, node := range s.events {
		el.Add(stanza.El(NS, "event").With("node", node))
	}
	return el
}

func (s *subscription) stored() string { return strings.Join(s.events, " ") }
