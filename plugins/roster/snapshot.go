package roster

import (
	"cmp"
	"slices"
	"unsafe"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Item is a contact in somebody's roster (RFC 6121 §2.1.2).
type Item struct {
	JID      jid.JID  // bare
	Name     string   // the user's name for the contact; may be empty
	Groups   []string // in the user's order, none twice; must not be changed
	State    State    // without PendingIn, which is no part of the item (§A.1)
	Approved bool     // a request will be granted unasked (§3.4)
	ver      int64    // the roster's version that this change made
	removed  bool     // a tombstone
}

// size is what the contact says about itself: addresses and names, in bytes.
func (it Item) size() int {
	n := len(it.JID.String()) + len(it.Name)
	for _, g := range it.Groups {
		n += len(g)
	}
	return n
}

// Element is the <item/> for results and pushes.
func (it Item) Element() *stanza.Element {
	el := stanza.El(stanza.NSRoster, "item").With("jid", it.JID.String())
	if it.removed {
		return el.With("subscription", "remove")
	}
	el.WithOpt("name", it.Name).With("subscription", it.State.Subscription())
	if it.State.PendingOut() {
		el.With("ask", "subscribe")
	}
	if it.Approved {
		el.With("approved", "true")
	}
	for _, g := range it.Groups {
		el.Add(stanza.El(stanza.NSRoster, "group").AddText(g))
	}
	return el
}

// Snapshot is an account's roster at one moment. It is immutable: neither it
// nor what it returns may be changed.
type Snapshot struct {
	owner jid.JID
	ver   int64     // of the owner's last modification; 0: never modified
	floor int64     // tombstones older than this are gone
	made  []Item    // by the owner, sorted by address
	size  int       // of what is made
	asked []jid.JID // who waits for an answer

	grants []Grant // what is shared
	gen    uint64  // of the grants
	mark   string  // of them, in versions

	// What follows from these.
	items         []Item
	unseen        []jid.JID // who gets the owner's presence besides
	waiting       []jid.JID
	subscribers   []jid.JID
	subscriptions []jid.JID
	requested     []jid.JID
}

// Version is the value of the 'ver' attribute (RFC 6121 §2.1.1).
func (s *Snapshot) Version() string { return s.at(s.ver) }

// Items returns the contacts, sorted by address: the owner's, and those that are shared.
func (s *Snapshot) Items() []Item { return s.items }

// Item returns the contact's item.
func (s *Snapshot) Item(contact jid.JID) (Item, bool) { return find(s.items, contact) }

// own returns what the owner has made of the contact.
func (s *Snapshot) own(contact jid.JID) (Item, bool) { return find(s.made, contact) }

func find(items []Item, contact jid.JID) (Item, bool) {
	i, ok := slices.BinarySearchFunc(items, contact, itemAt)
	if !ok {
		return Item{JID: contact}, false
	}
	return items[i], true
}

func itemAt(it Item, contact jid.JID) int { return byAddress(it.JID, contact) }

// State returns the subscription state towards a contact, bare.
func (s *Snapshot) State(contact jid.JID) State {
	it, here := s.Item(contact)
	st := it.State
	if !here {
		st = s.grant(contact).State
	}
	if _, waits := slices.BinarySearchFunc(s.asked, contact, byAddress); waits && !st.From() {
		st |= in
	}
	return st
}

// Subscribers are the contacts that get the account's presence: state From,
// FromOut or Both.
func (s *Snapshot) Subscribers() []jid.JID { return s.subscribers }

// Subscriptions are the contacts whose presence the account gets: state To,
// ToIn or Both.
func (s *Snapshot) Subscriptions() []jid.JID { return s.subscriptions }

// Requested are the contacts that have not answered the account: the states
// with PendingOut.
func (s *Snapshot) Requested() []jid.JID { return s.requested }

// Asked are those who wait for the account's answer: the states with
// PendingIn.
func (s *Snapshot) Asked() []jid.JID { return s.waiting }

func byAddress(a, b jid.JID) int { return cmp.Compare(a.String(), b.String()) }

// sort puts what was read into the order that lookups need: databases have
// orders of their own.
func (s *Snapshot) sort() {
	slices.SortFunc(s.made, func(a, b Item) int { return byAddress(a.JID, b.JID) })
	slices.SortFunc(s.asked, byAddress)
}

// index derives what is asked for often.
func (s *Snapshot) index() *Snapshot {
	s.subscribers, s.subscriptions, s.requested, s.size = nil, nil, nil, 0
	for i := range s.made {
		s.size += s.made[i].size()
	}
	s.items, s.unseen, s.waiting = s.made, nil, s.asked
	if len(s.grants) > 0 {
		s.items, s.unseen = compose(s.made, s.grants)
		s.waiting = slices.DeleteFunc(slices.Clone(s.asked), func(j jid.JID) bool { return s.State(j).From() })
	}
	for i := range s.items {
		if s.items[i].State.From() {
			s.subscribers = append(s.subscribers, s.items[i].JID)
		}
		if s.items[i].State.To() {
			s.subscriptions = append(s.subscriptions, s.items[i].JID)
		}
		if s.items[i].State.PendingOut() {
			s.requested = append(s.requested, s.items[i].JID)
		}
	}
	s.subscribers = append(s.subscribers, s.unseen...)
	return s
}

// with returns the roster after a change.
func (s *Snapshot) with(ch change) *Snapshot {
	next := *s
	contact := ch.item.JID
	if ch.visible() {
		next.ver = ch.item.ver
		if next.floor == 0 {
			next.floor = next.ver
		}
		i, here := slices.BinarySearchFunc(s.made, contact, itemAt)
		next.made = slices.Clone(s.made)
		switch {
		case ch.item.removed && here:
			next.made = slices.Delete(next.made, i, i+1)
		case here:
			next.made[i] = ch.item
		case !ch.item.removed:
			next.made = slices.Insert(next.made, i, ch.item)
		}
	}
	i, here := slices.BinarySearchFunc(s.asked, contact, byAddress)
	switch {
	case ch.request != nil && !here:
		next.asked = slices.Insert(slices.Clone(s.asked), i, contact)
	case ch.answered && here:
		next.asked = slices.Delete(slices.Clone(s.asked), i, i+1)
	}
	return next.index()
}

// weight is what the snapshot costs in the cache.
func (s *Snapshot) weight() uint32 {
	n := len(s.made) + len(s.asked)
	if len(s.grants) > 0 {
		n += len(s.items) + len(s.grants)
	}
	return uint32(256 + s.size + n*int(unsafe.Sizeof(Item{})))
}
