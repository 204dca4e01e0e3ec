package admincommands

import (
	"testing"

	"parley/parser/jid"
)

// The most exact entry counts, whichever list it is in (XEP-0133 §4.11, XEP-0016 §2.1).
func TestAllows(t *testing.T) {
	set := func(all ...string) map[jid.JID]bool {
		m := map[jid.JID]bool{}
		for _, s := range all {
			m[jid.MustParse(s)] = true
		}
		return m
	}
	for _, row := range []struct {
		black, white []string
		who          string
		want         bool
	}{
		{nil, nil, "a@x.example/r", true},
		{[]string{"x.example"}, nil, "a@x.example/r", false},
		{[]string{"x.example"}, nil, "x.example", false},
		{[]string{"x.example"}, nil, "a@y.x.example", true},
		{[]string{"a@x.example"}, nil, "a@x.example/r", false},
		{[]string{"a@x.example"}, nil, "b@x.example/r", true},
		{[]string{"a@x.example/r"}, nil, "a@x.example/q", true},
		{[]string{"x.example/r"}, nil, "a@x.example/r", false},
		{[]string{"x.example"}, []string{"a@x.example"}, "a@x.example/r", true},
		{[]string{"a@x.example"}, []string{"x.example"}, "a@x.example/r", false},
		{nil, []string{"x.example"}, "a@x.example", true},
		{nil, []string{"x.example"}, "a@y.example", false},
	} {
		p := policy{lists: map[string]map[jid.JID]bool{black: set(row.black...), white: set(row.white...)}}
		if p.allows(jid.MustParse(row.who)) != row.want {
			t.Errorf("%+v", row)
		}
	}
}

func TestThirtyCommands(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range (&component{}).table() {
		if e.run == nil || e.name == "" || seen[e.node] {
			t.Errorf("%+v", e)
		}
		seen[e.node] = true
	}
	if len(seen) != 30 { // XEP-0133 §4, without the one that is retracted
		t.Errorf("%d commands", len(seen))
	}
}

// An administrator of one domain is none of another.
func TestAdminsOfTheirDomain(t *testing.T) {
	r := &Roles{}
	romeo, juliet, other := jid.MustParse("romeo@a.example"), jid.MustParse("juliet@a.example"), jid.MustParse("b.example")
	if is, err := r.of(t.Context(), romeo, other); is != nobody || err != nil {
		t.Errorf("while nothing runs: %v, %v", is, err)
	}
	r.whole.Store(&map[jid.JID]bool{romeo: true})
	if is, err := r.of(t.Context(), romeo, other); is != ofServer || err != nil {
		t.Errorf("of the server: %v, %v", is, err)
	}
	if is, err := r.of(t.Context(), juliet, other); is != nobody || err != nil {
		t.Errorf("of another domain: %v, %v", is, err)
	}
}
