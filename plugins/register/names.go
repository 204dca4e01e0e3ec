package register

import (
	"maps"
	"slices"
	"unicode"
)

// mixed reports whether a name has letters of scripts that do not belong
// together: UTS #39 §5.2, "highly restrictive" (reliability row 25).
func mixed(name string) bool {
	found := map[string]bool{}
	for _, r := range name {
		if s := scriptOf(r); s != "Common" && s != "Inherited" {
			found[s] = true
		}
	}
	if len(found) <= 1 {
		return false
	}
	for _, together := range [][]string{
		{"Latin", "Han", "Hiragana", "Katakana"}, // Japanese
		{"Latin", "Han", "Bopomofo"},             // Chinese
		{"Latin", "Han", "Hangul"},               // Korean
	} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(s string) bool { return !slices.Contains(together, s) }) {
			return false
		}
	}
	return true
}

func scriptOf(r rune) string {
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name
		}
	}
	return "Unknown"
}
