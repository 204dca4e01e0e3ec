package muc

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/cluster/owner"
	"parley/router/sessions"
)

// Addresses that somebody has made up use up nothing that others need.
func TestReliability15MadeUpRooms(t *testing.T) {
	owns, err := owner.New(owner.Options{Server: "processor", Keys: 2, Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer owns.Close()
	m := newMemory(&service{cfg: *defaults()})
	for i := range 5 {
		hold, err := owns.Acquire(t.Context(), "r"+strconv.Itoa(i)+"@conference.localhost")
		if err != nil {
			t.Fatalf("room %d: %v", i, err)
		}
		m.rooms[hold.Key] = &room{hold: hold, used: time.Unix(0, 0)}
		m.sweep(time.Unix(1, 0))
		if err := m.giveBack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRule67AnEndIsOfItsSession: what the house says for a session that has ended may
// come behind the next session's entry, when the way to the room's owner was blocked.
func TestRule67AnEndIsOfItsSession(t *testing.T) {
	reg := sessions.NewRegistry()
	here, away := jid.MustParse("bob@localhost/a"), jid.MustParse("bob@localhost/b")
	reg.Bind(sessions.Ref{Node: "n", Conn: 1, JID: here}, sessions.State{Kind: sessions.Client})
	r := &room{s: &service{env: plugins.Env{Sessions: reg}}}
	then := time.UnixMicro(1_000_000)
	for _, c := range []struct {
		what string
		x    session
		then time.Time
		want bool
	}{
		{"its own seat", session{jid: here, since: 999_999}, then, false},
		{"the next one's", session{jid: here, since: 1_000_001}, then, true},
		{"a clock that goes ahead, and nobody there", session{jid: away, since: 1_000_001}, then, false},
		{"the client says it", session{jid: here, since: 1_000_001}, time.Time{}, false},
	} {
		if got := r.anew(&c.x, c.then); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
