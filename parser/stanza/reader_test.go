package stanza

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// The header most tests begin with, without an XML declaration.
const testOpen = `<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:d='jabber:server:dialback'>`

// feed reads chunks to their end and writes down every token and the error.
func feed(r *Reader, chunks ...string) []string {
	var log []string
	for _, chunk := range chunks {
		r.Feed([]byte(chunk))
		for {
			tok, err := r.Next()
			var fatal *StreamError
			if errors.As(err, &fatal) {
				app := ""
				if fatal.App != nil {
					app = " " + fatal.App.Name.Local
				}
				return append(log, fmt.Sprintf("%s%s: %s", fatal.Condition, app, fatal.Text))
			}
			if err != nil {
				break
			}
			log = append(log, describeToken(tok))
		}
	}
	return log
}

func describeToken(t Token) string {
	switch t.Kind {
	case Open:
		return fmt.Sprintf("open {%s}%s %q %v %v", t.Name.Space, t.Name.Local, t.DefaultNS, t.Prefixes, t.Open.Attrs)
	case Item:
		return fmt.Sprintf("item {%s}%s %s", t.Name.Space, t.Name.Local, t.Raw)
	}
	return "close"
}

// last is what reading s ends with, the same whether it comes whole or byte by byte.
func last(t *testing.T, mode Mode, limits Limits, s string) string {
	t.Helper()
	whole := feed(NewReader(mode, limits), s)
	single := feed(NewReader(mode, limits), strings.Split(byteString(s), "\xff\xff\xff")...)
	if fmt.Sprint(whole) != fmt.Sprint(single) {
		t.Errorf("%.200q\nwhole:        %.300q\nbyte by byte: %.300q", s, whole, single)
	}
	if len(whole) == 0 {
		return ""
	}
	return whole[len(whole)-1]
}

