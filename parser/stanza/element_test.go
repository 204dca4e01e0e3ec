package stanza

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestElementRendering(t *testing.T) {
	for _, c := range []struct {
		e    *Element
		want string
	}{
		{El(NSClient, "body").AddText("a<b&c>d'\"]]>\r\n\x00\uFFFE"), "<body>a&lt;b&amp;c&gt;d'\"]]&gt;&#xD;\n\uFFFD\uFFFD</body>"},
		{El(NSClient, "x").With("a", "<'\"&>\t\n\xff"), "<x a='&lt;&apos;&quot;&amp;&gt;&#x9;&#xA;\uFFFD'/>"},
		{El("urn:a", "x").With("b", "1").With("b", "2").WithOpt("c", "").WithOpt("xml:lang", "de"), "<x xmlns='urn:a' b='2' xml:lang='de'/>"},
		{El("urn:a", "x").Add(El("urn:a", "y"), nil, El(NSClient, "z").Add(El("", "n"))),
			"<x xmlns='urn:a'><y/><z xmlns='jabber:client'><n xmlns=''/></z></x>"},
		{El("urn:a", "x").AddRaw([]byte("<r/>")).AddText("t"), "<x xmlns='urn:a'><r/>t</x>"},
		{&Element{Name: Name{NSClient, "x"}, Attrs: []Attr{{Name{"urn:b", "k"}, "v"}}}, "<x xmlns:n0='urn:b' n0:k='v'/>"},
		{El(NSStream, "features").Add(El(NSBind, "bind"), El(NSClient, "k")),
			"<stream:features xmlns:stream='" + NSStream + "'><bind xmlns='" + NSBind + "'/><k/></stream:features>"},
	} {
		if got := string(c.e.Bytes(NSClient)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestElementAccess(t *testing.T) {
	e, err := ParseElement([]byte(`<a xmlns='u' k='' xml:lang='de' p:k='2' xmlns:p='w'>x<b/>y<![CDATA[&<]]><p:b/><c xmlns='v'/>&#x7a;</a>`), "d")
	if err != nil {
		t.Fatal(err)
	}
	var names []Name
	for c := range e.Elements() {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]Name{{"u", "b"}, {"w", "b"}, {"v", "c"}}, names); diff != "" {
		t.Error(diff)
	}
	if e.Text() != "xy&<z" || e.Lang() != "de" || !e.Has("k") || e.Has("lang") || e.Get("k") != "" || e.Count() != 3 || e.First().Name.Local != "b" {
		t.Errorf("%+v", e)
	}
	if e.Child("w", "b") == nil || e.Child("d", "b") != nil || El("", "x").First() != nil {
		t.Error("Child")
	}
}

func TestRule20ParseElementRefuses(t *testing.T) {
	for _, in := range []string{
		"", "x", "<", "<a", "<a>", "<a/", "<a></b>", "<a/><b/>", " <a/>", "<a/> ", "<a/>x", "<a></a", "<a><b></a></b>", "<a>]]></a>", "<a>&</a>",
		"<p:a/>", "<a p:b='1'/>", "<a b='1' b='2'/>", "<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", "<a b='1'c='2'/>", "<a b=1/>", "<a b/>",
		"<a b='<'/>", "<a b='&'/>", "<a b='&x;'/>", "<a xmlns:p=''/>", "<a xmlns:xml='u'/>", "<a xmlns:p='" + NSXML + "'/>", "<a xmlns:xmlns='u'/>",
		"<a xmlns='" + NSXMLNS + "'/>", "<a xmlns='u' xmlns='u'/>", "<a xmlns:p='u' xmlns:p='u'/>", "<a:b:c xmlns:a='u'/>", "<a:/>", "<:a/>", "<1/>",
		"<a -b='1'/>", "<a>\x00</a>", "<a>\uFFFF</a>", "<a>\xff</a>", "<a><![CDATA[</a>", "<xmlns:a/>",
		strings.Repeat("<a>", 600) + strings.Repeat("</a>", 600), "<a" + strings.Repeat(" b='1'", 2000) + "/>",
	} {
		if e, err := ParseElement([]byte(in), "d"); !errors.Is(err, ErrSyntax) || e != nil {
			t.Errorf("%.80q: accepted (%v)", in, err)
		}
	}
}

func TestRule19ParseElementRefuses(t *testing.T) {
	for _, in := range []string{"<a><!-- x --></a>", "<a><?x?></a>", "<!DOCTYPE a><a/>", "<a>&e;</a>", "<?xml version='1.0'?><a/>", "<a b='&e;'/>"} {
		if _, err := ParseElement([]byte(in), "d"); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: accepted (%v)", in, err)
		}
	}
}

func TestRule21CharacterReferences(t *testing.T) {
	for in, want := range map[string]string{"&#x41;&#66;": "AB", "&#x10FFFF;": "\U0010FFFF", "\uFEFF": "\uFEFF", "&lt;&gt;&amp;&apos;&quot;": "<>&'\"",
		"a\r\nb\rc": "a\nb\nc", "&#13;\n": "\r\n"} {
		if e, err := ParseElement([]byte("<a>"+in+"</a>"), ""); err != nil || e.Text() != want {
			t.Errorf("%q: %+v %v", in, e, err)
		}
	}
	if e, err := ParseElement([]byte("<a b='1\r\n2\t3&#9;4'/>"), ""); err != nil || e.Get("b") != "1 2 3\t4" {
		t.Errorf("%+v %v", e, err)
	}
	for _, in := range []string{"&#1;", "&#xD800;", "&#xFFFE;", "&#0;", "&#x110000;", "&#;", "&#x;", "&#99999999999999999999;"} {
		if _, err := ParseElement([]byte("<a>"+in+"</a>"), ""); err == nil {
			t.Errorf("%q: accepted", in)
		}
	}
}

// joined returns e with neighbouring text nodes made one: how it was cut is not part of its meaning.
func joined(e *Element) *Element {
	out := &Element{Name: e.Name, Attrs: e.Attrs}
	for _, n := range e.Nodes {
		last := len(out.Nodes) - 1
		switch {
		case n.Elem != nil:
			out.Nodes = append(out.Nodes, Node{Elem: joined(n.Elem)})
		case last >= 0 && out.Nodes[last].Elem == nil:
			out.Nodes[last].Text += n.Text
		default:
			out.Nodes = append(out.Nodes, n)
		}
	}
	return out
}

func same(t interface{ Fatalf(string, ...any) }, e *Element, ns string) {
	raw := e.Bytes(ns)
	back, err := ParseElement(raw, ns)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	if diff := cmp.Diff(joined(e), joined(back)); diff != "" {
		t.Fatalf("%q: %s", raw, diff)
	}
}

func TestElementRoundTrip(t *testing.T) {
	text := rapid.StringOf(rapid.RuneFrom([]rune("ab <>&'\"]\r\n\t\u00E9\U0001F600\uFFFD")))
	space := rapid.SampledFrom([]string{"", NSClient, "urn:a", "urn:<&'b", NSStream, NSStanzas})
	name := rapid.SampledFrom([]string{"a", "body", "\u00E9-1.x"})
	var element func(depth int) *rapid.Generator[*Element]
	element = func(depth int) *rapid.Generator[*Element] {
		return rapid.Custom(func(t *rapid.T) *Element {
			e := El(space.Draw(t, "ns"), name.Draw(t, "name"))
			for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"k", "l", "xml:lang"}), 0, 3, rapid.ID).Draw(t, "attrs") {
				e.With(n, text.Draw(t, "value"))
			}
			if rapid.Bool().Draw(t, "prefixed") {
				e.Attrs = append(e.Attrs, Attr{Name{"urn:q", "k"}, text.Draw(t, "value")})
			}
			for range rapid.IntRange(0, 3).Draw(t, "nodes") {
				if depth > 0 && rapid.Bool().Draw(t, "element") {
					e.Add(element(depth-1).Draw(t, "child"))
				} else {
					e.AddText(text.Draw(t, "text"))
				}
			}
			return e
		})
	}
	rapid.Check(t, func(t *rapid.T) { same(t, element(3).Draw(t, "element"), space.Draw(t, "scope")) })
}

