package ledger_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"parley/parser/stanza"
)

// The room that everybody's devices are in (XEP-0045). What is said there counts
// as said to an account named hall, whose archive is the room's.
//
//   - acknowledged: in the room's archive, once
//   - the archive is in the order of sending, for each sender
//   - every device sees the archive's order
//   - from a device's entry until its session ends nothing is missing
//   - nobody has to enter again while its session lasts

const (
	hall    = "hall"
	hallJID = hall + "@conference.localhost"
	nsMUC   = "http://jabber.org/protocol/muc"
)

// rooms reports whether there is one. Not yet by itself: the room's archive keeps
// what it promises, but with several nodes devices miss live messages, or get them
// late, while something is broken (docs/groups.md).
func rooms() bool { return os.Getenv("PARLEY_TEST_LEDGER_ROOMS") != "" }

// seat is a device's stay in the room: from entering it to the end of its session.
type seat []sighting

// enterHall is what a device says first in a new session.
func (c *client) enterHall() string {
	return fmt.Sprintf("<presence to='%s/%s-%s'><x xmlns='%s'><history maxstanzas='0'/></x></presence>", hallJID, c.user, c.resource, nsMUC)
}

// openHall makes the room; it stays when everybody has left it.
func (w *world) openHall(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	in, err := w.server.enter(ctx)
	if err != nil {
		return err
	}
	c := &client{user: cast[0].user, resource: "founder", book: w.book}
	if err := c.connect(ctx, in); err != nil {
		return err
	}
	defer c.drop()
	defer func() { _ = c.conn.Send("</stream:stream>") }() // nobody is to wait for this one
	err = c.send([]outgoing{{raw: c.enterHall()}, {raw: "<iq type='set' id='hall' to='" + hallJID + "'><query xmlns='" + nsMUC + "#owner'>" +
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>" + nsMUC + "#roomconfig</value></field>" +
		"<field var='muc#roomconfig_persistentroom'><value>1</value></field></x></query></iq>"}})
	if err != nil {
		return err
	}
	for {
		el, err := c.next(ctx)
		if err != nil {
			return err
		}
		if el.Name.Local != "iq" {
			continue
		}
		if el.Get("type") != "result" {
			return fmt.Errorf("the room is not made: %s", el.Bytes(""))
		}
		return nil
	}
}

// sat notes that a device enters the room; b.mu is held.
func (b *book) sat(device string) { b.seats[device] = append(b.seats[device], nil) }

// overheard notes what came to a device from the room; b.mu is held.
func (b *book) overheard(device string, s sighting) {
	seats := b.seats[device]
	if len(seats) == 0 {
		b.strange = append(b.strange, fmt.Sprintf("%s got %q and is not in the room", device, s.oid))
		return
	}
	seats[len(seats)-1] = append(seats[len(seats)-1], s)
}

// order compares what devices saw of the room with its archive; b.mu is held.
func (b *book) order(v *verdict) {
	place, ids := map[string]int{}, map[string]string{}
	for i, s := range b.archives[hall] {
		if _, twice := place[s.oid]; twice { // the audit has said so
			continue
		}
		place[s.oid], ids[s.oid] = i, s.stanzaID
	}
	for _, device := range slices.Sorted(maps.Keys(b.seats)) {
		last, here := -1, map[string]bool{}
		for n, seat := range b.seats[device] {
			for i, s := range seat {
				at, kept := place[s.oid]
				switch {
				case !kept:
					v.wrong = append(v.wrong, fmt.Sprintf("%s saw %s, which is not in the room's archive", device, s.oid))
					continue
				case ids[s.oid] != s.stanzaID:
					v.wrong = append(v.wrong, fmt.Sprintf("%s saw %s under another stanza-id than the room's archive has", device, s.oid))
				case here[s.oid]:
					v.duplicates++
					continue
				case at < last:
					v.reordered = append(v.reordered, fmt.Sprintf("%s: %s after place %d of the room, at %d", device, s.oid, last, at))
				case i > 0 && at > last+1:
					v.missed = append(v.missed, fmt.Sprintf("%s, stay %d: %d to %d of the room, before %s", device, n+1, last+1, at-1, s.oid))
				}
				here[s.oid] = true
				last = max(last, at)
			}
		}
	}
}

// fromHall reports whether a message is the room's.
func fromHall(el *stanza.Element) bool { return el.Get("type") == stanza.TypeGroupchat }
