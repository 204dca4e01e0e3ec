package stanza

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"parley/parser/jid"
)

// chat404 is a chat message as a client of today sends it, 404 bytes.
const chat404 = `<message to='juliet@capulet.example/balcony' from='romeo@montague.example/orchard' id='6f1d2c9e-8a57-4b0e-9d4e-3f0b' type='chat'>` +
	`<body>Wherefore art thou, and other lines that people write &amp; send to one another every day!</body>` +
	`<active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>` +
	`<origin-id xmlns='urn:xmpp:sid:0' id='6f1d2c9e-8a57-4b0e-9d4e-3f0b22'/></message>`

var mustJID = jid.MustParse

func parse(t *testing.T, raw, ns string) *Stanza {
	t.Helper()
	s, err := Parse([]byte(raw), ns, nil)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return s
}

func render(s *Stanza) string {
	e := s.Stamp()
	return string(e.Render(nil, s.Raw))
}

func TestParse(t *testing.T) {
	if len(chat404) != 404 {
		t.Fatal(len(chat404))
	}
	s := parse(t, chat404, NSClient)
	if s.Kind != Message || s.Type != TypeChat || s.To != mustJID("juliet@capulet.example/balcony") || s.From != mustJID("romeo@montague.example/orchard") ||
		s.ID != "6f1d2c9e-8a57-4b0e-9d4e-3f0b" || s.Lang != "" {
		t.Errorf("%+v", s)
	}
	var names []Name
	for _, c := range s.Children {
		names = append(names, c.Name)
		if e := s.Element(c); e == nil || e.Name != c.Name {
			t.Errorf("%v: %+v", c, e)
		}
	}
	want := []Name{{NSClient, "body"}, {"http://jabber.org/protocol/chatstates", "active"}, {"urn:xmpp:receipts", "request"}, {NSStanzaID, "origin-id"}}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if !strings.HasSuffix(s.Body(), "& send to one another every day!") || !s.Has("urn:xmpp:receipts", "request") || s.Has(NSClient, "request") ||
		s.Child(NSStanzaID, "nothing") != nil || s.Payload() != nil {
		t.Error("access to children")
	}
	if render(s) != chat404 {
		t.Errorf("%s", render(s))
	}
}

func TestParseShapes(t *testing.T) {
	for raw, want := range map[string]string{ // stamped
		`<presence/>`:                                  `<presence/>`,
		`<presence></presence>`:                        `<presence/>`,
		"<presence\n></presence\n>":                    `<presence/>`,
		`<presence xmlns="jabber:client"> </presence>`: `<presence> </presence>`,
		`<iq id="a'b" type='get' foo='&amp;' to='a@b'><q xmlns='u'><p/></q></iq>`: `<iq to='a@b' id='a&apos;b' type='get' foo='&amp;'><q xmlns='u'><p/></q></iq>`,
		`<message p:x='1' xmlns:p='u' xml:lang='de'><p:b/></message>`:             `<message xml:lang='de' p:x='1' xmlns:p='u'><p:b/></message>`,
		`<message to='A@B/x&amp;y'><![CDATA[<x>]]><b a='>/'>/></b><c/></message>`: `<message to='a@b/x&amp;y'><![CDATA[<x>]]><b a='>/'>/></b><c/></message>`,
		`<message><body xmlns='jabber:client' a='1'>x</body></message>`:           `<message><body a='1'>x</body></message>`,
	} {
		s := parse(t, raw, NSClient)
		if got := render(s); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", raw, got, want)
		}
		if zero := (&Edits{}).Render(nil, s.Raw); string(zero) != raw {
			t.Errorf("zero edits changed %s to %s", raw, zero)
		}
	}
	s := parse(t, `<message xmlns:p='u'><p:a/><a xmlns='v'/><p:a xmlns:p='w'><p:b/></p:a><xml:a/></message>`, NSClient)
	if got := []Name{s.Children[0].Name, s.Children[1].Name, s.Children[2].Name, s.Children[3].Name}; !cmp.Equal(got,
		[]Name{{"u", "a"}, {"v", "a"}, {"w", "a"}, {NSXML, "a"}}) {
		t.Errorf("%v", got)
	}
	if e := s.Child("u", "a"); e == nil || string(e.Bytes(NSClient)) != "<a xmlns='u'/>" {
		t.Errorf("a prefix of the stanza is unknown to its child: %+v", e)
	}
	six := parse(t, `<message><a/><b/><c/><d/><e/><f/></message>`, NSClient)
	if len(six.Children) != 6 || six.Children[5].Name.Local != "f" {
		t.Errorf("%v", six.Children)
	}
}

