package roster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
)

// sharing gives everybody the same, until it is set anew.
type sharing struct {
	gen    atomic.Uint64
	grants atomic.Pointer[[]Grant]
}

func (s *sharing) set(grants ...Grant) {
	slices.SortFunc(grants, func(a, b Grant) int { return byAddress(a.Contact, b.Contact) })
	s.grants.Store(&grants)
	s.gen.Add(1)
}

func (s *sharing) Generation() uint64 { return s.gen.Load() }
func (s *sharing) Of(jid.JID) []Grant { return *s.grants.Load() }

func shared(r *Rosters, grants ...Grant) *sharing {
	s := &sharing{}
	s.set(grants...)
	r.Share(s)
	return s
}

func refusal(err error) stanza.Condition {
	var e *stanza.Error
	if errors.As(err, &e) {
		return e.Condition
	}
	return ""
}

// Whatever happens to a subscription that is shared: what is shared stays, what is the
// owner's own is what RFC 6121 §A makes of it, and nobody is told of an end.
func TestSharedStateStays(t *testing.T) {
	db := storagetest.Open(t, storagetest.SQLite(t))
	r, _ := node(t, db, epoch)
	request := stanza.Make(stanza.Presence, stanza.TypeSubscribe, juliet, romeo, "s1")
	for _, held := range []State{To, From, Both} {
		for _, own := range []State{None, NoneOut, NoneIn, NoneOutIn, To, ToIn, From, FromOut, Both} {
			for a := range actions {
				for _, d := range []Direction{Outbound, Inbound} {
					what := fmt.Sprintf("%s, shared %s: %s, direction %d", own, held, a, d)
					s := &Snapshot{owner: romeo, ver: 1, made: []Item{{JID: juliet, State: own &^ in, ver: 1}}}
					if own.PendingIn() {
						s.asked = []jid.JID{juliet}
					}
					s = s.index().sharing([]Grant{{Contact: juliet, State: held}}, 1)
					before := s.State(juliet)
					if before&held != held || before.From() && before.PendingIn() || before.To() && before.PendingOut() {
						t.Fatalf("%s: it is %s", what, before)
					}
					o, ch, err := r.decide(s, Event{Direction: d, Action: a, Owner: romeo, Contact: juliet, Request: request})
					refused := d == Outbound && (a == Unsubscribe && held.To() || a == Unsubscribed && held.From())
					if (refusal(err) == stanza.NotAllowed) != refused {
						t.Errorf("%s: %v", what, err)
					}
					if refused {
						continue
					}
					after := s.with(ch).State(juliet)
					if after&held != held || after&^in != o.Now&^in {
						t.Errorf("%s: it becomes %s, and is said to be %s", what, after, o.Now)
					}
					if o.Closed() && held.From() || d == Inbound && a == Unsubscribed && held.To() && o.Pass {
						t.Errorf("%s: somebody is told of an end: %+v", what, o)
					}
					if it, _ := s.with(ch).own(juliet); it.State.PendingIn() {
						t.Errorf("%s: %s is stored", what, it.State)
					}
				}
			}
		}
	}
}

