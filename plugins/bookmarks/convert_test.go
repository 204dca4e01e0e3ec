package bookmarks

import (
	"bytes"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/private"
)

func element(t testing.TB, s string) *stanza.Element {
	t.Helper()
	el, err := stanza.ParseElement([]byte(s), "")
	if err != nil {
		t.Fatal(err)
	}
	return el
}

// A list of an older client, in whatever order, comes back as one: each room once,
// and what is none as it was.
func TestSplitAndCollate(t *testing.T) {
	storage := element(t, `<storage xmlns='storage:bookmarks'><conference jid='b@r' autojoin='1'/><url url='x'/><conference jid='A@r'><nick>n</nick></conference><conference jid='b@r'/><conference/><conference jid='@'/></storage>`)
	rest, rooms := split(storage)
	want := `<storage xmlns='storage:bookmarks'><conference jid='a@r'><nick>n</nick></conference><conference autojoin='true' jid='b@r'/><url url='x'/><conference/><conference jid='@'/></storage>`
	if got := collate(rest, rooms).Bytes(""); !bytes.Equal(got, element(t, want).Bytes("")) {
		t.Errorf("%s, want %s", got, want)
	}
	if r, l := splitAll(nil); r != nil || l != nil {
		t.Errorf("nothing is %v and %v", r, l)
	}
}

func TestSame(t *testing.T) {
	a := element(t, `<conference xmlns='urn:xmpp:bookmarks:1' name='n' autojoin='1'><nick>x</nick><extensions><e xmlns='e'/></extensions></conference>`)
	for s, want := range map[string]bool{
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='true'><nick>x</nick></conference>`:                              true,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n'><nick>x</nick></conference>`:                                              false,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='m' autojoin='true'><nick>x</nick></conference>`:                              false,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='true'><nick>y</nick></conference>`:                              false,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='true'><nick>x</nick><password>p</password></conference>`:        false,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='true'><nick>x</nick><unknown xmlns='u'/></conference>`:          true,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='yes, please'><nick>x</nick></conference>`:                       false,
		`<conference xmlns='storage:bookmarks' jid='a@b' name='n' autojoin='true'><nick xmlns='urn:xmpp:bookmarks:1'>x</nick></conference>`: false,
	} {
		b := element(t, s)
		if same(b, a) != want {
			t.Errorf("%s: %t", s, !want)
		}
		if n := newer(b, a); n.Child(NS, "extensions") == nil || !same(b, n) {
			t.Errorf("%s became %s", s, n.Bytes(""))
		}
	}
}

// Whatever is stored, what older clients get of it is stable: the same again, and
// nothing that differs from the items.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`<storage xmlns='storage:bookmarks'><conference jid='a@b' name='n' autojoin='1'><nick>x</nick></conference><url url='u'/></storage>`))
	f.Add([]byte(`<storage xmlns='storage:bookmarks'>text<conference jid='a@b'/></storage><storage xmlns='storage:bookmarks'/>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := stanza.ParseElement(append(append([]byte("<query>"), data...), "</query>"...), private.NS); err != nil {
			return
		}
		rest, rooms := splitAll(data)
		once := collate(rest, rooms).Bytes(private.NS)
		rest, again := splitAll(once)
		if got := collate(rest, again).Bytes(private.NS); !bytes.Equal(got, once) {
			t.Fatalf("%s, then %s", once, got)
		}
		for _, b := range again {
			if _, ok := parse(b.room.String(), newer(b.payload, nil)); !ok {
				t.Fatalf("%s is no bookmark", b.room)
			}
		}
	})
}
