package stanza

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// RFC 6120 §11.1. Every case ends where the first forbidden character is: the error must not wait for more.
func TestRule19RestrictedXML(t *testing.T) {
	inStream(t, []readerCase{
		{`<message><body><!-`, `restricted-xml`},
		{`<!-`, `restricted-xml`},
		{`<message>x<?`, `restricted-xml`},
		{`<?`, `restricted-xml`},
		{`<message><!D`, `restricted-xml`},
		{`<!D`, `restricted-xml`},
		{`<message><![I`, `restricted-xml`},
		{`<message>&foo;`, `restricted-xml`},
		{`<message a='&foo;`, `restricted-xml`},
		{`<message>&nbsp;`, `restricted-xml`},
		{`<message>&AMP;`, `restricted-xml`},
		{`<message>&` + strings.Repeat("a", 40), `restricted-xml`},
		{`<message>&é`, `restricted-xml`},
		{`<a>&amp;&lt;&gt;&apos;&quot;&#65;&#x1F600;&#xfeff;</a>`, `item`},
		{`<a><![CDATA[<!-- <? ]] > &foo; ]]]]><![CDATA[>]]></a>`, `item`},
	})
	for _, c := range []readerCase{
		{`<!DOCTYPE`, `restricted-xml`},
		{`<?xml version='1.0'?><!D`, `restricted-xml`},
		{`<?xml version='1.0'?><?`, `restricted-xml`},
		{` <?`, `restricted-xml`},
		{`<?xs`, `restricted-xml`},
		{`<?xml-`, `restricted-xml`},
	} {
		if got := last(t, Stream, Limits{}, c.in); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
}

// RFC 6120 §11.3: not well-formed, or not namespace-well-formed.
func TestRule20NotWellFormed(t *testing.T) {
	bad := []string{
		`<a></b>`, `<a></A>`, `<a></ab>`, `<ab></a>`, `<a></ a>`, `<a></a/>`, `<a></a x='1'>`, `</stream>`, `</stream:strea>`,
		`</stream:streams>`, `<a></stream:stream>`,
		`<a b='1'c='2'/>`, `<a b='1'/ >`, `<a/ >`, `<a b/>`, `<a b=1/>`, `<a b'1'/>`, `<a ='1'/>`, `<a b=='1'/>`, `< a/>`, `<a` + "\x0b" + `/>`,
		`<a b='<'/>`, `<a b="&lt;<"/>`, `<a <b/>`, `<a<b/>`,
		`<a b='1' b='2'/>`, `<a b='1' c='' b="1"/>`, `<a xmlns='u' xmlns='u'/>`, `<a xmlns:p='u' xmlns:p='v'/>`,
		`<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>`, `<a xmlns:p='u' xmlns:q='&#117;' p:x='1' q:x='2'/>`,
		`<a xmlns:p='u'><b xmlns:q='u' p:x='1' q:x='2'/></a>`, `<a xmlns:q='jabber:server:dialback' d:x='' q:x=''/>`,
		`<foo:a/>`, `<a foo:b='1'/>`, `<a><foo:b xmlns:foo='u'/><foo:c/></a>`, `<a xmlns:p='u'/><p:b/>`,
		`<a xmlns:p=''/>`, `<a xmlns:xml='u'/>`, `<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>`,
		`<a xmlns='http://www.w3.org/XML/1998/namespace'/>`, `<a xmlns='http://www.w3.org/2000/xmlns/'/>`,
		`<a xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>`, `<a xmlns:p='http://www.w3.org/2000/xmlns&#x2f;'/>`, `<xmlns:a/>`,
		`<:a/>`, `<a:/>`, `<d:b:c/>`, `<d:1/>`, `<1/>`, `<-a/>`, `<a .b='1'/>`, `<a :b='1'/>`, `<a b:='1'/>`, `<a$/>`, `<>`, `<a×/>`, `<·/>`,
		`<a>]]></a>`, `<a>x]]]></a>`, `<a>& </a>`, `<a>&;</a>`, `<a>&a b;</a>`, `<a>&1;</a>`, `<a b='&'/>`, `<a>&#;</a>`, `<a>&#x;</a>`,
		`<a>&#12a;</a>`, `<a>&#X41;</a>`, `<a>&# 65;</a>`,
	}
	for _, in := range bad {
		inStream(t, []readerCase{{in, "not-well-formed"}})
	}
	shared := `<s xmlns:p='u' xmlns:q='u'><a p:x='' q:x=''/>` // two prefixes of the header, one name
	if got := last(t, Stream, Limits{}, shared); got != "not-well-formed: duplicate attribute" {
		t.Errorf("%s: got %s", shared, got)
	}
	inStream(t, []readerCase{
		{`<a b='1' c='2'` + "\n" + `d = "'>'" />`, `item`},
		{`<a xmlns:p='u' xmlns:q='v' p:x='' q:x='' x=''/>`, `item`},
		{`<a xmlns:p='u'><b xmlns:p='v' xmlns:q='u' p:x='' q:x=''/></a>`, `item`},
		{`<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='x'/>`, `item`},
		{`<xml:a/>`, `item {http://www.w3.org/XML/1998/namespace}a`},
		{`<a xmlns='u'><b xmlns=''/></a>`, `item {u}a`},
		{`<ключ имя='1'><é·/></ключ>`, `item {jabber:client}ключ`},
		{`<_a.b-c1/>`, `item`},
		{`<a>]] ]>]&gt;</a>`, `item`},
		// RFC 6120 §4.8.5
		{`<p:message xmlns:p='jabber:client'/>`, `bad-namespace-prefix`},
		{`<a><p:b xmlns:p='jabber:server'/></a>`, `bad-namespace-prefix`},
		// RFC 6120 §4.9.3.1, see faults
		{`text`, `bad-format`}, {`&lt;`, `bad-format`}, {`é`, `bad-format`}, {"\ufeff", `bad-format`}, {`<![C`, `bad-format`},
		{"\x01", `not-well-formed`}, {"\xc3(", `not-well-formed`},
	})
	for _, in := range []string{`x`, `</a>`, `<![`, `<p:a>`, `<a b='1'b='2'>`, "\ufeff<a>", `<?xml ?>`, `<?xml?>`, `<?xml version='1.1'?>`, `<?xml version='1.0'>`,
		`<?xml encoding='UTF-8'?>`, `<?xml version='1.0'encoding='UTF-8'?>`, `<?xml version='1.0' standalone='no' encoding='UTF-8'?>`,
		`<?xml version='1.0' version='1.0'?>`, `<?xml version='1.0' x='1'?>`, `<?xml version='1.0" ?>`, `<?xml version='1.0' standalone='x'?>`,
		`<?xml version='1.0'` + strings.Repeat(" ", 300)} {
		if got := last(t, Stream, Limits{}, in); !strings.HasPrefix(got, "not-well-formed") {
			t.Errorf("%q: got %s", in, got)
		}
	}
}

// RFC 6120 §11.6.
func TestRule21Encoding(t *testing.T) {
	for in, want := range map[string]string{
		`<?xml version='1.0' encoding='UTF-8'?><a>`:   `open`,
		`<?xml version="1.0" encoding="uTf-8"?><a>`:   `open`,
		`<?xml version='1.0' encoding='UTF-16'?>`:     `unsupported-encoding`,
		`<?xml version='1.0' encoding='ISO-8859-1'?>`: `unsupported-encoding`,
		"\xff\xfe<\x00":                                  `unsupported-encoding`,
		"\xfe\xff\x00<":                                  `unsupported-encoding`,
		testOpen + "<a>\ufeff</a>":                       `item`,
		testOpen + "<a>&#xFEFF;</a>":                     `item`,
		testOpen + "<a b='\ufeff\u0085\u007f\u2028'/>":   `item`,
		testOpen + "<a>\U0010ffff\ue000\ud7ff\ufffd</a>": `item`,
	} {
		if got := last(t, Stream, Limits{}, in); !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	for _, ref := range []string{"0", "1", "8", "11", "31", "xB", "x1F", "xD800", "xDFFF", "xFFFE", "xFFFF", "x110000", "99999999999999999999", "4294967361", "x100000041"} {
		for _, in := range []string{"<a>&#" + ref + ";", "<a b='&#" + ref + ";"} {
			inStream(t, []readerCase{{in, `not-well-formed: reference to`}})
		}
	}
}

// The bytes that are no UTF-8, or no character of XML, in every place text may be.
func TestReliability03IllFormedText(t *testing.T) {
	for _, s := range []string{
		"\x00", "\x01", "\x08", "\x0b", "\x1f", "\ufffe", "\uffff", // no Char
		"\x80", "\xbf", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", // overlong
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe", "\xc3(", "\xe2\x82<", "\xf0\x9f\x98'",
	} {
		for _, place := range []string{"<a>%s</a>", "<a>é%s", "<a b='%s'/>", "<a><![CDATA[%s]]></a>", "<a%s/>", "<%s/>", "<a %s='1'/>", "</a%s>", "%s"} {
			in := fmt.Sprintf(place, s)
			got := last(t, Stream, Limits{}, testOpen+in)
			if !strings.HasPrefix(got, "not-well-formed") {
				t.Errorf("%q: got %s", in, got)
			}
		}
	}
}

// Names are those of encoding/xml, which keeps to the fourth edition's tables.
func TestReaderNameCharacters(t *testing.T) {
	accepted := func(doc string) bool {
		_, err := xml.NewDecoder(strings.NewReader(doc)).Token()
		return err == nil
	}
	for r := rune(0x80); r <= 0x10400; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		if want := accepted("<" + string(r) + "/>"); nameRune(r, true) != want {
			t.Errorf("%U at the start: %v", r, !want)
		}
		if want := accepted("<a" + string(r) + "/>"); nameRune(r, false) != want {
			t.Errorf("%U inside: %v", r, !want)
		}
	}
}

// RFC 6120 §4.9.3.14, §13.12: limits hold while bytes come; at the limit is fine, one beyond is not.
func TestRule22Limits(t *testing.T) {
	limits := Limits{Bytes: 200, Depth: 3, Attrs: 4, NameBytes: 10}
	element := func(n int) string { return `<a>` + strings.Repeat("x", n-7) + `</a>` }
	for _, c := range []readerCase{
		{element(200), `item`},
		{element(200) + " " + element(200), `item`},
		{element(201), `policy-violation stanza-too-big`},
		{element(201)[:201], `policy-violation stanza-too-big`},
		{element(201)[:200], `open`},
		{`<a b='` + strings.Repeat("é", 98), `policy-violation stanza-too-big`},
		{`<a><b><c/></b></a>`, `item`},
		{`<a><b><c><d`, `policy-violation: elements nested`},
		{`<a a='' b='' c='' d=''/>`, `item`},
		{`<a a='' b='' c='' d='' `, `open`},
		{`<a a='' b='' c='' xmlns='' e`, `policy-violation: too many`},
		{`<abcdefghij/>`, `item`},
		{`<abcdefghijk`, `policy-violation: name`},
		{`<a:abcdefghi`, `policy-violation: name`},
		{`<a abcdefghijk`, `policy-violation: name`},
		{`<éééééé`, `open`},
		{`<éééééé/`, `policy-violation: name`},
		{`<a>&#` + strings.Repeat("0", 40), `policy-violation: character ref`},
	} {
		if got := last(t, Stream, limits, `<s>`+c.in); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
	if got := last(t, Stream, limits, `<s a='`+strings.Repeat("x", 300)); !strings.HasPrefix(got, `policy-violation stanza-too-big`) {
		t.Errorf("header: got %s", got)
	}

	r := NewReader(Stream, limits)
	feed(r, `<s><a>`+strings.Repeat("x", 100))
	r.SetLimits(Limits{Bytes: 1000})
	if got := feed(r, strings.Repeat("x", 800)); len(got) != 0 {
		t.Error("raised:", got)
	}
	r.SetLimits(Limits{Bytes: 100})
	if got := feed(r, "x"); len(got) != 1 || !strings.HasPrefix(got[0], "policy-violation stanza-too-big") {
		t.Error("lowered:", got)
	}
}

// The bomb does not go off: there are no declarations, and nesting and prefixes are bounded.
func TestReliability01XMLBomb(t *testing.T) {
	bomb := `<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><l>&b;</l>`
	if got := last(t, Stream, Limits{}, bomb); !strings.HasPrefix(got, "restricted-xml") {
		t.Error(got)
	}
	inStream(t, []readerCase{{strings.Repeat("<a>", 65), `policy-violation: elements nested`}})
	var prefixes strings.Builder
	for i := range 10 {
		prefixes.WriteString("<a")
		for j := range 60 {
			fmt.Fprintf(&prefixes, " xmlns:p%d='u%d'", i*60+j, i*60+j)
		}
		prefixes.WriteString(">")
	}
	inStream(t, []readerCase{{prefixes.String(), `policy-violation: too many namespace`}})
	header := strings.ReplaceAll(prefixes.String(), "><a", "") // all of them on one tag
	if got := last(t, Stream, Limits{Attrs: 1000}, header); !strings.HasPrefix(got, `policy-violation: too many namespace`) {
		t.Error(got)
	}
}

// What never ends is cut off at the limit, and what is held does not pass it.
func TestReliability02EndlessTag(t *testing.T) {
	limits := Limits{Bytes: 10_000, NameBytes: 1 << 20, Attrs: 1 << 20}
	for _, c := range []struct{ begin, more string }{
		{`<`, `a`}, {`<a`, ` `}, {`<a `, `b`}, {`<a b='`, `x`}, {`<a b='`, `&amp;`}, {`<a>`, `x`}, {`<a><![CDATA[`, `]`},
		{`<a b=`, ` `}, {`<a></a`, ` `}, {`</s`, ` `}, {`<a>`, `<b/>`},
	} {
		r := NewReader(Stream, limits)
		feed(r, `<s>`)
		var got []string
		fed := 0
		for piece := c.begin; len(got) == 0 && fed < 3*limits.Bytes; piece = c.more {
			got = feed(r, piece)
			fed += len(piece)
			if cap(r.data) > 2*limits.Bytes {
				t.Fatalf("%s%s…: %d bytes held of %d", c.begin, c.more, cap(r.data), fed)
			}
		}
		if fed > limits.Bytes+len(c.more) || len(got) != 1 || !strings.HasPrefix(got[0], "policy-violation stanza-too-big") {
			t.Errorf("%s%s…: after %d bytes %v", c.begin, c.more, fed, got)
		}
	}
	r := NewReader(Stream, limits)
	feed(r, `<s>`)
	for range 100_000 {
		feed(r, "\n") // keepalives, RFC 6120 §4.6.1
		if r.Buffered() != 0 || r.data != nil {
			t.Fatal("white space is held")
		}
	}
}

// The buffer of a big element goes with it.
func TestReaderReleasesBuffer(t *testing.T) {
	r := NewReader(Stream, Limits{})
	feed(r, `<s>`)
	feed(r, `<a>`, strings.Repeat("x", 200_000), `</a><b>`)
	if cap(r.data) > 8192 {
		t.Errorf("%d bytes held for an element of 3", cap(r.data))
	}
	feed(r, `</b>`)
	if r.data != nil || r.saved != nil || r.Buffered() != 0 {
		t.Error("a buffer is held between elements")
	}
}
