package accounts

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Skeleton returns what a name looks like: names with the same skeleton are
// easily taken for each other (UTS #39 §4, reliability row 25). It is a small
// part of Unicode's table: the letters of other scripts that look like Latin
// ones, which mixed-script rules cannot tell in a name that is written in one
// script only, and the digits and pairs that deceive within Latin.
func Skeleton(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(norm.NFKD.String(name)) {
		if unicode.Is(unicode.Mn, r) { // accents are overlooked easily
			continue
		}
		if i := strings.IndexRune(lookalikes, r); i >= 0 {
			b.WriteByte(latin[len([]rune(lookalikes[:i]))])
			continue
		}
		b.WriteRune(r)
	}
	return pairs.Replace(b.String())
}

// Each rune of lookalikes looks like the byte of latin at the same place:
// Cyrillic, Greek, Armenian, digits and dotless i.
const (
	lookalikes = "авсеԁһіјӏкмпорԛгѕтԝхуѵꙅ" + "αβεγικνορστυχω" + "աոսօհզցք" + "01ıł|"
	latin      = "abcedhijlkmnopqrstwxyvs" + "abeyiknopotuxw" + "wnuohqgp" + "olill"
)

var pairs = strings.NewReplacer("rn", "m", "vv", "w", "cl", "d")
