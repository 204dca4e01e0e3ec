package muc

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/disco"
	"parley/processor"
	"parley/storage"
)

// What other features take part in. All functions run where the room is owned,
// one event of a room at a time and in the order of its events, with no lock
// held; they must not wait for anything else that happens in the same room.
var (
	// Arriving fires when somebody wants to enter a room or says something to it, before
	// the room looks at it. An error refuses that.
	Arriving = processor.NewHook[*Arrival]("muc-arriving")
	// Posting fires when a message or a subject change has got its place in a room,
	// and before it is committed. Store adds rows to that commit. An error refuses
	// the message.
	Posting = processor.NewHook[*Post]("muc-posting")
	// Posted fires after the commit, when the message is on its way.
	Posted = processor.NewHook[*Post]("muc-posted")
	// Affiliated fires when somebody's affiliation, or reserved nick, has changed.
	Affiliated = processor.NewHook[*Affiliating]("muc-affiliated")
	// Destroyed fires when a room is gone: destroyed by an owner, or temporary and
	// left by everybody.
	Destroyed = processor.NewHook[*Destruction]("muc-destroyed")
	// Describing fires for each disco#info request to a room that may be answered
	// (XEP-0045 §6.4).
	Describing = processor.NewHook[*Description]("muc-describing")
)

// Arrival is the event of Arriving.
type Arrival struct {
	*stanza.Stanza
	room *room
}

// Standing is what the sender is to the room.
func (a *Arrival) Standing() Affiliation {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	return a.room.affiliationOf(a.From.Bare())
}

// arrive asks other features whether somebody may enter or say something.
func (r *room) arrive(ctx context.Context, st *stanza.Stanza) error {
	if st.Kind == stanza.Presence && st.Type != "" || st.Type == stanza.TypeError {
		return nil
	}
	_, err := processor.Fire(ctx, r.s.reg, Arriving, &Arrival{st, r})
	return err
}

// Post is a message with a place in a room. It must not be changed.
type Post struct {
	Room       jid.JID
	ID         int64          // its place: larger than every earlier one of the room
	StanzaID   string         // and what that is called on the wire (XEP-0359)
	From       jid.JID        // the occupant
	Author     jid.JID        // bare
	Role       Role           // the author's, at the time
	Standing   Affiliation    // likewise
	Stanza     *stanza.Stanza // as it goes out, but for 'to'
	Lasting    bool           // it is in the room's archive: more than a sign of typing
	Subject    bool           // it changes the subject (XEP-0045 §8.1)
	Config     *RoomConfig    // of the room, at the time
	Members    []Member       // everybody with an affiliation, in the room or not
	Retraction *Retraction    // what it takes back; nil: nothing
	present    map[jid.JID]struct{}
	outcasts   map[jid.JID]struct{} // accounts and domains
	rows       *storage.WriteSet
}

// Present reports whether a session of the account, bare, was in the room.
func (p *Post) Present(account jid.JID) bool {
	_, ok := p.present[account]
	return ok
}

// Outcast reports whether the account, bare, may not enter the room (XEP-0045 §9.1).
func (p *Post) Outcast(account jid.JID) bool {
	if _, own := p.outcasts[account]; own {
		return true
	}
	_, house := p.outcasts[account.Host()]
	return house && !slices.ContainsFunc(p.Members, func(m Member) bool { return m.JID == account })
}

// Store adds a row that is committed with the message. It is for Posting.
func (p *Post) Store(s *storage.Stmt, args ...any) { p.rows.Add(s, args...) }

// Member is somebody with an affiliation of member, admin or owner.
type Member struct {
	JID         jid.JID // bare
	Affiliation Affiliation
	Nick        string // reserved; "": none
}

// Affiliating is the event of Affiliated.
type Affiliating struct {
	Room    jid.JID
	JID     jid.JID // bare, or a domain
	Was, Is Affiliation
	Nick    string
	Reason  string
	Version int64 // of the room's affiliations, from now on
}

// Destruction is the event of Destroyed.
type Destruction struct {
	Room      jid.JID
	Alternate jid.JID // zero: none
	Reason    string
}

// Description is a disco#info answer of a room in the making.
type Description struct {
	Room   jid.JID
	Asker  jid.JID
	Config *RoomConfig
	*disco.Facts
}
