//go:build linux

package scenario

import (
	"testing"

	"parley/cmd/xmppload/internal/count"
)

// Number 2 of four sees who was there, itself, and who came later.
func TestRollCountsFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		shown []int
		want  count.Faults // but Lost
		got   int
	}{
		{"in order", []int{0, 1, 2, 3, 4}, count.Faults{}, 5},
		{"who was there in any order", []int{1, 0, 2, 3, 4}, count.Faults{}, 5},
		{"twice", []int{0, 1, 1, 2, 3}, count.Faults{Duplicated: 1}, 4},
		{"who was there behind itself", []int{0, 2, 1, 3, 4}, count.Faults{Reordered: 1}, 5},
		{"who comes later before itself", []int{0, 1, 3, 2, 4}, count.Faults{Reordered: 1}, 5},
		{"in another order than they came", []int{0, 1, 2, 4, 3}, count.Faults{Reordered: 1}, 5},
		{"nobody's number", []int{0, 1, 2, 9, -1}, count.Faults{}, 3},
	} {
		r := roll{me: 2, seen: make([]bool, 5)}
		fresh := 0
		for _, n := range tc.shown {
			fresh += r.shown(n)
		}
		if r.faults != tc.want || r.got != tc.got || fresh != tc.got {
			t.Errorf("%s: %v, %d of %d; want %v, %d", tc.name, r.faults, r.got, fresh, tc.want, tc.got)
		}
	}
}
