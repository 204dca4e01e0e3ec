package cluster

import (
	"cmp"
	"slices"
)

// view is the live members of one moment; it never changes.
type view struct {
	all []Member               // by Node
	of  map[string][]contender // by server: those that Owner chooses from
}

// contender is a member that may own keys.
type contender struct {
	hash uint64 // of its name
	at   int    // in view.all
}

// newView takes all, and sorts it.
func newView(all []Member) *view {
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	v := &view{all: all, of: map[string][]contender{}}
	for _, draining := range []bool{false, true} {
		found := map[string][]contender{}
		for i, a := range all {
			if a.Draining != draining {
				continue
			}
			for _, s := range a.Servers {
				found[s] = append(found[s], contender{hash(a.Node), i})
			}
		}
		for s, c := range found {
			if len(v.of[s]) == 0 { // those that drain are better than nobody
				v.of[s] = c
			}
		}
	}
	return v
}

func (v *view) find(node string) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.all, node, func(a Member, node string) int { return cmp.Compare(a.Node, node) })
	if !ok {
		return Member{}, false
	}
	return v.all[i], true
}

func (v *view) owner(key, server string) (Member, bool) {
	among := v.of[server]
	if len(among) == 0 {
		return Member{}, false
	}
	return v.all[among[highest(key, among)].at], true
}

// without is the lives that other does not have.
func (v *view) without(other *view) (out []Member) {
	for _, a := range v.all {
		if b, ok := other.find(a.Node); !ok || b.Incarnation != a.Incarnation {
			out = append(out, a)
		}
	}
	return out
}
