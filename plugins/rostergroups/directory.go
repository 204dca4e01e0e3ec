package rostergroups

import (
	"maps"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/plugins/roster"
)

// group is one group. It is never changed.
type group struct {
	domain, name string
	everyone     bool               // each account of the domain is a member
	everybody    bool               // each account of the domain sees the members
	members      map[jid.JID]string // what rosters call them; nil with everyone
}

// directory is all groups as they were at one moment. It is never changed.
type directory struct {
	version int64 // of the tables; -1: not read
	groups  []*group
	people  map[string][]jid.JID // by domain, in the order of addresses: those whom its groups of everybody are about
}

func byAddress(a, b jid.JID) int { return strings.Compare(a.String(), b.String()) }

// equal reports whether two are of the same tables and accounts.
func (d *directory) equal(as *directory) bool {
	return d.version == as.version && maps.EqualFunc(d.people, as.people, slices.Equal)
}

// find returns a group; nil: there is none.
func (d *directory) find(domain, name string) *group {
	for _, g := range d.groups {
		if g.domain == domain && g.name == name {
			return g
		}
	}
	return nil
}

// lives reports whether an account is one of those whom groups of everybody of the
// domain are about.
func (d *directory) lives(j jid.JID, domain string) bool {
	if j.Domain() != domain {
		return false
	}
	_, ok := slices.BinarySearchFunc(d.people[domain], j, byAddress)
	return ok
}

// has reports whether an account is a member.
func (d *directory) has(g *group, j jid.JID) bool {
	if g.everyone {
		return d.lives(j, g.domain)
	}
	_, ok := g.members[j]
	return ok
}

// of returns the members, in no order.
func (d *directory) of(g *group) []jid.JID {
	if g.everyone {
		return d.people[g.domain]
	}
	out := make([]jid.JID, 0, len(g.members))
	for j := range g.members {
		out = append(out, j)
	}
	return out
}

// size is how many members there are.
func (d *directory) size(g *group) int {
	if g.everyone {
		return len(d.people[g.domain])
	}
	return len(g.members)
}

// join adds what one group gives to an account about another one.
func (d *directory) join(g *group, owner, contact jid.JID, to *roster.Grant) {
	state := roster.None
	switch seen, sees := d.has(g, contact), d.has(g, owner); {
	case seen && sees:
		state = roster.Both
	case seen && g.everybody && d.lives(owner, g.domain):
		state = roster.To
	case sees && g.everybody && d.lives(contact, g.domain):
		state = roster.From
	}
	to.State |= state
	if !state.To() {
		return
	}
	if to.Name == "" {
		to.Name = g.members[contact]
	}
	if !slices.Contains(to.Groups, g.name) {
		to.Groups = append(to.Groups, g.name)
	}
}

// grant is what all groups give to an account about another one.
func (d *directory) grant(owner, contact jid.JID) roster.Grant {
	out := roster.Grant{Contact: contact}
	if owner != contact {
		for _, g := range d.groups {
			d.join(g, owner, contact, &out)
		}
	}
	return out
}

// grants is what all groups give to an account, in the order of addresses.
func (d *directory) grants(owner jid.JID) []roster.Grant {
	var out []roster.Grant
	at := map[jid.JID]int{}
	add := func(g *group, all []jid.JID) {
		for _, contact := range all {
			if contact == owner {
				continue
			}
			i, here := at[contact]
			if !here {
				i = len(out)
				at[contact] = i
				out = append(out, roster.Grant{Contact: contact})
			}
			d.join(g, owner, contact, &out[i])
		}
	}
	for _, g := range d.groups {
		switch member := d.has(g, owner); {
		case member && g.everybody:
			add(g, d.everybodyOf(g))
		case member, g.everybody && d.lives(owner, g.domain):
			add(g, d.of(g))
		}
	}
	slices.SortFunc(out, func(a, b roster.Grant) int { return byAddress(a.Contact, b.Contact) })
	return out
}

// everybodyOf are the members and those who see them, each once.
func (d *directory) everybodyOf(g *group) []jid.JID {
	out := slices.Clone(d.people[g.domain])
	for _, j := range d.of(g) {
		if !d.lives(j, g.domain) {
			out = append(out, j)
		}
	}
	return out
}

// same reports whether two grants give the same.
func same(a, b roster.Grant) bool {
	return a.State == b.State && a.Name == b.Name && slices.Equal(a.Groups, b.Groups)
}

// with returns the directory with a group in the place of the one of its name.
func (d *directory) with(g *group) *directory {
	next := *d
	next.groups = slices.DeleteFunc(slices.Clone(d.groups), func(old *group) bool { return old.domain == g.domain && old.name == g.name })
	next.groups = append(next.groups, g)
	return &next
}

// crowded returns a roster that groups would put more than most contacts into, and how
// many; the number is a bound: who is in several groups counts for each.
func (d *directory) crowded(most int) (who string, n int) {
	all := map[string]int{} // what everybody of a domain sees
	each := map[jid.JID]int{}
	for _, g := range d.groups {
		n := d.size(g)
		if g.everyone || g.everybody {
			all[g.domain] += n
		}
		for j := range g.members {
			if !g.everybody || j.Domain() != g.domain {
				each[j] += n
			}
		}
	}
	for domain, n := range all {
		if n > most {
			return "everybody of " + domain, n
		}
	}
	for j, n := range each {
		if n += all[j.Domain()]; n > most {
			return j.String(), n
		}
	}
	return "", 0
}
