package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/storage"
	"parley/storage/storagetest"
)

// scattered fills an archive: three contacts who write on different days, at
// the edges of days too.
func (f *fixture) scattered(t *testing.T, chance *rand.Rand) (o *owner, with []jid.JID, ids map[jid.JID][]int64) {
	t.Helper()
	with, ids = []jid.JID{romeo, jid.MustParse("nurse@example.net"), jid.MustParse("tybalt@example.net"), jid.MustParse("nobody@example.net")}, map[jid.JID][]int64{}
	o, err := f.owners.get(t.Context(), juliet)
	if err != nil {
		t.Fatal(err)
	}
	day := (24 * time.Hour).Microseconds()
	var w storage.WriteSet
	for d := range int64(60) {
		for i, c := range with[:3] {
			if d%[...]int64{1, 7, 25}[i] != 0 { // every day, every week, hardly ever
				continue
			}
			at := []int64{d * day, (d+1)*day - 1}
			for range chance.IntN(4) {
				at = append(at, d*day+1+chance.Int64N(day-2))
			}
			for _, id := range at {
				id += 10_000 * day
				id += int64(i) - int64(2*i)*((id+1)%day/(day-1)) // apart, and still of that day
				if slices.Contains(ids[c], id) {
					continue
				}
				ids[c] = append(ids[c], id)
				w.Add(&insertRow, o.id, id, peerKey(c), c.String(), "", fmt.Appendf(nil, "%d", id), 0)
				w.Add(&insertDay, o.id, peerKey(c), dayOf(id))
			}
		}
	}
	if err := f.env.DB.Commit(t.Context(), &w); err != nil {
		t.Fatal(err)
	}
	for _, c := range with {
		slices.Sort(ids[c])
	}
	return o, with, ids
}

// TestRule62WithReadsDays: a page with a contact is what it would be if all
// rows were looked at, whatever its span and direction (XEP-0313 §4.1.1).
func TestRule62WithReadsDays(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		chance := rand.New(rand.NewPCG(3, 13))
		o, with, all := f.scattered(t, chance)
		if _, err := db.Exec(t.Context(), insertDay.SQL, o.id, peerKey(with[1]), dayOf(all[with[1]][0])+2); err != nil { // its rows have expired
			t.Fatal(err)
		}
		for range 400 {
			who := with[chance.IntN(len(with))]
			q := &query{with: contactParty(who), max: chance.IntN(12), backward: chance.IntN(2) == 0}
			some := all[with[chance.IntN(3)]]
			if chance.IntN(2) == 0 {
				q.after = some[chance.IntN(len(some))] + chance.Int64N(3) - 1
			}
			if chance.IntN(2) == 0 {
				q.before = some[chance.IntN(len(some))] + chance.Int64N(3) - 1
			}
			want, complete := naive(q, all[who])
			pg, err := f.readIn(t.Context(), o, q)
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, r := range pg.rows {
				got = append(got, r.id)
			}
			if !slices.Equal(got, want) || pg.complete != complete {
				t.Fatalf("%+v: %v, complete %v; not %v, %v", q, got, pg.complete, want, complete)
			}
		}
	})
}

// naive is the page by looking at all ids.
func naive(q *query, all []int64) (page []int64, complete bool) {
	for _, id := range all {
		if id > q.after && (q.before == 0 || id < q.before) {
			page = append(page, id)
		}
	}
	if len(page) <= q.max {
		return page, true
	}
	if q.backward {
		return page[len(page)-q.max:], false
	}
	return page[:q.max], false
}

// TestDaysEnd: days go with the rows that were their reason, but not those on
// which somebody may be writing.
func TestDaysEnd(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, config(func(c *Config) { c.MaxAge = 48 * time.Hour }))
		o, ids := f.fill(t, juliet, 5*24*60) // a row a minute
		days := func() (n, first int64) {
			if err := db.QueryRow(ctx, `SELECT COUNT(*), COALESCE(MIN(day), 0) FROM archive_day WHERE owner = $1`, o.id).Scan(&n, &first); err != nil {
				t.Fatal(err)
			}
			return n, first
		}
		if n, first := days(); n < 5 || first != dayOf(ids[0]) {
			t.Fatalf("%d days, from %d on", n, first)
		}
		if err := f.expireAll(ctx); err != nil {
			t.Fatal(err)
		}
		_, oldest := f.oldest(t, o)
		if _, first := days(); first != min(dayOf(oldest), dayOf(f.clock.Now().UnixMicro())-1) {
			t.Errorf("days from %d on; the first row is of %d", first, dayOf(oldest))
		}
		f.clock.pass(1000 * time.Hour)
		if err := f.expireAll(ctx); err != nil {
			t.Fatal(err)
		}
		if n, _ := days(); n != 0 {
			t.Errorf("%d days of an empty archive", n)
		}
		f.fill(t, juliet, 3)
		if err := f.expireAll(ctx); err != nil {
			t.Fatal(err)
		}
		if n, _ := days(); n == 0 {
			t.Error("today is forgotten")
		}
		if _, err := f.removed(ctx, juliet); err != nil {
			t.Fatal(err)
		}
		f.clock.pass(2 * goneFor)
		if err := f.sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n, _ := days(); n != 0 {
			t.Errorf("%d days of an account that is gone", n)
		}
	})
}
