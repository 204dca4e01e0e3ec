package stanza

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// readerSeeds are streams of every sort, whole, cut short and wrong.
func readerSeeds() []string {
	seeds := []string{
		`<?xml version='1.0' encoding="UTF-8"?>` + testOpen + `<message to='a'><body>x &amp; &#65;</body></message> <iq/></stream:stream>`,
		testOpen + `<d:result d:a='1'>x</d:result><a xmlns='' xmlns:p='u' p:b='1' xmlns:q='v' q:b="2"><p:c xml:lang='en'/></a></stream:stream>`,
		testOpen + `<a><![CDATA[<&]]]]>]]&gt;</a><b c='&apos;&quot;` + "\t\r\n" + `'/></stream:stream>`,
		"<s>\ufeff</s>", "<s><a>\xf0\x9f\x98\x80\xed\xa0\x80</a></s>", "<s><é ü='ö'>日本</é></s>", "\xff\xfe<",
		`<s><a b='1'c='2'/></s>`, `<s><a b='1' b='2'/></s>`, `<s><p:a/></s>`, `<s><a xmlns:xml='u'/></s>`, `<s><a:1 xmlns:a='u'/></s>`,
		`<s><a><!-- x --></a></s>`, `<s><?pi?></s>`, `<!DOCTYPE s><s/>`, `<s><a>&foo;</a></s>`, `<s><a>&#xD800;</a></s>`, `<s/>`,
		`<s><a></b></s>`, `<s>text</s>`, `<s><a>]]></a></s>`, `<s xmlns:p='u'><p:a xmlns:q='u' p:x='' q:x=''/></s>`,
		`<?xml version = '1.1'?><s/>`, `<s xmlns='a' b='&#10;'><a xmlns="b&#9;"/></s>`, `<a`, `<a b`, `<a b=`, `<a b='`, `<a/`, `<a></`, `<s><![CD`,
		`<s>` + strings.Repeat("<a>", 70), `<s><a>&#0000000000000000000000000000000000065;</a></s>`,
	}
	return append(seeds, testHeader+string(chatMessage())+`</stream:stream>`)
}

// FuzzReader: no panic, nothing held beyond the limits, and what comes out is what went in.
func FuzzReader(f *testing.F) {
	for _, s := range readerSeeds() {
		f.Add([]byte(s), false, uint16(0))
		f.Add([]byte(s), true, uint16(40))
	}
	f.Fuzz(func(t *testing.T, in []byte, framed bool, limit uint16) {
		mode := Stream
		if framed {
			mode = Framed
		}
		r := NewReader(mode, Limits{Bytes: int(limit)})
		r.Feed(in)
		for {
			tok, err := r.Next()
			if err != nil {
				break
			}
			// An element that borrowed prefixes is longer than it came.
			if tok.Kind == Item && len(r.root.prefixes) == 0 && (len(tok.Raw) > r.limits.Bytes || !bytes.Contains(in, tok.Raw)) {
				t.Fatalf("item of %d bytes: %q", len(tok.Raw), tok.Raw)
			}
		}
		if len(r.data) > max(r.limits.Bytes, utf8.UTFMax-1) { // or a character between elements that is cut short
			t.Fatalf("%d bytes held, limit %d", len(r.data), r.limits.Bytes)
		}
		if r.Buffered() == 0 && (r.data != nil || r.saved != nil) {
			t.Fatal("a buffer is held between elements")
		}
	})
}

// FuzzReaderChunks: however the bytes are cut, tokens and errors are the same.
func FuzzReaderChunks(f *testing.F) {
	for i, s := range readerSeeds() {
		f.Add([]byte(s), uint16(i), uint16(2*i), false, uint16(0))
		f.Add([]byte(s), uint16(i), uint16(3*i), true, uint16(30))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut1, cut2 uint16, framed bool, limit uint16) {
		mode := Stream
		if framed {
			mode = Framed
		}
		limits := Limits{Bytes: int(limit), Depth: 5, Attrs: 5, NameBytes: 20}
		s := string(in)
		a, b := min(int(cut1), len(s)), min(int(cut2), len(s))
		if a > b {
			a, b = b, a
		}
		whole := NewReader(mode, limits)
		want := feed(whole, s)
		single := make([]string, len(s))
		for i := range single {
			single[i] = s[i : i+1]
		}
		for _, chunks := range [][]string{{s[:a], s[a:b], s[b:]}, single} {
			r := NewReader(mode, limits)
			if got := feed(r, chunks...); !slices.Equal(got, want) || r.Buffered() != whole.Buffered() {
				t.Fatalf("%q in %d chunks\ngot  %q\nwant %q", s, len(chunks), got, want)
			}
		}
	})
}

// TestReaderEveryCut cuts each seed everywhere.
func TestReaderEveryCut(t *testing.T) {
	limits := Limits{Bytes: 500}
	for _, s := range readerSeeds() {
		want := feed(NewReader(Stream, limits), s)
		for cut := range len(s) {
			if got := feed(NewReader(Stream, limits), s[:cut], s[cut:]); !slices.Equal(got, want) {
				t.Fatalf("%q cut at %d\ngot  %q\nwant %q", s, cut, got, want)
			}
		}
	}
}

