package muc

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"parley/plugins"
	"parley/router/cluster/owner"
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

// TestRule67AnEndIsOfItsSession: what is said for a session that has ended may come
// behind the next session's entry, when the way to the room's owner was blocked.
func TestRule67AnEndIsOfItsSession(t *testing.T) {
	then := time.UnixMicro(1_000_000)
	for _, c := range []struct {
		what        string
		seat, bound time.Time
		want        bool
	}{
		{"its own seat", then, then, false},
		{"it has moved to another node since", then, then.Add(1), false},
		{"the next one's", then.Add(1), then, true},
		{"a seat of which nobody knows whose", time.Time{}, then, false},
		{"somebody elsewhere", time.Time{}, time.Time{}, false},
	} {
		x := session{bound: c.seat}
		if got := x.follows(c.bound); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
