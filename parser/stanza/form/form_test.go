package form_test

import (
	"errors"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

const ns = "urn:parley:test:garden"

type policy string

// garden is what the forms of these tests are about.
type garden struct {
	open    bool
	name    string
	seats   int
	policy  policy
	keepers []jid.JID
	words   []string
}

func table() form.Table[garden] {
	return form.Table[garden]{
		form.Bool("open", "Open", func(g *garden) *bool { return &g.open }),
		form.Text("name", "Name", 10, func(g *garden) *string { return &g.name }),
		form.Number("seats", "Seats", 1, 9, func(g *garden) *int { return &g.seats }),
		form.Choice("policy", "Policy", func(g *garden) *policy { return &g.policy }, form.Option{Value: "all"}, form.Option{Value: "none"}),
		form.JIDs("keepers", "Keepers", 2, func(g *garden) *[]jid.JID { return &g.keepers }),
		form.Texts("words", "Words", 2, 5, func(g *garden) *[]string { return &g.words }),
	}
}

func submitted(t *testing.T, xml string) (*form.Form, error) {
	t.Helper()
	el, err := stanza.ParseElement([]byte(xml), "")
	if err != nil {
		t.Fatal(err)
	}
	return form.Submitted(el, ns)
}

const head = `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>` + ns + `</value></field>`

func TestWhatIsShownCanBeSubmitted(t *testing.T) {
	g := garden{true, "roses", 3, "none", []jid.JID{jid.MustParse("juliet@capulet.example")}, []string{"a", "b"}}
	shown := table().Form(form.Submit, ns, &g)
	f, err := submitted(t, string(shown.Element().Bytes("")))
	if err != nil {
		t.Fatal(err)
	}
	var got garden
	if err := table().Apply(&got, f); err != nil {
		t.Fatal(err)
	}
	if !got.open || got.name != "roses" || got.seats != 3 || got.policy != "none" || len(got.keepers) != 1 || len(got.words) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestWhatIsNotMentionedStays(t *testing.T) {
	f, err := submitted(t, head+`<field var='name'><value>lilies</value></field><field var='seats'/></x>`)
	if err != nil {
		t.Fatal(err)
	}
	g := garden{seats: 4, words: []string{"a"}}
	if err := table().Apply(&g, f); err != nil {
		t.Fatal(err)
	}
	if g.name != "lilies" || g.seats != 4 || len(g.words) != 1 {
		t.Errorf("got %+v", g)
	}
}

func TestBadForms(t *testing.T) {
	for name, c := range map[string]struct {
		xml  string
		want stanza.Condition
	}{
		"another form":    {`<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:other</value></field></x>`, stanza.BadRequest},
		"not submitted":   {`<x xmlns='jabber:x:data' type='result'/>`, stanza.BadRequest},
		"no FORM_TYPE":    {`<x xmlns='jabber:x:data' type='submit'><field var='open'><value>1</value></field></x>`, stanza.BadRequest},
		"unknown field":   {head + `<field var='moon'><value>1</value></field></x>`, stanza.BadRequest},
		"twice":           {head + `<field var='open'><value>1</value></field><field var='open'><value>0</value></field></x>`, stanza.BadRequest},
		"no boolean":      {head + `<field var='open'><value>maybe</value></field></x>`, stanza.NotAcceptable},
		"too long":        {head + `<field var='name'><value>chrysanthemum</value></field></x>`, stanza.NotAcceptable},
		"out of range":    {head + `<field var='seats'><value>10</value></field></x>`, stanza.NotAcceptable},
		"not offered":     {head + `<field var='policy'><value>some</value></field></x>`, stanza.NotAcceptable},
		"no address":      {head + `<field var='keepers'><value>@</value></field></x>`, stanza.NotAcceptable},
		"too many":        {head + `<field var='words'><value>a</value><value>b</value><value>c</value></field></x>`, stanza.NotAcceptable},
		"too many values": {head + `<field var='words'>` + strings.Repeat(`<value>a</value>`, form.MaxValues) + `</field></x>`, stanza.PolicyViolation},
	} {
		f, err := submitted(t, c.xml)
		if err == nil {
			err = table().Apply(new(garden), f)
		}
		var se *stanza.Error
		if !errors.As(err, &se) || se.Condition != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// A list that is open says so (XEP-0122 §3.2.2).
func TestOpenList(t *testing.T) {
	f := form.Form{Kind: form.Empty, Type: ns, Fields: []form.Field{{Var: "ids", Type: form.ListMulti, Open: true}}}
	v := f.Element()
	for _, name := range []string{"field", "validate", "open"} {
		var found *stanza.Element
		for c := range v.Elements() {
			if c.Name.Local == name {
				found = c
			}
		}
		if v = found; v == nil {
			t.Fatalf("no %s in %s", name, f.Element().Bytes(""))
		}
	}
}

func TestCanceled(t *testing.T) {
	f, err := submitted(t, `<x xmlns='jabber:x:data' type='cancel'/>`)
	if err != nil || f.Kind != form.Cancel {
		t.Errorf("got %+v, %v", f, err)
	}
}

func FuzzSubmitted(f *testing.F) {
	f.Add(head + `<field var='seats'><value>3</value></field></x>`)
	f.Fuzz(func(t *testing.T, xml string) {
		el, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		read, err := form.Submitted(el, ns)
		if err != nil {
			return
		}
		var g garden
		if table().Apply(&g, read) == nil && (len(g.name) > 10 || g.seats < 0 || g.seats > 9 || len(g.words) > 2 || len(g.keepers) > 2) {
			t.Errorf("%q was accepted: %+v", xml, g)
		}
	})
}
