package muc

import (
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestReliability32NextOwnerKnowsWhoseSeats: a room is read again, here or by its next
// owner, and the end of a session comes late whose address has entered anew since. It is
// not the end of that seat.
func TestReliability32NextOwnerKnowsWhoseSeats(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		s := &service{cfg: *defaults(), store: &store{db}, people: &pseudonyms{key: []byte("of a test")}}
		r := &room{s: s, jid: jid.MustParse("garden@conference.localhost")}
		r.wipe()
		r.state, r.creator = open, jid.MustParse("ann@localhost")
		presence := stanza.Make(stanza.Presence, "", jid.JID{}, jid.JID{}, "")
		ours, theirs := jid.MustParse("ann@localhost/a"), jid.MustParse("ben@elsewhere.example/a")
		then := time.Now()
		o := &op{}
		r.saveRoom(o)
		for at, bound := range map[jid.JID]time.Time{ours: then.Truncate(time.Microsecond), theirs: {}} {
			x := r.seat(at.Local(), at, Participant, presence, 1)
			x.bound = bound
			r.saveSession(o, x)
		}
		if err := db.Commit(t.Context(), &o.rows); err != nil {
			t.Fatal(err)
		}
		in, err := s.store.load(t.Context(), r.jid)
		if err != nil || len(in.occupants) != 2 {
			t.Fatalf("%+v: %v", in, err)
		}
		r.wipe()
		for _, x := range in.occupants {
			r.reseat(x)
		}
		for _, c := range []struct {
			what  string
			seat  jid.JID
			bound time.Time
			want  bool
		}{
			{"the session before", ours, then.Add(-time.Second), true},
			{"its own", ours, then.Truncate(time.Microsecond), false},
			{"it has moved to another node since", ours, then.Add(time.Second), false},
			{"somebody elsewhere", theirs, time.Time{}, false},
		} {
			if got := r.sessions[c.seat].follows(c.bound); got != c.want {
				t.Errorf("%s: %v", c.what, got)
			}
		}
	})
}