// laxer are the faults encoding/xml does not see, or sees in part: it takes
// undeclared and reserved prefixes, names that are no QName, duplicate
// attributes, attributes side by side, text outside the root, surrogates by
// reference, and loose XML declarations, and it has no restrictions or limits.
// Every other fault it must find too.
var laxer = []outcome{
	faultPrefixUnknown, faultPrefixReserved, faultPrefixEmpty, faultContentPrefix, faultName, faultDuplicate, faultSpace,
	faultStray, faultProlog, faultCharRef, faultDeclaration, faultEncoding, faultPI, faultMarkup,
	faultBytes, faultDepth, faultAttrs, faultNameBytes, faultPrefixes, faultReference,
}

// reading is a document as encoding/xml sees it.
type reading struct {
	root  string   // the root's start tag
	items []string // its complete children
	ended bool     // its end tag came
}

// spaces makes values comparable: encoding/xml does not normalise white space (XML 1.0 §3.3.3).
var spaces = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

// describeTag gives the attributes in order, without namespace declarations.
func describeTag(name xml.Name, attrs []xml.Attr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<{%s}%s", spaces.Replace(name.Space), name.Local)
	for _, a := range attrs {
		if a.Name.Space != "xmlns" && a.Name != (xml.Name{Local: "xmlns"}) {
			fmt.Fprintf(&b, " {%s}%s=%q", spaces.Replace(a.Name.Space), a.Name.Local, spaces.Replace(a.Value))
		}
	}
	return b.String() + ">"
}

func readWithEncodingXML(doc io.Reader) (out reading) {
	var item strings.Builder
	d := xml.NewDecoder(doc)
	for depth := 0; !out.ended; {
		tok, err := d.Token()
		if err != nil {
			break
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			tag := describeTag(tok.Name, tok.Attr)
			if depth++; depth == 1 {
				out.root = tag
			} else {
				item.WriteString(tag)
			}
		case xml.EndElement:
			depth--
			item.WriteString("</>")
			if depth == 1 {
				out.items = append(out.items, item.String())
				item.Reset()
			}
			out.ended = depth == 0
		case xml.CharData:
			if depth > 1 {
				item.WriteString(strings.NewReplacer("<", "&lt;", "&", "&amp;").Replace(string(tok)))
			}
		}
	}
	return out
}

// FuzzReaderDifferential: what we accept encoding/xml accepts and reads as the
// same elements, within the stream and each Raw by itself; what it accepts and
// we refuse is of a known class.
func FuzzReaderDifferential(f *testing.F) {
	for _, s := range readerSeeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		theirs := readWithEncodingXML(bytes.NewReader(in))
		r := NewReader(Stream, Limits{})
		r.Feed(in)
		items, closed, defaultNS := 0, false, ""
		for {
			tok, err := r.Next()
			if err != nil {
				break
			}
			switch tok.Kind {
			case Open:
				defaultNS = tok.DefaultNS
				compareHeader(t, tok, theirs.root)
			case Item:
				if items >= len(theirs.items) {
					t.Fatalf("%q: encoding/xml refuses %q", in, tok.Raw)
				}
				compareItem(t, tok, defaultNS, theirs.items[items])
				items++
			case Close:
				closed = true
			}
		}
		if closed && !theirs.ended {
			t.Fatalf("%q: encoding/xml does not see the end", in)
		}
		if items == len(theirs.items) && closed == theirs.ended {
			return
		}
		if r.err == nil || !slices.ContainsFunc(laxer, func(o outcome) bool { return faults[o].text == r.err.Text }) {
			t.Fatalf("%q: encoding/xml accepts, we do not: %v", in, r.err)
		}
	})
}

func compareHeader(t *testing.T, tok Token, theirs string) {
	attrs := make([]xml.Attr, 0, len(tok.Open.Attrs))
	for _, a := range tok.Open.Attrs {
		attrs = append(attrs, xml.Attr{Name: xml.Name(a.Name), Value: a.Value})
	}
	if ours := describeTag(xml.Name(tok.Name), attrs); ours != theirs {
		t.Fatalf("header: we read %s, encoding/xml %s", ours, theirs)
	}
}

func compareItem(t *testing.T, tok Token, defaultNS, theirs string) {
	if !strings.HasPrefix(theirs, strings.TrimSuffix(describeTag(xml.Name(tok.Name), nil), ">")) {
		t.Fatalf("we read the name %v, encoding/xml %s", tok.Name, theirs)
	}
	head := appendAttr([]byte("<w"), "xmlns", defaultNS)
	alone := readWithEncodingXML(io.MultiReader(bytes.NewReader(head), strings.NewReader(">"), bytes.NewReader(tok.Raw), strings.NewReader("</w>")))
	if len(alone.items) != 1 || alone.items[0] != theirs || !alone.ended {
		t.Fatalf("%q by itself reads %q, in its stream %s", tok.Raw, alone.items, theirs)
	}
	again := NewReader(Framed, Limits{Bytes: 1 << 20})
	again.Feed(tok.Raw)
	if tok, err := again.Next(); err != nil || again.Buffered() != 0 {
		t.Fatalf("%q does not stand by itself: %v", tok.Raw, err)
	}
}
