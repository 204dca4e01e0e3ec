package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Nodes of all releases must agree: what changes here breaks a rolling upgrade.
func TestScoresNeverChange(t *testing.T) {
	for s, want := range map[string]uint64{ // draft-eastlake-fnv, test vectors
		"": 0xcbf29ce484222325, "a": 0xaf63dc4c8601ec8c, "foobar": 0x85944171f73967e8,
	} {
		if got := hash(s); got != want {
			t.Errorf("hash of %q: %#x, want %#x", s, got, want)
		}
	}
	if got := score(hash("key"), hash("node")); got != 0xabcba84fbd912a75 {
		t.Errorf("score: %#x", got)
	}
	v := viewOf([]string{"node-1", "node-2", "node-3"})
	for key, want := range map[string]string{ // worked out apart from this program
		"":                       "node-2",
		"romeo@example.org":      "node-1",
		"juliet@example.org":     "node-2",
		"garden@muc.example.org": "node-1",
		"mercutio@example.org":   "node-1",
		"zürich":                 "node-1",
	} {
		if got, _ := v.owner(key, "router"); got.Node != want {
			t.Errorf("%s belongs to %s, not %s", key, got.Node, want)
		}
	}
}

func viewOf(names []string) *view {
	var all []Member
	for _, n := range names {
		all = append(all, Member{Node: n, Servers: []string{"router"}})
	}
	return newView(all)
}

const keys = 4000

func owners(names []string) []string {
	v := viewOf(names)
	out := make([]string, keys)
	for i := range out {
		m, _ := v.owner(fmt.Sprintf("room%d@muc.example.org", i), "router")
		out[i] = m.Node
	}
	return out
}

// names draws such as people give: alike, or not at all.
func names(t *rapid.T) []string {
	if rapid.Bool().Draw(t, "alike") {
		prefix := rapid.StringMatching(`[a-z.-]{0,12}`).Draw(t, "prefix")
		first := rapid.IntRange(0, 100).Draw(t, "first")
		out := make([]string, rapid.IntRange(3, 10).Draw(t, "nodes"))
		for i := range out {
			out[i] = fmt.Sprint(prefix, first+i)
		}
		return out
	}
	return rapid.SliceOfNDistinct(rapid.String(), 3, 10, rapid.ID[string]).Draw(t, "names")
}

// Every node owns about as much as every other.
func TestSharesAreEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names, shares := names(t), map[string]int{}
		for _, o := range owners(names) {
			shares[o]++
		}
		mean := keys / len(names)
		for _, n := range names {
			if s := shares[n]; s < mean*2/3 || s > mean*4/3 {
				t.Errorf("%q owns %d keys of %d, %d nodes", n, s, keys, len(names))
			}
		}
	})
}

// A node that goes gives away what it had, and nobody else's keys move; a node
// that comes takes only for itself, which is the same seen from the other side.
func TestOnlyItsShareMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := names(t)
		gone := rapid.SampledFrom(names).Draw(t, "gone")
		rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == gone })
		slices.Reverse(rest) // the order of the rows says nothing
		before, after := owners(names), owners(rest)
		for i := range before {
			switch {
			case before[i] != gone && after[i] != before[i]:
				t.Fatalf("key %d moves from %q to %q", i, before[i], after[i])
			case after[i] == gone:
				t.Fatalf("key %d belongs to a node that is gone", i)
			}
		}
	})
}
