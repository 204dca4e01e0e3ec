package archive

import (
	"slices"
	"testing"

	"parley/parser/stanza"
)

// What a text is taken apart into: words of scripts with spaces, runs of others.
func TestTokens(t *testing.T) {
	for text, want := range map[string][]string{
		"But soft, what LIGHT":                           {"but", "soft", "what", "light"},
		"café Ærø ÅNGSTRÖM":                              {"cafe", "ærø", "angstrom"},
		"我们today去北京!":                                    {"我们", "today", "去北京"},
		"ｆｕｌｌ　ｗｉｄｔｈ":                                     {"full", "width"},
		"https://example.net/a_b?c":                      {"https", "example", "net", "a_b", "c"},
		"カタカナ 한국어":                                       {"カタカナ", "한국어"},
		"... \xff !":                                     nil,
		"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee f": {"aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd", "f"},
	} {
		var got []string
		tokens(folded(text), func(x token) bool { got = append(got, x.text); return true })
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// FuzzWords: a message is found by all that it says, the index has all that a
// search asks it for, and both have their bounds.
func FuzzWords(f *testing.F) {
	f.Add("But soft, what light")
	f.Add("我们今天去北京看长城 today")
	f.Add("é\u0301\u0301 ﬁ ½ 한국어 ไทย")
	f.Fuzz(func(t *testing.T, text string) {
		el := stanza.El(stanza.NSClient, "body").AddText(text)
		st, err := stanza.Parse(append(el.Append([]byte("<message>"), stanza.NSClient), "</message>"...), stanza.NSClient, nil)
		if err != nil {
			return // not what a client can send
		}
		body := st.Body()
		if len(body) > maxText {
			return
		}
		want, err := parseWanted(body)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil || len(want.terms) == 0 {
			return
		}
		if !want.in(st) {
			t.Errorf("%q does not find itself", body)
		}
		all := terms(st, 1, true)
		if len(all) > maxTerms+3 {
			t.Errorf("%d terms", len(all))
		}
		for _, x := range want.terms {
			if !slices.Contains(all, x) {
				t.Errorf("%q: a term is not in the index", body)
			}
		}
	})
}
