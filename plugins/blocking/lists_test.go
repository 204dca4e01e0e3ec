package blocking

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/storagetest"
)

func open(t *testing.T, db storage.DB) *Lists {
	t.Helper()
	if err := db.Migrate(t.Context(), Name, migrations); err != nil {
		t.Fatal(err)
	}
	return fresh(t, db)
}

// The words of a report are encrypted when that is configured, and read back.
func TestReportsEncrypted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := open(t, db)
		file := filepath.Join(t.TempDir(), "keys")
		if _, err := atrest.NewKey(file, time.Now(), -1, -1); err != nil {
			t.Fatal(err)
		}
		ring, err := atrest.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		keep := Reports{Keep: time.Hour, Max: 5}
		report := func(text string) {
			r := Report{Reporter: jid.MustParse("juliet@localhost"), Reported: jid.MustParse("tybalt@localhost"), Text: text, At: time.Now()}
			if err := l.saveReports(t.Context(), []Report{r}, keep); err != nil {
				t.Fatal(err)
			}
		}
		report("a plain word")
		l.env.AtRest = &atrest.Vault{}
		l.env.AtRest.Use(ring, true)
		report("a secret word")
		got, err := l.Reports(t.Context(), 0, 5)
		if err != nil || len(got) != 2 || got[0].Text != "a secret word" || got[1].Text != "a plain word" {
			t.Errorf("%+v, %v", got, err)
		}
		stored, err := storage.All(t.Context(), db, func(r storage.Row) (body []byte, err error) {
			err = r.Scan(&body)
			return body, err
		}, `SELECT body FROM block_report ORDER BY id`)
		if err != nil || string(stored[0]) != "a plain word" || bytes.Contains(stored[1], []byte("word")) {
			t.Errorf("%q, %v", stored, err)
		}
	})
}

// fresh has an empty cache.
func fresh(t *testing.T, db storage.DB) *Lists {
	t.Helper()
	l, err := newLists(plugins.Env{DB: db, Clock: plugins.SystemClock{}, Domains: plugins.NewDomains("localhost")})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func jids(s ...string) (out []jid.JID) {
	for _, x := range s {
		out = append(out, jid.MustParse(x))
	}
	return out
}

// XEP-0191 §6, and the note of XEP-0191 §5.
func TestRule64Matching(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := open(t, db)
		owner := jid.MustParse("juliet@localhost")
		if _, _, err := l.add(t.Context(), owner, jids("romeo@example.org/orchard", "tybalt@example.org", "example.net", "example.com/gate", "localhost", "juliet@localhost"), 10); err != nil {
			t.Fatal(err)
		}
		l = fresh(t, db)
		for other, want := range map[string]bool{
			"romeo@example.org/orchard": true, "romeo@example.org/street": false, "romeo@example.org": false,
			"tybalt@example.org": true, "tybalt@example.org/x": true, "example.org": false,
			"example.net": true, "anybody@example.net": true, "anybody@example.net/x": true, "example.net/x": true, "sub.example.net": false,
			"example.com/gate": true, "example.com": false, "a@example.com/gate": false,
			"localhost": false, "localhost/x": false, "romeo@localhost": true,
			"juliet@localhost": false, "juliet@localhost/chamber": false,
		} {
			got, err := l.Blocked(t.Context(), owner, jid.MustParse(other))
			if err != nil || got != want {
				t.Errorf("%s: %v, %v; want %v", other, got, err, want)
			}
		}
		if got, err := l.Blocked(t.Context(), jid.MustParse("nurse@localhost"), jid.MustParse("tybalt@example.org")); got || err != nil {
			t.Errorf("somebody else's list: %v, %v", got, err)
		}
	})
}

