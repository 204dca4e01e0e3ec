package inbox

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/plugins/message/kinds"
)

// box is an account's inbox, as far as it is counted.
type box struct {
	account jid.JID // bare
	upto    int64   // the archive is counted up to here; 0: not yet
	chats   map[jid.JID]*chat
	marks   map[jid.JID]int64
	gone    []*chat // conversations that are kept, and are not to be any more
}

// chat is one conversation. Ids are those of the archive it is in.
type chat struct {
	peer    jid.JID // bare; an occupant's full JID for private messages of a room
	last    int64   // its newest row
	said    int64   // its newest instant message; 0: none, and it is not listed
	unread  int
	seen    int64 // up to here it is read
	changed bool  // since it was loaded
	recent  []received
}

// received is a message that this count has come by: a marker names it by its
// sender's id (XEP-0333 §4.2).
type received struct {
	row  int64
	id   string
	says bool
}

// Bounds of a count.
const (
	countRows   = 500  // rows that are read at a time
	keptRecent  = 500  // received messages of a conversation that are remembered
	saveEvery   = 5000 // rows after which what is counted is kept, so that a long count gets somewhere
	markerReach = 1000 // rows with a contact that are looked at for what a marker names
)

// count brings an account's inbox up to date, and keeps what cannot change any
// more. Several counts of one account may run at once: each is right, the first
// one is kept.
func (p *part) count(ctx context.Context, account jid.JID) (*box, error) {
	b, err := p.load(ctx, account)
	if err != nil {
		return nil, err
	}
	settled := p.archive.Settled() // before anything is read
	first, edge, err := p.archive.Ends(ctx, account, p.cfg.Window)
	if err != nil {
		return nil, err
	}
	if err := p.applyMarks(ctx, b); err != nil {
		return nil, err
	}
	b.expire(first)
	from := b.upto
	if from == 0 {
		from = edge - 1
	}
	kept, n := false, 0
	for more := first > 0; more; {
		var some []archive.Message
		var last int64
		if some, last, more, err = p.archive.Read(ctx, account, archive.Range{After: from, Limit: countRows}); err != nil {
			return nil, err
		}
		for _, m := range some {
			if m.ID > settled && !kept {
				kept = true
				if err := p.save(ctx, b, from); err != nil {
					return nil, err
				}
			}
			if err := p.take(ctx, b, m); err != nil {
				return nil, err
			}
			from = m.ID
		}
		from = max(from, last)
		if n += len(some); n >= saveEvery && !kept && more && from <= settled {
			n = 0
			if err := p.save(ctx, b, from); err != nil {
				return nil, err
			}
		}
		p.metrics.counted.Add(float64(len(some)))
	}
	if !kept && from <= settled {
		err = p.save(ctx, b, from)
	}
	return b, err
}

// expire leaves out what the archive has no message of any more.
func (b *box) expire(first int64) {
	for peer, c := range b.chats {
		if first == 0 || c.last < first {
			b.gone = append(b.gone, c)
			delete(b.chats, peer)
		}
	}
}

// take counts one message, which is newer than what was counted.
func (p *part) take(ctx context.Context, b *box, m archive.Message) error {
	st := m.Stanza
	own := st.From.Bare() == b.account
	with := st.From
	if own {
		with = st.To
	}
	k := kinds.Of(st)
	peer, ok := conversation(k, with)
	if !ok {
		return nil
	}
	c := b.chats[peer]
	if c == nil {
		c = &chat{peer: peer, seen: b.marks[peer]}
		b.chats[peer] = c
	}
	c.last, c.changed = m.ID, true
	says := k.Says() && !keysOnly(k, st)
	if says {
		c.said = m.ID
	}
	switch {
	case own && says: // who answers has read (XEP-0430 §4 rule 1)
		c.seen, c.unread, c.recent = max(c.seen, m.ID), 0, nil
	case own:
		if id, ok := marked(st); ok {
			return p.displayed(ctx, b.account, c, id, m.ID)
		}
	case m.ID > c.seen:
		c.receive(received{m.ID, st.ID, says})
	}
	return nil
}

