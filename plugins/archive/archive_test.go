package archive

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

var (
	romeo  = jid.MustParse("romeo@example.net")
	juliet = jid.MustParse("juliet@example.net")
)

// clock is a time that stands until it is told to go on.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// fixture is the part without a house around it.
type fixture struct {
	*part
	clock *clock
}

func newFixture(t testing.TB, db storage.DB, cfg Config) *fixture {
	t.Helper()
	ctx := context.Background()
	if err := db.Migrate(ctx, Name, migrations); err != nil {
		t.Fatal(err)
	}
	cl := &clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	env := plugins.Env{DB: db, Clock: cl, Domains: plugins.NewDomains("example.net"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	a, err := newArchive(env)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p := &part{Archive: a.(*Archive), cfg: cfg, metrics: m, prune: make(chan *owner, pruneQueue)}
	if p.ages, err = newMaxAges(&cfg); err != nil {
		t.Fatal(err)
	}
	p.acks = newAcks(p)
	p.owners.count.Store(cfg.Quota > 0)
	return &fixture{p, cl}
}

// fill stores n messages, one a minute.
func (f *fixture) fill(t *testing.T, who jid.JID, n int) (*owner, []int64) {
	t.Helper()
	ctx := context.Background()
	o, err := f.owners.get(ctx, who)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	var w storage.WriteSet
	for i := range n {
		id := f.ids.Next()
		w.Add(&insertRow, o.id, id, peerKey(romeo), romeo.String(), "", fmt.Appendf(nil, "<message xmlns='jabber:client'><body>%d</body></message>", i), 0)
		w.Add(&insertDay, o.id, peerKey(romeo), dayOf(id))
		ids = append(ids, id)
		f.clock.pass(time.Minute)
	}
	if err := f.env.DB.Commit(ctx, &w); err != nil {
		t.Fatal(err)
	}
	o.rows.Add(int64(n))
	return o, ids
}

func (f *fixture) wait(t *testing.T, o *owner, id int64) {
	t.Helper()
	if _, err := f.env.DB.Exec(context.Background(), insertPending.SQL, o.id, id, nil, 0); err != nil {
		t.Fatal(err)
	}
}

// oldest returns how many rows there are, and the first.
func (f *fixture) oldest(t *testing.T, o *owner) (n int, first int64) {
	t.Helper()
	if err := f.env.DB.QueryRow(context.Background(), `SELECT COUNT(*), COALESCE(MIN(id), 0) FROM archive WHERE owner = $1`, o.id).Scan(&n, &first); err != nil {
		t.Fatal(err)
	}
	return n, first
}

func config(change func(*Config)) Config {
	c := *defaults()
	change(&c)
	return c
}

// TestRule61Expiry: rows end from the oldest end only, and never before what
// waits for its recipient (XEP-0313 §3.2; promise D2).
func TestRule61Expiry(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, config(func(c *Config) { c.MaxAge = time.Hour }))
		a, ids := f.fill(t, juliet, 1300) // the last 60 are younger than an hour
		b, bids := f.fill(t, romeo, 100)
		f.clock.pass(-100 * time.Minute)
		f.wait(t, b, bids[3])
		if err := f.expireAll(ctx); err != nil {
			t.Fatal(err)
		}
		if n, first := f.oldest(t, a); n != 60 || first != ids[1240] {
			t.Errorf("%d rows are left from %d on", n, first)
		}
		f.clock.pass(1000 * time.Hour)
		if err := f.expireAll(ctx); err != nil {
			t.Fatal(err)
		}
		if n, _ := f.oldest(t, a); n != 0 {
			t.Errorf("%d rows are left of an archive that is too old", n)
		}
		if n, first := f.oldest(t, b); n != 97 || first != bids[3] {
			t.Errorf("%d rows are left from %d on, behind one that waits", n, first)
		}
	})
}

func TestQuota(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, config(func(c *Config) { c.Quota = 50 }))
		o, ids := f.fill(t, juliet, 700)
		if f.full(ctx, o) {
			t.Error("an archive that can give is full")
		}
		if err := f.fit(ctx, o); err != nil {
			t.Fatal(err)
		}
		if n, first := f.oldest(t, o); n != 50 || first != ids[650] {
			t.Errorf("%d rows are left from %d on", n, first)
		}
		f.wait(t, o, ids[650])
		f.fill(t, juliet, quotaSlack+10)
		if err := f.fit(ctx, o); err != nil {
			t.Fatal(err)
		}
		if n, _ := f.oldest(t, o); n != 50+quotaSlack+10 {
			t.Errorf("%d rows are left behind one that waits", n)
		}
		if !f.full(ctx, o) {
			t.Error("an archive far over its quota is not full")
		}
	})
}

