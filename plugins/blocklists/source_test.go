package blocklists

import (
	"strings"
	"testing"

	"parley/parser/stanza"
)

func TestSources(t *testing.T) {
	for in, want := range map[string]string{
		"rtbl.example": "xmpp:rtbl.example?;node=muc_bans_sha256",
		"xmpp:rtbl.example?;node=muc_bans_sha256": "xmpp:rtbl.example?;node=muc_bans_sha256",
		"xmpp:RTBL.example?;node=a%20b":           "xmpp:rtbl.example?;node=a%20b",
		"xmpp:rtbl.example?;node=":                "",
		"xmpp:rtbl.example/r":                     "",
		"":                                        "",
	} {
		got := ""
		if src, err := parseSource(in); err == nil {
			got = src.String()
		}
		if got != want {
			t.Errorf("%q is %q, expected %q", in, got, want)
		}
	}
}

// What comes from another server is read, or left out; it is never larger than what is
// kept of it.
func FuzzEntry(f *testing.F) {
	id := strings.Repeat("0aF", 32)[:64]
	f.Add("<item id='" + id + "'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>herbs</text></report></item>")
	f.Add("<item id='short'/>")
	f.Add("<item id='" + id + "'><other xmlns='x'/></item>")
	f.Fuzz(func(t *testing.T, text string) {
		el, err := stanza.ParseElement([]byte(text), nsPubsub)
		if err != nil {
			return
		}
		e, ok := parseEntry(el)
		if len(e.reason) > maxReason || ok && e.hash.String() != strings.ToLower(el.Get("id")) {
			t.Errorf("%q is %v", text, e)
		}
	})
}

// A list that is full still takes people off, and takes others in their place; what its
// service says without end is not kept without end.
func TestFullListTakesPeopleOff(t *testing.T) {
	l := &Lists{lists: map[string]*list{"s": {has: map[hash]struct{}{hashOf("a"): {}, hashOf("b"): {}}}}}
	of := func(who string, listed bool) change { return change{entry{hash: hashOf(who)}, listed} }
	fits := func(most int, want int, all ...change) {
		t.Helper()
		if got := l.fitting("s", all, most); len(got) != want {
			t.Errorf("%d of %d fit, %d expected", len(got), len(all), want)
		}
	}
	fits(2, 0, of("c", true))
	fits(2, 1, of("a", true))
	fits(2, 1, of("a", false))
	fits(2, 2, of("a", false), of("c", true))
	fits(2, 2, of("x", false), of("y", false), of("z", false))
	l.lists["s"].off = 2
	fits(2, 0, of("x", false))
	fits(2, 1, of("a", false))
}
