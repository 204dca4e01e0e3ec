package inbox

import (
	"context"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/plugins/message/kinds"
	"parley/plugins/muc"
	"parley/processor"
	"parley/storage"
)

// What is written for rooms. Of the members of a room only those whom a message
// names have a row for it.
var (
	putMember = storage.Stmt{
		Name:       "inbox.room",
		SQL:        `INSERT INTO inbox_room (owner, peer, since) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		Idempotent: true,
	}
	dropMember = storage.Stmt{Name: "inbox.room.drop", SQL: `DELETE FROM inbox_room WHERE owner = $1 AND peer = $2`, Idempotent: true}
	putMention = storage.Stmt{
		Name: "inbox.mention",
		SQL: `INSERT INTO inbox_mention (owner, peer, id) SELECT CAST($1 AS text), CAST($2 AS text), CAST($3 AS bigint) ` +
			`WHERE (SELECT COUNT(*) FROM inbox_mention WHERE owner = $1 AND peer = $2) < 100 ON CONFLICT DO NOTHING`,
		Idempotent: true,
	}
	dropMentions = storage.Stmt{Name: "inbox.mention.drop", SQL: `DELETE FROM inbox_mention WHERE owner = $1 AND peer = $2 AND id <= $3`, Idempotent: true}
)

const (
	sqlMembers = `SELECT owner FROM inbox_room WHERE peer = $1`
	sqlBelongs = `SELECT COUNT(*) FROM inbox_room WHERE owner = $1 AND peer = $2`
	sqlRooms   = `SELECT r.peer, r.since, COALESCE(m.id, 0), (SELECT COUNT(*) FROM inbox_mention x WHERE x.owner = r.owner AND x.peer = r.peer) ` +
		`FROM inbox_room r LEFT JOIN inbox_mark m ON m.owner = r.owner AND m.peer = r.peer WHERE r.owner = $1 ORDER BY r.peer LIMIT $2`
)

// sqlDestroyed is what is kept of a room.
var sqlDestroyed = [...]string{
	`DELETE FROM inbox_room WHERE peer = $1`,
	`DELETE FROM inbox_mark WHERE peer = $1`,
	`DELETE FROM inbox_mention WHERE peer = $1`,
}

// topicRooms is what nodes tell each other of rooms that are gone under.
const topicRooms = "inbox-rooms"

// posting stores with a room's message whom it names, and how far its author has
// read.
func (p *part) posting(ctx context.Context, e *muc.Post) (processor.Verdict, error) {
	if err := p.reconcile(ctx, e); err != nil { // the next message tries again
		p.env.Log.Warn("members of a room not in step", "room", e.Room.String(), "err", err)
	}
	says := kinds.Of(e.Stanza).Says()
	if e.Standing >= muc.IsMember && p.env.Local(e.Author.Domain()) {
		if says {
			marks(e.Store, e.Author, e.Room, e.ID)
		} else if id, ok := marked(e.Stanza); ok { // the room's own id (XEP-0333 §4.3)
			if row, ok := p.archive.DecodeID(id); ok && row < e.ID {
				marks(e.Store, e.Author, e.Room, row)
			}
		}
	}
	if !says {
		return processor.Continue, nil
	}
	m := mentionsIn(e.Stanza)
	if m.nobody() {
		return processor.Continue, nil
	}
	named := 0
	for _, who := range p.others(e) {
		if named < maxMentions && p.names(&m, e, who) {
			named++
			e.Store(&putMention, who.JID.String(), e.Room.String(), e.ID)
		}
	}
	return processor.Continue, nil
}

// others are the accounts of ours that belong to the room, but for the author.
func (p *part) others(e *muc.Post) []muc.Member {
	out := make([]muc.Member, 0, len(e.Members))
	for _, who := range e.Members {
		if who.JID != e.Author && who.JID.Local() != "" && p.env.Local(who.JID.Domain()) {
			out = append(out, who)
		}
	}
	return out
}

func (p *part) names(m *mentions, e *muc.Post, who muc.Member) bool {
	var seat jid.JID
	if who.Nick != "" && len(m.named) > 0 {
		seat, _ = e.Room.WithResource(who.Nick)
	}
	return m.name(who.JID, seat, who.Nick)
}

// reconcile makes the rows of a room's members what they are, when they have
// changed since this node has looked.
func (p *part) reconcile(ctx context.Context, e *muc.Post) error {
	if known, ok := p.known.GetIfPresent(e.Room); len(e.Members) == 0 || ok && known == &e.Members[0] {
		return nil
	}
	room := e.Room.String()
	there, err := storage.All(ctx, p.env.DB, func(r storage.Row) (owner string, err error) {
		err = r.Scan(&owner)
		return owner, err
	}, sqlMembers, room)
	if err != nil {
		return fmt.Errorf("members of a room: %w", err)
	}
	left := make(map[string]bool, len(there))
	for _, owner := range there {
		left[owner] = true
	}
	for _, who := range e.Members {
		owner := who.JID.String()
		if left[owner] {
			delete(left, owner)
		} else if who.JID.Local() != "" && p.env.Local(who.JID.Domain()) {
			e.Store(&putMember, owner, room, e.ID-1)
		}
	}
	for owner := range left {
		e.Store(&dropMember, owner, room)
	}
	return nil
}

// posted tells of what waits for those who are not there.
func (p *part) posted(ctx context.Context, e *muc.Post) (processor.Verdict, error) {
	if len(e.Members) > 0 {
		p.known.Set(e.Room, &e.Members[0])
	}
	k := kinds.Of(e.Stanza)
	if !k.Says() && !k.Has(kinds.Call) {
		return processor.Continue, nil
	}
	settings, err := p.notifyAbout(ctx, e.Room)
	if err != nil { // better woken once too often
		p.env.Log.Warn("notification settings not known", "room", e.Room.String(), "err", err)
	}
	otherwise := Always // XEP-0492 §3
	if e.Config.Public && !e.Config.MembersOnly {
		otherwise = OnMention
	}
	m := mentionsIn(e.Stanza)
	for _, who := range p.others(e) {
		if e.Present(who.JID) && p.awake(who.JID, jid.JID{}) {
			continue
		}
		p.tell(ctx, &Wait{
			Account: who.JID, Conversation: e.Room, From: e.From, Stanza: e.Stanza, Kind: k,
			Mentioned: p.names(&m, e, who), Default: otherwise, Notify: settings[who.JID],
		})
	}
	return processor.Continue, nil
}

// affiliated is for who comes and goes between messages: from now on what is said
// is unread, and who has gone sees nothing.
func (p *part) affiliated(ctx context.Context, e *muc.Affiliating) (processor.Verdict, error) {
	if e.JID.Local() == "" || !p.env.Local(e.JID.Domain()) {
		return processor.Continue, nil
	}
	var w storage.WriteSet
	switch {
	case e.Is >= muc.IsMember:
		kept, err := p.archive.Room(ctx, e.Room)
		if err != nil {
			return processor.Continue, err
		}
		w.Add(&putMember, e.JID.String(), e.Room.String(), kept.Next()) // ids may be ahead of the clock
	case e.Was >= muc.IsMember:
		w.Add(&dropMember, e.JID.String(), e.Room.String())
	}
	return processor.Continue, p.env.DB.Commit(ctx, &w)
}

// destroyed forgets a room.
func (p *part) destroyed(ctx context.Context, e *muc.Destruction) (processor.Verdict, error) {
	err := p.env.DB.Tx(ctx, func(tx storage.Tx) error {
		for _, sql := range sqlDestroyed {
			if _, err := tx.Exec(ctx, sql, e.Room.String()); err != nil {
				return err
			}
		}
		return nil
	})
	p.known.Invalidate(e.Room)
	p.tails.drop(e.Room)
	p.env.Forget(ctx, topicRooms, e.Room.String())
	return processor.Continue, err
}

// belongs reports whether a conversation is a room that an account belongs to.
func (b *Inbox) belongs(ctx context.Context, account, conversation jid.JID) (bool, error) {
	var n int
	if err := b.env.DB.QueryRow(ctx, sqlBelongs, account.String(), conversation.String()).Scan(&n); err != nil {
		return false, fmt.Errorf("rooms of %s: %w", account, err)
	}
	return n > 0, nil
}

// seat is a room that an account belongs to.
type seat struct {
	room     jid.JID
	seen     int64 // up to here it is read, or was said before
	mentions int
}

// rooms are the entries of the rooms that an account belongs to and in which
// something was said.
func (p *part) rooms(ctx context.Context, account jid.JID) ([]entry, error) {
	seats, err := storage.All(ctx, p.env.DB, func(r storage.Row) (s seat, err error) {
		var room string
		var since int64
		if err = r.Scan(&room, &since, &s.seen, &s.mentions); err != nil {
			return s, err
		}
		s.seen = max(s.seen, since)
		s.room, err = jid.Parse(room)
		return s, err
	}, sqlRooms, account.String(), p.cfg.Chats)
	if err != nil {
		return nil, fmt.Errorf("rooms of %s: %w", account, err)
	}
	list := make([]entry, 0, len(seats))
	for _, s := range seats {
		last, said, unread, err := p.tails.of(ctx, s.room, s.seen)
		if err != nil {
			return nil, err
		}
		if said != 0 {
			list = append(list, entry{peer: s.room, archive: s.room, last: last, said: said, unread: unread, mentions: min(s.mentions, unread)})
		}
	}
	return slices.Clip(list), nil
}
