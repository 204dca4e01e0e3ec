package ledger_test

import (
	"slices"
	"strings"
)

// excuse is what several nodes do not promise while a fault lasts (docs/cluster.md).
type excuse bool

const (
	strict excuse = false
	// late excuses the order in which devices get messages: what waits in the
	// database while nodes do not hear each other, or the database cannot be asked,
	// is overtaken by what its sender, who has moved to another node, says there.
	// Archives are in order.
	late excuse = true
)

// apply counts as late, and not as reordered, what a device got late.
func (e excuse) apply(v *verdict) {
	if e == strict {
		return
	}
	n := len(v.reordered)
	v.reordered = slices.DeleteFunc(v.reordered, func(s string) bool { return !strings.HasPrefix(s, "the archive of ") })
	v.late += n - len(v.reordered)
}

// failed reports whether there is something in the verdict that is not excused.
func (e excuse) failed(v verdict) bool {
	if e == late {
		v.late = 0
	}
	return v.bad()
}
