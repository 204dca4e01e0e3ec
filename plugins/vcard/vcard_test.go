package vcard

import (
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

func TestCards(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), "vcard", migrations); err != nil {
			t.Fatal(err)
		}
		c := &Cards{env: plugins.Env{DB: db, Clock: plugins.SystemClock{}}}
		romeo := jid.MustParse("romeo@localhost")
		check := func(want string) {
			t.Helper()
			got, err := c.Get(t.Context(), romeo)
			switch {
			case err != nil:
				t.Error(err)
			case got == nil && want != "", got != nil && string(got.Bytes("")) != want:
				t.Errorf("card %v, want %q", got, want)
			}
		}
		check("")
		for _, fn := range []string{"Romeo", "Röméo <&>"} {
			card := stanza.El(NS, "vCard").With("version", "3.0").Add(stanza.El(NS, "FN").AddText(fn))
			if err := c.Set(t.Context(), romeo, card); err != nil {
				t.Fatal(err)
			}
			check(string(card.Bytes("")))
		}
		if err := c.forget(t.Context(), romeo); err != nil {
			t.Fatal(err)
		}
		check("")
	})
}