// byteString puts a mark, which no test contains, between bytes: strings.Split by "" would cut into characters.
func byteString(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if i > 0 {
			b.WriteString("\xff\xff\xff")
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

type readerCase struct{ in, want string }

// inStream runs cases as content of an open stream.
func inStream(t *testing.T, cases []readerCase) {
	t.Helper()
	for _, c := range cases {
		if got := last(t, Stream, Limits{}, testOpen+c.in); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestReaderTokens(t *testing.T) {
	const head = `<?xml version="1.0" encoding='utf-8' standalone='no' ?>` + "\r\n" +
		`<stream:stream xmlns='jabber:client' to='a&amp;b' xml:lang='en'  xmlns:stream="http://etherx.jabber.org/streams" stream:x='1' >`
	in := head + " \n" + `<message to="x"><body a='>'>]]&gt; é € 😀 ` + "\ufeff" + `</body ><e/></message>` + "\t" +
		`<stream:error/><a:b xmlns:a='urn:&#x61;'><![CDATA[<&]]]></a:b><r xmlns='urn:xmpp:sm:3'/></stream:stream >ignored <!`
	want := []string{
		`open {http://etherx.jabber.org/streams}stream "jabber:client" [{stream http://etherx.jabber.org/streams}] ` +
			`[{{ to} a&b} {{http://www.w3.org/XML/1998/namespace lang} en} {{http://etherx.jabber.org/streams x} 1}]`,
		`item {jabber:client}message <message to="x"><body a='>'>]]&gt; é € 😀 ` + "\ufeff" + `</body ><e/></message>`,
		`item {http://etherx.jabber.org/streams}error <stream:error xmlns:stream='http://etherx.jabber.org/streams'/>`,
		`item {urn:a}b <a:b xmlns:a='urn:&#x61;'><![CDATA[<&]]]></a:b>`,
		`item {urn:xmpp:sm:3}r <r xmlns='urn:xmpp:sm:3'/>`,
		`close`,
	}
	for cut := range len(in) + 1 {
		r := NewReader(Stream, Limits{})
		got := feed(r, in[:cut], in[cut:])
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("cut at %d\ngot  %q\nwant %q", cut, got, want)
		}
		if r.Buffered() != 0 || r.data != nil || r.saved != nil {
			t.Fatalf("cut at %d: %d bytes held after the end", cut, r.Buffered())
		}
	}
	last(t, Stream, Limits{}, in)
}

// RFC 6120 §4.8.5: prefixes of the header are declared again where an element uses them, and only then.
func TestReaderSelfContained(t *testing.T) {
	const dialback = ` xmlns:d='jabber:server:dialback'`
	inStream(t, []readerCase{
		{`<d:result>x</d:result>`, `item {jabber:server:dialback}result <d:result` + dialback + `>x</d:result>`},
		{`<iq><x d:a='1'/></iq>`, `item {jabber:client}iq <iq` + dialback + `><x d:a='1'/></iq>`},
		{`<iq><d:x xmlns:d='u'/></iq>`, `item {jabber:client}iq <iq><d:x xmlns:d='u'/></iq>`},
		{`<iq><d:x xmlns:d='u'/><d:x/></iq>`, `item {jabber:client}iq <iq` + dialback + `><d:x xmlns:d='u'/><d:x/></iq>`},
		{`<iq xml:lang='en'/>`, `item {jabber:client}iq <iq xml:lang='en'/>`},
		{`<iq xmlns=''/>`, `item {}iq <iq xmlns=''/>`},
	})
	got := feed(NewReader(Stream, Limits{}), `<s xmlns:p='a&apos;&#10;&lt;"'>`, `<p:x/>`)
	if want := `<p:x xmlns:p='a&apos;&#xA;&lt;&quot;'/>`; !strings.HasSuffix(got[1], want) {
		t.Errorf("got %s, want %s", got[1], want)
	}
}

// RFC 7395 §3.3.3: every message is one element and begins with '<'.
func TestRule25Framed(t *testing.T) {
	for _, c := range []readerCase{
		{`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='x'/>`, `item {urn:ietf:params:xml:ns:xmpp-framing}open <open`},
		{`<message xmlns='jabber:client'><body/></message>`, `item {jabber:client}message <message`},
		{`<?xml version='1.0'?> <a/>`, `item {}a <a/>`},
		{`<a/><b/>`, `item {}b <b/>`},
		{` <a/>`, `bad-format`},
		{`<a/> `, `bad-format`},
		{"\ufeff<a/>", `bad-format`},
		{`x`, `bad-format`},
		{`</a>`, `not-well-formed`},
		{`<stream:features/>`, `not-well-formed: undeclared`},
	} {
		if got := last(t, Framed, Limits{}, c.in); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q\ngot  %s\nwant %s", c.in, got, c.want)
		}
	}
	r := NewReader(Framed, Limits{})
	r.Feed([]byte(`<a/> `))
	if _, err := r.Next(); err != nil || r.Buffered() != 1 {
		t.Errorf("%v: %d bytes after the element, want 1", err, r.Buffered())
	}
}

func TestReaderEmptyRoot(t *testing.T) {
	got := feed(NewReader(Stream, Limits{}), `<s/>x`)
	if len(got) != 2 || got[1] != "close" {
		t.Error(got)
	}
}

// RFC 6120 §11.7: the line break after <auth/> belongs to the stream before, wherever reads cut it.
func TestRule09RestartSkipsWhiteSpace(t *testing.T) {
	for _, behind := range []string{"", "\n", "\r\n "} {
		for _, late := range []bool{false, true} {
			r := NewReader(Stream, Limits{})
			first, second := testOpen+"<a/>"+behind, ""
			if late {
				first, second = testOpen+"<a/>", behind
			}
			r.Feed([]byte(first))
			for range 2 {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
			}
			r.Restart(Stream)
			r.Feed([]byte(second + "<?xml version='1.0'?>" + testOpen))
			if tok, err := r.Next(); err != nil || tok.Kind != Open {
				t.Errorf("%q, late %v: got %v, %v", behind, late, tok.Kind, err)
			}
		}
	}
}

// RFC 6120 §5.4.3.3: what came before the restart is gone, and so is the old header's scope.
func TestRule09ResetDropsBytes(t *testing.T) {
	r := NewReader(Stream, Limits{})
	feed(r, testOpen+`<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq type='set'`)
	if r.Buffered() == 0 {
		t.Fatal("the unfinished element is not held")
	}
	r.Reset(Stream)
	if got := feed(r, `<s>`, `<d:x/>`); r.Buffered() != 0 || len(got) != 2 ||
		!strings.HasPrefix(got[1], "not-well-formed: undeclared") {
		t.Error(got)
	}
}

func TestReaderErrorStays(t *testing.T) {
	r := NewReader(Stream, Limits{})
	feed(r, testOpen+`<a></b>`)
	r.Feed([]byte(`<c/>`))
	if tok, err := r.Next(); err == nil || tok.Kind != 0 || r.Buffered() != 0 {
		t.Error(tok, err)
	}
}

// The caller may use its buffer again after ErrMore, and Raw is never part of it.
func TestReaderDoesNotAlias(t *testing.T) {
	r := NewReader(Stream, Limits{})
	feed(r, testOpen)
	p := []byte(`<a>1</a><b>2`)
	r.Feed(p)
	tok, _ := r.Next()
	if _, err := r.Next(); err != ErrMore {
		t.Fatal(err)
	}
	copy(p, "------------")
	r.Feed([]byte("</b>"))
	next, err := r.Next()
	if string(tok.Raw) != `<a>1</a>` || err != nil || string(next.Raw) != `<b>2</b>` {
		t.Errorf("%s %s %v", tok.Raw, next.Raw, err)
	}
	r.Feed([]byte(`<c/>`))
	r.Feed([]byte(`<d/>`)) // before the first was asked for
	if got := feed(r, ""); len(got) != 2 {
		t.Error(got)
	}
}
