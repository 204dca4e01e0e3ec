package archive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/storagetest"
)

// says stores a message with a contact and returns its id.
func (f *fixture) says(t *testing.T, o *owner, with jid.JID, id, content string) int64 {
	t.Helper()
	var w storage.WriteSet
	row := f.ids.Next()
	f.put(&callers{store: w.Add}, o, row, contactParty(with),
		fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/a' to='%s' type='chat' id='%s'>%s</message>", with, o.jid, id, content))
	if err := f.env.DB.Commit(context.Background(), &w); err != nil {
		t.Fatal(err)
	}
	o.rows.Add(1)
	f.clock.pass(time.Second)
	return row
}

// index lets the index catch up with everything that is there.
func (f *fixture) catchUp(t *testing.T) {
	t.Helper()
	f.clock.pass(2 * commitLimit)
	if err := f.indexAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// look returns the ids of all pages.
func (f *fixture) look(t *testing.T, o *owner, text string, with jid.JID, max int, backward bool) (all []int64) {
	t.Helper()
	want, err := parseWanted(text)
	if err != nil {
		t.Fatal(err)
	}
	q := &query{text: want, max: max, backward: backward}
	if !with.IsZero() {
		q.with = contactParty(with)
	}
	for {
		pg, err := f.read(t.Context(), o, q)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		for _, r := range pg.rows {
			ids = append(ids, r.id)
		}
		if backward {
			all = append(ids, all...)
		} else {
			all = append(all, ids...)
		}
		if pg.complete {
			return all
		}
		if len(ids) == 0 {
			t.Fatalf("an empty page of %q is not the last", text)
		}
		q.after, q.before = ids[len(ids)-1], 0
		if backward {
			q.after, q.before = 0, ids[0]
		}
	}
}

func (f *fixture) words(t *testing.T, o *owner) (n int) {
	t.Helper()
	if err := f.env.DB.QueryRow(t.Context(), `SELECT COUNT(*) FROM archive_word WHERE owner = $1`, o.id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What the index finds is what a look at every message finds, in pages from both
// ends, with and without a contact, wherever the index has come to.
func TestSearchFindsWhatIsThere(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(*Config) {}))
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		mercutio := jid.MustParse("mercutio@example.net")
		vocabulary := []string{"light", "window", "Sun", "east", "rose", "北京", "长城", "今天去北京", "上海"}
		chance := rand.New(rand.NewPCG(431, 313))
		type said struct {
			id   int64
			with jid.JID
			st   *stanza.Stanza
		}
		var all []said
		for i := range 400 {
			body := ""
			for range 1 + chance.IntN(4) {
				body += vocabulary[min(chance.IntN(len(vocabulary)), chance.IntN(len(vocabulary)))] + " "
			}
			with := []jid.JID{romeo, mercutio}[min(chance.IntN(5), 1)]
			id := f.says(t, o, with, fmt.Sprint("m", i), "<body>"+body+"</body>")
			st, err := stanza.Parse(fmt.Appendf(nil, "<message><body>%s</body></message>", body), stanza.NSClient, nil)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, said{id, with, st})
			if i == 250 {
				f.catchUp(t)
			}
		}
		if to, err := f.indexedTo(t.Context(), o); err != nil || to != all[250].id {
			t.Fatalf("indexed up to %d, %v", to, err)
		}
		for _, text := range []string{"light", "sun light", "rose 北京", "京", "今天去", "上海", "nothing", "light window sun east rose"} {
			want, err := parseWanted(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, with := range []jid.JID{{}, romeo, mercutio} {
				var ids []int64
				for _, m := range all {
					if want.in(m.st) && (with.IsZero() || m.with == with) {
						ids = append(ids, m.id)
					}
				}
				for _, backward := range []bool{false, true} {
					if got := f.look(t, o, text, with, 7, backward); !slices.Equal(got, ids) {
						t.Errorf("%q with %q, backward %v: got %d rows, want %d", text, with, backward, len(got), len(ids))
					}
				}
			}
		}
	})
}

// Rows that end, and messages that are taken back, leave nothing in the index.
func TestIndexForgets(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(c *Config) { c.MaxAge = time.Hour }))
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		f.says(t, o, romeo, "m1", "<body>secret words 秘密</body>")
		f.catchUp(t)
		if f.words(t, o) == 0 || len(f.look(t, o, "secret", jid.JID{}, 9, true)) != 1 {
			t.Fatal("not indexed")
		}
		// The server died between the commit of the retraction and what follows it.
		f.says(t, o, romeo, "r1", "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>")
		f.catchUp(t)
		for _, text := range []string{"secret", "秘密"} {
			if got := f.look(t, o, text, jid.JID{}, 9, true); len(got) != 0 {
				t.Errorf("%q is found", text)
			}
		}
		var n int
		if err := db.QueryRow(t.Context(), `SELECT COUNT(*) FROM archive_word WHERE owner = $1 AND word = $2`, o.id, term(termWord, "secret")).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d places of a word that was taken back, %v", n, err)
		}
		f.clock.pass(3 * time.Hour)
		if err := f.expireAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := f.words(t, o); n != 0 {
			t.Errorf("%d places are left of rows that ended", n)
		}
	})
}