// What the owner has made is what is stored, and what counts when nothing is shared any
// more; also for a node that reads it.
func TestSharedIsNotStored(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := t.Context()
		r, _ := node(t, db, epoch)
		w := &wire{}
		nurse, tybalt := jid.MustParse("nurse@example.net"), jid.MustParse("tybalt@example.net")
		must(t, r.Set(ctx, w, romeo, Item{JID: juliet, Name: "Love", Groups: []string{"Dear"}}))
		request := stanza.Make(stanza.Presence, stanza.TypeSubscribe, nurse, romeo, "s1")
		_, err := r.Apply(ctx, w, Event{Direction: Inbound, Action: Subscribe, Owner: romeo, Contact: nurse, Request: request}, nil)
		must(t, err)
		plain, err := r.Contacts(ctx, romeo)
		must(t, err)

		from := shared(r, Grant{Contact: juliet, Name: "Juliet C.", Groups: []string{"All", "Dear"}, State: Both},
			Grant{Contact: nurse, Name: "Nurse", Groups: []string{"All"}, State: Both}, Grant{Contact: tybalt, State: From})
		s, err := r.Contacts(ctx, romeo)
		must(t, err)
		it, _ := s.Item(juliet)
		if it.Name != "Love" || !slices.Equal(it.Groups, []string{"Dear", "All"}) || it.State != Both {
			t.Errorf("%+v", it)
		}
		if it, _ = s.Item(nurse); it.Name != "Nurse" || it.State != Both {
			t.Errorf("%+v", it)
		}
		if _, here := s.Item(tybalt); here || s.State(tybalt) != From {
			t.Errorf("who only gets presence: an item %v, %s", here, s.State(tybalt))
		}
		if !slices.Equal(s.Subscribers(), []jid.JID{juliet, nurse, tybalt}) || !slices.Equal(s.Subscriptions(), []jid.JID{juliet, nurse}) {
			t.Errorf("subscribers %v, subscriptions %v", s.Subscribers(), s.Subscriptions())
		}
		if raw, err := r.Requests(ctx, romeo); err != nil || len(raw)+len(s.Asked()) != 0 {
			t.Errorf("answered requests wait: %d, %v", len(raw), err)
		}
		if s.Version() == plain.Version() || !strings.HasPrefix(s.Version(), plain.Version()+"-") {
			t.Errorf("version %s, after %s", s.Version(), plain.Version())
		}

		// What a client says of it.
		must(t, r.Set(ctx, w, romeo, Item{JID: nurse, Name: "Nurse", Groups: []string{"All"}}))
		if _, err := r.remove(ctx, w, romeo, juliet); refusal(err) != stanza.NotAllowed {
			t.Errorf("removed: %v", err)
		}
		if _, err := r.remove(ctx, w, romeo, tybalt); refusal(err) != stanza.ItemNotFound {
			t.Errorf("removed who is not there: %v", err)
		}
		must(t, r.Set(ctx, w, romeo, Item{JID: juliet, Name: "Juliet C.", Groups: []string{"Mine", "All"}}))

		mark := s.mark
		from.set()
		for name, r := range map[string]*Rosters{"here": r, "elsewhere": func() *Rosters { r, _ := node(t, db, epoch); return r }()} {
			s, err := r.Contacts(ctx, romeo)
			must(t, err)
			it, _ := s.Item(juliet)
			if len(s.Items()) != 1 || it.Name != "" || !slices.Equal(it.Groups, []string{"Mine"}) || it.State != None {
				t.Errorf("%s: %d items, %+v", name, len(s.Items()), it)
			}
			if raw, err := r.Requests(ctx, romeo); err != nil || len(raw) != 1 {
				t.Errorf("%s: %d requests, %v", name, len(raw), err)
			}
			if strings.Contains(s.Version(), mark) {
				t.Errorf("%s: version %s", name, s.Version())
			}
		}
	})
}

// Pushes of what is shared otherwise: what has changed and nothing else, and only the
// last one has the version.
func TestResharePushesTheDifference(t *testing.T) {
	ctx := t.Context()
	r, reg := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	at := func(i int) jid.JID { return jid.MustParse(fmt.Sprintf("c%d@example.net", i)) }
	old := []Grant{{Contact: at(0), State: Both}, {Contact: at(1), State: Both}, {Contact: at(2), State: From}, {Contact: at(3), State: Both}, {Contact: at(4), State: To}}
	from := shared(r, old...)
	reg.Bind(sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("romeo@example.net/orchard")}, sessions.State{Kind: sessions.Client, Interested: true})
	must(t, r.Set(ctx, &wire{}, romeo, Item{JID: at(3), Name: "mine"}))
	// 0 stays, 1 goes, 2 is shown, 3 is the owner's own now, 4 is subscribed both ways, 5 is unseen.
	from.set(Grant{Contact: at(0), State: Both}, Grant{Contact: at(2), State: Both}, Grant{Contact: at(4), State: Both}, Grant{Contact: at(5), State: From})
	w := &wire{}
	must(t, r.reshare(ctx, w, Shift{Owner: romeo, Before: append(slices.Clone(old), Grant{Contact: at(5)})}))
	var got, versions []string
	for _, e := range w.sent {
		q := e.Stanza.Child(stanza.NSRoster, "query")
		got = append(got, q.First().Get("jid")+" "+q.First().Get("subscription"))
		versions = append(versions, q.Get("ver"))
	}
	if want := "[c1@example.net remove c2@example.net both c3@example.net none c4@example.net both]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	s, err := r.Contacts(ctx, romeo)
	must(t, err)
	for i, v := range versions {
		_, known, err := r.changes(ctx, s, stanza.El(stanza.NSRoster, "query").With("ver", v))
		must(t, err)
		if known != (i == len(versions)-1) {
			t.Errorf("push %d of %d: version %s is known: %v", i+1, len(versions), v, known)
		}
	}
}