func FuzzParseElement(f *testing.F) {
	for _, s := range []string{chat404, `<a xmlns:p='u' p:b='&#x41;'><![CDATA[x]]]]><p:c xml:lang='de'/>&amp;</a>`, "<a>]]&gt;\r\n</a>", "<a\tb = \"'\" />"} {
		f.Add([]byte(s), "jabber:client")
	}
	f.Fuzz(func(t *testing.T, raw []byte, ns string) {
		e, err := ParseElement(raw, ns)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || e != nil {
				t.Fatal(e, err)
			}
			return
		}
		if firstBadChar([]byte(ns)) >= 0 || ns == NSXML || ns == NSXMLNS {
			return
		}
		same(t, e, ns)
		// What is accepted here must be XML for the lenient parser of the standard library, too.
		d := xml.NewDecoder(strings.NewReader(string(raw)))
		if err := d.Skip(); err != nil && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "unexpected end element") {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}

func TestErrorElements(t *testing.T) {
	app := El("urn:app", "too-slow")
	for _, c := range []struct {
		e    *Error
		want string
	}{
		{NewError(ItemNotFound, ""), "<error type='cancel'><item-not-found xmlns='" + NSStanzas + "'/></error>"},
		{&Error{Condition: Gone, Address: "xmpp:a@b", By: mustJID("b.c")},
			"<error by='b.c' type='cancel'><gone xmlns='" + NSStanzas + "'>xmpp:a@b</gone></error>"},
		{&Error{Type: Wait, Text: "no & no", App: app}, "<error type='wait'><undefined-condition xmlns='" + NSStanzas + "'/><text xmlns='" + NSStanzas +
			"' xml:lang='en'>no &amp; no</text><too-slow xmlns='urn:app'/></error>"},
	} {
		got := string(c.e.Element().Bytes(NSClient))
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		el, err := ParseElement([]byte(got), NSClient)
		if err != nil {
			t.Fatal(err)
		}
		if again := string(ParseError(el).Element().Bytes(NSClient)); again != got {
			t.Errorf("read back: %s", again)
		}
	}
	if ParseError(nil) != nil || ParseError(El(NSClient, "error").Add(El(NSStanzas, "new-one"))).Condition != UndefinedCondition {
		t.Error("lenient reading")
	}
	for c := range knownConditions {
		if e := NewError(c, "x"); e.Type != c.DefaultType() || !strings.Contains(e.Error(), string(c)) {
			t.Errorf("%+v", e)
		}
	}
	got := string((&StreamError{Condition: StreamSeeOtherHost, Address: "h:1", Text: "t"}).Element().Bytes(NSClient))
	want := "<stream:error xmlns:stream='" + NSStream + "'><see-other-host xmlns='" + NSStreams + "'>h:1</see-other-host><text xmlns='" + NSStreams +
		"' xml:lang='en'>t</text></stream:error>"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