func TestRule03NamespaceOfStanzas(t *testing.T) {
	for raw, want := range map[string]StreamCondition{
		`<message xmlns='jabber:server'/>`:     StreamInvalidNamespace,
		`<message xmlns=''/>`:                  StreamInvalidNamespace,
		`<c:message xmlns:c='jabber:client'/>`: StreamBadNamespacePrefix,
		`<c:message xmlns:c='jabber:server'/>`: StreamInvalidNamespace,
		`<massage/>`:                           StreamUnsupportedStanzaType,
		`<r xmlns='urn:xmpp:sm:3'/>`:           StreamUnsupportedStanzaType,
		`<message`:                             StreamNotWellFormed,
		`<message>`:                            StreamNotWellFormed,
		`<message></iq>`:                       StreamNotWellFormed,
		`<message/> `:                          StreamNotWellFormed,
		`<c:message/>`:                         StreamNotWellFormed,
		`<message><p:x/></message>`:            StreamNotWellFormed,
		`<message p:x=''/>`:                    StreamNotWellFormed,
		`<message id='&x;'/>`:                  StreamNotWellFormed,
		`<message><x></message>`:               StreamNotWellFormed,
		`<message><x a='></message>`:           StreamNotWellFormed,
		`<message><x><![CDATA[</x></message>`:  StreamNotWellFormed,
		`<message><x><`:                        StreamNotWellFormed,
		``:                                     StreamNotWellFormed,
	} {
		s, err := Parse([]byte(raw), NSClient, nil)
		var se *StreamError
		if !errors.As(err, &se) || se.Condition != want || s != nil {
			t.Errorf("%s: %v, want %s", raw, err, want)
		}
	}
}

