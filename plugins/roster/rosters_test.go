package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
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

func (c *clock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// wire keeps what was pushed.
type wire struct {
	mu   sync.Mutex
	sent []*channel.Envelope
}

func (w *wire) Route(_ context.Context, batch ...*channel.Envelope) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, batch...)
}

func (w *wire) versions(t *testing.T) []int64 {
	t.Helper()
	var out []int64
	for _, e := range w.sent {
		ver, err := strconv.ParseInt(e.Stanza.Child(stanza.NSRoster, "query").Get("ver"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ver)
	}
	return out
}

// node is one process's Rosters on a database.
func node(t testing.TB, db storage.DB, at time.Time) (*Rosters, *sessions.Registry) {
	t.Helper()
	reg := sessions.NewRegistry()
	r, err := newRosters(plugins.Env{Node: "n", DB: db, Clock: &clock{now: at}, Sessions: reg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), Name, migrations); err != nil {
		t.Fatal(err)
	}
	return r, reg
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// What is written is what is read, by this node's cache and by another node.
func TestStore(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := t.Context()
		r, _ := node(t, db, epoch)
		w := &wire{}
		must(t, r.Set(ctx, w, romeo, Item{JID: juliet, Name: "Juliet \" <&>", Groups: []string{"b", "a\nc", "ü"}}))
		_, err := r.Apply(ctx, w, Event{Direction: Outbound, Action: Subscribed, Owner: romeo, Contact: juliet}, nil)
		must(t, err)
		request := stanza.Make(stanza.Presence, stanza.TypeSubscribe, jid.MustParse("nurse@example.org"), romeo, "s1", stanza.El("urn:x", "why"))
		_, err = r.Apply(ctx, w, Event{Direction: Inbound, Action: Subscribe, Owner: romeo, Contact: request.From, Request: request}, nil)
		must(t, err)

		other, _ := node(t, db, epoch)
		for name, from := range map[string]*Rosters{"cached": r, "read": other} {
			s, err := from.Contacts(ctx, romeo)
			must(t, err)
			it, ok := s.Item(juliet)
			if !ok || it.Name != "Juliet \" <&>" || !slices.Equal(it.Groups, []string{"b", "a\nc", "ü"}) || !it.Approved || it.State != None {
				t.Errorf("%s: item is %+v", name, it)
			}
			if got := s.State(request.From); got != NoneIn {
				t.Errorf("%s: the request is %q", name, got)
			}
			if len(s.Items()) != 1 { // rule 48: no contact yet
				t.Errorf("%s: %d items", name, len(s.Items()))
			}
			raw, err := from.Requests(ctx, romeo)
			must(t, err)
			if len(raw) != 1 || string(raw[0]) != string(request.Raw) {
				t.Errorf("%s: requests %q", name, raw)
			}
		}

		must(t, r.forget(ctx, romeo))
		again, _ := node(t, db, epoch)
		s, err := again.Contacts(ctx, romeo)
		must(t, err)
		if len(s.Items())+len(s.Asked()) != 0 || s.Version() != "0" {
			t.Errorf("a forgotten roster has %d items, version %s", len(s.Items()), s.Version())
		}
	})
}

// Two nodes that change one roster at the same time lose nothing, though
// neither is told of what the other does.
func TestNodesDoNotOverwriteEachOther(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := t.Context()
		a, _ := node(t, db, epoch)
		b, _ := node(t, db, epoch.Add(-time.Hour)) // clocks differ
		for i := range 10 {
			at := jid.MustParse(fmt.Sprintf("c%d@example.org", i))
			must(t, []*Rosters{a, b}[i%2].Set(ctx, &wire{}, romeo, Item{JID: at}))
		}
		fresh, _ := node(t, db, epoch)
		s, err := fresh.Contacts(ctx, romeo)
		must(t, err)
		if len(s.Items()) != 10 {
			t.Errorf("%d items, want 10", len(s.Items()))
		}
		seen := map[int64]bool{}
		for _, it := range s.Items() {
			seen[it.ver] = true
		}
		if len(seen) != 10 {
			t.Errorf("%d versions for 10 changes", len(seen))
		}
	})
}

