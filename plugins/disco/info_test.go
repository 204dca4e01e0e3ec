package disco

import (
	"strings"
	"testing"

	"parley/parser/stanza"
)

const exodus = `<query xmlns='http://jabber.org/protocol/disco#info'>
<identity category='client' name='Exodus 0.9.1' type='pc'/>
<feature var='http://jabber.org/protocol/caps'/>
<feature var='http://jabber.org/protocol/disco#items'/>
<feature var='http://jabber.org/protocol/disco#info'/>
<feature var='http://jabber.org/protocol/muc'/>
</query>`

const psi = `<query xmlns='http://jabber.org/protocol/disco#info' node='http://psi-im.org#q07IKJEyjvHSyhy//CH0CxmKi8w='>
<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>
<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
<feature var='http://jabber.org/protocol/caps'/>
<feature var='http://jabber.org/protocol/disco#info'/>
<feature var='http://jabber.org/protocol/disco#items'/>
<feature var='http://jabber.org/protocol/muc'/>
<x xmlns='jabber:x:data' type='result'>
<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
<field var='ip_version' type='text-multi'><value>ipv6</value><value>ipv4</value></field>
<field var='os'><value>Mac</value></field>
<field var='os_version'><value>10.5.1</value></field>
<field var='software_version'><value>0.11</value></field>
<field var='software'><value>Psi</value></field>
</x></query>`

func parse(t testing.TB, s string) *stanza.Element {
	t.Helper()
	el, err := stanza.ParseElement([]byte(strings.ReplaceAll(s, "\n", "")), stanza.NSClient)
	if err != nil {
		t.Fatal(err)
	}
	return el
}

// XEP-0115 §5.2, XEP-0115 §5.3: the examples.
func TestVerExamples(t *testing.T) {
	for _, c := range []struct{ answer, ver string }{
		{exodus, "QgayPKawpkPSDYmwT/WM94uAlu0="},
		{psi, "q07IKJEyjvHSyhy//CH0CxmKi8w="},
	} {
		f, err := ParseFacts(parse(t, c.answer))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Ver("sha-1"); got != c.ver {
			t.Errorf("ver %q, want %q", got, c.ver)
		}
		if _, err := verify(parse(t, c.answer), Hash{"sha-1", c.ver}); err != nil {
			t.Errorf("%s: %v", c.ver, err)
		}
		for alg := range algorithms {
			if _, err := verify(parse(t, c.answer), Hash{alg, f.Ver(alg)}); err != nil {
				t.Errorf("%s: %v", alg, err)
			}
		}
	}
}

// What a server makes of its own answer is what a client reads out of it.
func TestVerRoundTrip(t *testing.T) {
	f := &Facts{}
	f.AddIdentity(Identity{"server", "im", "", "Parley"})
	f.AddFeature("b", "a", "b")
	f.AddForm(Form{Type: "t", Fields: []Field{{Var: "y", Values: []string{"2", "1"}}}})
	f.AddForm(Form{Type: "t", Fields: []Field{{Var: "x", Values: []string{"3"}}}})
	if len(f.Forms) != 1 {
		t.Fatalf("%d forms, want one of a type", len(f.Forms))
	}
	if _, err := verify(f.Element("n"), Hash{"sha-256", f.Ver("sha-256")}); err != nil {
		t.Error(err)
	}
}

// XEP-0115 §5.4 step 3, XEP-0115 §9.3: answers that must not be kept for the
// hash of Exodus.
func TestSecurityPoisonedCaps(t *testing.T) {
	const ver = "QgayPKawpkPSDYmwT/WM94uAlu0="
	poisoned := map[string]string{
		"another feature":     strings.Replace(exodus, "protocol/muc'", "protocol/tune+notify'", 1),
		"a feature more":      strings.Replace(exodus, "</query>", "<feature var='x'/></query>", 1),
		"a feature less":      strings.Replace(exodus, "<feature var='http://jabber.org/protocol/muc'/>", "", 1),
		"a feature twice":     strings.Replace(exodus, "</query>", "<feature var='http://jabber.org/protocol/muc'/></query>", 1),
		"an identity twice":   strings.Replace(exodus, "<feature", "<identity category='client' name='Exodus 0.9.1' type='pc'/><feature", 1),
		"features in a name":  strings.Replace(exodus, "Exodus 0.9.1'", "Exodus 0.9.1&lt;http://jabber.org/protocol/caps'", 1),
		"two in one":          strings.NewReplacer("disco#items'/>\n<feature var='", "", "<feature var='http://jabber.org/protocol/disco#info'/>", "<feature var='http://jabber.org/protocol/disco#info&lt;http://jabber.org/protocol/disco#items'/>").Replace(exodus),
		"another namespace":   strings.Replace(exodus, "disco#info'>", "disco#items'>", 1),
		"a form of two types": strings.Replace(exodus, "</query>", "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value><value>b</value></field></x></query>", 1),
		"the same form twice": strings.Replace(exodus, "</query>", strings.Repeat("<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>", 2)+"</query>", 1),
	}
	for what, answer := range poisoned {
		if answer == exodus {
			t.Errorf("%s: the case is the original", what)
		}
		if f, err := verify(parse(t, answer), Hash{"sha-1", ver}); err == nil {
			t.Errorf("%s: taken for verified: %q", what, f)
		}
	}
	// Moving a feature into a form keeps the hash; it must keep the features, too.
	moved := strings.Replace(exodus, "<feature var='http://jabber.org/protocol/muc'/>", "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/muc</value></field></x>", 1)
	a, errA := verify(parse(t, exodus), Hash{"sha-1", ver})
	b, errB := verify(parse(t, moved), Hash{"sha-1", ver})
	if errA != nil || errB != nil || strings.Join(a, "<") != strings.Join(b, "<") {
		t.Errorf("one hash has two meanings:\n%q %v\n%q %v", a, errA, b, errB)
	}
}

// XEP-0115 §5.4 step 3.6: forms without a hidden FORM_TYPE do not count.
func TestFormsWithoutTypeAreIgnored(t *testing.T) {
	for _, form := range []string{
		"<x xmlns='jabber:x:data'><field var='os'><value>Mac</value></field></x>",
		"<x xmlns='jabber:x:data'><field var='FORM_TYPE'><value>a</value></field></x>",
		"<x xmlns='jabber:x:data'/>",
	} {
		answer := strings.Replace(exodus, "</query>", form+"</query>", 1)
		if _, err := verify(parse(t, answer), Hash{"sha-1", "QgayPKawpkPSDYmwT/WM94uAlu0="}); err != nil {
			t.Errorf("%s: %v", form, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(exodus)
	f.Add(psi)
	f.Fuzz(func(t *testing.T, s string) {
		el, err := stanza.ParseElement([]byte(s), stanza.NSClient)
		if err != nil {
			return
		}
		facts, err := ParseFacts(el)
		if err != nil {
			return
		}
		again, err := ParseFacts(facts.Element(""))
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if a, b := facts.Ver("sha-1"), again.Ver("sha-1"); a != b {
			t.Fatalf("%s and then %s", a, b)
		}
	})
}