func TestListsChange(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := open(t, db)
		owner := jid.MustParse("juliet@localhost")
		check := func(want ...jid.JID) {
			t.Helper()
			for _, x := range []*Lists{l, fresh(t, db)} {
				got, err := x.List(t.Context(), owner)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("list %v, %v; want %v", got, err, want)
				}
			}
		}
		abc := jids("a@example.org", "b@example.org", "c@example.org")
		if _, _, err := l.add(t.Context(), owner, []jid.JID{abc[1], abc[0], abc[1]}, 2); err != nil {
			t.Fatal(err)
		}
		check(abc[0], abc[1])
		var se *stanza.Error
		if _, _, err := l.add(t.Context(), owner, abc, 2); !errors.As(err, &se) || se.Condition != stanza.PolicyViolation {
			t.Errorf("a full list took more: %v", err)
		}
		check(abc[0], abc[1])
		before, after, err := l.remove(t.Context(), owner, jids("a@example.org", "z@example.org"))
		if err != nil || len(before.sorted) != 2 || len(after.sorted) != 1 {
			t.Errorf("remove: %v, %v, %v", before, after, err)
		}
		check(abc[1])
		if _, _, err := l.remove(t.Context(), owner, nil); err != nil {
			t.Fatal(err)
		}
		check()
		if _, _, err := l.add(t.Context(), owner, abc, 10); err != nil {
			t.Fatal(err)
		}
		if err := l.forget(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		check()
	})
}

// What readers see while others write is never what was there before the last
// write that has returned.
func TestListsConcurrently(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := open(t, db)
		owner := jid.MustParse("juliet@localhost")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				mine := jids(fmt.Sprintf("a%d@example.org", i))
				for range 5 {
					if _, _, err := l.add(t.Context(), owner, mine, 100); err != nil {
						t.Error(err)
					}
					if blocked, err := l.Blocked(t.Context(), owner, mine[0]); err != nil || !blocked {
						t.Errorf("not blocked: %v", err)
					}
					l.cache.Drop(owner)
					if _, _, err := l.remove(t.Context(), owner, mine); err != nil {
						t.Error(err)
					}
					if blocked, err := l.Blocked(t.Context(), owner, mine[0]); err != nil || blocked {
						t.Errorf("still blocked: %v", err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// XEP-0377 §4, §5, §6; what is too old or too much goes.
func TestReports(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		l := open(t, db)
		juliet, nurse := jid.MustParse("juliet@localhost"), jid.MustParse("nurse@localhost")
		now := time.Now().Truncate(time.Microsecond)
		keep := Reports{Keep: time.Hour, Max: 2}
		full := Report{Reporter: juliet, Reported: jid.MustParse("spam@example.org"), Reason: "urn:xmpp:reporting:spam", Text: "Never came trouble", Stanzas: []string{"1 a", "2 a"}, Origin: true, At: now}
		for i := range 3 {
			r := full
			r.Text = fmt.Sprint(i)
			if err := l.saveReports(t.Context(), []Report{r}, keep); err != nil {
				t.Fatal(err)
			}
		}
		old := Report{Reporter: nurse, Reported: juliet, Reason: "x", At: now.Add(-2 * time.Hour)}
		if err := l.saveReports(t.Context(), []Report{old}, keep); err != nil {
			t.Fatal(err)
		}
		got, err := l.Reports(t.Context(), 0, 10)
		if err != nil || len(got) != 2 || got[0].Text != "2" || got[1].Text != "1" {
			t.Fatalf("reports %+v, %v", got, err)
		}
		full.ID, full.Text = got[0].ID, "2"
		if g := got[0]; !g.At.Equal(full.At) || g.Reporter != full.Reporter || g.Reported != full.Reported || g.Reason != full.Reason || !slices.Equal(g.Stanzas, full.Stanzas) || !g.Origin || g.ThirdParty {
			t.Errorf("report %+v, want %+v", g, full)
		}
		if got, err = l.Reports(t.Context(), got[0].ID, 1); err != nil || len(got) != 1 || got[0].Text != "1" {
			t.Errorf("second page %+v, %v", got, err)
		}
		if err := l.forget(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		if got, err = l.Reports(t.Context(), 0, 10); err != nil || len(got) != 0 {
			t.Errorf("after the account has gone: %+v, %v", got, err)
		}
	})
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abc", 2, "ab"}, {"aéb", 2, "a"}, {"é", 1, ""}} {
		if got := cut(c.s, c.n); got != c.want {
			t.Errorf("cut(%q, %d) = %q", c.s, c.n, got)
		}
	}
}

func BenchmarkBlocked(b *testing.B) {
	l := newList(jids("a@example.org", "b@example.org"))
	other := jid.MustParse("c@example.org/x")
	b.ReportAllocs()
	for b.Loop() {
		if l.matches(other) {
			b.Fatal("matched")
		}
	}
}