// RFC 6121 §2.6.3: pushes occur in the order of modification, versions are
// unique, whoever makes the changes.
func TestRule47PushesAreInOrder(t *testing.T) {
	ctx := t.Context()
	r, reg := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	full := jid.MustParse("romeo@example.net/orchard")
	reg.Bind(sessions.Ref{Node: "n", Conn: 1, JID: full}, sessions.State{Kind: sessions.Client, Interested: true})
	reg.Bind(sessions.Ref{Node: "n", Conn: 2, JID: jid.MustParse("romeo@example.net/phone")}, sessions.State{Kind: sessions.Client})
	w := &wire{}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			at := jid.MustParse(fmt.Sprintf("c%d@example.org", i))
			for n := range 5 {
				if err := r.Set(ctx, w, romeo, Item{JID: at, Name: strconv.Itoa(n)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := w.versions(t)
	if len(got) != 40 || !slices.IsSorted(got) || len(slices.Compact(got)) != 40 {
		t.Errorf("%d pushes, versions %v", len(got), got)
	}
	for _, e := range w.sent {
		if e.Stanza.To != full { // rule 45: the other session is not interested
			t.Errorf("pushed to %s", e.Stanza.To)
		}
	}
}

// RFC 6121 §2.6.3: tombstones are bounded; who comes with a version from
// before the oldest gets the whole roster.
func TestRule47TombstonesAreBounded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := t.Context()
		r, _ := node(t, db, epoch)
		const keep = 20
		r.store.keep = keep
		w := &wire{}
		must(t, r.Set(ctx, w, romeo, Item{JID: juliet}))
		first, err := r.Contacts(ctx, romeo)
		must(t, err)
		for i := range keep + 1 {
			at := jid.MustParse(fmt.Sprintf("c%d@example.org", i))
			must(t, r.Set(ctx, w, romeo, Item{JID: at}))
			_, err := r.remove(ctx, w, romeo, at)
			must(t, err)
			if i == keep-1 { // all of them are still there
				fresh, _ := node(t, db, epoch)
				known(t, fresh, first.Version(), true, keep)
			}
		}
		fresh, _ := node(t, db, epoch)
		known(t, fresh, first.Version(), false, 0)
		s, err := fresh.Contacts(ctx, romeo)
		must(t, err)
		known(t, fresh, strconv.FormatInt(s.floor, 10), true, keep)
	})
}

func known(t *testing.T, r *Rosters, ver string, want bool, items int) {
	t.Helper()
	s, err := r.Contacts(t.Context(), romeo)
	must(t, err)
	got, ok, err := r.changes(t.Context(), s, stanza.El(stanza.NSRoster, "query").With("ver", ver))
	must(t, err)
	if ok != want || len(got) != items {
		t.Errorf("version %s: known %v with %d changes, want %v with %d", ver, ok, len(got), want, items)
	}
}

// A name that is given to somebody else does not inherit versions: a client
// that still has the old roster gets the new one as a whole.
func TestRule47VersionsDoNotComeAgain(t *testing.T) {
	ctx := t.Context()
	db := storagetest.Open(t, storagetest.SQLite(t))
	r, _ := node(t, db, epoch)
	must(t, r.Set(ctx, &wire{}, romeo, Item{JID: juliet}))
	old, err := r.Contacts(ctx, romeo)
	must(t, err)
	must(t, r.forget(ctx, romeo))
	r, _ = node(t, db, epoch.Add(time.Second))
	known(t, r, old.Version(), false, 0)
	must(t, r.Set(ctx, &wire{}, romeo, Item{JID: jid.MustParse("nurse@example.net")}))
	known(t, r, old.Version(), false, 0)
}

// RFC 6121 §3.1.3, security warning: what strangers can store is bounded.
func TestReliability13RequestsAreBounded(t *testing.T) {
	ctx := t.Context()
	r, _ := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	l := defaults().Limits
	l.Requests, l.RequestSize = 2, 512
	r.limits.Store(&l)
	for i := range 3 {
		big := stanza.El("urn:x", "big").AddText(string(make([]byte, 600)))
		st := stanza.Make(stanza.Presence, stanza.TypeSubscribe, jid.MustParse(fmt.Sprintf("c%d@example.org", i)), romeo, "s", big)
		o, err := r.Apply(ctx, &wire{}, Event{Direction: Inbound, Action: Subscribe, Owner: romeo, Contact: st.From, Request: st}, nil)
		must(t, err)
		if kept := i < 2; o.Pass != kept {
			t.Errorf("request %d: delivered %v, want %v", i, o.Pass, kept)
		}
	}
	raw, err := r.Requests(ctx, romeo)
	must(t, err)
	if len(raw) != 2 || len(raw[0]) > 512 {
		t.Errorf("%d requests are kept, the first of %d bytes", len(raw), len(raw[0]))
	}
}

