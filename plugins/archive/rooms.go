package archive

import (
	"context"
	"fmt"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// Room is the archive of a room (XEP-0313 §6.1.2), for the feature that has the
// room: it decides what is kept and who may ask. It is cheap to get and not to be
// kept: take one for each thing to do.
//
// Ids are the rows' own: Next gives one, StanzaID is what it looks like to
// clients. They rise within a process, and from one owner of a room to the next.
type Room struct {
	a     *Archive
	owner *owner
}

// RoomFeatures are what a room announces of its archive; nil: rooms have none
// now, because the component does not run or nothing is to be kept for long.
func (a *Archive) RoomFeatures() []string {
	if a.serving.Load() == nil {
		return nil
	}
	return a.features()
}

// KeepsRooms reports whether messages of rooms are kept now.
func (a *Archive) KeepsRooms() bool { return a.serving.Load() != nil }

// Room is the archive of the room with that bare JID, which exists.
func (a *Archive) Room(ctx context.Context, room jid.JID) (*Room, error) {
	o, err := a.owners.get(ctx, room.Bare())
	if err != nil {
		return nil, err
	}
	return &Room{a, o}, nil
}

// Next is a new id, greater than every one before it.
func (r *Room) Next() int64 { return r.a.ids.Next() }

// Pass lets Next return what is greater than an id that another owner of the room
// has given, whose clock may be ahead.
func (r *Room) Pass(id int64) { r.a.ids.Pass(id) }

// StanzaID is the element that tells clients the id (XEP-0359 §3, XEP-0313 §3.5).
func (r *Room) StanzaID(id int64) *stanza.Element { return r.a.stanzaID(r.owner, id) }

// ID reads an id that a client gives; false: it is none of ours.
func (r *Room) ID(wire string) (int64, bool) { return r.a.mask.Decode(wire) }

// Keep adds to a caller's write set what keeps a message: from the occupant's JID
// that the room gave its sender (the room's own for what it says itself), as
// occupants are to see it later, without <x xmlns='…muc#user'/> of the sender's
// making (XEP-0313 §8.4). The caller commits the set, with its own guard, and
// tells settled then. Without an archive only what ids need is added.
func (r *Room) Keep(id int64, st *stanza.Stanza, store func(*storage.Stmt, ...any)) (settled func(stored bool)) {
	w := &callers{store: store}
	r.a.ids.cover(w, id)
	if p := r.a.serving.Load(); p != nil {
		r.a.put(w, r.owner, id, occupantParty(st.From), roomForm(st))
		w.Settled(func(stored bool) {
			if stored {
				p.metrics.stored.WithLabelValues("room").Inc()
				p.counts(r.owner)
			}
		})
	}
	return w.settled
}

// roomForm is a message ready for <forwarded/>, to nobody (XEP-0313 §6.1.2).
func roomForm(st *stanza.Stanza) []byte {
	to := st.Clone()
	to.To = jid.JID{}
	e := to.StampForwarded()
	return e.Render(nil, st.Raw)
}

// RoomMessage is a message that a room has kept.
type RoomMessage struct {
	ID     int64
	At     time.Time
	Stanza *stanza.Stanza // in jabber:client, to nobody
}

// Last returns the room's last messages that are not older than since, at most n
// and at most 512 KiB, the oldest first: the history on entry (XEP-0045 §7.2.13).
// What was retracted is not among them (XEP-0424 §6).
func (r *Room) Last(ctx context.Context, n int, since time.Time) ([]RoomMessage, error) {
	if n <= 0 || r.a.serving.Load() == nil {
		return nil, nil
	}
	out, _, err := r.some(ctx, &query{after: max(idAt(ceil(since))-1, 0), max: n, backward: true})
	return out, err
}

// After returns the room's first messages with an id above after, the oldest first, at
// most n and at most 512 KiB, without those that were retracted (XEP-0424 §6). last is
// the id that was read last, after when there was none; all: there are no others.
func (r *Room) After(ctx context.Context, after int64, n int) (some []RoomMessage, last int64, all bool, err error) {
	if r.a.serving.Load() == nil {
		return nil, after, true, nil
	}
	some, pg, err := r.some(ctx, &query{after: after, max: n})
	if err != nil || len(pg.rows) == 0 {
		return nil, after, true, err
	}
	return some, pg.rows[len(pg.rows)-1].id, pg.complete, nil
}

func (r *Room) some(ctx context.Context, q *query) (out []RoomMessage, pg *page, err error) {
	pg, err = r.a.readIn(ctx, r.owner, q)
	if err != nil {
		return nil, nil, fmt.Errorf("archive of %s: %w", r.owner.jid, err)
	}
	for _, row := range pg.rows {
		st, err := stanza.Parse(row.raw, stanza.NSClient, r.a.jids)
		if err == nil && !st.Has(nsRetract, "retracted") {
			out = append(out, RoomMessage{row.id, timeOf(row.id), st})
		}
	}
	return slices.Clip(out), pg, nil
}

// Message reads one of the room's messages. Errors: *stanza.Error item-not-found.
func (r *Room) Message(ctx context.Context, id int64) (*RoomMessage, error) {
	row, err := r.a.one(ctx, r.owner, id)
	if err != nil {
		return nil, err
	}
	st, err := stanza.Parse(row.raw, stanza.NSClient, r.a.jids)
	if err != nil {
		return nil, errNotFound()
	}
	return &RoomMessage{id, timeOf(id), st}, nil
}

// Query answers <query xmlns='urn:xmpp:mam:2'/>, a get or set that was addressed
// to the room (XEP-0313 §4): the results go to the asker, and what it returns is
// the answer's payload. Results and answer have to take one road, so it runs where
// the request came in: on any node. The caller has checked that the asker may see
// the archive. show, when it is not nil, makes a message what this asker may see of
// it: who the sender is (§6.1.2). The filter with is an occupant's JID, or the
// room's for all of them; other addresses match nothing.
func (r *Room) Query(ctx context.Context, q *stanza.Stanza, show func(*stanza.Stanza) []byte) (*stanza.Element, error) {
	p := r.a.serving.Load()
	if p == nil {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	ask := &ask{Stanza: q, query: q.Payload(), of: r.owner.jid, with: r.party}
	if show != nil {
		ask.show = func(raw []byte) []byte {
			st, err := stanza.Parse(raw, stanza.NSClient, p.jids)
			if err != nil {
				return nil
			}
			return show(st)
		}
	}
	return p.asked(ctx, ask)
}

// party is what an address in a query means.
func (r *Room) party(j jid.JID) party {
	if j == r.owner.jid {
		return party{}
	}
	return occupantParty(j)
}

// Metadata answers <metadata xmlns='urn:xmpp:mam:2'/> (XEP-0313 §5); access was
// checked.
func (r *Room) Metadata(ctx context.Context, q *stanza.Stanza) (*stanza.Element, error) {
	if r.a.serving.Load() == nil {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	return r.a.metadata(ctx, q, r.owner)
}

// Forget adds to a caller's write set what lets the archive end with its room; a
// new one of that name begins with an empty one. settled is to be told after the
// commit.
func (r *Room) Forget(store func(*storage.Stmt, ...any)) (settled func(ctx context.Context, stored bool)) {
	r.a.forget(r.owner.id, store)
	return func(ctx context.Context, stored bool) {
		if stored {
			r.a.changed(ctx, r.owner.jid)
		}
	}
}
