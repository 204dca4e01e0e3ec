package admincommands

import (
	"testing"

	"parley/parser/jid"
	"parley/plugins/commands"
	"parley/router/sessions"
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
	a := &component{whole: map[jid.JID]bool{jid.MustParse("romeo@a.example"): true}}
	asker := func(who, at string) commands.Asker {
		return commands.Asker{Session: &sessions.Entry{Ref: sessions.Ref{JID: jid.MustParse(who)}}, Domain: jid.MustParse(at)}
	}
	if is, err := a.is(t.Context(), asker("romeo@a.example/x", "b.example")); is != ofServer || err != nil {
		t.Errorf("of the server: %v, %v", is, err)
	}
	if is, err := a.is(t.Context(), asker("juliet@a.example/x", "b.example")); is != nobody || err != nil {
		t.Errorf("of another domain: %v, %v", is, err)
	}
}
