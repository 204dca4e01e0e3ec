package ledger_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"parley/parser/stanza"
)

// The room that everybody's devices are in (XEP-0045). What is said there counts
// as said to an account named hall, whose archive is the room's.
//
//   - acknowledged: in the room's archive, once
//   - the archive is in the order of sending, for each sender
//   - every device sees the archive's order
//   - from a device's entry until its session ends nothing is missing
//   - nobody has to enter again while its session lasts, unless it is told that it is out
//   - at the end everybody who never leaves hears the last word

const (
	hall    = "hall"
	hallJID = hall + "@conference.localhost"
	nsMUC   = "http://jabber.org/protocol/muc"
)

// seat is a device's stay in the room: from entering it to the end of its session.
type seat []sighting

// enterHall is what a device says first in a new session.
func (c *client) enterHall() string {
	return fmt.Sprintf("<presence to='%s/%s-%s'><x xmlns='%s'><history maxstanzas='0'/></x></presence>", hallJID, c.user, c.resource, nsMUC)
}

// herald is the account that makes the room and says the last word there: a session
// of anybody else's beside their own would be one more device.
const herald = "herald"

// openHall makes the room; it stays when everybody has left it.
func (w *world) openHall(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.server.account(ctx, herald); err != nil {
		return err
	}
	in, err := w.server.enter(ctx)
	if err != nil {
		return err
	}
	c := &client{user: herald, resource: "founder", book: w.book}
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

// lastWord is said when everybody is silent. Whoever is in the room hears it, or has
// lost its place there without being told.
func (w *world) lastWord() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	in, err := w.server.enter(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{user: herald, resource: "herald", book: w.book, sits: true}
	if err := c.connect(ctx, in); err != nil {
		w.t.Fatal(err)
	}
	defer c.drop()
	oid := w.book.send(pair{herald, hall})
	if err := c.send([]outgoing{groupchat(oid)}); err != nil {
		w.t.Fatal(err)
	}
	deaf := w.book.deaf(oid)
	for again := time.NewTicker(retry); ctx.Err() == nil && len(deaf) > 0; deaf = w.book.deaf(oid) {
		select {
		case el, ok := <-c.elements:
			if !ok {
				w.t.Fatal("the herald is gone")
			}
			if _, err := c.handle(el); err != nil {
				w.t.Fatal(err)
			}
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	for _, d := range deaf {
		w.book.strange = append(w.book.strange, d+" does not hear the last word in the room")
	}
}

func groupchat(oid string) outgoing {
	return outgoing{oid, fmt.Sprintf(
		"<message to='%s' type='groupchat' id='%s'><body>number %s</body><origin-id xmlns='urn:xmpp:sid:0' id='%s'/></message>", hallJID, oid, oid, oid)}
}

// deaf are the devices, of those that never leave, that have not heard it.
func (b *book) deaf(oid string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range cast {
		for _, r := range p.devices {
			seats := b.seats[p.user+"/"+r]
			if p.habit != always {
				continue
			}
			heard := len(seats) > 0 && slices.ContainsFunc(seats[len(seats)-1], func(s sighting) bool { return s.oid == oid })
			if !heard {
				out = append(out, p.user+"/"+r)
			}
		}
	}
	return out
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
					v.repeated++
					continue
				case at < last:
					v.astray = append(v.astray, fmt.Sprintf("%s: %s after place %d of the room, at %d", device, s.oid, last, at))
				case i > 0 && at > last+1:
					v.missed = append(v.missed, fmt.Sprintf("%s, stay %d: %d to %d of the room, before %s", device, n+1, last+1, at-1, s.oid))
				}
				here[s.oid] = true
				last = max(last, at)
			}
		}
	}
}

// place looks at presence of the room: the device's own says whether it is in the
// room. When it hears that it is not any more it enters again.
func (c *client) place(el *stanza.Element) {
	if el.Name.Local != "presence" || !strings.HasPrefix(el.Get("from"), hallJID) {
		return
	}
	x := el.Child(nsMUC+"#user", "x")
	switch typ := el.Get("type"); {
	case typ == stanza.TypeError:
		c.outside = true
		e := el.Child(stanza.NSClient, "error")
		c.denied = e != nil && e.Get("type") == string(stanza.Wait)
	case x == nil || !self(x):
	case typ == "":
		c.inside, c.denied = true, false
	case typ == stanza.TypeUnavailable && c.inside: // else an earlier session with the address was
		c.inside, c.outside = false, true
		c.book.out()
	}
}

// self reports whether the presence is the recipient's own.
func self(x *stanza.Element) bool {
	for s := range x.Elements() {
		if s.Name.Local == "status" && s.Get("code") == "110" {
			return true
		}
	}
	return false
}

// out notes that a device was told that it is not in the room any more.
func (b *book) out() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outs++
}

// fromHall reports whether a message is the room's.
func fromHall(el *stanza.Element) bool { return el.Get("type") == stanza.TypeGroupchat }
