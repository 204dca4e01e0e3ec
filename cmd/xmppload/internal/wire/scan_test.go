package wire

import (
	"slices"
	"testing"
)

const sample = `<?xml version='1.0'?><stream:stream xmlns='jabber:client' id="1"> <stream:features><a/><b><c x='1'/></b></stream:features>` +
	"\n" + `<message id='7' to='a@b'><body>x &gt; y</body><a><a/></a></message><presence/> <r xmlns='urn:xmpp:sm:3'/></stream:stream>`

var sampleElements = []string{
	`<stream:stream xmlns='jabber:client' id="1">`,
	`<stream:features><a/><b><c x='1'/></b></stream:features>`,
	`<message id='7' to='a@b'><body>x &gt; y</body><a><a/></a></message>`,
	`<presence/>`, `<r xmlns='urn:xmpp:sm:3'/>`, `</stream:stream>`,
}

// The elements are the same however the bytes are cut, and nothing is held at the end.
func TestScannerCuts(t *testing.T) {
	for size := 1; size <= len(sample); size++ {
		var s Scanner
		var got []string
		for part := range slices.Chunk([]byte(sample), size) {
			s.Feed(part, func(el []byte) { got = append(got, string(el)) })
		}
		if !slices.Equal(got, sampleElements) {
			t.Fatalf("in pieces of %d: %q", size, got)
		}
		if s.rest != nil || s.depth != 0 {
			t.Fatalf("in pieces of %d: %q is held", size, s.rest)
		}
	}
}

func TestAttr(t *testing.T) {
	el := []byte(`<message id='12' from="a'b" x=''><y to='z'/></message>`)
	for name, want := range map[string]string{" id=": "12", " from=": "a'b", " x=": "", " to=": "", " type=": ""} {
		if got := string(Attr(el, name)); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	for s, want := range map[string]int{"12": 12, "": -1, "1x": -1, "9999999999999": -1} {
		if got := Number([]byte(s)); got != want {
			t.Errorf("%q is %d", s, got)
		}
	}
}

// RFC 5802 §5, RFC 7677 §3: the exchanges printed there.
func TestScram(t *testing.T) {
	for _, c := range []struct{ mechanism, bare, challenge, final, last string }{
		{"SCRAM-SHA-1", "n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="},
		{"SCRAM-SHA-256", "n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		s, err := newScram(c.mechanism, "user", "pencil", &Keys{})
		if err != nil {
			t.Fatal(err)
		}
		s.first()
		s.bare = c.bare
		got, err := s.final(c.challenge)
		if err != nil || got != c.final {
			t.Errorf("%s: %s, %v", c.mechanism, got, err)
		}
		if err := s.verify(c.last); err != nil {
			t.Errorf("%s: %v", c.mechanism, err)
		}
		if s.verify("v=AAAA") == nil {
			t.Errorf("%s: anybody is the server", c.mechanism)
		}
	}
}