// What its age has removed is not removed from the newest rows once more.
func TestQuotaAndAge(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, config(func(c *Config) { c.Quota, c.MaxAge = 50, time.Hour }))
		o, ids := f.fill(t, juliet, 100) // the last 60 are younger than an hour
		f.clock.pass(20 * time.Minute)
		if err := f.expireAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, first := f.oldest(t, o); n != 40 || first != ids[60] || o.rows.Load() != 40 {
			t.Errorf("%d rows are left from %d on, %d are counted", n, first, o.rows.Load())
		}
	})
}

// TestAccountRemoved: whoever gets the name next has an empty archive, and no
// row of the old one stays.
func TestAccountRemoved(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, *defaults())
		old, ids := f.fill(t, juliet, 1200)
		other, _ := f.fill(t, romeo, 5)
		f.wait(t, old, ids[0])
		for range 2 { // the hook fires twice
			if _, err := f.removed(ctx, juliet); err != nil {
				t.Fatal(err)
			}
		}
		fresh, err := f.owners.get(ctx, juliet)
		if err != nil {
			t.Fatal(err)
		}
		if fresh.id == old.id {
			t.Fatal("the new account has the old one's archive")
		}
		f.clock.pass(2 * goneFor)
		if err := f.sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n, _ := f.oldest(t, old); n != 0 {
			t.Errorf("%d rows of the old account are left", n)
		}
		if n, _ := f.oldest(t, other); n != 5 {
			t.Errorf("%d rows of another account are left", n)
		}
		var gone int
		if err := db.QueryRow(ctx, `SELECT COUNT(*) FROM archive_gone`).Scan(&gone); err != nil || gone != 0 {
			t.Errorf("%d gone owners are remembered: %v", gone, err)
		}
	})
}

// TestAcks: rows that were taken stop being pending, together, and what the
// database does not take comes back.
func TestAcks(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		f := newFixture(t, db, *defaults())
		o, ids := f.fill(t, juliet, 10)
		for _, id := range ids {
			f.wait(t, o, id)
		}
		o.pending.Store(10)
		f.acks.add(o, ids[:4]...)
		f.acks.add(o, ids[2:5]...)
		if !f.acks.has(o, ids[4]) || f.acks.has(o, ids[5]) {
			t.Error("it does not know what it has")
		}
		f.acks.flush(ctx)
		var n int
		if err := db.QueryRow(ctx, `SELECT COUNT(*) FROM archive_pending WHERE owner = $1`, o.id).Scan(&n); err != nil || n != 5 || o.pending.Load() != 5 {
			t.Errorf("%d rows are pending, %d counted: %v", n, o.pending.Load(), err)
		}
		f.acks.add(o, ids[5])
		dead, cancel := context.WithCancel(ctx)
		cancel()
		f.acks.flush(dead)
		if !f.acks.has(o, ids[5]) {
			t.Error("what was not written is forgotten")
		}
	})
}

// TestSecuritySQLInjectionThroughPaging: no text of a client becomes SQL.
func TestSecuritySQLInjectionThroughPaging(t *testing.T) {
	f := newFixture(t, storagetest.Open(t, storagetest.SQLite(t)), *defaults())
	for _, evil := range []string{"' OR 1=1 --", "1; DROP TABLE archive", "$1", "\\'", f.mask.Encode(5) + "'"} {
		for _, format := range []string{
			"<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><before>%s</before></set></query>",
			"<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><after>%s</after></set></query>",
			"<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='before-id'><value>%s</value></field></x></query>",
			"<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='ids'><value>%s</value></field></x></query>",
		} {
			q, err := f.parseQuery(parse(t, fmt.Sprintf(format, escape(evil))), contactParty)
			if err == nil {
				t.Errorf("%q is taken for an id: %+v", evil, q)
			}
		}
	}
	q, err := f.parseQuery(parse(t, "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='with'><value>x;drop--@example.net</value></field></x></query>"), contactParty)
	if err != nil {
		t.Fatal(err)
	}
	if sql, _ := q.sql(storage.SQLite, &owner{}, span{}, 1); strings.Contains(sql, "drop") {
		t.Errorf("a contact's name is in the statement: %s", sql)
	}
}

