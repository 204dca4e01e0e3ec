package ledger_test

import (
	"context"
	"fmt"
	"strconv"

	"parley/parser/stanza"
)

// fetch logs a new device in, which takes what is pending, and reads the
// archive. What waits comes in order, before anything newer: a message to
// oneself ends it.
func (w *world) fetch(user string) (names []string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	in, err := w.server.enter(ctx)
	if err != nil {
		return nil, err
	}
	c := &client{user: user, resource: "last", book: w.book}
	if err := c.connect(ctx, in); err != nil {
		return nil, err
	}
	defer c.drop()
	err = c.send([]outgoing{{raw: "<message to='" + user + "@localhost' type='chat' id='end'><body>end</body></message>"}})
	if err != nil {
		return nil, err
	}
	for {
		m, err := c.next(ctx)
		if err != nil {
			return nil, err
		}
		if m.Get("id") == "end" {
			if err := c.history(ctx, user); err != nil || user != cast[0].user {
				return []string{c.name()}, err
			}
			return []string{c.name()}, c.history(ctx, hall)
		}
		if s, ok := c.sight(m); ok {
			w.book.received(user, c.name(), s)
		}
	}
}

// next returns the next message that comes.
func (c *client) next(ctx context.Context) (*stanza.Element, error) {
	for {
		select {
		case el, ok := <-c.elements:
			if !ok {
				return nil, errGone
			}
			if m, err := c.handle(el); m != nil || err != nil {
				return m, err
			}
			if el.Name.Local == "iq" {
				return el, nil
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// nsArchive is XEP-0313.
const nsArchive = "urn:xmpp:mam:2"

// history reads the whole archive of an account or the room, page by page, into the
// book.
func (c *client) history(ctx context.Context, of string) error {
	after, to := "", ""
	if of == hall {
		to = " to='" + hallJID + "'"
	}
	for page := 0; ; page++ {
		if page > 0 {
			after = "<after>" + after + "</after>"
		}
		id := "page" + strconv.Itoa(page)
		err := c.send([]outgoing{{raw: "<iq type='set' id='" + id + "'" + to + "><query xmlns='" + nsArchive + "'><set xmlns='http://jabber.org/protocol/rsm'><max>250</max>" + after + "</set></query></iq>"}})
		if err != nil {
			return err
		}
		for after = ""; ; {
			el, err := c.next(ctx)
			if err != nil {
				return err
			}
			if el.Name.Local == "iq" {
				fin := el.Child(nsArchive, "fin")
				if fin == nil {
					return fmt.Errorf("archive: %s", el.Bytes(""))
				}
				if fin.Get("complete") == "true" {
					return nil
				}
				break
			}
			if after, err = c.row(el, of, after); err != nil {
				return err
			}
		}
	}
}

// row enters an archive's row and returns its id, or what came before when
// the message is none.
func (c *client) row(el *stanza.Element, of, before string) (string, error) {
	result := el.Child(nsArchive, "result")
	if result == nil {
		return before, nil
	}
	fwd := result.Child("urn:xmpp:forward:0", "forwarded")
	if fwd == nil {
		return "", fmt.Errorf("archive: %s", el.Bytes(""))
	}
	if m := fwd.Child(stanza.NSClient, "message"); m != nil {
		if o := m.Child(stanza.NSStanzaID, "origin-id"); o != nil {
			c.book.archived(of, sighting{o.Get("id"), result.Get("id")})
		}
	}
	return result.Get("id"), nil
}