// RFC 6121 §A: whatever two people do, and however often, both servers agree
// on who is subscribed to whom.
func TestRule48BothSidesAgree(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	r, _ := node(t, db, epoch)
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		for _, j := range []jid.JID{romeo, juliet} {
			if err := r.forget(ctx, j); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			owner, contact := romeo, juliet
			if rapid.Bool().Draw(rt, "juliet acts") {
				owner, contact = juliet, romeo
			}
			act(rt, r, owner, contact, rapid.IntRange(0, int(actions)).Draw(rt, "action"))
			mine, err := r.Subscription(ctx, romeo, juliet)
			if err != nil {
				rt.Fatal(err)
			}
			theirs, err := r.Subscription(ctx, juliet, romeo)
			if err != nil {
				rt.Fatal(err)
			}
			if mine.To() != theirs.From() || mine.From() != theirs.To() || mine.PendingOut() != theirs.PendingIn() || mine.PendingIn() != theirs.PendingOut() {
				rt.Fatalf("romeo says %q, juliet says %q", mine, theirs)
			}
		}
	})
}

// act does what the presence feature does, without the traffic.
func act(rt *rapid.T, r *Rosters, owner, contact jid.JID, what int) {
	ctx := context.Background()
	if what == int(actions) {
		was, err := r.remove(ctx, &wire{}, owner, contact)
		var se *stanza.Error
		if errors.As(err, &se) && se.Condition == stanza.ItemNotFound {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if was.To() || was.PendingOut() {
			receive(rt, r, contact, owner, Unsubscribe)
		}
		if was.From() {
			receive(rt, r, contact, owner, Unsubscribed)
		}
		return
	}
	o, err := r.Apply(ctx, &wire{}, Event{Direction: Outbound, Action: Action(what), Owner: owner, Contact: contact}, nil)
	if err != nil {
		rt.Fatal(err)
	}
	if o.Pass {
		receive(rt, r, contact, owner, Action(what))
	}
}

func receive(rt *rapid.T, r *Rosters, owner, contact jid.JID, a Action) {
	st := stanza.Make(stanza.Presence, a.String(), contact, owner, "")
	o, err := r.Apply(context.Background(), &wire{}, Event{Direction: Inbound, Action: a, Owner: owner, Contact: contact, Request: st}, nil)
	if err != nil {
		rt.Fatal(err)
	}
	if o.Answers {
		receive(rt, r, contact, owner, o.Answer)
	}
}

// Whatever a client sends as a roster set is refused or makes an item that can
// be written and read again.
func FuzzSet(f *testing.F) {
	f.Add(`<query xmlns='jabber:iq:roster'><item jid='nurse@example.com' name='Nurse'><group>Servants</group></item></query>`)
	f.Add(`<query xmlns='jabber:iq:roster'><item jid='nurse@example.com' subscription='remove'/></query>`)
	f.Add(`<query xmlns='jabber:iq:roster'><item jid='a@b/c'><group/><group/></item><item/></query>`)
	limits := defaults().Limits
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := stanza.ParseElement([]byte(raw), stanza.NSClient)
		if err != nil {
			return
		}
		req, err := parseSet(query)
		if err != nil || limits.check(romeo, req.item) != nil {
			return
		}
		el, err := stanza.ParseElement(req.item.Element().Bytes(stanza.NSRoster), stanza.NSRoster)
		if err != nil {
			t.Fatalf("%q became an item that is no XML: %v", raw, err)
		}
		again, err := parseSet(stanza.El(stanza.NSRoster, "query").Add(el))
		if err != nil || again.item.JID != req.item.JID || len(again.item.Groups) != len(req.item.Groups) {
			t.Fatalf("%q became %+v, and that %+v (%v)", raw, req.item, again.item, err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
