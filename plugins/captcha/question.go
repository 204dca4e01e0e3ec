package captcha

import (
	"crypto/rand"
	"math/big"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// question is one with what answers it, prepared.
type question struct {
	text    string
	answers map[string]bool
}

func prepare(all map[string][]string) (out []question) {
	for text, answers := range all {
		q := question{text, map[string]bool{}}
		for _, a := range answers {
			q.answers[plain(a)] = true
		}
		out = append(out, q)
	}
	return out
}

// pick chooses one that nobody can foretell.
func pick(all []question) question {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(all))))
	if err != nil { // crypto/rand does not fail
		return all[0]
	}
	return all[n.Int64()]
}

// maxAnswer bounds what is compared or sent on, in bytes: codes of pages are long.
const maxAnswer = 8 << 10

// plain is an answer without what people write in different ways: case, spaces, the
// width of letters.
func plain(answer string) string {
	if len(answer) > maxAnswer {
		return ""
	}
	s := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, norm.NFKC.String(answer))
	return norm.NFKC.String(cases.Fold().String(s))
}