// When messages are encrypted from now on the index loses its words; retractions
// still find what they are for.
func TestIndexOfEncrypted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(*Config) {}))
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		m1 := f.says(t, o, romeo, "m1", "<body>secret words</body>")
		f.catchUp(t)
		file := filepath.Join(t.TempDir(), "keys")
		if _, err := atrest.NewKey(file, f.clock.Now(), -1, -1); err != nil {
			t.Fatal(err)
		}
		ring, err := atrest.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		f.env.AtRest = &atrest.Vault{}
		f.env.AtRest.Use(ring, true)
		f.catchUp(t)
		if n := f.words(t, o); n != 2 { // its id and its contact
			t.Errorf("%d places", n)
		}
		f.says(t, o, romeo, "r1", "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>")
		f.catchUp(t)
		r, err := f.one(t.Context(), o, m1)
		if err != nil {
			t.Fatal(err)
		}
		st, err := stanza.Parse(r.raw, stanza.NSClient, nil)
		if err != nil || !st.Has(nsRetract, "retracted") || st.Body() != "" {
			t.Errorf("%s, %v", r.raw, err)
		}
		f.env.AtRest.Use(nil, false)
		f.env.AtRest.Use(ring, false)
		f.catchUp(t)
		if got := f.look(t, o, "secret", jid.JID{}, 9, true); len(got) != 0 {
			t.Error("found what was taken back")
		}
	})
}

// An account's messages with one contact say nothing any more when they are older
// than it wants; the others stay, and the archive has no hole (XEP-0313 §3.2).
func TestAgeOfAContact(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(*Config) {}))
		o, err := f.owners.get(t.Context(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		mercutio := jid.MustParse("mercutio@example.net")
		a := f.says(t, o, romeo, "m1", "<body>old</body>")
		b := f.says(t, o, mercutio, "m2", "<body>old</body>")
		f.catchUp(t)
		f.clock.pass(time.Hour)
		c := f.says(t, o, romeo, "m3", "<body>young</body>")
		if err := f.SetAge(t.Context(), juliet, Age{romeo, 30 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.expireAges(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for id, body := range map[int64]string{a: "", b: "old", c: "young"} {
			r, err := f.one(t.Context(), o, id)
			if err != nil {
				t.Fatal(err)
			}
			st, err := stanza.Parse(r.raw, stanza.NSClient, nil)
			if err != nil || st.Body() != body || st.ID == "" {
				t.Errorf("%s, %v", r.raw, err)
			}
		}
		if got := f.look(t, o, "old", jid.JID{}, 9, true); !slices.Equal(got, []int64{b}) {
			t.Errorf("found %v, want %d", got, b)
		}
		if ages, err := f.Ages(t.Context(), juliet); err != nil || len(ages) != 1 || ages[0] != (Age{romeo, 30 * time.Minute}) {
			t.Errorf("%v, %v", ages, err)
		}
		if err := f.SetAge(t.Context(), juliet, Age{Contact: romeo}); err != nil {
			t.Fatal(err)
		}
		if ages, err := f.Ages(t.Context(), juliet); err != nil || len(ages) != 0 {
			t.Errorf("%v, %v", ages, err)
		}
	})
}

// Who has said how long for as many contacts as may be can still change what was
// said.
func TestAgesAreBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(*Config) {}))
		of := func(i int) jid.JID { return jid.MustParse(fmt.Sprintf("n%d@example.net", i)) }
		for i := range agesOfOne {
			if err := f.SetAge(t.Context(), juliet, Age{of(i), time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		var refused *stanza.Error
		if err := f.SetAge(t.Context(), juliet, Age{of(agesOfOne), time.Hour}); !errors.As(err, &refused) || refused.Condition != stanza.PolicyViolation {
			t.Errorf("one too many: %v", err)
		}
		if err := f.SetAge(t.Context(), juliet, Age{of(7), time.Minute}); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		ages, err := f.Ages(t.Context(), juliet)
		if err != nil || len(ages) != agesOfOne || !slices.Contains(ages, Age{of(7), time.Minute}) {
			t.Errorf("%d ages, %v", len(ages), err)
		}
		storagetest.Pages(t, db, sqlAges, 0, 0, 10)
	})
}
