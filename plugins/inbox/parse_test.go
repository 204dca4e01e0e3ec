package inbox

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
)

func parsed(t *testing.T, xml string) *stanza.Element {
	t.Helper()
	el, err := stanza.ParseElement([]byte(xml), "")
	if err != nil {
		t.Fatal(err)
	}
	return el
}

const notify = `<notify xmlns='urn:xmpp:notification-settings:1'>`

// XEP-0492 §2.2, §2.3, §3
func TestParseNotify(t *testing.T) {
	n, err := ParseNotify(parsed(t, notify+`<never identity-category='client' identity-type='pc'><advanced><x xmlns='u'/></advanced></never>
		<on-mention identity-category='client'/><sometimes/><always xmlns='urn:other'/><always/><never/></notify>`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		category, typ string
		want          When
	}{
		{"client", "pc", Never}, {"client", "phone", OnMention}, {"client", "", OnMention}, {"gateway", "sms", Always}, {"", "", Always},
	} {
		if got := n.For(c.category, c.typ, Never); got != c.want {
			t.Errorf("%s/%s: %s, want %s", c.category, c.typ, got, c.want)
		}
	}
	if again := storedNotify(n.text()); !reflect.DeepEqual(again, n) {
		t.Errorf("stored %v, read %v", n, again)
	}
	if got := Notify(nil).For("client", "pc", OnMention); got != OnMention {
		t.Errorf("nothing is set: %s", got)
	}
	for name, xml := range map[string]string{
		"another element":      `<notify xmlns='urn:other'/>`,
		"a type alone":         notify + `<never identity-type='pc'/></notify>`,
		"a long category":      notify + `<never identity-category='` + strings.Repeat("x", 65) + `'/></notify>`,
		"a line in a category": notify + `<never identity-category='a&#10;b'/></notify>`,
		"too many":             notify + strings.Repeat(`<never/>`, 21) + `</notify>`,
	} {
		var se *stanza.Error
		if _, err := ParseNotify(parsed(t, xml)); !errors.As(err, &se) || se.Condition != stanza.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// XEP-0372 §3.2, XEP-0461 §3, XEP-0492 §3
func TestMentions(t *testing.T) {
	juliet, seat := jid.MustParse("juliet@capulet.example"), jid.MustParse("garden@muc.example/Jule")
	for name, c := range map[string]struct {
		inner string
		want  bool
	}{
		"a reference":         {`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:juliet@capulet.example'/>`, true},
		"to her seat":         {`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:garden@muc.example/Jule?x'/>`, true},
		"escaped":             {`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:%6auliet@capulet.example'/>`, true},
		"of another":          {`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:nurse@capulet.example'/>`, false},
		"data":                {`<reference xmlns='urn:xmpp:reference:0' type='data' uri='xmpp:juliet@capulet.example'/>`, false},
		"a web page":          {`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='https://juliet@capulet.example'/>`, false},
		"a reply":             {`<reply xmlns='urn:xmpp:reply:0' to='garden@muc.example/Jule' id='x'/>`, true},
		"a reply to another":  {`<reply xmlns='urn:xmpp:reply:0' to='garden@muc.example/Rom' id='x'/>`, false},
		"her name":            {`<body>jule: come down</body>`, true},
		"at the end":          {`<body>O, Jule</body>`, true},
		"in a word":           {`<body>July, jules and Jule_x</body>`, false},
		"behind one":          {`<body>Jules? no, Jule!</body>`, true},
		"without spaces":      {`<body>你好Jule你好</body>`, true},
		"beyond what is read": {`<body>` + strings.Repeat("x ", 3000) + `Jule</body>`, false},
		"nothing":             {``, false},
	} {
		st, err := stanza.Parse([]byte(`<message xmlns='jabber:client' type='groupchat'>`+c.inner+`</message>`), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := mentionsIn(st)
		if got := m.name(juliet, seat, "Jule"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(notify + `<never identity-category='client' identity-type='pc'/><always/></notify>`)
	f.Add(`<inbox xmlns='urn:xmpp:inbox:1' unread-only='1'><set xmlns='http://jabber.org/protocol/rsm'><max>3</max></set></inbox>`)
	f.Add(`<message xmlns='jabber:client' type='groupchat'><body>Jule 你好</body><reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:%6a@b'/></message>`)
	f.Fuzz(func(t *testing.T, xml string) {
		if st, err := stanza.Parse([]byte(xml), stanza.NSClient, nil); err == nil {
			m := mentionsIn(st)
			m.name(jid.MustParse("j@b"), jid.JID{}, "Jule")
			if len(m.named) > maxMentions {
				t.Errorf("%d mentions", len(m.named))
			}
		}
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		_, _ = parse(el)
		n, err := ParseNotify(el)
		if err == nil && len(n) > 0 && !reflect.DeepEqual(storedNotify(n.text()), n) {
			t.Errorf("%v is stored as %q", n, n.text())
		}
	})
}