func TestRule33MalformedAddresses(t *testing.T) {
	cache := jid.NewCache(100)
	for raw, want := range map[string][2]bool{
		`<iq to='@' from='a@b' id='1' type='get'/>`:     {true, false},
		`<iq to='a@b' from='a b@c' id='1' type='get'/>`: {false, true},
		`<iq to='' from='&lt;@c' id='1' type='get'/>`:   {true, true},
	} {
		s, err := Parse([]byte(raw), NSClient, cache)
		var ae *AddressError
		if !errors.As(err, &ae) || !errors.Is(err, jid.ErrMalformed) || s == nil || ae.To != nil != want[0] || ae.From != nil != want[1] || ae.Error() == "" {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		r := s.ErrorReply(NewError(JIDMalformed, ""))
		if r.To != s.From || r.ID != "1" || r.Err().Condition != JIDMalformed {
			t.Errorf("%s: %s", raw, r.Raw)
		}
	}
}

func TestRule23Rebase(t *testing.T) {
	const raw = `<message xmlns='jabber:server' to='a@b' from='c@d/e'><body>1</body><subject xmlns="jabber:server" x='1'><b/></subject>` +
		`<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:server'/></forwarded></message>`
	s := parse(t, raw, NSServer)
	if s.Has(NSClient, "body") || s.Element(s.Children[1]).Name.Space != NSServer {
		t.Error("rebased too early")
	}
	s.Rebase()
	if s.Body() != "1" || s.Children[2].Name.Space != NSForward {
		t.Errorf("%+v", s.Children)
	}
	if got := string(s.Child(NSClient, "subject").Bytes(NSClient)); got != `<subject x='1'><b/></subject>` {
		t.Error(got)
	}
	if f := s.Child(NSForward, "forwarded"); f.Child(NSServer, "message") == nil {
		t.Error("the forwarded stanza was changed")
	}
	want := `<message to='a@b' from='c@d/e'><body>1</body><subject x='1'><b/></subject>` +
		`<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:server'/></forwarded></message>`
	if got := render(s); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The other way: what a client says twice is not said to another server.
	c := parse(t, `<message xmlns='jabber:client'><body xmlns='jabber:client'>1</body></message>`, NSClient)
	if got := render(c); strings.Contains(got, NSClient) {
		t.Error(got)
	}
}

func TestRule26StampIsFresh(t *testing.T) {
	s := parse(t, `<message from='evil@b/c' to='x@y' x='1'><body/></message>`, NSClient)
	s.From, s.Lang = mustJID("good@b/'c"), "de"
	e := s.Stamp()
	e.Append = []byte("<delay xmlns='urn:xmpp:delay'/>")
	if got := string(e.Render([]byte("#"), s.Raw)); got != `#<message to='x@y' from='good@b/&apos;c' xml:lang='de' x='1'><body/><delay xmlns='urn:xmpp:delay'/></message>` {
		t.Error(got)
	}
	f := s.StampForwarded()
	if got := string(f.Render(nil, s.Raw)); !strings.HasPrefix(got, `<message xmlns='jabber:client' to=`) {
		t.Error(got)
	}
}

func TestEditsCut(t *testing.T) {
	s := parse(t, `<message><a/>1<b/>2<c/></message>`, NSClient)
	a, b, c := s.Children[0].Span, s.Children[1].Span, s.Children[2].Span
	for _, x := range []struct {
		cut  []Span
		want string
	}{
		{nil, `<message><a/>1<b/>2<c/></message>`},
		{[]Span{b}, `<message><a/>12<c/></message>`},
		{[]Span{c, a, b}, `<message>12</message>`},
		{[]Span{{a.Start, b.End}, a, {0, 0}, c}, `<message>2</message>`},
		{[]Span{{0, len(s.Raw)}}, `<message/>`},
	} {
		e := s.Stamp()
		e.Cut = append(e.Cut, x.cut...)
		if got := string(e.Render(nil, s.Raw)); got != x.want {
			t.Errorf("%v: %s", x.cut, got)
		}
	}
	if e := (Edits{Cut: []Span{b}}); string(e.Render(nil, s.Raw)) != `<message><a/>12<c/></message>` {
		t.Error("cut without a fresh start tag")
	}
}

func TestMake(t *testing.T) {
	s := Make(IQ, TypeSet, mustJID("b"), mustJID("a@b/c"), "<1>", El(NSRoster, "query").Add(El(NSRoster, "item")), nil, El(NSClient, "x"))
	want := `<iq to='a@b/c' from='b' id='&lt;1&gt;' type='set'><query xmlns='jabber:iq:roster'><item/></query><x/></iq>`
	if string(s.Raw) != want || render(s) != want {
		t.Errorf("%s\n%s", s.Raw, render(s))
	}
	back := parse(t, want, NSClient)
	if diff := cmp.Diff(back.Children, s.Children); diff != "" || s.Child(NSRoster, "query").Count() != 1 {
		t.Error(diff)
	}
	if p := Make(Presence, "", jid.JID{}, jid.JID{}, ""); string(p.Raw) != "<presence/>" || render(p) != "<presence/>" {
		t.Errorf("%s", p.Raw)
	}
	c := s.Clone()
	c.To, c.Children[0].Name.Local = jid.JID{}, "changed"
	if s.To.IsZero() || s.Children[0].Name.Local != "query" {
		t.Error("the clone is not one")
	}
}

func TestRule28Reply(t *testing.T) {
	q := parse(t, `<iq to='b' from='a@b/c' id='7' type='get'><ping xmlns='urn:xmpp:ping'/></iq>`, NSClient)
	if r := q.Reply(nil); string(r.Raw) != `<iq to='a@b/c' from='b' id='7' type='result'/>` || r.Reply(nil) != nil {
		t.Errorf("%s", r.Raw)
	}
	if q.Payload().Name.Local != "ping" {
		t.Error("payload")
	}
}

func TestRule29ErrorReply(t *testing.T) {
	q := parse(t, `<message to='b@c' from='a@b/c' id='7' type='chat'><body>secret</body></message>`, NSClient)
	r := q.ErrorReply(NewError(ServiceUnavailable, ""))
	if string(r.Raw) != `<message to='a@b/c' from='b@c' id='7' type='error'><error type='cancel'><service-unavailable xmlns='`+NSStanzas+`'/></error></message>` {
		t.Errorf("%s", r.Raw)
	}
	beside := &Error{Condition: Conflict, Beside: El("urn:example:rooms", "x")} // XEP-0045 §7.2.8
	if p := parse(t, `<presence to='b@c/d'/>`, NSClient).ErrorReply(beside); p.Children[0].Name != (Name{"urn:example:rooms", "x"}) || p.Err().Condition != Conflict {
		t.Errorf("%s", p.Raw)
	}
	for _, raw := range []string{`<message type='error'/>`, `<presence type='error'/>`, `<iq type='error'/>`, `<iq type='result'/>`} {
		if r := parse(t, raw, NSClient).ErrorReply(NewError(BadRequest, "")); r != nil {
			t.Errorf("%s answered with %s", raw, r.Raw)
		}
	}
	if r.Err().Condition != ServiceUnavailable || q.Err() != nil {
		t.Error("Err")
	}
}

func FuzzStanzaParse(f *testing.F) {
	for _, s := range []string{chat404, `<iq xmlns:p='u' p:a='&#9;' to='A@B.' id='&lt;'><p:q><![CDATA[</p:q>]]></p:q>x<y xmlns='jabber:client'/></iq>`,
		`<presence xmlns="jabber:server" xml:lang='de'/>`, `<message><a b='>'/><xml:a/></message>`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, client bool) {
		ns := NSServer
		if client {
			ns = NSClient
		}
		s, err := Parse(raw, ns, nil)
		if s == nil {
			var se *StreamError
			if !errors.As(err, &se) {
				t.Fatal(err)
			}
			return
		}
		whole, err := ParseElement(raw, ns)
		if err != nil {
			return // no Reader would have let it pass
		}
		i := 0
		for e := range whole.Elements() {
			if got := s.Element(s.Children[i]); s.Children[i].Name != e.Name || !cmp.Equal(joined(got), joined(e)) {
				t.Fatalf("%q: child %d is %v, not %v", raw, i, got, e)
			}
			i++
		}
		if i != len(s.Children) {
			t.Fatalf("%q: %d children, not %d", raw, len(s.Children), i)
		}
		s.Rebase()
		out := []byte(render(s))
		back, err := Parse(out, NSClient, nil)
		if err != nil {
			t.Fatalf("%q → %q: %v", raw, out, err)
		}
		if back.Kind != s.Kind || back.To != s.To || back.From != s.From || back.ID != s.ID || back.Type != s.Type || back.Lang != s.Lang ||
			len(back.Children) != len(s.Children) || len(back.redundant) == 0 && !bytes.Equal([]byte(render(back)), out) {
			t.Fatalf("%q → %q", raw, out)
		}
		for i, c := range back.Children {
			if c.Name != s.Children[i].Name {
				t.Fatalf("%q → %q: child %d", raw, out, i)
			}
		}
		if _, err := ParseElement(out, NSClient); err != nil {
			t.Fatalf("%q → %q: %v", raw, out, err)
		}
	})
}

