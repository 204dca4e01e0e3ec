package archive

import "testing"

func TestQuiet(t *testing.T) {
	const owner = 7
	fresh := func() *quiet {
		return &quiet{sole: true, state: map[int64]uint64{}, storing: map[int64]int{}}
	}
	known := func(q *quiet) bool { nothing, _ := q.ask(owner); return nothing }
	for name, c := range map[string]struct {
		do   func(*quiet)
		want bool
	}{
		"a look that found nothing": {func(q *quiet) { _, l := q.ask(owner); q.found(owner, l, true) }, true},
		"a look that found a row":   {func(q *quiet) { _, l := q.ask(owner); q.found(owner, l, false) }, false},
		"a row after the look": {func(q *quiet) {
			_, l := q.ask(owner)
			q.found(owner, l, true)
			q.stores(owner)
			q.settled(owner)
		}, false},
		"a row during the look": {func(q *quiet) {
			_, l := q.ask(owner)
			q.stores(owner)
			q.settled(owner)
			q.found(owner, l, true)
		}, false},
		"a look while a row is stored": {func(q *quiet) {
			q.stores(owner)
			_, l := q.ask(owner)
			q.settled(owner)
			q.found(owner, l, true)
		}, false},
		"a look from before a row, over a newer one": {func(q *quiet) {
			_, old := q.ask(owner)
			q.stores(owner)
			q.settled(owner)
			_, _ = q.ask(owner)
			q.found(owner, old, true)
		}, false},
		"with other processes": {func(q *quiet) {
			q.sole = false
			_, l := q.ask(owner)
			q.found(owner, l, true)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := fresh()
			c.do(q)
			if got := known(q); got != c.want {
				t.Fatalf("quiet: %v, want %v", got, c.want)
			}
			if len(q.storing) != 0 {
				t.Fatalf("still storing: %v", q.storing)
			}
		})
	}
}
