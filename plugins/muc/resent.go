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

// keyOf is of who says what, under which ids, in a message as it goes out: a client
// that uses its ids again has something else to say. false: it has no origin-id.
func keyOf(out *stanza.Stanza) (k resentKey, ok bool) {
	origin, author := out.Child(stanza.NSStanzaID, "origin-id"), out.Child(nsOccupantID, "occupant-id")
	if origin == nil || author == nil || origin.Get("id") == "" {
		return k, false
	}
	h := sha256.New()
	for _, s := range [...]string{author.Get("id"), out.ID, origin.Get("id")} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	for _, c := range out.Children {
		if c.Name.Space == stanza.NSClient { // body, subject, thread
			_, _ = h.Write(out.ChildBytes(c))
		}
	}
	return resentKey(h.Sum(nil)), true
}

// forget takes back what has noted of a message that is refused in the end.
func (s *resent) forget(out *stanza.Stanza) {
	if k, ok := keyOf(out); ok {
		delete(s.seen, k)
	}
}

// has reports whether the room was told it, and notes it. What is noted and cannot
// be committed goes with the room in memory.
func (s *resent) has(out *stanza.Stanza) bool {
	k, ok := keyOf(out)
	if !ok {
		return false
	}
	if _, known := s.seen[k]; known {
		return true
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
	return false
}
