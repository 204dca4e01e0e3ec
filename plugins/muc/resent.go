package muc

import (
	"crypto/sha256"
	"time"

	"parley/parser/stanza"
)

// resent knows what a room was told lately. A client whose session could not be
// resumed, or whose server or node has died, does not know what of its last messages
// arrived, and sends them again: that is the same message, once in the archive and
// once for everybody (spec: duplicate detection; D2). An origin-id counts for its
// sender only (XEP-0359 §6), whom the occupant id names.
type resent struct {
	seen  map[resentKey]struct{}
	order []resentKey
}

type resentKey [sha256.Size]byte

// resentKept is how many messages of a room are known; as many are read with it.
const resentKept = 500

// resentSpan is how far back a room looks when it is read: no client waits longer
// for an acknowledgement.
const resentSpan = 24 * time.Hour

// keyOf is of who says what, under which ids: a client that uses its ids again has
// something else to say. The message is the same as it comes in and as it goes out.
// false: it has no origin-id.
func keyOf(st *stanza.Stanza, author string) (k resentKey, ok bool) {
	origin := st.Child(stanza.NSStanzaID, "origin-id")
	if origin == nil || author == "" || origin.Get("id") == "" {
		return k, false
	}
	h := sha256.New()
	for _, s := range [...]string{author, st.ID, origin.Get("id")} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	for _, c := range st.Children {
		if c.Name.Space == stanza.NSClient { // body, subject, thread
			_, _ = h.Write(st.ChildBytes(c))
		}
	}
	return resentKey(h.Sum(nil)), true
}

// authorOf is the occupant id that a message goes out with.
func authorOf(out *stanza.Stanza) string {
	if el := out.Child(nsOccupantID, "occupant-id"); el != nil {
		return el.Get("id")
	}
	return ""
}

// forget takes back what has noted of a message that is refused in the end.
func (s *resent) forget(out *stanza.Stanza) {
	if k, ok := keyOf(out, authorOf(out)); ok {
		delete(s.seen, k)
	}
}

// knows reports whether the room was told it by the author, an occupant id.
func (s *resent) knows(st *stanza.Stanza, author string) bool {
	k, ok := keyOf(st, author)
	if !ok {
		return false
	}
	_, known := s.seen[k]
	return known
}

// note remembers what goes out. What is noted and cannot be committed goes with the
// room in memory.
func (s *resent) note(out *stanza.Stanza) {
	k, ok := keyOf(out, authorOf(out))
	if _, known := s.seen[k]; known || !ok {
		return
	}
	if s.seen == nil {
		s.seen = make(map[resentKey]struct{})
	}
	s.seen[k] = struct{}{}
	s.order = append(s.order, k)
	if len(s.order) > resentKept {
		delete(s.seen, s.order[0])
		s.order = s.order[1:]
	}
}
