package rostergroups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"parley/parser/jid"
	"parley/plugins/admin"
	"parley/storage"
)

// Group is a group on the wire.
type Group struct {
	Domain    string   `json:"domain"`
	Name      string   `json:"name"`      // as rosters show it
	Everyone  bool     `json:"everyone"`  // each account of the domain is a member
	Everybody bool     `json:"everybody"` // each account of the domain sees the members
	Size      int      `json:"size"`
	Members   []Member `json:"members,omitempty"` // when one group is asked for
}

// Member is a member on the wire.
type Member struct {
	JID  string `json:"jid"`
	Name string `json:"name,omitempty"` // what rosters call the account
}

// What an Order is for.
const (
	doList    = "list" // with a domain: those of it
	doShow    = "show"
	doAdd     = "add"
	doSet     = "set"
	doRemove  = "remove"
	doMembers = "members"
)

// Order is what an administrator wants.
type Order struct {
	Do     string   `json:"do,omitempty"`
	Group  Group    `json:"group,omitzero"`
	Add    []Member `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// result is what comes of an Order, on its way to a front.
type result struct {
	Groups  []Group        `json:"groups,omitempty"`
	Problem *admin.Problem `json:"problem,omitempty"`
}

// callOrder is Run, asked by a front.
const callOrder = "rostergroups.order"

func (g *Groups) answerOrder(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	var o Order
	if err := json.Unmarshal(payload, &o); err != nil {
		return nil, fmt.Errorf("roster groups: %w", err)
	}
	all, err := g.Run(ctx, o)
	out := result{Groups: all}
	if err != nil && !errors.As(err, &out.Problem) {
		return nil, err
	}
	return json.Marshal(out)
}

// Run does what an administrator wants, and returns the groups that were asked for, or
// the one that has changed, with its members. What is wrong with an order is an
// *admin.Problem.
func (g *Groups) Run(ctx context.Context, o Order) ([]Group, error) {
	if g.env.Front() {
		return g.runAtCore(ctx, o)
	}
	if j, err := jid.Parse(o.Group.Domain); err == nil {
		o.Group.Domain = j.Domain() // prepared
	}
	p := g.part.Load()
	if p == nil {
		return nil, admin.Fail(http.StatusConflict, "the processor's component %s does not run here", Name)
	}
	switch o.Do {
	case doList:
		return g.list(o.Group.Domain), nil
	case doShow:
		return g.show(o.Group.Domain, o.Group.Name)
	}
	if err := g.run(ctx, p, o); err != nil || o.Do == doRemove {
		return nil, err
	}
	return g.show(o.Group.Domain, o.Group.Name)
}

func (g *Groups) runAtCore(ctx context.Context, o Order) ([]Group, error) {
	payload, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	answer, err := g.env.Halves.CallCore(ctx, callOrder, payload)
	if err != nil {
		return nil, err
	}
	var out result
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("roster groups: %w", err)
	}
	if out.Problem != nil {
		return nil, out.Problem
	}
	return out.Groups, nil
}

func (g *Groups) run(ctx context.Context, p *part, o Order) error {
	if !g.env.Local(o.Group.Domain) {
		return admin.Fail(http.StatusNotFound, "%q is not served here", o.Group.Domain)
	}
	was := g.now().find(o.Group.Domain, o.Group.Name)
	switch {
	case o.Do == doAdd && was != nil:
		return admin.Fail(http.StatusConflict, "there is a group %q of %s", was.name, was.domain)
	case o.Do != doAdd && was == nil:
		return unknown(o.Group.Domain, o.Group.Name)
	}
	switch o.Do {
	case doAdd:
		return g.add(ctx, p, o)
	case doSet:
		return g.set(ctx, p, was, o)
	case doRemove:
		return g.write(ctx, p, statements{
			{sqlEmpty, []any{was.domain, was.name}}, {sqlDrop, []any{was.domain, was.name}},
		}.run(ctx), membersOf(was.domain, was.name))
	case doMembers:
		return g.members(ctx, p, was, o)
	}
	return admin.Fail(http.StatusBadRequest, "%q is nothing that can be done", o.Do)
}

func unknown(domain, name string) error {
	return admin.Fail(http.StatusNotFound, "there is no group %q of %s", name, domain)
}

// membersOf is whom a change of a whole group is about.
func membersOf(domain, name string) func(*directory) []jid.JID {
	return func(d *directory) []jid.JID {
		if g := d.find(domain, name); g != nil {
			return slices.Clone(d.of(g))
		}
		return nil
	}
}

// maxName bounds what groups and members are called, in bytes.
const maxName = 256

// named says why a group or a member cannot be called that.
func named(name string) error {
	if len(name) > maxName || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return admin.Fail(http.StatusUnprocessableEntity, "%q is no name: it is too long, begins or ends with a space, or has control characters", name)
	}
	return nil
}

func (g *Groups) add(ctx context.Context, p *part, o Order) error {
	if o.Group.Name == "" {
		return admin.Fail(http.StatusUnprocessableEntity, "a group needs a name: rosters show it")
	}
	if err := named(o.Group.Name); err != nil {
		return err
	}
	d, n := g.now(), 0
	for _, one := range d.groups {
		if one.domain == o.Group.Domain {
			n++
		}
	}
	if n >= p.cfg.Groups {
		return admin.Fail(http.StatusConflict, "%s has %d groups; there may be max_groups of them", o.Group.Domain, n)
	}
	next := &group{domain: o.Group.Domain, name: o.Group.Name, everyone: o.Group.Everyone, everybody: o.Group.Everybody}
	if !next.everyone {
		next.members = map[jid.JID]string{}
	}
	w := statements{{sqlAdd, []any{next.domain, next.name, next.everyone, next.everybody}}}
	about, w, err := g.join(ctx, p, next, o, w)
	if err != nil {
		return err
	}
	if err := g.fits(ctx, p, next); err != nil {
		return err
	}
	return g.write(ctx, p, w.run(ctx), func(d *directory) []jid.JID {
		return append(membersOf(next.domain, next.name)(d), about...)
	})
}

// set changes who sees a group.
func (g *Groups) set(ctx context.Context, p *part, was *group, o Order) error {
	next := *was
	next.everybody = o.Group.Everybody
	if o.Group.Everyone != was.everyone {
		return admin.Fail(http.StatusUnprocessableEntity, "whether everyone is a member cannot be changed: remove the group and add it again")
	}
	if err := g.fits(ctx, p, &next); err != nil {
		return err
	}
	return g.write(ctx, p, statements{{sqlSet, []any{next.domain, next.name, next.everybody}}}.run(ctx), membersOf(next.domain, next.name))
}

// members changes who is in a group.
func (g *Groups) members(ctx context.Context, p *part, was *group, o Order) error {
	next := *was
	if next.everyone && len(o.Add)+len(o.Remove) > 0 {
		return admin.Fail(http.StatusConflict, "each account of %s is a member of %q; there are no others", was.domain, was.name)
	}
	next.members = map[jid.JID]string{}
	for j, name := range was.members {
		next.members[j] = name
	}
	about, w, err := g.join(ctx, p, &next, o, nil)
	if err != nil || len(w) == 0 {
		return err
	}
	if err := g.fits(ctx, p, &next); err != nil {
		return err
	}
	return g.write(ctx, p, w.run(ctx), func(*directory) []jid.JID { return about })
}

// join changes the members of a group that is about to be written, and adds how to write
// that. about are those who are concerned.
func (g *Groups) join(ctx context.Context, p *part, to *group, o Order, w statements) (about []jid.JID, _ statements, err error) {
	for _, address := range o.Remove {
		j, err := g.account(address)
		if err != nil {
			return nil, nil, err
		}
		if _, in := to.members[j]; !in {
			return nil, nil, admin.Fail(http.StatusNotFound, "%s is no member of %q", j, to.name)
		}
		delete(to.members, j)
		about, w = append(about, j), append(w, statement{sqlLeave, []any{to.domain, to.name, j.String()}})
	}
	if to.everyone && len(o.Add) > 0 {
		return nil, nil, admin.Fail(http.StatusUnprocessableEntity, "a group has members, or everyone of the domain")
	}
	for _, m := range o.Add {
		j, err := g.account(m.JID)
		if err != nil {
			return nil, nil, err
		}
		if err := named(m.Name); err != nil {
			return nil, nil, err
		}
		ok, err := p.people.Exists(ctx, j)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			return nil, nil, admin.Fail(http.StatusNotFound, "%s: there is no such account", j)
		}
		name := m.Name
		if name == "" { // who is a member keeps its name
			name = to.members[j]
		}
		to.members[j] = name
		about, w = append(about, j), append(w, statement{sqlJoin, []any{to.domain, to.name, j.String(), name}})
	}
	return about, w, nil
}

func (g *Groups) account(address string) (jid.JID, error) {
	j, err := jid.Parse(address)
	if err != nil || !j.IsBare() || j.Local() == "" || !g.env.Local(j.Domain()) {
		return jid.JID{}, admin.Fail(http.StatusUnprocessableEntity, "%q is not the address of an account here: NAME@DOMAIN, and the domains are %s", address, strings.Join(g.env.Domains.List(), ", "))
	}
	return j, nil
}

// fits says why a group would be too much.
func (g *Groups) fits(ctx context.Context, p *part, next *group) error {
	if n := len(next.members); n > p.cfg.Members {
		return admin.Fail(http.StatusConflict, "%q would have %d members; there may be max_members, %d", next.name, n, p.cfg.Members)
	}
	d := g.now().with(next)
	if _, known := d.people[next.domain]; !known && next.everyone {
		all, err := p.accounts(ctx, next.domain)
		if err != nil {
			return err
		}
		people := map[string][]jid.JID{next.domain: all}
		for domain, list := range d.people {
			people[domain] = list
		}
		d.people = people
	}
	if who, n := d.crowded(p.cfg.Contacts); n > 0 {
		return admin.Fail(http.StatusConflict, "groups would put %d contacts into the roster of %s; there may be max_contacts, %d", n, who, p.cfg.Contacts)
	}
	return nil
}

// statements are written in one transaction.
type statements []statement

type statement struct {
	sql  string
	args []any
}

func (all statements) run(ctx context.Context) func(storage.Tx) error {
	return func(tx storage.Tx) error {
		for _, s := range all {
			n, err := tx.Exec(ctx, s.sql, s.args...)
			switch {
			case err != nil:
				return err
			case n > 0:
			case s.sql == sqlAdd: // another node was faster
				return admin.Fail(http.StatusConflict, "there is a group %q of %s", s.args[1], s.args[0])
			case s.sql == sqlSet, s.sql == sqlJoin, s.sql == sqlDrop:
				return admin.Fail(http.StatusNotFound, "there is no group %q of %s", s.args[1], s.args[0])
			}
		}
		return nil
	}
}

// show describes a group, members included.
func (g *Groups) show(domain, name string) ([]Group, error) {
	d := g.now()
	one := d.find(domain, name)
	if one == nil {
		return nil, unknown(domain, name)
	}
	out := d.describe(one)
	for _, j := range slices.SortedFunc(slices.Values(d.of(one)), byAddress) {
		out.Members = append(out.Members, Member{j.String(), one.members[j]})
	}
	return []Group{out}, nil
}

func (d *directory) describe(g *group) Group {
	return Group{Domain: g.domain, Name: g.name, Everyone: g.everyone, Everybody: g.everybody, Size: d.size(g)}
}

// list describes the groups of a domain, or with "" of all.
func (g *Groups) list(domain string) []Group {
	d, out := g.now(), []Group{}
	for _, one := range d.groups {
		if domain == "" || one.domain == domain {
			out = append(out, d.describe(one))
		}
	}
	return out
}
