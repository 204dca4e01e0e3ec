package script

import (
	"slices"
	"strings"
	"testing"
)

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "no steps",
		"romeo > <a/>":                           `no client or directive is named "romeo"`,
		"client romeo\nromeo >> <a/>":            "no action",
		"client romeo\nromeo >":                  "nothing to send",
		"client romeo\nromeo > <a>":              "unexpected EOF",
		"client romeo\nromeo > <a></b>":          "closed by",
		"client romeo\nromeo > <x:a/>":           "undeclared prefix",
		"client romeo\nromeo > <a b='1' b='2'/>": "twice",
		"client romeo\nromeo < <a/><b/>":         "2 elements",
		"client romeo\nromeo <~ <a/>":            "write <~ {",
		"client romeo\nromeo ! <a/>":             "takes nothing",
		"client romeo romeo\n":                   "two clients",
		"client Romeo\n":                         "cannot name",
		"client romeo via pigeon\n":              "pigeon",
		"client login\n":                         "cannot name",
		"client romeo\nlogin juliet":             "no client is named",
		"client romeo\nfriends romeo":            "wrong number",
		"client romeo\nromeo < <a b='$typo'/>":   "mentioned once only",
		"client romeo\nromeo raw \\q":            "bad escape",
		"  indented":                             "there is none",
		"set romeo":                              "write set",
		"client romeo\nset romeo x":              "write set",
		"client romeo\nromeo drop now":           "at most 0",
		"connect tls":                            "name comes before",
	} {
		if _, err := Parse("p", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestParseHeader(t *testing.T) {
	s, err := Parse("p", []byte("# A moderator kicks.\n# XEP-0045 §8.2, RFC 6121 §8.5.2.1.1; rule 37\n\nclient romeo # note\nromeo ! # quiet\n# RFC 1 later\n-- config.yaml --\na: b\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Title != "A moderator kicks." || !slices.Equal(s.Sources, []string{"XEP-0045 §8.2", "RFC 6121 §8.5.2.1.1", "rule 37"}) {
		t.Errorf("title %q, sources %q", s.Title, s.Sources)
	}
	if string(s.Files["config.yaml"]) != "a: b\n" {
		t.Errorf("files %q", s.Files)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain <a b="c">`:    `plain <a b="c">`,
		`\x00\xff\u00e4\n`:   "\x00\xffä\n",
		`" <a/> "`:           " <a/> ",
		`say \"hi\" \'x\' ä`: `say "hi" 'x' ä`,
	} {
		if got, err := unescape(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	const head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	for in, want := range map[string]string{
		head + "<x:a/>":           "undeclared prefix",
		head + "<a b='1' b='2'/>": "twice",
		head + "<a xmlns:x='u' xmlns:y='u' x:b='' y:b=''/>": "twice",
		head + "<!-- no -->":               "comment",
		head + "<a><?pi?></a>":             "processing instruction",
		head + "text":                      "between elements",
		head + "<a></b>":                   "closed by",
		head + "<?xml version='1.0'?><a/>": "XML declaration inside",
		"<a/>":                             "before the stream header",
		"<?xml version='1.0'?>" + head + "<a xmlns='u'>&nbsp;</a>": "invalid character entity",
	} {
		d := newDecoder(strings.NewReader(in), false)
		var err error
		for err == nil {
			_, err = d.next()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func TestFramed(t *testing.T) {
	for in, want := range map[string]string{
		"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>": "",
		"<a xmlns='u'/> ": "",
		"":                "does not begin",
		" <a/>":           "does not begin",
		"<a>":             "less than one",
		"<a/><b/>":        "more than one",
		"<stream:error/>": "undeclared prefix",
		"<a><?pi?></a>":   "processing instruction",
	} {
		it, err := framed([]byte(in))
		if want == "" && (err != nil || it.node == nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestFramedText(t *testing.T) {
	for in, want := range map[string]string{
		"<message to='a'><body/></message>":                    "<message xmlns='jabber:client' to='a'><body/></message>",
		"<stream:error><x xmlns='u'/></stream:error>":          "<stream:error xmlns:stream='http://etherx.jabber.org/streams'><x xmlns='u'/></stream:error>",
		"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>": "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
	} {
		n, err := parseNodes(in, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := framedText(n[0]); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range passing {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := Parse("fuzz", []byte(text)); err == nil && len(s.steps) == 0 {
			t.Error("a script without steps was accepted")
		}
	})
}

// What the decoder accepts is written so that it reads back as the same tree.
func FuzzDecode(f *testing.F) {
	f.Add("<message xmlns='jabber:client' to='a'><body xml:lang='de'>x &lt; y</body><x xmlns='urn:x'><y/></x></message>")
	f.Add("<a><stream:error/></a>")
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := parseNodes(text, false)
		if err != nil {
			return
		}
		for _, n := range nodes {
			if strings.Contains(text, "xmlns:") { // foreign prefixes on attributes are written for people only
				continue
			}
			back, err := parseNodes(n.String(), false)
			if err != nil || len(back) != 1 || back[0].String() != n.String() {
				t.Errorf("%q was written as %q and read back as %v, %v", text, n, back, err)
			}
		}
	})
}
