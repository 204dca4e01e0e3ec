package stanza

import (
	"strings"
	"unicode/utf8"
)

// Classes of ASCII bytes; bytes from 0x80 are in none.
const (
	asText  = 1 << iota // nothing to look at in character data
	asValue             // nothing to look at in an attribute value
	asName              // in a name; the colon is apart
	asStart             // at the start of a name
	asSpace             // XML 1.0 §2.3 S
)

var classes = classTable()

func classTable() (t [256]uint8) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = asText | asValue
	}
	for _, c := range "\t\n\r " {
		t[c] |= asText | asSpace
	}
	for _, c := range "<&]>" { // '>' only for ']]>'
		t[c] &^= asText
	}
	for _, c := range "<&'\"" {
		t[c] &^= asValue
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= asName
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= asName | asStart
		t[c-'a'+'A'] |= asName | asStart
	}
	t['_'] |= asName | asStart
	t['-'] |= asName
	t['.'] |= asName
	return t
}

func isSpace(c byte) bool { return classes[c]&asSpace != 0 }

// isChar reports whether r is a Char (XML 1.0 §2.2). U+FEFF is one (RFC 6120 §11.6).
func isChar(r rune) bool {
	switch {
	case r < 0x20:
		return r == '\t' || r == '\n' || r == '\r'
	case r < 0xd800:
		return true
	case r < 0xe000, r == 0xfffe, r == 0xffff:
		return false
	}
	return r <= utf8.MaxRune
}

// runeAt decodes the character at b[i], whose first byte is not ASCII. It waits
// only as long as the bytes can still become a character.
func runeAt(b []byte, i int) (rune, int, outcome) {
	if !utf8.FullRune(b[i:]) {
		return 0, 0, stepMore
	}
	r, n := utf8.DecodeRune(b[i:])
	switch {
	case r == utf8.RuneError && n == 1:
		return 0, 0, faultUTF8
	case r == 0xfffe || r == 0xffff:
		return 0, 0, faultChar
	}
	return r, n, stepOK
}

// maxReference bounds what may have to be looked at again when a reference
// arrives byte by byte. The longest that is of use is &#x10FFFF;.
const maxReference = 32

// reference checks the reference that begins at b[i], which is '&', and returns its length.
func reference(b []byte, i int) (int, outcome) {
	b = b[i:min(len(b), i+maxReference)]
	if len(b) > 1 && b[1] == '#' {
		_, n, o := charRef(b)
		return n, o
	}
	for n := 1; n < len(b); n++ {
		c := b[n]
		switch {
		case c >= 0x80:
			return 0, faultEntity // a name no predefined entity has
		case c == ';' && n > 1:
			if _, ok := predefined(b[1:n]); !ok {
				return 0, faultEntity // RFC 6120 §11.1
			}
			return n + 1, stepOK
		case classes[c]&asStart != 0 || c == ':':
		case classes[c]&asName == 0 || n == 1:
			return 0, faultAmpersand
		}
	}
	if len(b) == maxReference {
		return 0, faultEntity
	}
	return 0, stepMore
}

// charRef reads a character reference from the start of b (XML 1.0 §4.1).
func charRef(b []byte) (rune, int, outcome) {
	n, base, v, digits := 2, rune(10), rune(0), 0
	if n < len(b) && b[n] == 'x' {
		n, base = 3, 16
	}
	for ; n < len(b); n++ {
		c, d := b[n], rune(0)
		switch {
		case c >= '0' && c <= '9':
			d = rune(c - '0')
		case base == 16 && c >= 'a' && c <= 'f':
			d = rune(c-'a') + 10
		case base == 16 && c >= 'A' && c <= 'F':
			d = rune(c-'A') + 10
		case c == ';' && digits > 0:
			if !isChar(v) {
				return 0, 0, faultCharRef
			}
			return v, n + 1, stepOK
		default:
			return 0, 0, faultAmpersand
		}
		digits++
		v = min(v*base+d, utf8.MaxRune+1)
	}
	if len(b) >= maxReference {
		return 0, 0, faultReference
	}
	return 0, 0, stepMore
}

// predefined is the table of XML 1.0 §4.6.
func predefined(name []byte) (byte, bool) {
	switch string(name) {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "apos":
		return '\'', true
	case "quot":
		return '"', true
	}
	return 0, false
}

// attrValue is the value of a checked attribute: references resolved, literal
// white space turned to spaces (XML 1.0 §2.11, §3.3.3).
func attrValue(raw []byte) string {
	var v strings.Builder
	v.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; c {
		case '\r':
			if i+1 < len(raw) && raw[i+1] == '\n' {
				i++
			}
			v.WriteByte(' ')
		case '\t', '\n':
			v.WriteByte(' ')
		case '&':
			n, _ := reference(raw, i)
			if r, _, o := charRef(raw[i : i+n]); raw[i+1] == '#' && o == stepOK {
				v.WriteRune(r)
			} else if c, ok := predefined(raw[i+1 : i+n-1]); ok {
				v.WriteByte(c)
			}
			i += n - 1
		default:
			v.WriteByte(c)
		}
	}
	return v.String()
}

// xmlDeclaration checks what stands between "<?xml" and "?>" (XML 1.0 §2.8, RFC
// 6120 §11.5). A standalone declaration has no meaning here and is ignored.
func xmlDeclaration(b []byte) outcome {
	rest := string(b)
	for i, name := range [...]string{"version", "encoding", "standalone"} {
		tail := strings.TrimLeft(rest, "\t\n\r ")
		if tail == "" && i > 0 {
			return stepOK
		}
		if !strings.HasPrefix(tail, name) && i > 0 {
			continue
		}
		value, after, ok := pseudoAttribute(tail, name)
		if !ok || len(tail) == len(rest) {
			return faultDeclaration
		}
		rest = after
		switch {
		case i == 0 && value != "1.0": // RFC 6120 §11.8
			return faultDeclaration
		case i == 1 && !strings.EqualFold(value, "utf-8"): // RFC 6120 §11.6
			return faultEncoding
		case i == 2 && value != "yes" && value != "no":
			return faultDeclaration
		}
	}
	if strings.TrimLeft(rest, "\t\n\r ") != "" {
		return faultDeclaration
	}
	return stepOK
}

// pseudoAttribute reads name = 'value' from the start of s.
func pseudoAttribute(s, name string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, name)
	if !ok {
		return "", "", false
	}
	s, ok = strings.CutPrefix(strings.TrimLeft(s, "\t\n\r "), "=")
	s = strings.TrimLeft(s, "\t\n\r ")
	if !ok || s == "" || s[0] != '\'' && s[0] != '"' {
		return "", "", false
	}
	return strings.Cut(s[1:], s[:1])
}
