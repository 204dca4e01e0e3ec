package rostergroups_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/plugins/roster"
	"parley/plugins/rostergroups"
	"parley/storage"
	"parley/storage/storagetest"
)

// contract is a feature's contract on a node.
func contract[T any](t *testing.T, h *plugintest.House, node int, name string) T {
	t.Helper()
	c, _ := h.HostOf(node).Contract(name)
	v, ok := c.(T)
	if !ok {
		t.Fatalf("the contract of %s is %T", name, c)
	}
	return v
}

// person is an account that is there.
type person struct {
	t *testing.T
	*plugintest.Client
	name string
}

func arrives(t *testing.T, h *plugintest.House, node int, name string) *person {
	t.Helper()
	p := &person{t: t, name: name}
	if err := h.Account(t.Context(), name, plugintest.Password); err != nil && !errors.Is(err, accounts.ErrExists) {
		t.Fatal(err)
	}
	var err error
	if p.Client, err = h.Node(node).Dial(t.Context(), name, "x"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.says("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")
	p.hears("presence of its own", func(el *stanza.Element) bool { return el.Name.Local == "presence" && from(el) == name })
	return p
}

func from(el *stanza.Element) string { name, _, _ := strings.Cut(el.Get("from"), "@"); return name }

func (p *person) says(text string) {
	p.t.Helper()
	if err := p.Send(text); err != nil {
		p.t.Fatal(err)
	}
}

// hears waits for something, whatever comes before it.
func (p *person) hears(what string, is func(*stanza.Element) bool) *stanza.Element {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	for {
		el, err := p.Next(ctx)
		if err != nil {
			p.t.Fatalf("%s has not heard %s: %v", p.name, what, err)
		}
		if is(el) {
			return el
		}
	}
}

// pushed waits for a push about somebody.
func (p *person) pushed(who, subscription string) *stanza.Element {
	p.t.Helper()
	return p.hears("a push of "+who+", "+subscription, func(el *stanza.Element) bool {
		if el.Name.Local != "iq" || el.Get("type") != "set" {
			return false
		}
		item := el.First().First()
		return item.Get("jid") == who+"@localhost" && item.Get("subscription") == subscription
	})
}

// sees waits for presence of somebody.
func (p *person) sees(who, typ string) {
	p.t.Helper()
	p.hears("presence of "+who, func(el *stanza.Element) bool {
		return el.Name.Local == "presence" && from(el) == who && el.Get("type") == typ
	})
}

// roster asks for the roster and returns its items.
func (p *person) roster() []string {
	p.t.Helper()
	p.says("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
	el := p.hears("the roster", func(el *stanza.Element) bool { return el.Get("id") == "roster" })
	var out []string
	for item := range el.First().Elements() {
		groups := ""
		for g := range item.Elements() {
			groups += "," + g.Text()
		}
		out = append(out, strings.TrimSuffix(item.Get("jid"), "@localhost")+" "+item.Get("subscription")+" "+item.Get("name")+groups)
	}
	return out
}

func is(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func order(t *testing.T, g *rostergroups.Groups, o rostergroups.Order) {
	t.Helper()
	if _, err := g.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func of(name string) rostergroups.Group { return rostergroups.Group{Domain: "localhost", Name: name} }

func member(name, called string) rostergroups.Member {
	return rostergroups.Member{JID: name + "@localhost", Name: called}
}

// A group of everyone takes in accounts that are made and lets go of those that are
// removed; everybody who is there hears of it.
func TestEveryone(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	groups, people := contract[*rostergroups.Groups](t, h, 0, rostergroups.Name), contract[*accounts.Accounts](t, h, 0, accounts.Name)
	romeo, juliet := arrives(t, h, 0, "romeo"), arrives(t, h, 0, "juliet")
	order(t, groups, rostergroups.Order{Do: "add", Group: rostergroups.Group{Domain: "localhost", Name: "All", Everyone: true}})
	romeo.pushed("juliet", "both")
	juliet.pushed("romeo", "both")

	mercutio := arrives(t, h, 0, "mercutio")
	romeo.pushed("mercutio", "both")
	romeo.sees("mercutio", "")
	is(t, mercutio.roster(), "juliet both ,All", "romeo both ,All")

	if err := people.Delete(t.Context(), jid.MustParse("mercutio@localhost")); err != nil {
		t.Fatal(err)
	}
	romeo.sees("mercutio", "unavailable")
	romeo.pushed("mercutio", "remove")
	is(t, romeo.roster(), "juliet both ,All")

	order(t, groups, rostergroups.Order{Do: "remove", Group: of("All")})
	romeo.pushed("juliet", "remove")
	is(t, juliet.roster())
}

// An account that is removed leaves its groups, for whoever gets its name next.
func TestRemovedAccountLeaves(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	groups, people := contract[*rostergroups.Groups](t, h, 0, rostergroups.Name), contract[*accounts.Accounts](t, h, 0, accounts.Name)
	romeo := arrives(t, h, 0, "romeo")
	if err := h.Account(t.Context(), "juliet", plugintest.Password); err != nil {
		t.Fatal(err)
	}
	order(t, groups, rostergroups.Order{Do: "add", Group: of("Verona"), Add: []rostergroups.Member{member("romeo", ""), member("juliet", "Juliet C.")}})
	item := romeo.pushed("juliet", "both").First().First()
	if item.Get("name") != "Juliet C." {
		t.Errorf("called %q", item.Get("name"))
	}
	j := jid.MustParse("juliet@localhost")
	if err := people.Delete(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	romeo.pushed("juliet", "remove")
	if err := people.Create(t.Context(), j, plugintest.Password); err != nil {
		t.Fatal(err)
	}
	is(t, romeo.roster())
	all, err := groups.Run(t.Context(), rostergroups.Order{Do: "show", Group: of("Verona")})
	if err != nil || all[0].Size != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// Groups are bounded: how many, of how many, and how many contacts they make.
func TestBounds(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {processor: {components: {rostergroups: {max_groups: 3, max_members: 3, max_contacts: 5}}}}"})
	groups := contract[*rostergroups.Groups](t, h, 0, rostergroups.Name)
	var all []rostergroups.Member
	for i := range 5 {
		name := fmt.Sprintf("p%d", i)
		if err := h.Account(t.Context(), name, plugintest.Password); err != nil {
			t.Fatal(err)
		}
		all = append(all, member(name, ""))
	}
	refused := func(what string, o rostergroups.Order) {
		t.Helper()
		if _, err := groups.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
	}
	refused("max_members", rostergroups.Order{Do: "add", Group: of("a"), Add: all[:4]})
	order(t, groups, rostergroups.Order{Do: "add", Group: of("a"), Add: all[:3]})
	refused("max_members", rostergroups.Order{Do: "members", Group: of("a"), Add: all[3:]})
	refused("max_contacts", rostergroups.Order{Do: "add", Group: of("b"), Add: all[2:]})
	order(t, groups, rostergroups.Order{Do: "add", Group: of("b"), Add: all[3:]})
	order(t, groups, rostergroups.Order{Do: "add", Group: of("c")})
	refused("max_groups", rostergroups.Order{Do: "add", Group: of("d")})
	order(t, groups, rostergroups.Order{Do: "remove", Group: of("a")})

	// Everyone of a domain with more accounts: the first ones.
	order(t, groups, rostergroups.Order{Do: "add", Group: rostergroups.Group{Domain: "localhost", Name: "All", Everyone: true}})
	is(t, arrives(t, h, 0, "p4").roster(), "p3 both ,b")
	is(t, arrives(t, h, 0, "p0").roster(), "p1 both ,All", "p2 both ,All")
	if err := h.Account(t.Context(), "a", plugintest.Password); err != nil {
		t.Fatal(err)
	}
	is(t, arrives(t, h, 0, "p1").roster(), "a both ,All", "p0 both ,All")
	is(t, arrives(t, h, 0, "p2").roster())
}

// What changes at one node is so at the others, and told to those who are there,
// whichever node they are at; and it is so after a restart.
func TestNodes(t *testing.T) {
	pg := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return pg }})
	romeo, juliet := arrives(t, h, 0, "romeo"), arrives(t, h, 1, "juliet")
	order(t, contract[*rostergroups.Groups](t, h, 0, rostergroups.Name), rostergroups.Order{Do: "add", Group: of("Verona"), Add: []rostergroups.Member{member("romeo", ""), member("juliet", "")}})
	for i := range 2 {
		for _, pair := range [][2]string{{"romeo", "juliet"}, {"juliet", "romeo"}} {
			got, err := contract[*roster.Rosters](t, h, i, roster.Name).Subscription(t.Context(), jid.MustParse(pair[0]+"@localhost"), jid.MustParse(pair[1]+"@localhost"))
			if err != nil || got != roster.Both {
				t.Errorf("node %d: %s of %v, %v", i, got, pair, err)
			}
		}
	}
	romeo.pushed("juliet", "both")
	juliet.pushed("romeo", "both")
	romeo.says("<presence><show>away</show></presence>")
	juliet.hears("romeo away", func(el *stanza.Element) bool { return from(el) == "romeo" && el.Child(stanza.NSClient, "show") != nil })

	// From the other node.
	order(t, contract[*rostergroups.Groups](t, h, 1, rostergroups.Name), rostergroups.Order{Do: "members", Group: of("Verona"), Remove: []string{"juliet@localhost"}})
	is(t, romeo.roster())
	is(t, juliet.roster())
	order(t, contract[*rostergroups.Groups](t, h, 1, rostergroups.Name), rostergroups.Order{Do: "members", Group: of("Verona"), Add: []rostergroups.Member{member("juliet", "Juliet")}})
	is(t, romeo.roster(), "juliet both Juliet,Verona")
	is(t, juliet.roster(), "romeo both ,Verona")

	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, arrives(t, h, 1, "romeo").roster(), "juliet both Juliet,Verona")
}

// At a front an administrator does the same, and accounts that are made there are known.
func TestFront(t *testing.T) {
	pg := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Fronts: 1, Cores: 1, Storage: func() storage.Config { return pg }})
	people, groups := contract[*accounts.Accounts](t, h, 0, accounts.Name), contract[*rostergroups.Groups](t, h, 0, rostergroups.Name)
	romeo := arrives(t, h, 0, "romeo")
	order(t, groups, rostergroups.Order{Do: "add", Group: rostergroups.Group{Domain: "localhost", Name: "All", Everyone: true}})
	if err := people.Create(t.Context(), jid.MustParse("juliet@localhost"), plugintest.Password); err != nil {
		t.Fatal(err)
	}
	romeo.pushed("juliet", "both")
	all, err := groups.Run(t.Context(), rostergroups.Order{Do: "list"})
	if err != nil || len(all) != 1 || all[0].Size != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := groups.Run(t.Context(), rostergroups.Order{Do: "add", Group: of("All")}); err == nil || !strings.Contains(err.Error(), "there is a group") {
		t.Errorf("made again: %v", err)
	}
	if err := people.Delete(t.Context(), jid.MustParse("juliet@localhost")); err != nil {
		t.Fatal(err)
	}
	// The core forgets a removed account in its own time; whoever wants the name does not wait.
	if err := people.Create(t.Context(), jid.MustParse("juliet@localhost"), plugintest.Password); err != nil {
		t.Fatal(err)
	}
	is(t, romeo.roster(), "juliet both ,All")
}
