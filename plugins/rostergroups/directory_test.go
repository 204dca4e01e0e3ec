package rostergroups

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"parley/parser/jid"
	"parley/plugins/roster"
)

var everyone = func() (all []jid.JID) {
	for i := range 8 {
		all = append(all, jid.MustParse(fmt.Sprintf("p%d@%s.example", i, []string{"one", "two"}[i%2])))
	}
	slices.SortFunc(all, byAddress)
	return all
}()

// drawn is any directory of few groups and accounts.
func drawn(t *rapid.T) *directory {
	d := &directory{people: map[string][]jid.JID{}}
	for i := range rapid.IntRange(0, 4).Draw(t, "groups") {
		g := &group{domain: rapid.SampledFrom([]string{"one.example", "two.example"}).Draw(t, "domain"), name: fmt.Sprintf("g%d", i%3)}
		g.everyone, g.everybody = rapid.Bool().Draw(t, "everyone"), rapid.Bool().Draw(t, "everybody")
		if !g.everyone {
			g.members = map[jid.JID]string{}
			for _, j := range rapid.SliceOfDistinct(rapid.SampledFrom(everyone), rapid.ID).Draw(t, "members") {
				g.members[j] = rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "called")
			}
		}
		d.groups = append(d.groups, g)
		if g.everyone || g.everybody {
			d.people[g.domain] = slices.DeleteFunc(slices.Clone(everyone), func(j jid.JID) bool { return j.Domain() != g.domain })
		}
	}
	return d
}

// What two accounts have of each other is the same from both sides: one gets the other's
// presence when that one gives it. An account's list is what it has of each.
func TestDirectoryAgreesWithItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawn(t)
		for _, owner := range everyone {
			all := d.grants(owner)
			if !slices.IsSortedFunc(all, func(a, b roster.Grant) int { return byAddress(a.Contact, b.Contact) }) {
				t.Fatalf("not in order: %v", all)
			}
			for _, contact := range everyone {
				one, other := d.grant(owner, contact), d.grant(contact, owner)
				if one.State.To() != other.State.From() || one.State.From() != other.State.To() {
					t.Fatalf("%s has %s of %s, who has %s", owner, one.State, contact, other.State)
				}
				if one.State.To() != (len(one.Groups) > 0) {
					t.Fatalf("%s has %s of %s, in %v", owner, one.State, contact, one.Groups)
				}
				i := slices.IndexFunc(all, func(g roster.Grant) bool { return g.Contact == contact })
				switch {
				case i < 0 && one.State != roster.None:
					t.Fatalf("%s has %s of %s, which is not in the list", owner, one.State, contact)
				case i >= 0 && (all[i].State == roster.None || !same(all[i], one)):
					t.Fatalf("%s has %+v of %s, listed as %+v", owner, one, contact, all[i])
				}
			}
		}
	})
}

// What has changed between two directories is found, whole and alone.
func TestLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawn(t), drawn(t)
		for _, owner := range everyone {
			var want []roster.Grant
			for _, contact := range everyone {
				if old := before.grant(owner, contact); !same(old, after.grant(owner, contact)) {
					want = append(want, old)
				}
			}
			got := lost(before.grants(owner), after.grants(owner))
			if !slices.EqualFunc(got, want, func(a, b roster.Grant) bool { return a.Contact == b.Contact && same(a, b) }) {
				t.Fatalf("%+v, want %+v", got, want)
			}
		}
	})
}

// The bound on contacts is never below what there is.
func TestCrowded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawn(t)
		most := 0
		for _, owner := range everyone {
			n := 0
			for _, g := range d.grants(owner) {
				if g.State.To() {
					n++
				}
			}
			most = max(most, n)
		}
		if _, n := d.crowded(most - 1); most > 0 && n < most {
			t.Fatalf("%d contacts, counted as %d", most, n)
		}
	})
}
