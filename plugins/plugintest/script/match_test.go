package script

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	const got = `<message from='romeo@a/x' to='juliet@b' xml:lang='en' type='chat'><body>hello there</body>` +
		`<x xmlns='urn:x'><status code='110'/><status code='201' extra='1'/></x><delay xmlns='urn:xmpp:delay' stamp='2002'/></message>`
	for _, tc := range []struct{ pattern, diff string }{
		{`<message/>`, ""},
		{`<message xmlns='jabber:client'/>`, ""},
		{`<message xmlns='urn:other'/>`, "is message, expected {urn:other}message"},
		{`<presence/>`, "expected presence"},
		{`<message type='chat' from='*'/>`, ""},
		{`<message type='groupchat'/>`, `message@type: is "chat", expected "groupchat"`},
		{`<message id='*'/>`, "message@id: is missing"},
		{`<message id='!'/>`, ""},
		{`<message type='!'/>`, "expected not to be"},
		{`<message xml:lang='en'/>`, ""},
		{`<message xml:lang='de'/>`, `is "en"`},
		{`<message><body/></message>`, ""},
		{`<message><body>*</body></message>`, ""},
		{`<message><body>hello</body></message>`, `text is "hello there", expected "hello"`},
		{`<message><body>hello $rest</body></message>`, ""},
		{`<message><body>$* there</body></message>`, ""},
		{`<message from='romeo@a/$res' to='juliet@$host'/>`, ""},
		{`<message from='$who@a/$res'><body>$who</body></message>`, `expected "romeo"`},
		{`<message><x xmlns='urn:x'><status code='201'/><status code='110'/></x></message>`, ""},
		{`<message><x xmlns='urn:x'><status/><status code='110'/></x></message>`, ""},
		{`<message><x xmlns='urn:x'><status/><status/><status/></x></message>`, "has no child <status"},
		{`<message><x xmlns='urn:x'><status code='110'/><status code='110'/></x></message>`, `is "201", expected "110"`},
		{`<message><x><status/></x></message>`, "has no child <x>"},
		{`<message><not:subject/></message>`, ""},
		{`<message><not:body/></message>`, "must not be there"},
		{`<message><not:delay xmlns='urn:xmpp:delay'/></message>`, "must not be there"},
		{`<message><not:delay/></message>`, ""}, // another namespace
		{`<message><x xmlns='urn:x'><not:status code='307'/></x></message>`, ""},
		{`<message><x xmlns='urn:x'><not:status code='201'/></x></message>`, "must not be there"},
		{`<message from='$a' to='$a'/>`, `is "juliet@b", expected "romeo@a/x"`},
		{`<message from='$known'/>`, ""},
		{`<message to='$known'/>`, `expected "romeo@a/x"`},
	} {
		p, err := parseNodes(tc.pattern, true)
		if err != nil {
			t.Fatalf("%s: %v", tc.pattern, err)
		}
		check(t, &matcher{look: none}, p[0], got, tc.pattern, tc.diff)
	}
}

func none(string, string) (string, bool, error) { return "", false, nil }

func check(t *testing.T, m *matcher, p *node, got, label, want string) {
	t.Helper()
	n, err := parseNodes(got, false)
	if err != nil {
		t.Fatal(err)
	}
	_, diff := m.match(p, n[0], binds{"known": "romeo@a/x"}, "")
	text := ""
	if diff != nil {
		text = diff.String()
	}
	if (want == "") != (diff == nil) || !strings.Contains(text, want) {
		t.Errorf("%s: difference %q, want %q", label, text, want)
	}
}

func TestMatchExact(t *testing.T) {
	const got = `<iq type='result' id='1'><q xmlns='u'><a/><b>t</b></q></iq>`
	for pattern, diff := range map[string]string{
		`<iq id='1' type='result'><q xmlns='u'><a/><b>t</b></q></iq>`:             "",
		`<iq id='1' type='result'><q xmlns='u'><b>t</b><a/></q></iq>`:             "expected",
		`<iq id='1' type='result'><q xmlns='u'><a/></q></iq>`:                     "has 2 children",
		`<iq id='1'><q xmlns='u'><a/><b>t</b></q></iq>`:                           "exact does not name",
		`<iq id='1' type='result'><q xmlns='u'><a/><b/></q></iq>`:                 "expected none",
		`<iq id='1' type='result'><q xmlns='u'><a/><b>t</b><not:c/></q></iq>`:     "",
		`<iq id='1' type='result'><q xmlns='u'><a/><b>t</b></q><not:error/></iq>`: "",
	} {
		p, err := parseNodes(pattern, true)
		if err != nil {
			t.Fatal(err)
		}
		check(t, &matcher{look: none, exact: true}, p[0], got, pattern, diff)
	}
}

// What a failed attempt bound must not stay bound, and all assignments of children are tried.
func TestMatchBacktracks(t *testing.T) {
	p, err := parseNodes(`<m><a v='$x'/><a v='$y'/><b v='$x'/></m>`, true)
	if err != nil {
		t.Fatal(err)
	}
	n, err := parseNodes(`<m><a v='1'/><a v='2'/><b v='2'/></m>`, false)
	if err != nil {
		t.Fatal(err)
	}
	b, diff := (&matcher{look: none}).match(p[0], n[0], binds{}, "")
	if diff != nil || b["x"] != "2" || b["y"] != "1" {
		t.Fatalf("binds %v, difference %v", b, diff)
	}
}

func TestExpand(t *testing.T) {
	look := func(base, field string) (string, bool, error) {
		v, ok := map[string]string{"romeo": "r@a", "romeo.full": "r@a/<x>"}[strings.TrimSuffix(base+"."+field, ".")]
		return v, ok, nil
	}
	got, err := expand("$romeo $romeo.full $romeo.example $$5 ${ab*3} $v", binds{"v": "&"}, look, textEscaper.Replace)
	if want := "r@a r@a/&lt;x&gt; r@a.example $5 ababab &amp;"; got != want || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := expand("$unknown", nil, look, textEscaper.Replace); err == nil {
		t.Error("an unknown variable was sent")
	}
}
