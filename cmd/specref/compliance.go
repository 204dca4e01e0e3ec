package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// suite is the standard whose table compliance.txt holds.
const suite = "XEP-0479"

// demand is one row of the suite.
type demand struct {
	category       string
	core, advanced string // "yes", "no", or "-" where clients alone are asked
	what           string
	specs          []part
	now            bool // was proven once, and stays so
}

// part is a standard, or what one folder does of it.
type part struct{ standard, below string }

func (p part) String() string {
	if p.below == "" {
		return p.standard
	}
	return p.standard + " (" + p.below + ")"
}

func loadDemands() ([]demand, error) {
	all, err := lines("compliance.txt")
	if err != nil {
		return nil, err
	}
	var out []demand
	for _, l := range all {
		f := strings.Split(l, "|")
		if len(f) != 6 {
			return nil, fmt.Errorf("compliance.txt: %q", l)
		}
		d := demand{category: f[0], core: f[1], advanced: f[2], what: f[3], now: f[5] == "now"}
		for s := range strings.SplitSeq(f[4], ", ") {
			standard, below, _ := strings.Cut(s, " in ")
			d.specs = append(d.specs, part{standard, below})
		}
		out = append(out, d)
	}
	return out, nil
}

// state is how far a row has come.
type state string

const (
	proven   state = "proven"
	untried  state = "implemented without test"
	missing  state = "missing"
	ofOthers state = "only clients"
)

// evidence is where a part is implemented and what proves it, the places that
// name it most often first. Only references to sections count: who names a
// standard as a whole does not do it.
type evidence struct{ packages, proofs []string }

func (p part) evidence(refs []reference) evidence {
	packages, proofs := map[string]int{}, map[string]int{}
	for _, r := range refs {
		switch {
		case r.standard != p.standard || r.section == "" || p.below != "" && !strings.HasPrefix(r.file, p.below+"/"):
		case r.test:
			proofs[r.file]++
		case !instrument(r.file):
			packages[path.Dir(r.file)]++
		}
	}
	return evidence{byCount(packages), byCount(proofs)}
}

// instrument tells what measures and tests the server from what is the server.
func instrument(file string) bool {
	return strings.HasPrefix(file, "cmd/xmpp") || strings.HasPrefix(file, "plugins/plugintest/")
}

func byCount(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(m[b]-m[a], strings.Compare(a, b)) })
	return out
}

// state is that of the part which has come least far.
func (d demand) state(refs []reference) state {
	if d.core != "yes" && d.advanced != "yes" {
		return ofOthers
	}
	out := proven
	for _, p := range d.specs {
		switch e := p.evidence(refs); {
		case len(e.packages) == 0:
			return missing
		case len(e.proofs) == 0:
			out = untried
		}
	}
	return out
}

// A level of the suite: what has to say yes.
type level struct {
	name  string
	wants func(demand) bool
}

var levels = []level{ // the higher first
	{"Advanced Server", func(d demand) bool { return d.advanced == "yes" }},
	{"Server", func(d demand) bool { return d.core == "yes" }},
}

// claim is the level that a category reaches, empty for none; every category
// includes Core (XEP-0479 §2).
func claim(category string, all []demand, refs []reference) string {
	for _, l := range levels {
		if !slices.ContainsFunc(all, func(d demand) bool {
			return (d.category == category || d.category == "Core") && l.wants(d) && d.state(refs) != proven
		}) {
			return l.name
		}
	}
	return ""
}

func categories(all []demand) []string {
	var out []string
	for _, d := range all {
		if !slices.Contains(out, d.category) {
			out = append(out, d.category)
		}
	}
	return out
}

// claims are the levels that are reached, each with its categories:
// "Advanced Server: Core, IM".
func claims(all []demand, refs []reference) (out []string) {
	for _, l := range levels {
		var of []string
		for _, c := range categories(all) {
			if claim(c, all, refs) == l.name {
				of = append(of, c)
			}
		}
		if len(of) > 0 {
			out = append(out, l.name+": "+strings.Join(of, ", "))
		}
	}
	return out
}

// lost lists the rows that were proven once.
func lost(all []demand, refs []reference) []string {
	var out []string
	for _, d := range all {
		if s := d.state(refs); d.now && s != proven && s != ofOthers {
			out = append(out, fmt.Sprintf("%s %s, %s: %s, and was proven: name the section in code and in a test", suite, d.category, d.what, s))
		}
	}
	return out
}

// compliance is the section of docs/conformance.md about the suite.
func compliance(all []demand, refs []reference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s: compliance suites\n\nA row is proven when code and a test or a script name a section of each of its standards. "+
		"A category is claimed when every row that its level asks for is proven, and Core's with it.\n\n| Category | Claimed |\n|---|---|\n", suite)
	for _, c := range categories(all) {
		fmt.Fprintf(&b, "| %s | %s |\n", c, cmp.Or(claim(c, all, refs), "nothing yet"))
	}
	b.WriteString("\n| Category | Server | Advanced | What | Standards | Implemented in | Proof | State |\n|---|---|---|---|---|---|---|---|\n")
	for _, d := range all {
		var specs, in, proof []string
		for _, p := range d.specs {
			e := p.evidence(refs)
			specs = append(specs, p.String())
			in = append(in, first(e.packages, 2, d.specs, p))
			proof = append(proof, first(e.proofs, 3, d.specs, p))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", d.category, d.core, d.advanced, d.what,
			strings.Join(specs, "<br>"), strings.Join(in, "<br>"), strings.Join(proof, "<br>"), d.state(refs))
	}
	return b.String()
}

// first is the beginning of a list, headed by its standard where the row has
// several.
func first(list []string, n int, of []part, p part) string {
	text := strings.Join(list[:min(n, len(list))], " ")
	if more := len(list) - n; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(of) > 1 {
		return p.standard + ": " + cmp.Or(text, "–")
	}
	return text
}
