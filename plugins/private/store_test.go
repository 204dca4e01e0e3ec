package private

import (
	"errors"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

func TestStore(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), "private", migrations); err != nil {
			t.Fatal(err)
		}
		s := &Store{plugins.Env{DB: db}}
		romeo, juliet := jid.MustParse("romeo@localhost"), jid.MustParse("juliet@localhost")
		name := stanza.Name{Space: "exodus:prefs", Local: "exodus"}
		most := Config{MaxItems: 2, MaxTotal: 10}
		check := func(owner jid.JID, want string) {
			t.Helper()
			got, err := s.Get(t.Context(), owner, name)
			if err != nil || string(got) != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		}
		check(romeo, "")
		for _, data := range []string{"<a/>", "<b/>"} {
			if err := s.put(t.Context(), romeo, []Item{{name, []byte(data)}}, most); err != nil {
				t.Fatal(err)
			}
			check(romeo, data)
		}
		var se *stanza.Error
		for _, items := range [][]Item{
			{{name, []byte("<c/>")}, {stanza.Name{Space: "x", Local: "x"}, []byte("1")}, {stanza.Name{Space: "y", Local: "y"}, []byte("1")}},
			{{name, []byte("<ccccccccc/>")}},
		} {
			if err := s.put(t.Context(), romeo, items, most); !errors.As(err, &se) {
				t.Errorf("too much was taken: %v", err)
			}
			check(romeo, "<b/>")
		}
		if err := s.put(t.Context(), juliet, []Item{{name, []byte("<j/>")}}, most); err != nil {
			t.Fatal(err)
		}
		if err := s.forget(t.Context(), romeo); err != nil {
			t.Fatal(err)
		}
		check(romeo, "")
		check(juliet, "<j/>")
	})
}
