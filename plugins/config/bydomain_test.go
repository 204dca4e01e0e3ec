package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

type houseRules struct {
	Open  bool     `yaml:"open" doc:"Whether."`
	Least int      `yaml:"least" min:"1" max:"9" doc:"How many."`
	Names []string `yaml:"names" doc:"Which."`
	Key   Secret   `yaml:"key" doc:"With what."`
	Inner struct {
		Word string `yaml:"word" doc:"What."`
	} `yaml:"inner" doc:"Within."`
}

func (r *houseRules) Validate() error {
	if r.Open && r.Least == 1 {
		return Key("least", "open houses want more")
	}
	return nil
}

type houseEntry struct {
	Enabled bool `yaml:"enabled" doc:"Whether at all."`
	houseRules
}

func (e *houseEntry) Validate() error { return e.houseRules.Validate() }

type houseConfig struct {
	houseRules
	Rate    int                  `yaml:"rate" doc:"How often."`
	Domains ByDomain[houseEntry] `yaml:"domains" doc:"Those that are different."`
}

func houseSchema(t *testing.T) *Schema {
	t.Helper()
	s := NewSchema()
	s.Root(&struct {
		Domains []string `yaml:"domains" doc:"All."`
	}{})
	s.Server("door", "A door.", nil)
	s.Component("door", "house", "A house.", &houseConfig{houseRules: houseRules{Least: 2, Names: []string{"a"}}, Rate: 5})
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

func housed(t *testing.T, section string, in Inputs) (*Tree, error) {
	t.Helper()
	return Parse(houseSchema(t), "p.yaml", []byte("servers:\n  door:\n    components:\n      house:\n"+section), in)
}

// What an entry does not set is as in the section, whichever layer sets it there; so is
// it after the section has changed.
func TestByDomain(t *testing.T) {
	in := Inputs{
		Environ: []string{"PARLEY_SERVERS_DOOR_COMPONENTS_HOUSE_RATE=7", "PARLEY_SERVERS_DOOR_COMPONENTS_HOUSE_DOMAINS_B_EXAMPLE_LEAST=4"},
		Flags:   []Flag{{"word", "servers.door.components.house.inner.word", "flag"}},
	}
	tree, err := housed(t, "        open: true\n        least: 3\n        key: hunter2\n        domains:\n          a.example: {open: false, names: []}\n          b.example: {inner: {word: own}}\n          c.example: {enabled: false}\n", in)
	if err != nil {
		t.Fatal(err)
	}
	show := func(tree *Tree, domain string) string {
		t.Helper()
		c, err := Get[houseConfig](tree, "servers.door.components.house")
		if err != nil {
			t.Fatal(err)
		}
		e := c.Domains.Of(domain, houseEntry{true, c.houseRules})
		return fmt.Sprintf("%t %t %d %v %s %s %d", e.Enabled, e.Open, e.Least, e.Names, e.Key.Reveal(), e.Inner.Word, c.Rate)
	}
	check := func(tree *Tree, want map[string]string) {
		t.Helper()
		for domain, w := range want {
			if got := show(tree, domain); got != w {
				t.Errorf("%s: %s, want %s", domain, got, w)
			}
		}
	}
	check(tree, map[string]string{
		"a.example": "true false 3 [] hunter2 flag 7",
		"b.example": "true true 4 [a] hunter2 own 7",
		"c.example": "false true 3 [a] hunter2 flag 7",
		"other":     "true true 3 [a] hunter2 flag 7",
	})
	later, added, err := tree.Set("servers.door.components.house", "{least: 5, domains: {d.example: {open: false}}}", "juliet", time.Time{})
	if err != nil || len(added) != 2 {
		t.Fatal(added, err)
	}
	check(later, map[string]string{
		"a.example": "true false 5 [] hunter2 flag 7",
		"b.example": "true true 4 [a] hunter2 own 7",
		"d.example": "true false 5 [a] hunter2 flag 7",
	})
	var changed []string
	for _, ch := range Diff(tree, later) {
		changed = append(changed, ch.Path+" "+ch.New)
	}
	if got := strings.Join(changed, "; "); got != `servers.door.components.house.least 5; servers.door.components.house.domains."d.example".open false` {
		t.Errorf("changed: %s", got)
	}
	var shown []string
	for _, e := range later.Show() {
		if strings.Contains(e.Path, "house.domains") {
			shown = append(shown, strings.TrimPrefix(e.Path, "servers.door.components.house.domains.")+"="+e.Value)
		}
	}
	if got := strings.Join(shown, " "); got != `"a.example".open=false "a.example".names=[] "b.example".least=4 "b.example".inner.word=own "c.example".enabled=false "d.example".open=false` {
		t.Errorf("shown: %s", got)
	}
	gone, _, err := later.Set(`servers.door.components.house.domains."a.example"`, "false", "juliet", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	check(gone, map[string]string{"a.example": "true true 5 [a] hunter2 flag 7"})
}

func TestByDomainErrors(t *testing.T) {
	for text, want := range map[string]string{
		"        domains: {a.example: {opne: true}}\n":                   `p.yaml:5:31: unknown key "opne" in servers.door.components.house.domains."a.example" (did you mean "open"?)`,
		"        domains: {a.example: {rate: 1}}\n":                      `p.yaml:5:31: unknown key "rate"`,
		"        domains: {a.example: {least: 10}}\n":                    `p.yaml:5:38: servers.door.components.house.domains."a.example".least: must be at most 9`,
		"        open: true\n        domains: {a.example: {least: 1}}\n": `p.yaml:6:31: servers.door.components.house.domains."a.example".least: open houses want more`,
		"        least: 1\n        domains: {a.example: {open: true}}\n": `p.yaml:6:19: servers.door.components.house.domains."a.example".least: open houses want more`,
		"        domains: [a.example]\n":                                 "expected a mapping of names",
	} {
		_, err := housed(t, text, Inputs{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// Whoever knows the domains finds entries of others.
func TestMisplaced(t *testing.T) {
	known := func(d string) error {
		if d != "a.example" {
			return errors.New("no domain of ours")
		}
		return nil
	}
	tree, err := housed(t, "        domains:\n          a.example: {open: true}\n          b.example: {}\n", Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Misplaced(known)
	if err == nil || err.Error() != "p.yaml:7:11: servers.door.components.house.domains.\"b.example\": no domain of ours\n    7 |           b.example: {}\n      |           ^" {
		t.Errorf("%v", err)
	}
	tree, _, err = tree.Set(`servers.door.components.house.domains."c.example".open`, "true", "juliet", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var found Findings
	if err := tree.Misplaced(known); !errors.As(err, &found) || len(found) != 2 || !strings.HasPrefix(found[1].Origin, "overlay v1 (juliet") {
		t.Errorf("%v", err)
	}
	off, err := housed(t, "        enabled: false\n        domains: {b.example: {}}\n", Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	if err := off.Misplaced(known); err != nil {
		t.Errorf("what does not run: %v", err)
	}
}

func TestByDomainSchema(t *testing.T) {
	type entry struct {
		Open bool `yaml:"open" doc:"Whether."`
	}
	for want, defaults := range map[string]any{
		"house.domains: the section has no such key as open": &struct {
			Domains ByDomain[entry] `yaml:"domains" doc:"."`
		}{},
		"house: domains belongs to the section itself": &struct {
			Inner struct {
				entry
				Domains ByDomain[entry] `yaml:"domains" doc:"."`
			} `yaml:"inner" doc:"."`
		}{},
		"what is otherwise is a struct": &struct {
			Domains ByDomain[int] `yaml:"domains" doc:"."`
		}{},
	} {
		s := NewSchema()
		s.Root(&struct{}{})
		s.Server("door", "A door.", nil)
		s.Component("door", "house", "A house.", defaults)
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	text, err := Doc(houseSchema(t))
	if err != nil || !strings.Contains(text, "# (map of DOMAIN to what is otherwise there)\n        domains:\n          # DOMAIN:\n          #   enabled: true\n          #   open: false\n          #   least: 2\n") {
		t.Errorf("%s%v", text, err)
	}
	if _, err := Parse(houseSchema(t), "doc.yaml", []byte(text), Inputs{}); err != nil {
		t.Error(err)
	}
}