func (c *chat) receive(r received) {
	if r.says {
		c.unread++
	}
	if len(c.recent) >= 2*keptRecent {
		c.recent = append(c.recent[:0], c.recent[keptRecent:]...)
	}
	c.recent = append(c.recent, r)
}

// conversation is the address under which messages from or to somebody belong
// together (XEP-0430 §2.2); false: they are in no inbox.
func conversation(k kinds.Kind, with jid.JID) (jid.JID, bool) {
	switch {
	case !k.Has(kinds.Room):
		return with.Bare(), true
	case with.IsFull(): // a private message of a room (XEP-0045 §7.5)
		return with, true
	}
	return with, false // a room's own: an invitation, a change of its configuration
}

// keysOnly reports an OMEMO message that only exchanges keys (XEP-0384 §4.6).
func keysOnly(k kinds.Kind, st *stanza.Stanza) bool {
	if !k.Has(kinds.Encrypted) || k.Has(kinds.Body|kinds.File|kinds.Invite) {
		return false
	}
	for _, ns := range [...]string{"urn:xmpp:omemo:2", "urn:xmpp:omemo:1", "eu.siacs.conversations.axolotl"} {
		if el := st.Child(ns, "encrypted"); el != nil {
			return el.Child(ns, "payload") == nil
		}
	}
	return false
}

// nsMarkers is XEP-0333's.
const nsMarkers = "urn:xmpp:chat-markers:0"

// marked returns what a marker names as read (XEP-0430 §4 rule 3).
func marked(st *stanza.Stanza) (id string, ok bool) {
	for _, name := range [...]string{"displayed", "acknowledged"} {
		if el := st.Child(nsMarkers, name); el != nil {
			id = el.Get("id")
			return id, id != ""
		}
	}
	return "", false
}

// displayed makes read what came up to the message that a marker of the account,
// in the row at, names. One that is not there is ignored (XEP-0333 §5).
func (p *part) displayed(ctx context.Context, account jid.JID, c *chat, id string, at int64) error {
	counted := 0
	for i := len(c.recent) - 1; i >= 0; i-- {
		r := c.recent[i]
		if r.id == id {
			c.seen, c.unread, c.recent = r.row, counted, c.recent[i+1:]
			return nil
		}
		if r.says {
			counted++
		}
	}
	if c.unread <= counted { // nothing older is unread
		return nil
	}
	row, unread, err := p.seek(ctx, account, c, id, at)
	if row != 0 {
		c.seen, c.unread = row, unread
	}
	return err
}

// seek finds a message that a marker names among those before at that are not
// read, and how many are behind it; row 0: it is not there.
func (p *part) seek(ctx context.Context, account jid.JID, c *chat, id string, at int64) (row int64, unread int, err error) {
	err = p.back(ctx, account, c, at, func(m archive.Message, says bool) bool {
		if m.Stanza.ID == id {
			row = m.ID
		} else if says {
			unread++
		}
		return row == 0
	})
	return row, unread, err
}

// back shows what the account has received in a conversation since it was read,
// before a row, the newest first, while f wants more.
func (p *part) back(ctx context.Context, account jid.JID, c *chat, before int64, f func(m archive.Message, says bool) bool) error {
	some, _, _, err := p.archive.Read(ctx, account, archive.Range{After: c.seen, Before: before, With: c.peer.Bare(), Backward: true, Limit: markerReach})
	if err != nil {
		return fmt.Errorf("unread messages: %w", err)
	}
	for _, m := range some {
		k := kinds.Of(m.Stanza)
		with, ok := conversation(k, m.Stanza.From)
		if ok && with == c.peer && !f(m, k.Says() && !keysOnly(k, m.Stanza)) {
			break
		}
	}
	return nil
}
