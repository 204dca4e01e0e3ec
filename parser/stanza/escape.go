package stanza

import "unicode/utf8"

// AppendText appends s as character data. Every '>' is escaped, so that "]]>" cannot arise (XML 1.0 §2.4); a carriage
// return is, because a receiver would normalise it away (XML 1.0 §2.11).
func AppendText(dst []byte, s string) []byte { return appendEscaped(dst, s, &textEscapes) }

// AppendAttrValue appends s as the inside of an attribute value, good within either kind of quotes. White space other
// than the blank is escaped, because a receiver would normalise it (XML 1.0 §3.3.3).
func AppendAttrValue(dst []byte, s string) []byte { return appendEscaped(dst, s, &attrEscapes) }

// appendAttr writes " name='value'".
func appendAttr(dst []byte, name, value string) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, '=', '\'')
	dst = AppendAttrValue(dst, value)
	return append(dst, '\'')
}

// An escapeTable gives for each ASCII character what stands for it; empty means itself.
type escapeTable [utf8.RuneSelf]string

const replacement = "\uFFFD"

var (
	textEscapes = newEscapes(map[byte]string{'\t': "", '\n': ""})
	attrEscapes = newEscapes(map[byte]string{'\'': "&apos;", '"': "&quot;", '\t': "&#x9;", '\n': "&#xA;"})
)

func newEscapes(more map[byte]string) (t escapeTable) {
	for c := range byte(' ') {
		t[c] = replacement // not a Char, XML 1.0 §2.2
	}
	t['&'], t['<'], t['>'], t['\r'] = "&amp;", "&lt;", "&gt;", "&#xD;"
	for c, s := range more {
		t[c] = s
	}
	return t
}

func appendEscaped(dst []byte, s string, table *escapeTable) []byte {
	plain := 0
	for plain < len(s) && s[plain] < utf8.RuneSelf && table[s[plain]] == "" {
		plain++
	}
	dst = append(dst, s[:plain]...)
	if plain == len(s) { // nearly always: addresses, ids
		return dst
	}
	s = s[plain:]
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if esc := table[c]; esc != "" {
				dst = append(dst, s[done:i]...)
				dst = append(dst, esc...)
				done = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !isChar(r) {
			dst = append(dst, s[done:i]...)
			dst = append(dst, replacement...)
			done = i + n
		}
		i += n
	}
	return append(dst, s[done:]...)
}
