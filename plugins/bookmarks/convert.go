package bookmarks

import (
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/private"
)

// bookmark is one room in the list.
type bookmark struct {
	room    jid.JID
	id      string          // of its item; "": it has none yet
	payload *stanza.Element // <conference/>, of NS or NSOld; shared
}

// list is bookmarks by room, in the order of their addresses.
type list []bookmark

func (l list) find(room jid.JID) (int, bool) {
	return slices.BinarySearchFunc(l, room, func(b bookmark, room jid.JID) int { return strings.Compare(b.room.String(), room.String()) })
}

// put adds a bookmark, in the place of another one of the room.
func (l *list) put(b bookmark) {
	at, found := l.find(b.room)
	if found {
		(*l)[at] = b
		return
	}
	*l = slices.Insert(*l, at, b)
}

// parse reads an item (XEP-0402 §2).
func parse(id string, payload *stanza.Element) (bookmark, bool) {
	room, err := jid.Parse(id)
	if err != nil || payload == nil || payload.Name != (stanza.Name{Space: NS, Local: "conference"}) {
		return bookmark{}, false
	}
	return bookmark{room, id, payload}, true
}

// The children that both kinds have.
var children = []string{"nick", "password"}

// same reports whether an older client sees the same in both.
func same(a, b *stanza.Element) bool {
	on, _ := form.ParseFlag(a.Get("autojoin"))
	wants, _ := form.ParseFlag(b.Get("autojoin"))
	if on != wants || a.Get("name") != b.Get("name") {
		return false
	}
	for _, name := range children {
		if text(a, name) != text(b, name) {
			return false
		}
	}
	return true
}

func text(el *stanza.Element, name string) string {
	if c := el.Child(el.Name.Space, name); c != nil {
		return c.Text()
	}
	return ""
}

// common makes a <conference/> of what both kinds have.
func common(ns string, of *stanza.Element) *stanza.Element {
	el := stanza.El(ns, "conference").WithOpt("name", of.Get("name"))
	if on, _ := form.ParseFlag(of.Get("autojoin")); on {
		el.With("autojoin", "true")
	}
	for _, name := range children {
		if t := text(of, name); t != "" {
			el.Add(stanza.El(ns, name).AddText(t))
		}
	}
	return el
}

// older is a bookmark in the format of XEP-0048 §2.1. Extensions stay in the item:
// who does not know them would drop them (XEP-0402 §1).
func older(b bookmark) *stanza.Element {
	return common(NSOld, b.payload).With("jid", b.room.String())
}

// newer is a bookmark of an older client as an item, with what the item has that
// such clients do not know. have may be nil.
func newer(old, have *stanza.Element) *stanza.Element {
	el := common(NS, old)
	if have == nil {
		return el
	}
	for c := range have.Elements() {
		if c.Name.Space != NS || !slices.Contains(children, c.Name.Local) {
			el.Add(c)
		}
	}
	return el
}

// split takes <storage/> apart: bookmarks of rooms, and the rest.
func split(storage *stanza.Element) (rest []*stanza.Element, rooms list) {
	for el := range storage.Elements() {
		room, err := jid.Parse(el.Get("jid"))
		if el.Name != (stanza.Name{Space: NSOld, Local: "conference"}) || err != nil {
			rest = append(rest, el)
			continue
		}
		if _, twice := rooms.find(room); !twice {
			rooms.put(bookmark{room: room, payload: el})
		}
	}
	return rest, rooms
}

// splitAll is split for private XML, where several elements of the name may stand.
func splitAll(data []byte) (rest []*stanza.Element, rooms list) {
	wrapped := slices.Concat([]byte("<query>"), data, []byte("</query>"))
	query, err := stanza.ParseElement(wrapped, private.NS)
	if err != nil { // it was serialised here
		return nil, nil
	}
	for storage := range query.Elements() {
		r, l := split(storage)
		rest = append(rest, r...)
		for _, b := range l {
			if _, twice := rooms.find(b.room); !twice {
				rooms.put(b)
			}
		}
	}
	return rest, rooms
}

// collate is everything in one element (XEP-0402 §5.3.1).
func collate(rest []*stanza.Element, rooms list) *stanza.Element {
	storage := stanza.El(NSOld, "storage")
	for _, b := range rooms {
		storage.Add(older(b))
	}
	return storage.Add(rest...)
}
