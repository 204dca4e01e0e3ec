package usersearch

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/vcard"
	"parley/storage"
)

// Bounds of what is kept of a vCard, and of what is looked for.
const (
	maxValue   = 256 // bytes of a field
	maxWords   = 32  // that a field is found by
	maxLetters = 40  // of a word; a longer one is found by its beginning
)

// entry is what the directory shows of an account; and what somebody looks for.
type entry struct {
	account                   jid.JID
	given, family, nick, mail string
}

// The fields (XEP-0055 §7.2). first and last are the given and the family name,
// however a culture orders them (XEP-0055 §4).
const (
	first = "first"
	last  = "last"
	nick  = "nick"
	email = "email"
)

func fields() form.Table[entry] {
	return form.Table[entry]{
		form.Text(first, "Given name", maxValue, func(e *entry) *string { return &e.given }),
		form.Text(last, "Family name", maxValue, func(e *entry) *string { return &e.family }),
		form.Text(nick, "Nickname", maxValue, func(e *entry) *string { return &e.nick }),
		form.Text(email, "E-mail address", maxValue, func(e *entry) *string { return &e.mail }),
	}
}

// values are those of the fields, in their order.
func (e *entry) values() []string { return []string{e.given, e.family, e.nick, e.mail} }

// read is what a vCard says. Many give a formatted name alone: it is shown as the
// given name, and found as either.
func read(owner jid.JID, card *stanza.Element) (e entry, words map[string][]string) {
	text := func(path ...string) string {
		el := card
		for _, local := range path {
			if el = el.Child(vcard.NS, local); el == nil {
				return ""
			}
		}
		return cut(strings.TrimSpace(el.Text()), maxValue)
	}
	e = entry{account: owner, given: text("N", "GIVEN"), family: text("N", "FAMILY"), nick: text("NICKNAME"), mail: text("EMAIL", "USERID")}
	either := ""
	if e.given == "" && e.family == "" {
		e.given = text("FN")
		either = e.given
	}
	return e, map[string][]string{
		first: foundBy(e.given), last: foundBy(e.family + " " + either), nick: foundBy(e.nick), email: whole(e.mail),
	}
}

// cut is at most n bytes of a text, without half a character at the end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// unspaced are scripts in which a name is written in one piece.
var unspaced = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar}

// foundBy are the words that a name is found by the beginning of: those it has, and
// where there are no spaces what begins at each character.
func foundBy(name string) (out []string) {
	add := func(w string) {
		if len(out) < maxWords && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	for _, w := range split(name) {
		add(w)
		for i, r := range w {
			if i > 0 && unicode.In(r, unspaced...) {
				add(w[i:])
			}
		}
	}
	return out
}

// split is a name in words, folded.
func split(name string) []string {
	out := strings.FieldsFunc(fold(name), func(r rune) bool { return !unicode.In(r, unicode.L, unicode.N, unicode.M) })
	for i, w := range out {
		if utf8.RuneCountInString(w) > maxLetters {
			out[i] = string([]rune(w)[:maxLetters])
		}
	}
	return out
}

// whole is an e-mail address as it is found: by nothing less, so that nobody tries
// letters.
func whole(address string) []string {
	if w := fold(strings.TrimSpace(address)); w != "" {
		return []string{w}
	}
	return nil
}

// fold makes case, width and accents of the European scripts make no difference.
func fold(s string) string {
	accent := runes.Predicate(func(r rune) bool { return r >= 0x300 && r <= 0x36f })
	out, _, err := transform.String(transform.Chain(norm.NFKD, runes.Remove(accent), cases.Fold(), norm.NFC), s)
	if err != nil {
		return strings.ToLower(s)
	}
	return out
}

// beside is what the directory keeps of a vCard that is stored: it takes the place of
// what was.
func beside(s vcard.Stored, w *storage.WriteSet) { write(s, w, stmtEntry) }

func write(s vcard.Stored, w *storage.WriteSet, entry *storage.Stmt, more ...any) {
	e, words := read(s.Owner, s.Card)
	account, domain := s.Owner.String(), s.Owner.Domain()
	w.Add(entry, append([]any{account, domain, e.given, e.family, e.nick, e.mail, s.At}, more...)...)
	w.Add(stmtUnword, account)
	for _, field := range []string{first, last, nick, email} {
		for _, word := range words[field] {
			w.Add(stmtWord, domain, field, word, account)
		}
	}
}
