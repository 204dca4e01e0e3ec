package archive

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"parley/parser/stanza"
)

// What of a text can be found: words, as scripts with spaces have them, and of
// scripts without each character and each two in a row. Case, width and accents
// make no difference.
const (
	maxTerms   = 1024 // of one message; what is beyond is not found
	maxLetters = 40   // letters of a word; a longer one is found by its beginning
	maxText    = 1024 // bytes of what is looked for
	maxWords   = 32   // words and runs in it, and what of runs the index is asked for
)

// token is a word, or a run of characters of a script without spaces.
type token struct {
	text string
	run  bool
}

// folded is a text as it is compared.
func folded(s string) string {
	s = norm.NFKD.String(s)
	s = strings.Map(func(r rune) rune {
		if r >= 0x300 && r <= 0x36f { // accents of the European scripts
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	return norm.NFC.String(s)
}

// unspaced are the scripts that are written without spaces, and Hangul, whose
// words have endings.
var unspaced = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar}

// tokens calls yield with each token of a folded text until it returns false.
func tokens(s string, yield func(token) bool) {
	kind := func(r rune) (part, run bool) {
		if r < utf8.RuneSelf {
			return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_', false
		}
		run = unicode.In(r, unspaced...)
		return run || unicode.In(r, unicode.L, unicode.N, unicode.M), run
	}
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		part, run := kind(r)
		if !part {
			s = s[n:]
			continue
		}
		end, cut, letters := n, n, 1
		for end < len(s) {
			r, n := utf8.DecodeRuneInString(s[end:])
			if p, other := kind(r); !p || other != run {
				break
			}
			end, letters = end+n, letters+1
			if run || letters <= maxLetters {
				cut = end
			}
		}
		if !yield(token{s[:cut], run}) {
			return
		}
		s = s[end:]
	}
}

// Kinds of terms. A term is a hash: that two share one does not matter, what it
// leads to is looked at.
const (
	termWord    = 'w'
	termID      = 'i'
	termContact = 'c'
)

func term(kind byte, text string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{kind})
	_, _ = h.Write([]byte(text))
	return int64(h.Sum64()) //nolint:gosec // the bits
}

// contactTerm finds what is with somebody.
func contactTerm(peer int64) int64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(peer)) //nolint:gosec // the bits
	return term(termContact, string(b[:]))
}

// terms adds what a token is found by: of a run each two characters, and with
// single, or when it is one itself, each one, too.
func (t token) terms(single bool, add func(int64)) {
	if !t.run {
		add(term(termWord, t.text))
		return
	}
	for rest := t.text; rest != ""; {
		_, n := utf8.DecodeRuneInString(rest)
		if single || n == len(t.text) {
			add(term(termWord, rest[:n]))
		}
		if n < len(rest) {
			_, m := utf8.DecodeRuneInString(rest[n:])
			add(term(termWord, rest[:n+m]))
		}
		rest = rest[n:]
	}
}

// textOf is what a message says, folded: its bodies and subjects.
func textOf(st *stanza.Stanza) string {
	var b strings.Builder
	for _, c := range st.Children {
		if c.Name.Space != stanza.NSClient || c.Name.Local != "body" && c.Name.Local != "subject" {
			continue
		}
		if el := st.Element(c); el != nil {
			b.WriteString(el.Text())
			b.WriteByte('\n')
		}
	}
	return folded(b.String())
}

// terms are what a message is found by in the index: the ids it can be retracted
// under, whom it is with, and with words what it says.
func terms(st *stanza.Stanza, peer int64, words bool) []int64 {
	all := []int64{contactTerm(peer)}
	for _, id := range idsOf(st) {
		all = append(all, term(termID, id))
	}
	if !words {
		return all
	}
	seen := map[int64]struct{}{}
	tokens(textOf(st), func(t token) bool {
		t.terms(true, func(w int64) {
			if _, twice := seen[w]; !twice && len(seen) < maxTerms {
				seen[w] = struct{}{}
				all = append(all, w)
			}
		})
		return len(seen) < maxTerms
	})
	return all
}

// idsOf are the ids that a sender has given a message (XEP-0359 §3).
func idsOf(st *stanza.Stanza) []string {
	var ids []string
	if st.ID != "" {
		ids = append(ids, st.ID)
	}
	if el := st.Child(stanza.NSStanzaID, "origin-id"); el != nil {
		if id := el.Get("id"); id != "" && id != st.ID {
			ids = append(ids, id)
		}
	}
	return ids
}

// wanted is what a text search looks for: messages that have every word, and every
// run of characters as it is.
type wanted struct {
	words map[string]bool
	runs  []string
	terms []int64 // none: nothing can match
}

// parseWanted reads what somebody looks for; nil: everything (XEP-0431 §3).
func parseWanted(s string) (*wanted, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > maxText {
		return nil, stanza.NewError(stanza.PolicyViolation, "the text to look for is too long")
	}
	w := &wanted{words: map[string]bool{}}
	n := 0
	tokens(folded(s), func(t token) bool {
		if t.run {
			w.runs = append(w.runs, t.text)
		} else {
			w.words[t.text] = true
		}
		t.terms(false, func(x int64) {
			if !slices.Contains(w.terms, x) {
				w.terms = append(w.terms, x)
			}
		})
		n++
		return n < maxWords && len(w.terms) < maxWords
	})
	return w, nil
}

// in reports whether a stored message is what is looked for.
func (w *wanted) in(st *stanza.Stanza) bool {
	if len(w.terms) == 0 {
		return false
	}
	text := textOf(st)
	for _, run := range w.runs {
		if !strings.Contains(text, run) {
			return false
		}
	}
	left := maps.Clone(w.words)
	tokens(text, func(t token) bool {
		if !t.run {
			delete(left, t.text)
		}
		return len(left) > 0
	})
	return len(left) == 0
}
