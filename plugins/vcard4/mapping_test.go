package vcard4

import (
	"bytes"
	"testing"

	"parley/parser/stanza"
)

func element(t testing.TB, s string) *stanza.Element {
	t.Helper()
	el, err := stanza.ParseElement([]byte(s), "")
	if err != nil {
		t.Fatal(err)
	}
	return el
}

// Every property of the table goes to the other format and comes back.
func TestEveryProperty(t *testing.T) {
	samples := map[string]string{
		"n": "<N><FAMILY>f</FAMILY><GIVEN>g</GIVEN></N>", "adr": "<ADR><HOME/><PREF/><STREET>s</STREET><PCODE>1</PCODE></ADR>",
		"tel": "<TEL><WORK/><FAX/><NUMBER>+1</NUMBER></TEL>", "email": "<EMAIL><HOME/><USERID>a@b</USERID></EMAIL>",
		"geo": "<GEO><LAT>1.5</LAT><LON>-2</LON></GEO>", "logo": "<LOGO><EXTVAL>https://a/b</EXTVAL></LOGO>",
		"org": "<ORG><ORGNAME>o</ORGNAME></ORG>", "categories": "<CATEGORIES><KEYWORD>k</KEYWORD></CATEGORIES>", "key": "<KEY><CRED>c</CRED></KEY>",
	}
	for i := range mapping {
		p := &mapping[i]
		sample, ok := samples[p.four]
		if !ok {
			sample = "<" + p.temp[0] + ">x</" + p.temp[0] + ">"
		}
		card := element(t, "<vCard xmlns='vcard-temp'>"+sample+"</vCard>")
		four := merge(fromTemp, card, nil)
		if four.Count() != 1 || four.First().Name.Local != p.four {
			t.Errorf("%s became %s", sample, four.Bytes(""))
		}
		if back := merge(toTemp, four, nil); !bytes.Equal(back.Bytes(""), card.Bytes("")) {
			t.Errorf("%s came back as %s", sample, back.Bytes(""))
		}
	}
}

// What the other format has besides, and what says the same in other words, stays.
func TestMergeKeeps(t *testing.T) {
	for _, c := range []struct{ name, card, have, want string }{
		{"what has no counterpart", "<FN>a</FN>", "<gender><sex>M</sex></gender>", "<gender><sex>M</sex></gender><fn><text>a</text></fn>"},
		{"parameters", "<FN>a</FN>", "<fn><parameters><language><language-tag>en</language-tag></language></parameters><text>a</text></fn>", "<fn><parameters><language><language-tag>en</language-tag></language></parameters><text>a</text></fn>"},
		{"another type of value", "", "<bday><text>long ago</text></bday>", "<bday><text>long ago</text></bday>"},
		{"not what is gone", "<FN>a</FN>", "<fn><text>a</text></fn><note><text>n</text></note>", "<fn><text>a</text></fn>"},
		{"not what has changed", "<NICKNAME>b</NICKNAME><NICKNAME>c</NICKNAME>", "<nickname><text>a</text></nickname>", "<nickname><text>b</text></nickname><nickname><text>c</text></nickname>"},
		{"a description is a note", "<DESC>d</DESC>", "<note><text>d</text></note>", "<note><text>d</text></note>"},
	} {
		card, have := element(t, "<vCard xmlns='vcard-temp'>"+c.card+"</vCard>"), element(t, "<vcard xmlns='"+NS+"'>"+c.have+"</vcard>")
		want := element(t, "<vcard xmlns='"+NS+"'>"+c.want+"</vcard>")
		if got := merge(fromTemp, card, have); !bytes.Equal(got.Bytes(""), want.Bytes("")) {
			t.Errorf("%s: %s, want %s", c.name, got.Bytes(""), want.Bytes(""))
		}
	}
	old := element(t, "<vCard xmlns='vcard-temp'><ORG><ORGNAME>o</ORGNAME><ORGUNIT>u</ORGUNIT></ORG><LOGO><TYPE>image/png</TYPE><BINVAL>aaaa</BINVAL></LOGO></vCard>")
	four := element(t, "<vcard xmlns='"+NS+"'><org><text>o</text></org></vcard>")
	if got := merge(toTemp, four, old); !bytes.Equal(got.Bytes(""), old.Bytes("")) {
		t.Errorf("%s, want %s", got.Bytes(""), old.Bytes(""))
	}
}

// Whatever people store, converting it once more changes nothing.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("<FN>a</FN><DESC>d</DESC><GEO><LAT>1</LAT><LON>2</LON></GEO>"), []byte("<fn><text>b</text></fn><tel><uri>tel:+1</uri></tel>"))
	f.Add([]byte("<TEL><WORK/><NUMBER> </NUMBER></TEL><N/>"), []byte("<n><given/></n><geo><uri>geo:,</uri></geo>"))
	f.Fuzz(func(t *testing.T, temp, four []byte) {
		card, err := stanza.ParseElement(append(append([]byte("<vCard xmlns='vcard-temp'>"), temp...), "</vCard>"...), "")
		if err != nil {
			return
		}
		have, err := stanza.ParseElement(append(append([]byte("<vcard xmlns='"+NS+"'>"), four...), "</vcard>"...), "")
		if err != nil {
			return
		}
		for _, c := range []struct {
			d          direction
			card, have *stanza.Element
		}{{fromTemp, card, have}, {toTemp, have, card}} {
			once := merge(c.d, c.card, c.have)
			if again := merge(c.d, c.card, once); !bytes.Equal(again.Bytes(""), once.Bytes("")) {
				t.Fatalf("%s of %s and %s, then %s", once.Bytes(""), c.card.Bytes(""), c.have.Bytes(""), again.Bytes(""))
			}
		}
	})
}
