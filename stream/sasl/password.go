package sasl

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// ErrPassword says that a string cannot be a password: empty, too long, or made of forbidden characters.
var ErrPassword = errors.New("sasl: not usable as a password")

// PreparePassword returns the form of a password that keys are derived from: OpaqueString (RFC 8265 §4.2), and for
// strings it refuses SASLprep (RFC 4013), which SCRAM's texts still name. Errors: ErrPassword.
func PreparePassword(password string) (string, error) {
	forms, err := passwordForms(password)
	if err != nil {
		return "", err
	}
	return forms[0], nil
}

// passwordForms returns the forms that keys may have been derived from, the preferred one first. The second is there
// for imported accounts whose former server used SASLprep. How many there are depends on the password alone.
func passwordForms(password string) ([]string, error) {
	if len(password) > MaxPassword || !utf8.ValidString(password) {
		return nil, ErrPassword
	}
	var forms []string
	if s, err := precis.OpaqueString.String(password); err == nil && s != "" {
		forms = append(forms, s)
	}
	if s, ok := saslprep(password); ok && (len(forms) == 0 || forms[0] != s) {
		forms = append(forms, s)
	}
	if len(forms) == 0 {
		return nil, ErrPassword
	}
	return forms, nil
}

// saslprep prepares a query string by RFC 4013 §2: map, normalise, prohibit, check directions.
func saslprep(s string) (string, bool) {
	s = norm.NFKC.String(strings.Map(saslprepMap, s))
	if s == "" || strings.ContainsFunc(s, saslprepProhibited) {
		return "", false
	}
	return s, saslprepBidi(s)
}

// saslprepMap: RFC 4013 §2.1 (RFC 3454 tables C.1.2 and B.1).
func saslprepMap(r rune) rune {
	switch {
	case r == 0x200B: // in both tables; the space comes first in §2.1
		return ' '
	case r != ' ' && unicode.Is(unicode.Zs, r):
		return ' '
	case r == 0xAD, r == 0x34F, r == 0x1806, r >= 0x180B && r <= 0x180D, r == 0x200C, r == 0x200D, r == 0x2060,
		r >= 0xFE00 && r <= 0xFE0F, r == 0xFEFF:
		return -1
	}
	return r
}

// saslprepProhibited: RFC 4013 §2.3 (RFC 3454 tables C.1.2, C.2.1 to C.9). Unassigned code points may stand in a
// query string (§2.5).
func saslprepProhibited(r rune) bool {
	switch {
	case r != ' ' && unicode.Is(unicode.Zs, r), unicode.IsControl(r), unicode.Is(unicode.Co, r), unicode.Is(unicode.Noncharacter_Code_Point, r):
		return true
	case r == 0x6DD, r == 0x70F, r == 0x180E, r == 0x2028, r == 0x2029, r >= 0x2061 && r <= 0x2063, r >= 0x206A && r <= 0x206F,
		r >= 0xFFF9 && r <= 0xFFFD, r >= 0x1D173 && r <= 0x1D17A, // C.2.2, C.6
		r >= 0x2FF0 && r <= 0x2FFB,                                                   // C.7
		r == 0x340, r == 0x341, r == 0x200E, r == 0x200F, r >= 0x202A && r <= 0x202E, // C.8
		r == 0xE0001, r >= 0xE0020 && r <= 0xE007F: // C.9
		return true
	}
	return false
}

// saslprepBidi: RFC 4013 §2.4 (RFC 3454 §6). Right-to-left text stands alone, first and last.
func saslprepBidi(s string) bool {
	class := func(r rune) (right, left bool) {
		p, _ := bidi.LookupRune(r)
		return p.Class() == bidi.R || p.Class() == bidi.AL, p.Class() == bidi.L
	}
	var right, left bool
	for _, r := range s {
		isRight, isLeft := class(r)
		right, left = right || isRight, left || isLeft
	}
	if !right {
		return true
	}
	head, _ := utf8.DecodeRuneInString(s)
	tail, _ := utf8.DecodeLastRuneInString(s)
	first, _ := class(head)
	last, _ := class(tail)
	return !left && first && last
}
