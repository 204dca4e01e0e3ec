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
	seen map[resentKey]struct{}
	of   map[string][]resentKey // by occupant id, the oldest first
	n    int                    // in of
}

type resentKey [sha256.Size]byte

const (
	// resentEach is how many messages of each author are known, whatever others say
	// meanwhile: more than a client has open, and than it says elsewhere while one that
	// has waited on the way from another node is still to come.
	resentEach = 1000
	// resentMost is how many of all authors; beyond it, those of who says most are forgotten.
	resentMost = 10_000
	// resentRead is how many of the last messages are read with the room.
	resentRead = 1000
)

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
	author := authorOf(out)
	k, ok := keyOf(out, author)
	if _, known := s.seen[k]; known || !ok {
		return
	}
	if s.seen == nil {
		s.seen, s.of = map[resentKey]struct{}{}, map[string][]resentKey{}
	}
	s.seen[k] = struct{}{}
	s.of[author] = append(s.of[author], k)
	s.n++
	if len(s.of[author]) > resentEach {
		s.drop(author, 1)
	}
	if s.n > resentMost {
		s.thin(author)
	}
}

// thin makes room for many: what those have said who say more than others do goes first,
// the oldest of it, so that who says little stays known. The author's own stays.
func (s *resent) thin(author string) {
	const goal = resentMost / 8 * 7
	for before := 0; s.n > goal && s.n != before; {
		before = s.n
		fair := max(1, s.n/len(s.of))
		for other, all := range s.of {
			if other != author && len(all) > fair {
				s.drop(other, len(all)-max(fair, len(all)/2))
			}
		}
	}
	for other, all := range s.of { // everybody says as little
		if s.n <= goal {
			break
		}
		if other != author {
			s.drop(other, len(all))
		}
	}
}

// drop forgets the n oldest of an author.
func (s *resent) drop(author string, n int) {
	all := s.of[author]
	for _, k := range all[:n] {
		delete(s.seen, k)
	}
	s.n -= n
	if s.of[author] = all[n:]; len(all) == n {
		delete(s.of, author)
	}
}
