package pubsub

import (
	"context"
	"testing"
	"time"
)

// A node that has gone while its items were being removed does not keep the others'
// where they are, and leaves nothing behind.
func TestExpiryOutlivesANode(t *testing.T) {
	each(t, func(t *testing.T, c *component, clock *hand) {
		for _, name := range []string{"there", "gone"} {
			if _, _, err := put(t, c, Address{romeo, name}, romeo, func(s *Settings) { s.ItemExpire = 1 }, "a"); err != nil {
				t.Fatal(err)
			}
		}
		// Only its row: as if it had gone between the look and the transaction.
		if _, err := c.env.DB.Exec(t.Context(), `DELETE FROM pubsub_node WHERE name = 'gone'`); err != nil {
			t.Fatal(err)
		}
		clock.move(time.Minute)
		told := 0
		if err := c.sweepOnce(t.Context(), func(_ context.Context, _ int64, ids []string) error { told += len(ids); return nil }); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := c.env.DB.QueryRow(t.Context(), `SELECT count(*) FROM pubsub_item`).Scan(&left); err != nil || left != 0 || told != 1 {
			t.Errorf("%d items are left, %d were told of, %v", left, told, err)
		}
	})
}

// What an archive of a node answers is as large as it may be, by pages and by
// places, and goes on where it ended.
func TestChronicleSize(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		n, _, err := put(t, c, Address{romeo, "n"}, romeo, nil, "a", "b", "c")
		if err != nil {
			t.Fatal(err)
		}
		all, complete, err := c.Chronicle(t.Context(), n, Chronicle{Limit: 10})
		if err != nil || len(all) != 3 || !complete {
			t.Fatalf("%d items, complete %v, %v", len(all), complete, err)
		}
		var places []int64
		for _, it := range all {
			places = append(places, it.Place(), it.Place())
		}
		one := all[0].size
		for size, want := range map[int]int{1: 1, one: 1, 2*one + 1: 2, 3 * one: 3, 0: 3} {
			for what, q := range map[string]Chronicle{
				"forward": {Limit: 10, Size: size}, "backward": {Limit: 10, Size: size, Backward: true}, "places": {Limit: 10, Size: size, Places: places},
			} {
				got, complete, err := c.Chronicle(t.Context(), n, q)
				if err != nil || len(got) != want || complete != (want == 3) {
					t.Errorf("%d bytes, %s: %d items, complete %v, %v", size, what, len(got), complete, err)
				}
				if first := map[bool]int{false: 0, true: 3 - want}[q.Backward]; len(got) > 0 && got[0].ID != all[first].ID {
					t.Errorf("%d bytes, %s: from %s", size, what, got[0].ID)
				}
			}
		}
	})
}