// Who was there before anything was shared, or is when it is not any more, has not been
// told: no push has a version to go on from.
func TestUntoldOfWhatIsShared(t *testing.T) {
	ctx := t.Context()
	r, reg := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	reg.Bind(sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("romeo@example.net/orchard")}, sessions.State{Kind: sessions.Client, Interested: true})
	pushed := func(name string) (known bool) {
		w := &wire{}
		must(t, r.Set(ctx, w, romeo, Item{JID: jid.MustParse("c9@example.net"), Name: name}))
		s, err := r.Contacts(ctx, romeo)
		must(t, err)
		ver := w.sent[0].Stanza.Child(stanza.NSRoster, "query").Get("ver")
		_, known, err = r.changes(ctx, s, stanza.El(stanza.NSRoster, "query").With("ver", ver))
		must(t, err)
		return known
	}
	if !pushed("before") {
		t.Error("without anything shared a push is one to go on from")
	}
	shared(r, Grant{Contact: jid.MustParse("c1@example.net"), State: Both})
	if pushed("shared") {
		t.Error("the client does not know what is shared")
	}
	r.Share(nil)
	if pushed("not any more") {
		t.Error("the client does not know that nothing is")
	}
}

// A node that begins, while people are at others, tells versions to go on from: where
// they are they have been told of what is shared.
func TestBeginnersKnowWhatIsShared(t *testing.T) {
	ctx := t.Context()
	r, reg := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	reg.Adopt("m", jid.MustParse("romeo@example.net"), []*sessions.Entry{{
		Ref: sessions.Ref{Node: "m", Conn: 1, JID: jid.MustParse("romeo@example.net/orchard")}, State: sessions.State{Kind: sessions.Client, Interested: true},
	}})
	shared(r, Grant{Contact: jid.MustParse("c1@example.net"), State: Both})
	w := &wire{}
	must(t, r.Set(ctx, w, romeo, Item{JID: jid.MustParse("c9@example.net")}))
	s, err := r.Contacts(ctx, romeo)
	must(t, err)
	ver := w.sent[0].Stanza.Child(stanza.NSRoster, "query").Get("ver")
	if _, known, err := r.changes(ctx, s, stanza.El(stanza.NSRoster, "query").With("ver", ver)); err != nil || !known {
		t.Errorf("version %s is none to go on from: %v", ver, err)
	}
}

// A contact that was in a group of the owner's, and had a name, before an administrator
// shares it under the same ones: they are there when nothing is shared any more.
func TestOwnGroupOfTheSharedName(t *testing.T) {
	ctx := t.Context()
	r, _ := node(t, storagetest.Open(t, storagetest.SQLite(t)), epoch)
	at := jid.MustParse("c1@example.net")
	set := func(name string, groups ...string) {
		must(t, r.Set(ctx, &wire{}, romeo, Item{JID: at, Name: name, Groups: groups}))
	}
	set("Juliet", "Sales")
	shared(r, Grant{Contact: at, Name: "Juliet", Groups: []string{"Sales", "All"}, State: Both})
	set("Juliet", "Sales", "All", "Friends") // clients say what they see
	r.Share(nil)
	s, err := r.Contacts(ctx, romeo)
	must(t, err)
	if it, _ := s.Item(at); it.Name != "Juliet" || fmt.Sprint(it.Groups) != "[Sales Friends]" {
		t.Errorf("left is %q in %v", it.Name, it.Groups)
	}
}
