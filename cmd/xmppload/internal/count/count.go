// Package count keeps the generator's books: which numbered messages came, in
// which order, and how long they took.
package count

import (
	"fmt"
	"slices"
	"time"
)

// Faults are what a server must not do.
type Faults struct {
	Lost, Duplicated, Reordered int
}

// Any reports whether there are any.
func (f Faults) Any() bool { return f != Faults{} }

// Plus adds.
func (f Faults) Plus(o Faults) Faults {
	return Faults{f.Lost + o.Lost, f.Duplicated + o.Duplicated, f.Reordered + o.Reordered}
}

func (f Faults) String() string {
	return fmt.Sprintf("lost %d, duplicated %d, reordered %d", f.Lost, f.Duplicated, f.Reordered)
}

// Lane is one direction between two clients: numbers 1, 2, 3 … are sent, each
// must come once and in that order (RFC 6120 §10.1). The zero value is ready.
type Lane struct {
	sent, next int
	missing    map[int]struct{} // below next, not come yet
	faults     Faults           // Lost is counted by Faults
	got        int
}

// Send is the number of the next message.
func (l *Lane) Send() int {
	l.sent++
	return l.sent
}

// Receive takes down a number that came. It reports whether it was one that
// had not come before.
func (l *Lane) Receive(n int) bool {
	due := l.next + 1
	switch {
	case n == due:
		l.next = n
	case n > due:
		if l.missing == nil {
			l.missing = map[int]struct{}{}
		}
		for i := due; i < n && i <= l.sent; i++ {
			l.missing[i] = struct{}{}
		}
		l.next = n
	default:
		if _, late := l.missing[n]; !late {
			l.faults.Duplicated++
			return false
		}
		delete(l.missing, n)
		l.faults.Reordered++
	}
	l.got++
	return true
}

// Sent, Got and Outstanding are how many.
func (l *Lane) Sent() int        { return l.sent }
func (l *Lane) Got() int         { return l.got }
func (l *Lane) Outstanding() int { return l.sent - l.got }

// Faults are those so far; what has not come by now counts as lost.
func (l *Lane) Faults() Faults {
	f := l.faults
	f.Lost = max(0, l.sent-l.next) + len(l.missing)
	return f
}

// Times are durations of one kind.
type Times struct {
	all    []time.Duration
	sorted bool
}

// Add takes one down.
func (t *Times) Add(d time.Duration) {
	t.all = append(t.all, d)
	t.sorted = false
}

// Len is how many there are.
func (t *Times) Len() int { return len(t.all) }

// Quantile is the smallest duration that q (0 to 1) of all do not exceed; zero
// when there are none.
func (t *Times) Quantile(q float64) time.Duration {
	if len(t.all) == 0 {
		return 0
	}
	if !t.sorted {
		slices.Sort(t.all)
		t.sorted = true
	}
	i := int(q*float64(len(t.all))+0.999999) - 1
	return t.all[min(max(i, 0), len(t.all)-1)]
}

// Median of values; zero when there are none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	if m := len(s) / 2; len(s)%2 == 1 {
		return s[m]
	} else {
		return (s[m-1] + s[m]) / 2
	}
}
