package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// house are references that prove a row each.
func house(standards ...string) (out []reference) {
	for _, s := range standards {
		out = append(out,
			reference{standard: s, section: "1", file: "plugins/a/a.go"},
			reference{standard: s, section: "1", file: "plugins/a/testdata/a.txtar", test: true})
	}
	return out
}

var small = []demand{
	{category: "Core", core: "yes", advanced: "yes", what: "streams", specs: []part{{standard: "RFC 6120"}}, now: true},
	{category: "Core", core: "no", advanced: "yes", what: "caps", specs: []part{{standard: "XEP-0115"}}},
	{category: "Mobile", core: "yes", advanced: "yes", what: "both", specs: []part{{standard: "XEP-0198"}, {"XEP-0313", "plugins/muc"}}, now: true},
	{category: "Mobile", core: "-", advanced: "-", what: "calls", specs: []part{{standard: "XEP-0353"}}},
}

func TestStateOfARow(t *testing.T) {
	all := house("RFC 6120", "XEP-0198")
	for _, c := range []struct {
		row  int
		refs []reference
		want state
	}{
		{0, all, proven},
		{0, all[:1], untried},
		{0, all[1:2], missing},
		{1, all, missing},
		{2, append(all, house("XEP-0313")...), missing}, // another folder's
		{2, append(all, reference{standard: "XEP-0313", section: "4", file: "plugins/muc/a.go"}), untried},
		{2, append(all, reference{standard: "XEP-0313", section: "4", file: "plugins/muc/a.go"}, reference{standard: "XEP-0313", file: "plugins/muc/a_test.go", test: true}), untried}, // names no section
		{2, append(all, reference{standard: "XEP-0313", section: "4", file: "plugins/plugintest/a.go"}), missing},
		{3, all, ofOthers},
	} {
		if got := small[c.row].state(c.refs); got != c.want {
			t.Errorf("%s with %d references is %s, want %s", small[c.row].what, len(c.refs), got, c.want)
		}
	}
}

// A category is claimed with all its rows and those of Core, and a row that was
// proven and is no longer is a problem.
func TestClaims(t *testing.T) {
	room := []reference{{standard: "XEP-0313", section: "4", file: "plugins/muc/a.go"}, {standard: "XEP-0313", section: "4", file: "plugins/muc/a_test.go", test: true}}
	whole := append(house("RFC 6120", "XEP-0115", "XEP-0198"), room...)
	for _, c := range []struct {
		refs []reference
		want []string
		lost int
	}{
		{whole, []string{"Advanced Server: Core, Mobile"}, 0},
		{append(house("RFC 6120", "XEP-0198"), room...), []string{"Server: Core, Mobile"}, 0},
		{house("RFC 6120", "XEP-0115", "XEP-0198"), []string{"Advanced Server: Core"}, 1},
		{append(house("XEP-0115", "XEP-0198"), room...), nil, 1},
	} {
		if d := cmp.Diff(c.want, claims(small, c.refs)); d != "" {
			t.Error(d)
		}
		if got := lost(small, c.refs); len(got) != c.lost {
			t.Errorf("lost %q, want %d", got, c.lost)
		}
	}
}

// What is claimed stays true: every row that was proven, and whatever doap.xml
// says (XEP-0479 §2).
func TestNoClaimIsLost(t *testing.T) {
	demands, err := loadDemands()
	if err != nil {
		t.Fatal(err)
	}
	found, err := scan("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lost(demands, found) {
		t.Error(p)
	}
	doap, err := os.ReadFile("../../doap.xml")
	if err != nil {
		t.Fatal(err)
	}
	note := regexp.MustCompile(`xep-0479\.html.*<xmpp:note[^>]*>([^<]*)<`).FindSubmatch(doap)
	if note == nil {
		t.Fatal("doap.xml claims nothing: make docs")
	}
	rank := func(name string) int { return slices.IndexFunc(levels, func(l level) bool { return l.name == name }) }
	for said := range strings.SplitSeq(string(note[1]), "; ") {
		name, of, _ := strings.Cut(said, ": ")
		for c := range strings.SplitSeq(of, ", ") {
			if held := claim(c, demands, found); held == "" || rank(held) > rank(name) {
				t.Errorf("doap.xml claims %s for %s; held is %q", name, c, held)
			}
		}
	}
}

// The rows name standards that are known, and each category of the suite is there.
func TestDemandsAreOfTheSuite(t *testing.T) {
	demands, err := loadDemands()
	if err != nil {
		t.Fatal(err)
	}
	std, err := loadStandards()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Core", "Web", "IM", "Mobile", "A/V"}, categories(demands)); d != "" {
		t.Error(d)
	}
	for _, d := range demands {
		for _, p := range d.specs {
			if _, ok := std[p.standard]; !ok {
				t.Errorf("%s: %s is not known", d.what, p.standard)
			}
		}
	}
}
