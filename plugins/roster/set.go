package roster

import (
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// check compares an item with the limits (RFC 6121 §2.3.3; reliability row 12).
func (l *Limits) check(owner jid.JID, it Item) error {
	switch {
	case it.JID.IsZero() || it.JID.IsFull():
		return stanza.NewError(stanza.BadRequest, "a contact has a bare address")
	case it.JID == owner: // §2.3.3, interoperability note
		return stanza.NewError(stanza.NotAllowed, "the account itself is no contact")
	case len(it.Name) > int(l.Name):
		return stanza.NewError(stanza.NotAcceptable, "the name is too long")
	case len(it.Groups) > l.Groups:
		return stanza.NewError(stanza.ResourceConstraint, "the contact is in too many groups")
	}
	for i, g := range it.Groups {
		switch {
		case g == "":
			return stanza.NewError(stanza.NotAcceptable, "a group has no name")
		case len(g) > int(l.Name):
			return stanza.NewError(stanza.NotAcceptable, "the name of a group is too long")
		case slices.Contains(it.Groups[:i], g):
			return stanza.NewError(stanza.BadRequest, "a group is named twice")
		}
	}
	return nil
}

// room reports whether the roster may have want in the place of was, which is
// in it if here. What makes a roster smaller always may.
func (l *Limits) room(s *Snapshot, was, want Item, here bool) bool {
	if !here {
		return len(s.made) < l.Items && s.size+want.size() <= int(l.Size)
	}
	more := want.size() - was.size()
	return more <= 0 || s.size+more <= int(l.Size)
}

// setRequest is a roster set, taken apart (RFC 6121 §2.1.5).
type setRequest struct {
	item   Item
	remove bool
}

// parseSet reads the payload of a roster set. Attributes that are not the
// client's to set are ignored (§2.1.2.1, §2.1.2.2, §2.1.5). Limits are not
// looked at.
func parseSet(query *stanza.Element) (setRequest, error) {
	var el *stanza.Element
	for c := range query.Elements() {
		if el != nil || c.Name != (stanza.Name{Space: stanza.NSRoster, Local: "item"}) {
			return setRequest{}, stanza.NewError(stanza.BadRequest, "a roster set has exactly one item") // §2.1.5
		}
		el = c
	}
	if el == nil || !el.Has("jid") { // §2.1.2.3
		return setRequest{}, stanza.NewError(stanza.BadRequest, "a roster set has exactly one item, with an address")
	}
	at, err := jid.Parse(el.Get("jid"))
	if err != nil {
		return setRequest{}, fmt.Errorf("roster item: %w", stanza.NewError(stanza.JIDMalformed, ""))
	}
	req := setRequest{item: Item{JID: at, Name: el.Get("name")}, remove: el.Get("subscription") == "remove"}
	for c := range el.Elements() {
		if c.Name == (stanza.Name{Space: stanza.NSRoster, Local: "group"}) {
			req.item.Groups = append(req.item.Groups, c.Text())
		}
	}
	return req, nil
}
