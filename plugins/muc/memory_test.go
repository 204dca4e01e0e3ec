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
