package processor

import (
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// What a hook has cut and added counts for those that come later as if the client
// had sent it so.
func TestSettle(t *testing.T) {
	raw := []byte(`<message to='juliet@b' type='chat' id='1' xml:lang='en'><x xmlns='cut'/><body>hi</body><x xmlns='cut'/></message>`)
	st, err := stanza.Parse(raw, stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.From = jid.MustParse("romeo@a/x")
	f := &Flow{Stanza: st}
	if err := f.Settle(); err != nil || f.Stanza != st {
		t.Errorf("%v; nothing was edited, and it is another stanza", err)
	}
	for _, c := range f.Children {
		if c.Name.Space == "cut" {
			f.Cut(c)
		}
	}
	f.Append(stanza.El("new", "y"))
	if err := f.Settle(); err != nil {
		t.Fatal(err)
	}
	if f.From != st.From || f.To != st.To || f.ID != "1" || f.Lang != "en" || f.Body() != "hi" || f.Has("cut", "x") || !f.Has("new", "y") {
		t.Errorf("it is %s", f.Raw)
	}
	f.Append(stanza.El("later", "z"))
	edits := f.Edits()
	if got, want := string(edits.Render(nil, f.Raw)), `<message to="juliet@b" from="romeo@a/x" id="1" type="chat" xml:lang="en"><body>hi</body><y xmlns="new"/><z xmlns="later"/></message>`; unquoted(got) != unquoted(want) {
		t.Errorf("%s, want %s", got, want)
	}
	if string(st.Raw) != string(raw) {
		t.Error("what arrived has changed")
	}
}

// unquoted leaves out which quotes are written.
func unquoted(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c == '\'' {
			b[i] = '"'
		}
	}
	return string(b)
}