// A client that asks for ever another number of messages uses up few of the
// statements that stay compiled, and gets those it has asked for.
func TestFewStatementsForLists(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		o, ids := f.fill(t, juliet, f.cfg.MaxPage)
		texts := map[string]bool{}
		for n := 1; n <= len(ids); n++ {
			q := &query{ids: ids[:n], max: f.cfg.MaxPage}
			if n%3 == 1 {
				q.after = ids[0] - 1
			}
			if n%5 == 1 {
				q.before = ids[len(ids)-1] + 1
			}
			sql, _ := q.sql(db.Dialect(), o, span{q.after, q.before}, q.max)
			if texts[sql] && n&(n-1) != 0 {
				continue
			}
			texts[sql] = true
			pg, err := f.read(t.Context(), o, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(pg.rows) != n || pg.rows[n-1].id != ids[n-1] {
				t.Errorf("%d of %d messages", len(pg.rows), n)
			}
		}
		if len(texts) > 9 {
			t.Errorf("%d statements", len(texts))
		}
	})
}

func escape(s string) string { return string(stanza.AppendText(nil, s)) }

func parse(t testing.TB, s string) *stanza.Element {
	t.Helper()
	el, err := stanza.ParseElement([]byte(s), stanza.NSClient)
	if err != nil {
		t.Fatal(err)
	}
	return el
}

// TestRule62TimesAreInclusive: start and end name moments that belong to the
// result, however finely the client writes them (XEP-0313 §4.1.2).
func TestRule62TimesAreInclusive(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 123456000, time.UTC)
	id := idAt(at)
	for _, c := range []struct {
		start, end string
		in         bool
	}{
		{"2030-01-02T03:04:05.123456Z", "2030-01-02T03:04:05.123456Z", true},
		{"2030-01-02T03:04:05.1234561Z", "", false},
		{"2030-01-02T03:04:05.123455999Z", "", true},
		{"", "2030-01-02T03:04:05.123455Z", false},
		{"", "2030-01-02T05:04:05.123456+02:00", true},
		{"1969-01-01T00:00:00Z", "2999-01-01T00:00:00Z", true},
		{"", "1969-01-01T00:00:00Z", false},
		{"2999-01-01T00:00:00Z", "", false},
	} {
		r := &reader{q: &query{}}
		fields := new(Archive).fields()
		for name, v := range map[string]string{"start": c.start, "end": c.end} {
			if v == "" {
				continue
			}
			i := slices.IndexFunc(fields, func(f field) bool { return f.Var == name })
			if err := fields[i].read(r, []string{v}); err != nil {
				t.Fatal(err)
			}
		}
		if in := id > r.q.after && (r.q.before == 0 || id < r.q.before); in != c.in {
			t.Errorf("%s..%s: %v", c.start, c.end, in)
		}
	}
}

// FuzzQuery: whatever a client asks, the statement has the shape that its
// arguments have, and nothing panics.
func FuzzQuery(f *testing.F) {
	mask, err := storage.NewMask(make([]byte, maskKey))
	if err != nil {
		f.Fatal(err)
	}
	p := &part{Archive: &Archive{mask: mask}, cfg: *defaults()}
	f.Add("<query xmlns='urn:xmpp:mam:2' queryid='x'><x xmlns='jabber:x:data' type='submit'><field var='with'><value>a@b/c</value></field><field var='start'><value>2010-06-07T00:00:00Z</value></field></x><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before>" + mask.Encode(7) + "</before></set></query>")
	f.Add("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data'><field var='{urn:xmpp:fulltext:0}fulltext'><value>light 北京</value></field></x><order xmlns='urn:xmpp:order-by:1' by='creation' desc='1'/></query>")
	f.Add("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data'><field var='ids'><value>" + mask.Encode(1) + "</value></field></x><flip-page/></query>")
	f.Fuzz(func(t *testing.T, s string) {
		el, err := stanza.ParseElement([]byte(s), stanza.NSClient)
		if err != nil {
			return // not what a client can send
		}
		q, err := p.parseQuery(el, contactParty)
		if err != nil {
			return
		}
		sql, args := q.sql(storage.Postgres, &owner{id: 1}, span{q.after, q.before}, q.max+1)
		if n := strings.Count(sql, "$"); n != len(args) {
			t.Errorf("%s has %d arguments", sql, len(args))
		}
		if q.max < 0 || q.max > p.cfg.MaxPage {
			t.Errorf("page of %d", q.max)
		}
	})
}