func TestParseAllocations(t *testing.T) {
	jids, raw := jid.NewCache(100), []byte(chat404)
	if n := testing.AllocsPerRun(100, func() { _, _ = Parse(raw, NSClient, jids) }); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	jids, raw := jid.NewCache(100), []byte(chat404)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw, NSClient, jids); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStampRender(b *testing.B) {
	s, err := Parse([]byte(chat404), NSClient, nil)
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		e := s.Stamp()
		buf = e.Render(buf[:0], s.Raw)
	}
}

// What many share is what each of them would get, but for its address.
func TestSharedIsStampedWithoutTo(t *testing.T) {
	for _, raw := range []string{
		"<message to='a@b/c' id='1' x='y'><body xmlns='jabber:client'>a</body>\n<x xmlns='u'/></message>",
		"<presence/>", "<presence xmlns:p='u' to='a@b'><p:x/></presence>", "<iq type='get' id='&lt;'><q xmlns='u'/></iq>",
	} {
		s, err := Parse([]byte(raw), NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.From = jid.MustParse("room@x/it's")
		shared := string(s.AppendShared(nil))
		s.To = jid.JID{}
		e := s.Stamp()
		if want := string(e.Render(nil, s.Raw)); shared != want {
			t.Errorf("got  %s\nwant %s", shared, want)
		}
		s.To = jid.MustParse("a@b/o'c")
		e = s.Stamp()
		at := NameEnd([]byte(shared))
		if got, want := shared[:at]+string(AppendTo(nil, s.To))+shared[at:], string(e.Render(nil, s.Raw)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
